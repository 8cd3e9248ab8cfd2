//! Numbers: integers, `numeric`, `money`, bit strings. Floating-point numbers have a file of their own.

use std::fmt::Write;

pub(super) use super::float::{write_float4, write_float8};
use super::{Failure, Reader};

pub(super) fn write_signed(value: i64, out: &mut dyn Write) -> Result<(), Failure> {
    let mut digits = Digits::default();
    let start = digits.fill(value.unsigned_abs());
    if value < 0 { digits.write_with_sign(start, out) } else { digits.write(start, out) }
}

pub(super) fn write_unsigned(value: u64, out: &mut dyn Write) -> Result<(), Failure> {
    let mut digits = Digits::default();
    let start = digits.fill(value);
    digits.write(start, out)
}

/// An integer's decimal digits, filled from the right; room for 20 digits and a sign.
#[derive(Default)]
struct Digits([u8; 21]);

impl Digits {
    /// Where the first digit stands.
    fn fill(&mut self, mut value: u64) -> usize {
        for (index, digit) in self.0.iter_mut().enumerate().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                return index;
            }
        }
        0
    }

    fn write_with_sign(&mut self, start: usize, out: &mut dyn Write) -> Result<(), Failure> {
        let start = start.saturating_sub(1);
        if let Some(sign) = self.0.get_mut(start) {
            *sign = b'-';
        }
        self.write(start, out)
    }

    fn write(&self, start: usize, out: &mut dyn Write) -> Result<(), Failure> {
        let text = self.0.get(start..).and_then(|digits| str::from_utf8(digits).ok());
        Ok(out.write_str(text.unwrap_or_default())?)
    }
}

/// `numeric_recv` and `numeric_out` in `src/backend/utils/adt/numeric.c`: digits to base 10,000, the first of
/// which counts 10,000 to the power of `weight`, and `dscale` decimal digits behind the point.
pub(super) fn write_numeric(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let count = reader.u16()?;
    let weight = reader.i16()?;
    let sign = reader.u16()?;
    let scale = reader.u16()?;
    let digits = reader.bytes(usize::from(count) * 2)?;
    reader.end()?;
    match sign {
        NUMERIC_NAN => return Ok(out.write_str("NaN")?),
        NUMERIC_PINF => return Ok(out.write_str("Infinity")?),
        NUMERIC_NINF => return Ok(out.write_str("-Infinity")?),
        NUMERIC_POS | NUMERIC_NEG => {}
        _ => return Err(Failure::Malformed),
    }
    let number = Numeric { digits: digits.as_chunks().0, weight: weight.into(), scale: scale.into() };
    if scale > NUMERIC_DSCALE_MAX || number.digits.iter().any(|digit| u16::from_be_bytes(*digit) > 9999) {
        return Err(Failure::Malformed);
    }
    if sign == NUMERIC_NEG && !number.is_zero() {
        out.write_char('-')?;
    }
    number.write_integer_part(out)?;
    number.write_fraction(out)
}

const NUMERIC_POS: u16 = 0x0000;
const NUMERIC_NEG: u16 = 0x4000;
const NUMERIC_NAN: u16 = 0xc000;
const NUMERIC_PINF: u16 = 0xd000;
const NUMERIC_NINF: u16 = 0xf000;
const NUMERIC_DSCALE_MAX: u16 = 0x3fff;

struct Numeric<'a> {
    digits: &'a [[u8; 2]],
    weight: i32,
    scale: usize,
}

impl Numeric<'_> {
    /// The digit that counts 10,000 to the power of `power`.
    fn digit(&self, power: i32) -> u16 {
        usize::try_from(self.weight - power)
            .ok()
            .and_then(|index| self.digits.get(index))
            .map_or(0, |digit| u16::from_be_bytes(*digit))
    }

    /// Whether nothing but zeros is printed: digits behind the scale are cut off.
    fn is_zero(&self) -> bool {
        let fraction = self.scale.div_ceil(4) as i32;
        let cut = (4 - self.scale % 4) % 4;
        (-fraction..=self.weight).all(|power| {
            let digit = self.digit(power);
            if power == -fraction { digit / 10u16.pow(cut as u32) == 0 } else { digit == 0 }
        })
    }

    fn write_integer_part(&self, out: &mut dyn Write) -> Result<(), Failure> {
        let mut powers = (0..=self.weight).rev().skip_while(|&power| self.digit(power) == 0);
        let Some(first) = powers.next() else {
            return Ok(out.write_char('0')?);
        };
        write_unsigned(self.digit(first).into(), out)?;
        for power in powers {
            out.write_str(four(&mut [0; 4], self.digit(power)))?;
        }
        Ok(())
    }

    fn write_fraction(&self, out: &mut dyn Write) -> Result<(), Failure> {
        if self.scale > 0 {
            out.write_char('.')?;
        }
        let mut left = self.scale;
        let mut power = -1;
        while left > 0 {
            let mut text = [0; 4];
            let text = four(&mut text, self.digit(power));
            out.write_str(text.get(..left.min(4)).unwrap_or_default())?;
            left = left.saturating_sub(4);
            power -= 1;
        }
        Ok(())
    }
}

/// A digit to base 10,000 as four decimal digits.
fn four(text: &mut [u8; 4], digit: u16) -> &str {
    *text = [digit / 1000, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| b'0' + digit as u8);
    str::from_utf8(text).unwrap_or_default()
}

/// `cash_out` in `src/backend/utils/adt/cash.c`, for `lc_monetary` C.
pub(super) fn write_money(cents: i64, out: &mut dyn Write) -> Result<(), Failure> {
    out.write_str(if cents < 0 { "-$" } else { "$" })?;
    let cents = cents.unsigned_abs();
    let mut digits = Digits::default();
    let start = digits.fill(cents / 100);
    for (index, digit) in digits.0.iter().enumerate().skip(start) {
        if index > start && (digits.0.len() - index).is_multiple_of(3) {
            out.write_char(',')?;
        }
        out.write_char(char::from(*digit))?;
    }
    Ok(write!(out, ".{:02}", cents % 100)?)
}

/// `bit` and `varbit` (`src/backend/utils/adt/varbit.c`): a count of bits, then the bits, the first one highest.
pub(super) fn write_bits(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let count = usize::try_from(reader.i32()?).map_err(|_| Failure::Malformed)?;
    let bytes = reader.bytes(count.div_ceil(8))?;
    reader.end()?;
    let mut left = count;
    for byte in bytes {
        let bits: [u8; 8] = std::array::from_fn(|bit| b'0' + (byte >> (7 - bit) & 1));
        let bits = bits.get(..left.min(8)).and_then(|bits| str::from_utf8(bits).ok());
        out.write_str(bits.unwrap_or_default())?;
        left = left.saturating_sub(8);
    }
    Ok(())
}
