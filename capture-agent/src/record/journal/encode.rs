//! What a session said, as records of the journal.
//!
//! A record is its kind, the length of its body, and the body. Long values stand last: they are not part of what is
//! encoded here, but follow it, so that they can be written from where they are.

use super::super::batch::Day;
use super::super::decision::Decision;
use super::super::loss::Loss;
use super::super::lsn::Spans;
use super::super::table::Table;
use super::decision::{put_decision, put_judged};
use super::dictionary::{Dictionary, Slot};
use super::kind;
use super::wire::{put, put_bytes, put_option, put_signed, put_text};
use crate::session::{
    Column, Direction, EndReason, Exchange, Gap, GapReason, Micros, Protocol, RowRun, RowValues, SessionEnd,
    SessionInfo, Status, Values,
};
use std::sync::Arc;

/// Encodes records, each at the end of a buffer. Yields where in the buffer the record begins; what it refers to
/// is defined before it.
#[derive(Debug)]
pub(super) struct Encoder {
    dictionary: Dictionary,
}

impl Encoder {
    pub(super) fn new() -> Self {
        Self { dictionary: Dictionary::new() }
    }

    /// A new segment begins: it knows nothing yet.
    pub(super) fn begin_segment(&mut self) {
        self.dictionary.clear();
    }

    /// A row. Its values follow, as [`tail_of`] yields them.
    pub(super) fn row(&mut self, out: &mut Vec<u8>, session: &SessionInfo, row: &RowValues<'_>) -> usize {
        let start = self.begin_rows(out, kind::ROW, session, row.columns);
        put(out, row.seq);
        put(out, row.row);
        put_time(out, row.started_at);
        match row.values {
            Values::DataRow(_) => out.push(DATA_ROW),
            Values::Fields { fields, binary } => {
                out.push(if binary { BINARY_FIELDS } else { TEXT_FIELDS });
                put(out, fields.len() as u64);
                for field in fields {
                    put(out, field.map_or(0, |field| field.len() as u64 + 1));
                }
            }
        }
        end(out, start, tail_of(&row.values).map(<[u8]>::len).sum());
        start
    }

    /// Rows that follow each other. Their messages follow.
    pub(super) fn rows(&mut self, out: &mut Vec<u8>, session: &SessionInfo, run: &RowRun<'_>) -> usize {
        let start = self.begin_rows(out, kind::ROWS, session, run.columns);
        put(out, run.seq);
        put(out, run.first);
        put_time(out, run.started_at);
        out.push(match run.copied {
            None => DATA_ROW,
            Some(false) => TEXT_FIELDS,
            Some(true) => BINARY_FIELDS,
        });
        end(out, start, run.messages.len());
        start
    }

    /// Begins a record of rows: whose they are, and of which columns.
    #[inline]
    fn begin_rows(
        &mut self,
        out: &mut Vec<u8>,
        kind: u8,
        session: &SessionInfo,
        columns: &[Column],
    ) -> usize {
        let session = self.session(out, session);
        let columns = self.columns(out, Some(columns));
        let start = begin(out, kind);
        put(out, session);
        put(out, columns);
        start
    }

    /// A statement. Its error's message and [`Exchange::params_body`] follow.
    pub(super) fn statement(
        &mut self,
        out: &mut Vec<u8>,
        session: &SessionInfo,
        exchange: &Exchange,
    ) -> usize {
        let session = self.session(out, session);
        let sql = self.text(out, exchange.sql.as_ref());
        let columns = self.columns(out, exchange.columns.as_deref());
        let start = begin(out, kind::STATEMENT);
        put(out, session);
        put(out, columns);
        put(out, exchange.seq);
        put_time(out, exchange.started_at);
        put_option(out, exchange.duration_us);
        put_option(out, exchange.first_row_us);
        out.push(protocol(exchange.protocol));
        out.push(status(exchange.status));
        let judged = exchange.judged.as_deref();
        let truths = [
            exchange.masked > 0,
            judged.is_some(),
            exchange.complete,
            exchange.results_truncated,
            exchange.params_truncated,
        ];
        out.push(truths.iter().fold(0, |bits, truth| bits << 1 | u8::from(*truth)));
        put(out, sql);
        put_text(out, exchange.statement_name.as_deref());
        put(out, exchange.params.len() as u64);
        for param in &exchange.params {
            put(out, u64::from(param.type_oid));
            put_signed(out, i64::from(param.format));
            match param.value {
                None => out.push(0),
                Some((from, to)) => {
                    out.push(1);
                    put(out, u64::from(from));
                    put(out, u64::from(to));
                }
            }
        }
        out.push(u8::from(exchange.rows.is_some()));
        if let Some(rows) = exchange.rows {
            put(out, rows);
        }
        put_text(out, exchange.command_tag.as_deref());
        put_text(out, exchange.sqlstate.as_deref());
        for number in
            [exchange.bytes_in, exchange.bytes_out, exchange.frontend_range.0, exchange.frontend_range.1]
        {
            put(out, number);
        }
        if let Some(judged) = judged {
            put_judged(out, judged);
        }
        if exchange.masked > 0 {
            put(out, u64::from(exchange.masked));
        }
        let message = exchange.error_message.as_deref();
        put(out, message.map_or(0, |message| message.len() as u64 + 1));
        end(out, start, message.map_or(0, str::len) + exchange.params_body.len());
        start
    }

