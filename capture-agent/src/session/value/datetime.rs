//! Dates and times, as `DateStyle` ISO prints them (`src/backend/utils/adt/datetime.c`, `EncodeDateTime` and
//! `EncodeInterval`).

use std::fmt::Write;

use super::{Failure, Reader};

/// Days from the Julian epoch to 2000-01-01, PostgreSQL's zero (`POSTGRES_EPOCH_JDATE`).
const EPOCH_JULIAN: i64 = 2_451_545;
const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// `MIN_TIMESTAMP`: 4714-11-24 BC.
const MIN_TIMESTAMP: i64 = -211_813_488_000_000_000;
/// `END_TIMESTAMP`: 294277-01-01, the first that is too late.
const END_TIMESTAMP: i64 = 9_223_371_331_200_000_000;
/// `DATE_END_JULIAN`: 5874898-01-01, the first that is too late.
const DATE_END_JULIAN: i64 = 2_147_483_494;

pub(super) fn write_date(days: i32, out: &mut dyn Write) -> Result<(), Failure> {
    match days {
        i32::MAX => return Ok(out.write_str("infinity")?),
        i32::MIN => return Ok(out.write_str("-infinity")?),
        _ => {}
    }
    let julian = i64::from(days) + EPOCH_JULIAN;
    if !(0..DATE_END_JULIAN).contains(&julian) {
        return Err(Failure::Malformed);
    }
    let date = Date::from_julian(julian);
    let mut text = Fixed::default();
    date.fill(&mut text);
    out.write_str(text.as_str())?;
    Ok(out.write_str(date.era())?)
}

pub(super) fn write_time(micros: i64, out: &mut dyn Write) -> Result<(), Failure> {
    if !(0..=MICROS_PER_DAY).contains(&micros) {
        return Err(Failure::Malformed);
    }
    write_duration(micros.unsigned_abs(), out)
}

pub(super) fn write_timetz(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    // The zone counts seconds west of Greenwich; `timetz_recv` takes less than 16 hours.
    let (micros, west) = (reader.i64()?, reader.i32()?);
    reader.end()?;
    if west.unsigned_abs() >= 16 * 3600 {
        return Err(Failure::Malformed);
    }
    write_time(micros, out)?;
    let (sign, zone) = (if west <= 0 { '+' } else { '-' }, west.unsigned_abs());
    let (hours, minutes, seconds) = (zone / 3600, zone / 60 % 60, zone % 60);
    write!(out, "{sign}{hours:02}")?;
    if minutes != 0 || seconds != 0 {
        write!(out, ":{minutes:02}")?;
    }
    if seconds != 0 {
        write!(out, ":{seconds:02}")?;
    }
    Ok(())
}

/// A `timestamp`, or a `timestamptz` with `zone` behind it.
pub(super) fn write_timestamp(micros: i64, zone: &str, out: &mut dyn Write) -> Result<(), Failure> {
    match micros {
        i64::MAX => return Ok(out.write_str("infinity")?),
        i64::MIN => return Ok(out.write_str("-infinity")?),
        MIN_TIMESTAMP..END_TIMESTAMP => {}
        _ => return Err(Failure::Malformed),
    }
    let date = Date::from_julian(micros.div_euclid(MICROS_PER_DAY) + EPOCH_JULIAN);
    let mut text = Fixed::default();
    date.fill(&mut text);
    text.byte(b' ');
    text.duration(micros.rem_euclid(MICROS_PER_DAY).unsigned_abs());
    out.write_str(text.as_str())?;
    out.write_str(zone)?;
    Ok(out.write_str(date.era())?)
}

/// Infinite intervals exist since PostgreSQL 17; older servers print the same bytes as a very long interval.
pub(super) fn write_interval(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let (micros, days, months) = (reader.i64()?, reader.i32()?, reader.i32()?);
    reader.end()?;
    match (micros, days, months) {
        (i64::MAX, i32::MAX, i32::MAX) => return Ok(out.write_str("infinity")?),
        (i64::MIN, i32::MIN, i32::MIN) => return Ok(out.write_str("-infinity")?),
        _ => {}
    }
    let mut parts = IntervalParts { any: false, after_negative: false };
    parts.write(months / 12, "year", out)?;
    parts.write(months % 12, "mon", out)?;
    parts.write(days, "day", out)?;
    if parts.any && micros == 0 {
        return Ok(());
    }
    if parts.any {
        out.write_char(' ')?;
    }
    if micros < 0 {
        out.write_char('-')?;
    } else if parts.after_negative {
        out.write_char('+')?;
    }
    write_duration(micros.unsigned_abs(), out)
}

