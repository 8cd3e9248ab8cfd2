//! COPY's text format.

use std::borrow::Cow;

use super::{Fields, Found, Options};

/// Finds a line's end. A newline behind a backslash belongs to the data.
pub(super) fn inspect(data: &[u8], from: usize) -> Found {
    let mut at = from;
    while let Some(step) = memchr::memchr2(b'\n', b'\\', data.get(at..).unwrap_or_default()) {
        at += step;
        if data.get(at) == Some(&b'\n') {
            return Found::Row(at + 1);
        }
        if at + 1 >= data.len() {
            return Found::More(at);
        }
        at += 2;
    }
    Found::More(data.len().max(from))
}

/// The fields of a line.
pub(super) fn fields<'a>(line: &'a [u8], options: &Options) -> Fields<'a> {
    let mut fields = Vec::new();
    let mut start = 0;
    let mut at = 0;
    loop {
        let rest = line.get(at..).unwrap_or_default();
        match memchr::memchr2(options.delimiter, b'\\', rest) {
            Some(step) if line.get(at + step) == Some(&options.delimiter) => {
                fields.push(field(line.get(start..at + step).unwrap_or_default(), options));
                start = at + step + 1;
                at = start;
            }
            Some(step) => at += step + 2,
            None => {
                fields.push(field(line.get(start..).unwrap_or_default(), options));
                return fields;
            }
        }
    }
}

/// Gives the fields of a line without a backslash.
pub(super) fn plain_fields(line: &[u8], options: &Options, mut give: impl FnMut(Option<&[u8]>)) {
    let mut start = 0;
    for end in memchr::memchr_iter(options.delimiter, line).chain([line.len()]) {
        let raw = line.get(start..end).unwrap_or_default();
        give((raw != options.null).then_some(raw));
        start = end + 1;
    }
}

fn field<'a>(raw: &'a [u8], options: &Options) -> Option<Cow<'a, [u8]>> {
    if raw == options.null {
        return None;
    }
    if memchr::memchr(b'\\', raw).is_none() {
        return Some(Cow::Borrowed(raw));
    }
    let mut value = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        let Some(escaped) = bytes.next() else {
            value.push(byte);
            break;
        };
        value.push(match escaped {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'0'..=b'7' => number(escaped - b'0', 8, 2, &mut bytes),
            b'x' if bytes.peek().is_some_and(u8::is_ascii_hexdigit) => number(0, 16, 2, &mut bytes),
            other => other,
        });
    }
    Some(Cow::Owned(value))
}

/// Up to `most` more digits of a number, of which the lowest byte counts.
fn number(first: u8, base: u8, most: usize, bytes: &mut std::iter::Peekable<impl Iterator<Item = u8>>) -> u8 {
    let mut value = first;
    for _ in 0..most {
        let digit = bytes.next_if(|byte| char::from(*byte).is_digit(u32::from(base)));
        let Some(digit) = digit.and_then(|byte| char::from(byte).to_digit(u32::from(base))) else { break };
        value = value.wrapping_mul(base).wrapping_add(digit as u8);
    }
    value
}
