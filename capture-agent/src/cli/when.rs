//! Points in time as people write them.

use std::str::FromStr;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::session::Micros;

/// A point in time: RFC 3339, a date or date and time in UTC, or a while ago such as `2h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    At(Timestamp),
    Ago(SignedDuration),
}

impl When {
    /// The point in time, seen from `now`.
    pub(super) fn seen_from(self, now: Timestamp) -> Micros {
        let at = match self {
            Self::At(at) => at,
            Self::Ago(ago) => now.checked_sub(ago).unwrap_or(Timestamp::MIN),
        };
        Micros(at.as_microsecond())
    }
}

impl FromStr for When {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let in_utc = |at: DateTime| at.to_zoned(TimeZone::UTC).map(|at| Self::At(at.timestamp()));
        if let Ok(at) = text.parse::<Timestamp>() {
            return Ok(Self::At(at));
        }
        if let Ok(date) = text.parse::<Date>()
            && text.len() == "2026-07-25".len()
        {
            return in_utc(date.into()).map_err(|_| EXPECTED);
        }
        if let Ok(at) = text.parse::<DateTime>() {
            return in_utc(at).map_err(|_| EXPECTED);
        }
        let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(EXPECTED)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return Err(EXPECTED),
        };
        let number: u32 = number.parse().map_err(|_| EXPECTED)?;
        Ok(Self::Ago(SignedDuration::from_secs(i64::from(number) * seconds)))
    }
}

const EXPECTED: &str = "expected a time such as 2026-07-25T10:00:00Z, a date such as 2026-07-25, or a while ago such as 30m, 2h or 7d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now: Timestamp = "2026-07-25T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-07-25T10:00:00Z", "2026-07-25T10:00:00Z"),
            ("2026-07-25T10:00:00+02:00", "2026-07-25T08:00:00Z"),
            ("2026-07-25", "2026-07-25T00:00:00Z"),
            ("2026-07-25 10:30", "2026-07-25T10:30:00Z"),
            ("2h", "2026-07-25T10:00:00Z"),
            ("30m", "2026-07-25T11:30:00Z"),
            ("1w", "2026-07-18T12:00:00Z"),
        ] {
            let expected: Timestamp = expected.parse().unwrap();
            let when: When = text.parse().unwrap();
            assert_eq!(when.seen_from(now), Micros(expected.as_microsecond()), "{text}");
        }
        for text in ["", "yesterdayish", "5", "h", "-2h", "2é", "4294967296s"] {
            assert!(text.parse::<When>().is_err(), "{text}");
        }
        let ages: When = "4294967295w".parse().unwrap();
        assert_eq!(ages.seen_from(now), Micros(Timestamp::MIN.as_microsecond()));
    }
}