    /// A gap.
    pub(super) fn gap(&mut self, out: &mut Vec<u8>, session: &SessionInfo, gap: &Gap) -> usize {
        let session = self.session(out, session);
        let start = begin(out, kind::GAP);
        put(out, session);
        out.push(direction(gap.direction));
        put(out, gap.offset);
        put(out, gap.length);
        put_time(out, gap.at);
        out.push(gap_reason(gap.reason));
        end(out, start, 0);
        start
    }

    /// A session's end.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, session: &SessionInfo, ended: &SessionEnd) -> usize {
        let session = self.session(out, session);
        let start = begin(out, kind::END);
        put(out, session);
        put_option(out, ended.ended_at.map(|at| at.0));
        put_end_reason(out, &ended.reason);
        for number in [
            ended.statements,
            ended.errors,
            ended.bytes_in,
            ended.bytes_out,
            ended.gap_bytes,
            ended.socket_bytes_in,
            ended.socket_bytes_out,
        ] {
            put(out, number);
        }
        put_text(out, ended.protocol_error.as_deref());
        end(out, start, 0);
        start
    }

    /// A decision. Its text, as far as it is recorded, follows.
    pub(super) fn decision(
        &mut self,
        out: &mut Vec<u8>,
        session: Option<&SessionInfo>,
        decision: &Decision,
    ) -> usize {
        let session = session.map(|session| self.session(out, session));
        let start = begin(out, kind::DECISION);
        put(out, session.map_or(0, |slot| slot + 1));
        put_decision(out, decision);
        let sql = decision.recorded_sql();
        put(out, sql.map_or(0, |sql| sql.len() as u64 + 1));
        end(out, start, sql.map_or(0, str::len));
        start
    }

    /// The slot of a session.
    fn session(&mut self, out: &mut Vec<u8>, session: &SessionInfo) -> u64 {
        match self.dictionary.session(session) {
            Slot::Known(slot) => slot as u64,
            Slot::New(slot) => {
                define_session(out, slot, session);
                slot as u64
            }
        }
    }

    /// A text: 0 if there is none, 1 if it has no slot and stands before the record, else its slot and two.
    fn text(&mut self, out: &mut Vec<u8>, text: Option<&Arc<str>>) -> u64 {
        let Some(text) = text else { return 0 };
        self.make_room(out);
        let slot = match self.dictionary.text(text) {
            Some(Slot::Known(slot)) => return slot as u64 + 2,
            Some(Slot::New(slot)) => slot as u64 + 2,
            None => 1,
        };
        let start = begin(out, kind::TEXT);
        put(out, slot);
        out.extend_from_slice(text.as_bytes());
        end(out, start, 0);
        slot
    }

    /// Columns: 0 if there are none, 1 if they are empty, else their slot and two.
    fn columns(&mut self, out: &mut Vec<u8>, columns: Option<&[Column]>) -> u64 {
        let Some(columns) = columns else { return 0 };
        if columns.is_empty() {
            return 1;
        }
        self.make_room(out);
        match self.dictionary.columns(columns) {
            Slot::Known(slot) => slot as u64 + 2,
            Slot::New(slot) => {
                define_columns(out, slot, columns);
                slot as u64 + 2
            }
        }
    }

    fn make_room(&mut self, out: &mut Vec<u8>) {
        if self.dictionary.is_full() {
            self.dictionary.forget_texts();
            let start = begin(out, kind::FORGET_TEXTS);
            end(out, start, 0);
        }
    }
}

/// The values of a row, one after the other.
pub(super) fn tail_of<'a>(values: &Values<'a>) -> impl Iterator<Item = &'a [u8]> {
    let (body, fields) = match *values {
        Values::DataRow(body) => (Some(body), &[][..]),
        Values::Fields { fields, .. } => (None, fields),
    };
    body.into_iter().chain(fields.iter().copied().flatten())
}

/// Rows that could not be stored.
pub(super) fn loss(out: &mut Vec<u8>, loss: &Loss) -> usize {
    let start = begin(out, kind::LOSS);
    out.push(u8::from(loss.session.is_some()));
    if let Some(session) = loss.session {
        out.extend_from_slice(session.0.as_bytes());
    }
    out.push(loss.table.number());
    out.push(direction(loss.direction));
    for range in [loss.range, loss.statements] {
        out.push(u8::from(range.is_some()));
        if let Some((from, to)) = range {
            put(out, from);
            put(out, to);
        }
    }
    put(out, loss.rows);
    put_time(out, loss.at);
    end(out, start, 0);
    start
}

