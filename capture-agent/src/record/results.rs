//! Rows of `results`.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::error::ArrowError;

use super::labels::Labels;
use super::lists::TextLists;
use super::loss::{Loss, Stake};
use super::repeats::Repeats;
use super::sessions::{number, numbers};
use super::table::Table;
use super::texts::Texts;
use crate::session::value::{Encoding, write_text};
use crate::session::{Column, Direction, RowValues, SessionId, SessionInfo, Values};

/// Builds the table `results`.
#[derive(Debug)]
pub(super) struct Results {
    session_id: Repeats,
    /// Sessions, and the numbers of their ids, by the id's last byte, which is random in a UUIDv7.
    sessions: Vec<Option<(SessionId, u32)>>,
    seq: Vec<i64>,
    row: Vec<i64>,
    values: TextLists,
    stake: Stake,
}

impl Results {
    pub(super) fn new() -> Self {
        Self {
            session_id: Repeats::new(),
            sessions: vec![None; SLOTS],
            seq: Vec::new(),
            row: Vec::new(),
            values: TextLists::new(),
            stake: Stake::default(),
        }
    }

    /// Appends a row of a result.
    pub(super) fn append(&mut self, labels: &Labels, session: &SessionInfo, row: &RowValues<'_>) {
        let id = session.origin.id;
        let known = &mut self.sessions[usize::from(id.0.as_bytes()[15])];
        match known {
            Some((session, number)) if *session == id => self.session_id.append_again(*number),
            _ => {
                self.session_id.append_value(labels.id());
                *known = Some((id, self.session_id.latest()));
            }
        }
        self.seq.push(number(row.seq));
        self.row.push(number(row.row));
        let encoding = session.client_encoding;
        let column = self.values.elements();
        match row.values {
            Values::DataRow(body) => {
                let mut columns = row.columns.iter();
                for value in DataRow::new(body) {
                    append_value(column, columns.next(), value, encoding, 0);
                }
            }
            Values::Fields { fields, binary } => {
                let mut columns = row.columns.iter();
                for value in fields {
                    append_value(column, columns.next(), *value, encoding, i16::from(binary));
                }
            }
        }
        self.values.end_row();
        self.stake.note(Loss {
            session: Some(id),
            table: Table::Results,
            direction: Direction::Backend,
            range: None,
            statements: Some((row.seq, row.seq)),
            rows: 1,
            at: row.started_at,
        });
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.seq.len()
    }

    /// Memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        self.values.bytes() + self.session_id.bytes() + self.len() * 48
    }

    /// The rows, what is lost if they are, and an empty table in their place.
    pub(super) fn finish(&mut self) -> Result<(RecordBatch, Vec<Loss>), ArrowError> {
        self.sessions.fill(None);
        let columns: Vec<ArrayRef> = vec![
            self.session_id.finish()?,
            numbers(&mut self.seq),
            numbers(&mut self.row),
            self.values.finish()?,
        ];
        Ok((Table::Results.batch(columns)?, self.stake.take()))
    }
}

/// Appends one value. Its format is its column's, or `format` if the column is not known.
fn append_value(
    out: &mut Texts,
    column: Option<&Column>,
    value: Option<&[u8]>,
    encoding: Encoding,
    format: i16,
) {
    match value {
        None => out.append_null(),
        Some(bytes) => {
            let (type_oid, format) = column.map_or((0, format), |column| (column.type_oid, column.format));
            if format != 0 || !out.write_ascii(bytes) {
                // Writing to a builder does not fail.
                let _ = write_text(type_oid, format, bytes, encoding, out);
            }
            out.end();
        }
    }
}

/// The values of a DataRow's body: a 16-bit count, then a 32-bit length (-1 for NULL) and bytes of each
/// (`doc/src/sgml/protocol.sgml`). Ends where the body does, whatever its count and lengths claim.
#[derive(Clone, Debug)]
pub(super) struct DataRow<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> DataRow<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        match body.split_first_chunk() {
            Some((count, rest)) => Self { rest, left: u16::from_be_bytes(*count) },
            None => Self { rest: &[], left: 0 },
        }
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.rest.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(value))
    }
}

/// One for each value of a byte.
const SLOTS: usize = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_data_row_gives_its_values_and_nulls() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(DataRow::new(body).collect::<Vec<_>>(), [Some(&b"ab"[..]), None, Some(&b""[..])]);
    }

    proptest! {
        #[test]
        fn a_data_row_that_lies_ends_with_its_bytes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let values: Vec<_> = DataRow::new(&body).collect();
            let claimed: usize = values.iter().map(|value| 4 + value.map_or(0, <[u8]>::len)).sum();
            prop_assert!(claimed <= body.len());
        }
    }
}
