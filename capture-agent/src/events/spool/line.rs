//! A line of a spool: an event, or up to where of the journal everything stands before it.
//!
//! ```text
//! <crc32c> E <position in the journal> <number> <JSON>
//! <crc32c> P <journal> <position in it>
//! ```
//!
//! An event's own position is that of the record that it tells of: whoever has the line has everything up to that.

use std::io::Write as _;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    Event { at: u64, number: u64, json: &'a [u8] },
    Position { journal: u128, next: u64 },
}

/// Lines on their way to the disk.
#[derive(Debug, Default)]
pub(in crate::events) struct Lines {
    bytes: Vec<u8>,
    events: u64,
}

impl Lines {
    /// Adds an event.
    pub(in crate::events) fn event(&mut self, at: u64, number: u64, json: &[u8]) {
        self.events += 1;
        self.line(|bytes| {
            // Writing to memory does not fail.
            let _ = write!(bytes, "E {at} {number} ");
            bytes.extend_from_slice(json);
        });
    }

    /// Everything in `journal` that stands before `next` has been told.
    pub(in crate::events) fn position(&mut self, journal: u128, next: u64) {
        self.line(|bytes| {
            let _ = write!(bytes, "P {journal:x} {next}");
        });
    }

    /// How many events there are.
    pub(in crate::events) fn events(&self) -> u64 {
        self.events
    }

    pub(in crate::events) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(in crate::events) fn clear(&mut self) {
        self.bytes.clear();
        self.events = 0;
    }

    fn line(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(b"00000000 ");
        write(&mut self.bytes);
        let checksum = crc32c::crc32c(&self.bytes[start + 9..]);
        let _ = write!(&mut self.bytes[start..start + 8], "{checksum:08x}");
        self.bytes.push(b'\n');
    }
}

impl<'a> Line<'a> {
    /// Reads a line without its end; none if it is damaged.
    pub(super) fn parse(line: &'a [u8]) -> Option<Self> {
        let (checksum, rest) = line.split_at_checked(9)?;
        let checksum = u32::from_str_radix(str::from_utf8(checksum).ok()?.strip_suffix(' ')?, 16).ok()?;
        if crc32c::crc32c(rest) != checksum {
            return None;
        }
        let mut parts = rest.splitn(4, |byte| *byte == b' ');
        let mut text = || str::from_utf8(parts.next()?).ok();
        match text()? {
            "E" => {
                let (at, number) = (text()?.parse().ok()?, text()?.parse().ok()?);
                Some(Self::Event { at, number, json: parts.next()? })
            }
            "P" => {
                let journal = u128::from_str_radix(text()?, 16).ok()?;
                Some(Self::Position { journal, next: text()?.parse().ok()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_a_damaged_one_is_not() {
        let mut lines = Lines::default();
        lines.event(7, 3, br#"{"a":"b c"}"#);
        lines.position(u128::MAX, 8);
        let mut read = lines.bytes().split(|byte| *byte == b'\n');
        let (event, position) = (read.next().unwrap(), read.next().unwrap());
        assert_eq!(Line::parse(event), Some(Line::Event { at: 7, number: 3, json: br#"{"a":"b c"}"# }));
        assert_eq!(Line::parse(position), Some(Line::Position { journal: u128::MAX, next: 8 }));
        for at in 0..event.len() {
            let mut damaged = event.to_vec();
            damaged[at] ^= 1;
            assert_eq!(Line::parse(&damaged), None, "byte {at}");
            assert_eq!(Line::parse(&event[..at]), None, "{at} bytes");
        }
    }
}
