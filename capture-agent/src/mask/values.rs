//! Values as they are on the wire, without what is masked in them.

use super::literal::replace_patterns;
use super::rules::{ALWAYS, Applies, Rules};
use super::secrets;
use super::strategy::{Key, write};
use crate::session::value::{Encoding, write_text};

/// How values of a session are masked.
#[derive(Clone, Copy)]
pub(super) struct Masking<'m> {
    pub(super) rules: &'m Rules,
    pub(super) key: Option<&'m Key>,
    pub(super) encoding: Encoding,
}

/// A value as it is sent.
#[derive(Clone, Copy)]
pub(super) struct Sent<'v> {
    pub(super) type_oid: u32,
    pub(super) format: i16,
    pub(super) bytes: &'v [u8],
}

impl Masking<'_> {
    /// What is left of a value that a rule masks: text.
    pub(super) fn whole(&self, value: Sent<'_>, rule: Applies) -> String {
        let mut left = String::new();
        write(&self.text(value), self.rules.strategy(rule), self.key, &mut left);
        left
    }

    /// A value without what the rules' patterns find in it, as text, and how many they found. None if it stays as it is.
    pub(super) fn patterns(&self, value: Sent<'_>) -> Option<(Vec<u8>, u32)> {
        if !self.rules.have_patterns() || HARMLESS.contains(&value.type_oid) {
            return None;
        }
        let mut text = if value.format == 0 {
            let text = self.encoding.decode(value.bytes);
            if super::patterns::find(&text, self.rules).is_empty() {
                return self.hidden(value);
            }
            text.into_owned()
        } else {
            self.text(value)
        };
        match replace_patterns(&mut text, self.rules, self.key) {
            0 => self.hidden(value),
            count => Some((self.encoded(text), count)),
        }
    }

    /// The same, of a parameter, which may also be a connection string with a password.
    pub(super) fn parameter(&self, value: Sent<'_>) -> Option<(Vec<u8>, u32)> {
        if is_suspicious(value.bytes) && secrets::is_connection(&self.text(value)) {
            return Some((self.whole(value, ALWAYS).into_bytes(), 1));
        }
        self.patterns(value)
    }

    /// What the patterns find in bytes that are recorded as hexadecimal digits: then all of it is masked.
    fn hidden(&self, value: Sent<'_>) -> Option<(Vec<u8>, u32)> {
        let hexadecimal = value.bytes.strip_prefix(b"\\x").filter(|_| value.format == 0);
        let bytes = match hexadecimal {
            Some(digits) => digits.chunks_exact(2).map(byte).collect::<Option<Vec<u8>>>()?,
            None if value.format != 0 && matches!(value.type_oid, 0 | BYTEA) => value.bytes.to_vec(),
            None => return None,
        };
        let hits = super::patterns::find(&String::from_utf8_lossy(&bytes), self.rules);
        let first = hits.first()?;
        Some((self.whole(value, first.rule).into_bytes(), u32::try_from(hits.len()).unwrap_or(u32::MAX)))
    }

    pub(super) fn text(&self, value: Sent<'_>) -> String {
        let mut text = String::new();
        // A string takes everything.
        let _ = write_text(value.type_oid, value.format, value.bytes, self.encoding, &mut text);
        text
    }

    /// Text in the session's encoding, as far as that can be written; what is not ASCII may be lost.
    fn encoded(&self, text: String) -> Vec<u8> {
        if text.is_ascii() || self.encoding == Encoding::Utf8 {
            return text.into_bytes();
        }
        text.chars().map(|c| if c.is_ascii() { c as u8 } else { b'?' }).collect()
    }
}

/// Whether a value has the form of a connection string at all. Most have not.
pub(super) fn is_suspicious(bytes: &[u8]) -> bool {
    bytes.len() >= 10
        && (memchr::memchr(b'=', bytes).is_some() || memchr::memmem::find(bytes, b"://").is_some())
}

fn byte(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// `bytea`
const BYTEA: u32 = 17;
/// Types whose values are never what a pattern finds: boolean, small numbers, times, UUID (`pg_type.dat`).
const HARMLESS: [u32; 12] = [16, 21, 23, 26, 700, 701, 1082, 1083, 1114, 1184, 1186, 2950];
