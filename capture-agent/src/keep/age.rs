//! How long something is kept.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A time that is written as `90d`, `12h`, `30m` or `45s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Age {
    number: u32,
    unit: &'static (char, u64),
}

impl Age {
    /// The same as a duration.
    pub fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.number) * self.unit.1)
    }
}

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let age = text.char_indices().next_back().and_then(|(at, last)| {
            let unit = UNITS.iter().find(|unit| unit.0 == last)?;
            let number = text.get(..at).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
            Some(Self { number: number.parse().ok().filter(|number| *number > 0)?, unit })
        });
        age.ok_or_else(|| {
            format!(
                "{text:?} is no age; expected a number of days, hours, minutes or seconds, such as \"90d\""
            )
        })
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, self.unit.0)
    }
}

/// Units and their seconds.
const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_they_are_written() {
        for (text, seconds) in [("90d", 7_776_000), ("12h", 43_200), ("30m", 1_800), ("45s", 45)] {
            let age: Age = text.parse().unwrap();
            assert_eq!((age.duration().as_secs(), age.to_string().as_str()), (seconds, text));
        }
        for text in ["", "d", "90", "-1d", "0d", "1w", "1.5d", "99999999999d", "é"] {
            assert!(text.parse::<Age>().is_err(), "{text}");
        }
    }
}
