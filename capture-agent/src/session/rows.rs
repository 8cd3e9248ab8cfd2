//! Rows of results, one by one or as they follow each other.

use std::sync::Arc;

use super::data_row::{DataRow, bodies};
use super::exchange::{Column, Micros};

/// One row of a result, still in the server's encoding.
#[derive(Clone, Copy, Debug)]
pub struct RowValues<'a> {
    /// The statement's number in the session.
    pub seq: u64,
    /// 0-based number of the row in the statement.
    pub row: u64,
    /// The statement's text, as far as it is known: [`Exchange::sql`](super::Exchange::sql). Not recorded with the row.
    pub sql: Option<&'a Arc<str>>,
    /// The statement's [`Exchange::started_at`](super::Exchange::started_at): rows are filed under their statement's date.
    pub started_at: Micros,
    /// The columns, as far as they are known. May be shorter than the row.
    pub columns: &'a [Column],
    /// The values.
    pub values: Values<'a>,
}

/// The values of one row.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// A DataRow's body: a count, then length and bytes of each value.
    DataRow(&'a [u8]),
    /// Values that were already separated (COPY, FunctionCall): bytes, or none for NULL. `formats` and types
    /// come from the columns; without columns each value is text if `binary` is false.
    Fields {
        /// The values, in order.
        fields: &'a [Option<&'a [u8]>],
        /// Whether the values are in binary format.
        binary: bool,
    },
}

/// Rows of a statement that follow each other, as whole DataRow messages.
#[derive(Clone, Copy, Debug)]
pub struct RowRun<'a> {
    /// The statement's number in the session.
    pub seq: u64,
    /// 0-based number of the first row in the statement.
    pub first: u64,
    /// How many rows.
    pub count: usize,
    /// The statement's text, as far as it is known: [`Exchange::sql`](super::Exchange::sql). Not recorded with the rows.
    pub sql: Option<&'a Arc<str>>,
    /// The statement's [`Exchange::started_at`](super::Exchange::started_at): rows are filed under their statement's date.
    pub started_at: Micros,
    /// The columns, as far as they are known. May be shorter than the rows.
    pub columns: &'a [Column],
    /// If they were copied (COPY), whether their values are binary: what [`Values::Fields`] says of one row.
    pub copied: Option<bool>,
    /// The messages, and nothing else.
    pub messages: &'a [u8],
}

impl<'a> RowRun<'a> {
    /// The bodies of the messages.
    pub fn bodies(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        bodies(self.messages)
    }

    /// Gives the rows one by one.
    pub fn each(&self, mut give: impl FnMut(RowValues<'_>)) {
        let Self { seq, sql, started_at, columns, .. } = *self;
        let mut fields: Vec<Option<&[u8]>> = Vec::new();
        for (row, body) in (self.first..).zip(self.bodies()) {
            let values = match self.copied {
                None => Values::DataRow(body),
                Some(binary) => {
                    fields.clear();
                    fields.extend(DataRow::new(body));
                    Values::Fields { fields: &fields, binary }
                }
            };
            give(RowValues { seq, row, sql, started_at, columns, values });
        }
    }
}
