//! Rows of `results`.

use std::iter;

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
use crate::session::{Column, DataRow, Direction, Micros, RowRun, RowValues, SessionId, SessionInfo, Values};

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
        self.append_session(labels, session.origin.id, 1);
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
        self.note(session.origin.id, row.seq, row.started_at, 1);
    }

    /// Appends rows that follow each other.
    pub(super) fn append_run(&mut self, labels: &Labels, session: &SessionInfo, run: &RowRun<'_>) {
        self.append_session(labels, session.origin.id, run.count);
        let first = number(run.first);
        self.seq.extend(iter::repeat_n(number(run.seq), run.count));
        self.row.extend((0..run.count).map(|n| first.saturating_add(number(n as u64))));
        let encoding = session.client_encoding;
        let format = i16::from(run.copied == Some(true));
        // Of a text the type does not matter.
        let texts = format == 0 && run.columns.iter().all(|column| column.format == 0);
        let known = if texts { &[] } else { run.columns };
        for body in run.bodies() {
            let mut columns = known.iter();
            for value in DataRow::new(body) {
                append_value(self.values.elements(), columns.next(), value, encoding, format);
            }
            self.values.end_row();
        }
        self.note(session.origin.id, run.seq, run.started_at, run.count);
    }

    /// Appends a session's id so many times.
    fn append_session(&mut self, labels: &Labels, id: SessionId, times: usize) {
        let known = &mut self.sessions[usize::from(id.0.as_bytes()[15])];
        match known {
            Some((session, number)) if *session == id => self.session_id.append_again(*number, times),
            _ => {
                self.session_id.append_value(labels.id());
                let number = self.session_id.latest();
                *known = Some((id, number));
                self.session_id.append_again(number, times.saturating_sub(1));
            }
        }
    }

    fn note(&mut self, session: SessionId, seq: u64, at: Micros, rows: usize) {
        self.stake.note(Loss {
            session: Some(session),
            table: Table::Results,
            direction: Direction::Backend,
            range: None,
            statements: Some((seq, seq)),
            rows: rows as u64,
            at,
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

    /// The rows, and an empty table in their place.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.sessions.fill(None);
        let columns: Vec<ArrayRef> = vec![
            self.session_id.finish()?,
            numbers(&mut self.seq),
            numbers(&mut self.row),
            self.values.finish()?,
        ];
        Table::Results.batch(columns)
    }

    /// What is lost if the rows that were finished are.
    pub(super) fn take_stake(&mut self) -> Vec<Loss> {
        self.stake.take()
    }
}

/// Appends one value. Its format is its column's, or `format` if the column is not known.
#[inline]
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

/// One for each value of a byte.
const SLOTS: usize = 256;