/// Rows that need no replay.
pub(super) fn settled(out: &mut Vec<u8>, table: Table, day: Day, spans: &Spans) {
    let start = begin(out, kind::SETTLED);
    out.push(table.number());
    put_signed(out, day.0);
    put(out, spans.len() as u64);
    for span in spans.iter() {
        put(out, span.first.0);
        put(out, span.last.0);
    }
    end(out, start, 0);
}

/// A session's state. `length` bytes follow.
pub(super) fn state(out: &mut Vec<u8>, key: &[u8; 16], length: usize) {
    let start = begin(out, kind::STATE);
    out.extend_from_slice(key);
    end(out, start, length);
}

/// A session's state is no longer needed.
pub(super) fn forget_state(out: &mut Vec<u8>, key: &[u8; 16]) {
    let start = begin(out, kind::FORGET_STATE);
    out.extend_from_slice(key);
    end(out, start, 0);
}

/// All states follow.
pub(super) fn checkpoint(out: &mut Vec<u8>) {
    let start = begin(out, kind::CHECKPOINT);
    end(out, start, 0);
}

/// The end of a transaction. Before the first the reader has no position.
pub(super) fn commit(out: &mut Vec<u8>, position: Option<u64>) {
    let start = begin(out, kind::COMMIT);
    out.push(u8::from(position.is_some()));
    if let Some(position) = position {
        put(out, position);
    }
    end(out, start, 0);
}

fn begin(out: &mut Vec<u8>, kind: u8) -> usize {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    start
}

/// Ends a record that began at `start`; `tail` bytes of its body follow.
fn end(out: &mut [u8], start: usize, tail: usize) {
    // No message body has 4 GiB.
    let length = u32::try_from(out.len() - start - kind::PREFIX + tail).unwrap_or(u32::MAX);
    out[start + 1..start + kind::PREFIX].copy_from_slice(&length.to_le_bytes());
}

fn put_time(out: &mut Vec<u8>, at: Micros) {
    out.extend_from_slice(&at.0.to_le_bytes());
}

fn define_session(out: &mut Vec<u8>, slot: usize, session: &SessionInfo) {
    let start = begin(out, kind::SESSION);
    put(out, slot as u64);
    // A vector takes everything.
    let _ = postcard::to_io(session, &mut *out);
    end(out, start, 0);
}

fn define_columns(out: &mut Vec<u8>, slot: usize, columns: &[Column]) {
    let start = begin(out, kind::COLUMNS);
    put(out, slot as u64);
    put(out, columns.len() as u64);
    for column in columns {
        put_bytes(out, column.name.as_bytes());
        put(out, u64::from(column.type_oid));
        put(out, u64::from(column.table_oid));
        put_signed(out, i64::from(column.attnum));
        put_signed(out, i64::from(column.format));
    }
    end(out, start, 0);
}

fn put_end_reason(out: &mut Vec<u8>, reason: &EndReason) {
    match reason {
        EndReason::Terminate => out.push(0),
        EndReason::CancelRequest => out.push(1),
        EndReason::Disconnected => out.push(2),
        EndReason::AgentStopped => out.push(3),
        EndReason::Fatal(sqlstate) => {
            out.push(4);
            put_bytes(out, sqlstate.as_bytes());
        }
        EndReason::Signal(signal) => out.extend_from_slice(&[5, *signal]),
    }
}

fn direction(direction: Direction) -> u8 {
    u8::from(direction == Direction::Backend)
}

fn protocol(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Simple => 0,
        Protocol::Extended => 1,
        Protocol::Function => 2,
        Protocol::Copy => 3,
        Protocol::Replication => 4,
    }
}

fn status(status: Status) -> u8 {
    match status {
        Status::Completed => 0,
        Status::Failed => 1,
        Status::Skipped => 2,
        Status::Suspended => 3,
        Status::Canceled => 4,
        Status::InFlight => 5,
        Status::Unknown => 6,
    }
}

fn gap_reason(reason: GapReason) -> u8 {
    match reason {
        GapReason::RingFull => 0,
        GapReason::Unreadable => 1,
        GapReason::Oversize => 2,
        GapReason::Resync => 3,
        GapReason::ProtocolError => 4,
        GapReason::Encrypted => 5,
        GapReason::AgentStopped => 6,
    }
}

/// A row's values are a DataRow's body.
pub(super) const DATA_ROW: u8 = 0;
/// A row's values are apart, in text format where no column says otherwise.
pub(super) const TEXT_FIELDS: u8 = 1;
/// A row's values are apart, in binary format where no column says otherwise.
pub(super) const BINARY_FIELDS: u8 = 2;
