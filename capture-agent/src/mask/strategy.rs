//! What is left of a value.

use ring::hmac;

use crate::policy::Strategy;

/// The key of the strategy `hash`: HMAC-SHA-256 (RFC 2104).
#[derive(Clone)]
pub struct Key(hmac::Key);

impl Key {
    /// Of at least 32 random bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

/// Appends what is left of `value` to `out`: ASCII without quotes and backslashes, so that it can stand in any string and
/// any encoding.
pub(super) fn write(value: &str, strategy: Strategy, key: Option<&Key>, out: &mut String) {
    match (strategy, key) {
        (Strategy::Redact, _) | (Strategy::Hash, None) => out.push_str(REDACTED),
        (Strategy::Partial, _) => partial(value, out),
        (Strategy::Hash, Some(key)) => {
            out.push_str("hmac:");
            for byte in hmac::sign(&key.0, value.as_bytes()).as_ref().iter().take(HASH_BYTES) {
                for digit in [byte >> 4, byte & 15] {
                    out.push(char::from_digit(digit.into(), 16).unwrap_or_default());
                }
            }
        }
    }
}

/// The same, as a text of its own.
pub(super) fn masked(value: &str, strategy: Strategy, key: Option<&Key>) -> String {
    let mut out = String::new();
    write(value, strategy, key, &mut out);
    out
}

/// At most the last four characters, and at most a quarter of them.
fn partial(value: &str, out: &mut String) {
    let characters = value.chars().count();
    let kept = (characters / 4).min(4);
    out.push_str("****");
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '*' };
    out.extend(value.chars().skip(characters - kept).map(plain));
}

/// What stands in the place of a value of which nothing is left.
pub const REDACTED: &str = "[masked]";
/// Bytes of the hash that are recorded: 128 bits, of which no two values share all.
const HASH_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    #[test]
    fn equal_values_have_equal_hashes_under_one_key_only() {
        let (one, other) = (Key::new(&[1; 32]), Key::new(&[2; 32]));
        let hash = |value, key| masked(value, Strategy::Hash, Some(key));
        assert_eq!(hash("123-45-6789", &one), hash("123-45-6789", &one));
        assert_ne!(hash("123-45-6789", &one), hash("123-45-6789", &other));
        assert_ne!(hash("123-45-6789", &one), hash("123-45-6780", &one));
        assert_eq!(hash("x", &one).len(), "hmac:".len() + 32);
        assert_eq!(masked("x", Strategy::Hash, None), REDACTED);
    }

    #[test]
    fn of_a_partial_value_most_is_gone() {
        for (value, left) in [
            ("", "****"),
            ("abc", "****"),
            ("secret12", "****12"),
            ("4111111111111111", "****1111"),
            ("O'Brien \\ 'é'x", "******x"),
        ] {
            assert_eq!(masked(value, Strategy::Partial, None), left, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_left_fits_into_any_string(value in "\\PC{0,40}") {
            for strategy in [Strategy::Redact, Strategy::Partial, Strategy::Hash] {
                let left = masked(&value, strategy, Some(&Key::new(&[7; 32])));
                prop_assert!(left.is_ascii() && !left.contains(['\'', '"', '\\', '\n', '$']));
                prop_assert!(value.len() < 4 || !left.contains(&value));
            }
        }
    }
}
