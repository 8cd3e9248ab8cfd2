//! COPY data, cut into rows (the page on COPY in PostgreSQL's documentation, "File Formats").

mod binary;
mod csv;
mod options;
mod text;

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

pub(super) use options::Options;

use super::data_row;

/// The fields of a row, none for NULL.
type Fields<'a> = Vec<Option<Cow<'a, [u8]>>>;

/// Cuts COPY data into rows and fields, whatever the pieces it comes in.
///
/// It keeps the front of a row that is not complete yet; how long that may become is for its owner to watch.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CopyRows {
    format: Format,
    options: Options,
    /// The front of a row: `carry[..seen]` was inspected and does not end it.
    #[serde(with = "serde_bytes")]
    carry: Vec<u8>,
    seen: usize,
    /// What the inspection of `carry[..seen]` found.
    state: State,
    /// Whether the header (a line of names, or the binary format's) is still to come.
    header: bool,
    /// Whether lines end with carriage return and newline, once the first has.
    crlf: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Format {
    Text,
    Csv,
    Binary,
}

/// Where in a row an inspection stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// CSV: inside quotes.
    quoted: bool,
    /// Binary: fields that are still to come, once the row's count was read.
    fields: Option<u16>,
}

/// What an inspection found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// A row that ends at this position.
    Row(usize),
    /// No end: inspect again from this position when there is more.
    More(usize),
    /// The end of the data, or nothing that can be a row.
    End,
}

/// A row of COPY data: its bytes, without what ends a line.
pub(super) struct CopyRow<'a> {
    bytes: &'a [u8],
    format: Format,
    options: &'a Options,
}

impl<'a> CopyRow<'a> {
    /// Bytes of the row as it was sent.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn is_binary(&self) -> bool {
        self.format == Format::Binary
    }

    pub(super) fn fields(&self) -> Fields<'a> {
        match self.format {
            Format::Binary => binary::fields(self.bytes),
            Format::Text => text::fields(self.bytes, self.options),
            Format::Csv => csv::fields(self.bytes, self.options),
        }
    }

    /// Appends it as a DataRow message. Yields the bytes of its values; none, and appends nothing, if no message has so many
    /// of them.
    pub(super) fn put(&self, out: &mut Vec<u8>) -> Option<usize> {
        let at = data_row::begin(out);
        let mut size = 0;
        let mut values = 0;
        let mut put = |value: Option<&[u8]>, out: &mut Vec<u8>| {
            values += 1;
            size += value.map_or(0, <[u8]>::len);
            data_row::put(value, out)
        };
        let is_plain = self.format == Format::Text && memchr::memchr(b'\\', self.bytes).is_none();
        let mut fits = true;
        if is_plain {
            text::plain_fields(self.bytes, self.options, |field| fits &= put(field, out));
        } else {
            self.fields().iter().for_each(|field| fits &= put(field.as_deref(), out));
        }
        if fits && data_row::end(out, at, values) {
            return Some(size);
        }
        out.truncate(at);
        None
    }
}

impl CopyRows {
    /// Of a COPY whose response says `binary` and whose text says `options`.
    pub(super) fn new(binary: bool, options: &Options) -> Self {
        let format = match (binary, options.csv) {
            (true, _) => Format::Binary,
            (false, true) => Format::Csv,
            (false, false) => Format::Text,
        };
        Self {
            format,
            options: options.clone(),
            carry: Vec::new(),
            seen: 0,
            state: State::default(),
            header: binary || options.header,
            crlf: None,
        }
    }

    /// Bytes kept of a row that is not complete.
    pub(super) fn held(&self) -> usize {
        self.carry.len()
    }

    /// Takes the next data and gives every row that it completes, until `row` wants no more. Whether more can come.
    pub(super) fn feed(&mut self, data: &[u8], mut row: impl FnMut(&CopyRow<'_>) -> bool) -> bool {
        if self.carry.is_empty() {
            let Some(taken) = self.rows(data, &mut row) else { return false };
            self.carry.extend_from_slice(data.get(taken..).unwrap_or_default());
            return true;
        }
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(data);
        let Some(taken) = self.rows(&carry, &mut row) else { return false };
        carry.drain(..taken.min(carry.len()));
        self.carry = carry;
        true
    }

    /// The data is complete: gives the last row, if no newline ended it.
    pub(super) fn finish(mut self, mut row: impl FnMut(&CopyRow<'_>) -> bool) {
        if self.format != Format::Binary && !self.carry.is_empty() {
            let mut carry = std::mem::take(&mut self.carry);
            carry.push(b'\n');
            self.rows(&carry, &mut row);
        }
    }

    /// Gives the rows that stand in `data`; how many bytes they took, or none if there can be no more.
    fn rows(&mut self, data: &[u8], row: &mut impl FnMut(&CopyRow<'_>) -> bool) -> Option<usize> {
        let mut taken = 0;
        loop {
            let rest = data.get(taken..).unwrap_or_default();
            let found = match self.format {
                Format::Text => text::inspect(rest, self.seen),
                Format::Csv => csv::inspect(rest, self.seen, &mut self.state, &self.options),
                Format::Binary if self.header => binary::header(rest),
                Format::Binary => binary::inspect(rest, self.seen, &mut self.state),
            };
            let end = match found {
                Found::Row(end) => end,
                Found::More(seen) => {
                    self.seen = seen;
                    return Some(taken);
                }
                Found::End => return None,
            };
            taken += end;
            self.seen = 0;
            self.state = State::default();
            if std::mem::take(&mut self.header) {
                self.line(rest.get(..end).unwrap_or_default());
                continue;
            }
            let mut bytes = rest.get(..end).unwrap_or_default();
            if self.format != Format::Binary {
                bytes = self.line(bytes);
                if bytes == b"\\." {
                    return None;
                }
            }
            if !row(&CopyRow { bytes, format: self.format, options: &self.options }) {
                return None;
            }
        }
    }

    /// A line without its end. The first tells how lines end.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let crlf = *self.crlf.get_or_insert(line.ends_with(b"\r"));
        if crlf { line.strip_suffix(b"\r").unwrap_or(line) } else { line }
    }
}

#[cfg(test)]
mod tests;