struct IntervalParts {
    /// Whether anything is written yet.
    any: bool,
    /// Whether the last part written is negative: then a positive one shows its sign.
    after_negative: bool,
}

impl IntervalParts {
    fn write(&mut self, value: i32, unit: &str, out: &mut dyn Write) -> Result<(), Failure> {
        if value == 0 {
            return Ok(());
        }
        let space = if self.any { " " } else { "" };
        let sign = if self.after_negative && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        self.any = true;
        self.after_negative = value < 0;
        Ok(write!(out, "{space}{sign}{value} {unit}{plural}")?)
    }
}

fn write_duration(micros: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let mut text = Fixed::default();
    text.duration(micros);
    Ok(out.write_str(text.as_str())?)
}

/// A text of digits in the making: the longest timestamp has 29 bytes, the longest duration 20.
#[derive(Default)]
struct Fixed {
    text: [u8; 32],
    length: usize,
}

impl Fixed {
    fn byte(&mut self, byte: u8) {
        if let Some(place) = self.text.get_mut(self.length) {
            *place = byte;
            self.length += 1;
        }
    }

    /// At least `width` digits.
    fn number(&mut self, value: u64, width: usize) {
        let mut digits = [b'0'; 20];
        let mut first = digits.len() - width;
        let mut left = value;
        for (index, digit) in digits.iter_mut().enumerate().rev() {
            if left == 0 {
                break;
            }
            *digit = b'0' + (left % 10) as u8;
            left /= 10;
            first = first.min(index);
        }
        for &digit in digits.get(first..).unwrap_or_default() {
            self.byte(digit);
        }
    }

    /// Hours, minutes, seconds, and as many decimal digits as are not zero.
    fn duration(&mut self, micros: u64) {
        let seconds = micros / MICROS_PER_SECOND.unsigned_abs();
        let mut fraction = micros % MICROS_PER_SECOND.unsigned_abs();
        self.number(seconds / 3600, 2);
        self.byte(b':');
        self.number(seconds / 60 % 60, 2);
        self.byte(b':');
        self.number(seconds % 60, 2);
        if fraction != 0 {
            let mut width = 6;
            while fraction.is_multiple_of(10) {
                fraction /= 10;
                width -= 1;
            }
            self.byte(b'.');
            self.number(fraction, width);
        }
    }

    fn as_str(&self) -> &str {
        self.text.get(..self.length).and_then(|text| str::from_utf8(text).ok()).unwrap_or_default()
    }
}

/// A day of the proleptic Gregorian calendar; year 0 is 1 BC.
struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// From the number of days since the Julian epoch, 24 November 4714 BC: counted in eras of 400 years that
    /// begin on 1 March, so that a leap day ends a year.
    fn from_julian(julian: i64) -> Self {
        let days = julian - MARCH_FIRST_OF_YEAR_0;
        let era = days.div_euclid(DAYS_PER_ERA);
        let day_of_era = days.rem_euclid(DAYS_PER_ERA);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = (month_from_march + 2) % 12 + 1;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day }
    }

    fn fill(&self, text: &mut Fixed) {
        let year = if self.year > 0 { self.year } else { 1 - self.year };
        text.number(year.unsigned_abs(), 4);
        text.byte(b'-');
        text.number(self.month.unsigned_abs(), 2);
        text.byte(b'-');
        text.number(self.day.unsigned_abs(), 2);
    }

    fn era(&self) -> &'static str {
        if self.year > 0 { "" } else { " BC" }
    }
}

/// Julian day of 1 March in the year 0.
const MARCH_FIRST_OF_YEAR_0: i64 = 1_721_120;
const DAYS_PER_ERA: i64 = 146_097;
