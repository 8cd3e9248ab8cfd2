//! The statement that the server is working on, and its row in the record.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{Conversation, Phase, Turn};
use crate::session::copy::CopyRows;
use crate::session::data_row::HEADER;
use crate::session::{
    Column, Exchange, Limits, Micros, Protocol, RowRun, RowValues, Sink, SqlState, Status, Tag, Values,
};

/// What is known of a statement's reply so far.
///
/// Invariants: `kept_rows <= rows`, `kept_rows <= Limits::rows`, `kept_bytes <= Limits::bytes`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) active: bool,
    /// Rows that the server sent, or that were copied and could be told apart.
    pub(super) rows: u64,
    kept_rows: u64,
    kept_bytes: u64,
    /// Whether rows were left out; no more are recorded then, so that the recorded ones are the first.
    pub(super) truncated: bool,
    /// Whether lost bytes touched it.
    pub(super) touched: bool,
    pub(super) columns: Option<Arc<[Column]>>,
    pub(super) copy: Option<Box<Copying>>,
}

/// A COPY that is under way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Copying {
    pub(super) side: CopySide,
    /// Cuts the data into rows; none once no more are wanted, or if it is not made of rows.
    pub(super) rows: Option<CopyRows>,
    /// Rows that wait while more of them are cut off.
    #[serde(skip)]
    pub(super) copied: Copied,
    /// Whether the client sent CopyDone or CopyFail.
    pub(super) input_over: bool,
}

/// Copied rows that follow each other, on their way out.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// As DataRow messages.
    pub(super) messages: Vec<u8>,
    pub(super) count: usize,
    /// The number of the first.
    pub(super) first: u64,
    pub(super) binary: bool,
}

impl Copying {
    /// Takes out what cuts the data into rows, if that is wanted, and the room for rows that wait.
    pub(super) fn take(&mut self) -> Option<(CopyRows, Copied)> {
        Some((self.rows.take()?, std::mem::take(&mut self.copied)))
    }
}

/// Who sends COPY data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum CopySide {
    Client,
    Server,
    /// Both: a replication stream.
    Both,
}

impl Run {
    /// Whether a row may still be recorded, if it is not too large.
    fn wants(&self, limits: &Limits) -> bool {
        !self.truncated && self.kept_rows < limits.rows
    }

    /// Bytes of rows that may still be recorded.
    pub(super) fn room(&self, limits: &Limits) -> usize {
        if !self.wants(limits) {
            return 0;
        }
        usize::try_from(limits.bytes.saturating_sub(self.kept_bytes)).unwrap_or(usize::MAX)
    }

    /// How many rows may still be recorded, and bytes of them; or counted, if no more are recorded.
    fn admits(&self, limits: &Limits) -> (u64, u64) {
        if !self.wants(limits) {
            return (u64::MAX, u64::MAX);
        }
        (limits.rows - self.kept_rows, limits.bytes.saturating_sub(self.kept_bytes))
    }

    /// Counts `rows` of so many bytes, as many as [`Run::admits`]. Whether they are to be recorded.
    fn admit_all(&mut self, rows: u64, bytes: u64, limits: &Limits) -> bool {
        let admitted = self.wants(limits);
        if admitted {
            self.kept_rows += rows;
            self.kept_bytes = self.kept_bytes.saturating_add(bytes);
        }
        self.truncated |= !admitted;
        self.rows = self.rows.saturating_add(rows);
        admitted
    }

    /// Counts a row of `size` bytes. Whether it is to be recorded.
    pub(super) fn admit(&mut self, size: usize, limits: &Limits) -> bool {
        self.truncated |= self.room(limits) < size;
        self.admit_all(1, size as u64, limits)
    }
}

/// Messages of the server's that may follow each other, each a row of the present statement.
#[derive(Clone, Copy, Debug)]
pub(in crate::session) struct Expected {
    /// Their type.
    pub(in crate::session) tag: u8,
    /// How many may be taken together at most.
    pub(in crate::session) rows: u64,
    /// Bytes of their bodies at most.
    pub(in crate::session) bytes: u64,
}

/// How a statement came to be, when its row begins.
pub(super) struct Begun {
    pub(super) protocol: Protocol,
    pub(super) at: Micros,
    pub(super) sql: Option<Arc<str>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) range: (u64, u64),
    pub(super) bytes_in: u64,
}

/// How a statement ended.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) status: Status,
    pub(super) tag: Option<Tag>,
    pub(super) error: Option<(Option<SqlState>, String)>,
    /// Whether bytes of the reply that ended it were lost.
    pub(super) touched: bool,
}

impl Ended {
    /// Without tag and error.
    pub(super) fn with(status: Status) -> Self {
        Self { status, tag: None, error: None, touched: false }
    }
}

impl Conversation {
    /// Begins the row of the next statement.
    pub(super) fn begin(&mut self, begun: Begun) {
        let Begun { protocol, at, sql, name, range, bytes_in } = begun;
        let judged = self.judged_in(range);
        let exchange = &mut self.exchange;
        exchange.seq = self.seq;
        self.seq += 1;
        exchange.started_at = at;
        exchange.duration_us = None;
        exchange.first_row_us = None;
        exchange.protocol = protocol;
        exchange.sql = sql;
        exchange.statement_name = name;
        exchange.params.clear();
        exchange.params_body.clear();
        exchange.columns = None;
        exchange.rows = None;
        if let Some(tag) = exchange.command_tag.take() {
            // The next is the same, mostly.
            self.tag = Some(tag);
        }
        exchange.sqlstate = None;
        exchange.error_message = None;
        exchange.bytes_in = bytes_in;
        exchange.bytes_out = 0;
        exchange.frontend_range = range;
        exchange.complete = true;
        exchange.params_truncated = false;
        exchange.judged = judged;
        self.run.active = true;
    }

    /// A DataRow.
    pub(super) fn data_row(&mut self, body: &[u8], size: u64, whole: bool, turn: &mut Turn<'_, impl Sink>) {
        let run = &mut self.run;
        if run.rows == 0 {
            self.exchange.first_row_us = Some(turn.at.0.saturating_sub(self.exchange.started_at.0));
        }
        self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(size);
        let row = run.rows;
        if !whole {
            run.truncated = true;
        }
        if run.admit(body.len(), &self.limits) {
            let columns = run.columns.as_deref().unwrap_or_default();
            let values = Values::DataRow(body);
            turn.sink.row(
                turn.info,
                RowValues {
                    seq: self.exchange.seq,
                    row,
                    sql: self.exchange.sql.as_ref(),
                    started_at: self.exchange.started_at,
                    columns,
                    values,
                },
            );
        }
    }

    /// What may follow in any number now, each like the one before it: rows of a result behind the first, and data of a COPY.
    #[inline]
    pub(in crate::session) fn expects_rows(&self) -> Option<Expected> {
        let run = &self.run;
        if !run.active || self.confused || self.phase != Phase::Ready || self.unsettled.is_some() {
            return None;
        }
        if run.rows > 0 && run.copy.is_none() {
            let (rows, bytes) = run.admits(&self.limits);
            return Some(Expected { tag: b'D', rows, bytes });
        }
        let copy = run.copy.as_ref().filter(|copy| copy.side == CopySide::Server)?;
        let bytes = if copy.rows.is_some() { run.room(&self.limits) as u64 } else { u64::MAX };
        Some(Expected { tag: b'd', rows: u64::MAX, bytes })
    }

    /// The type of the messages of the server's that are counted at most from now on, until another comes: rows of a result, or
    /// data of a COPY. None if some may be recorded.
    pub(in crate::session) fn unwanted(&self) -> Option<u8> {
        let run = &self.run;
        if !run.active || self.confused || self.phase != Phase::Ready || self.unsettled.is_some() {
            return None;
        }
        match &run.copy {
            None => (!run.wants(&self.limits)).then_some(b'D'),
            Some(copy) => (copy.side == CopySide::Server && copy.rows.is_none()).then_some(b'd'),
        }
    }

    /// So many of them have passed, of so many bytes.
    pub(in crate::session) fn passed(&mut self, messages: u64, bytes: u64, at: Micros) {
        let run = &mut self.run;
        if !run.active || messages == 0 {
            return;
        }
        self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(bytes);
        if run.copy.is_none() {
            if run.rows == 0 {
                self.exchange.first_row_us = Some(at.0.saturating_sub(self.exchange.started_at.0));
            }
            run.truncated = true;
            run.rows = run.rows.saturating_add(messages);
        }
    }

    /// Messages of the server's that are as [`Conversation::expects_rows`] says.
    pub(in crate::session) fn rows(
        &mut self,
        tag: u8,
        messages: &[u8],
        count: usize,
        turn: &mut Turn<'_, impl Sink>,
    ) {
        self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(messages.len() as u64);
        if tag == b'd' {
            return self.copy_messages(messages, turn);
        }
        let first = self.run.rows;
        let bytes = messages.len() - count * HEADER;
        if self.run.admit_all(count as u64, bytes as u64, &self.limits) {
            let columns = self.run.columns.as_deref().unwrap_or_default();
            let run = RowRun {
                seq: self.exchange.seq,
                first,
                count,
                sql: self.exchange.sql.as_ref(),
                started_at: self.exchange.started_at,
                columns,
                copied: None,
                messages,
            };
            turn.sink.rows(turn.info, run);
        }
    }

    /// Ends the row and hands it out.
    pub(super) fn finish(&mut self, ended: Ended, turn: &mut Turn<'_, impl Sink>) {
        self.conclude(ended, turn.at);
        turn.sink.statement(turn.info, &self.exchange);
    }

    /// Ends the row.
    pub(super) fn conclude(&mut self, ended: Ended, at: Micros) {
        let exchange = &mut self.exchange;
        let run = std::mem::take(&mut self.run);
        let counted = run.rows;
        exchange.rows = match ended.status {
            Status::Completed => ended.tag.as_ref().and_then(rows_of).or(Some(counted)),
            Status::Failed | Status::Canceled | Status::Suspended | Status::InFlight => Some(counted),
            Status::Skipped | Status::Unknown => None,
        };
        if let Some(copy) = run.copy.filter(|_| ended.tag.is_none()) {
            // Rows are told apart only as far as they are recorded; and where the client's data ended is not
            // known without the client's word.
            if run.truncated || copy.side == CopySide::Client {
                exchange.rows = None;
            }
        }
        let over = !matches!(ended.status, Status::InFlight | Status::Unknown | Status::Skipped);
        exchange.duration_us = over.then(|| at.0.saturating_sub(exchange.started_at.0));
        exchange.columns = run.columns;
        exchange.command_tag = ended.tag;
        (exchange.sqlstate, exchange.error_message) = match ended.error {
            Some((code, message)) => (code, Some(message)),
            None => (None, None),
        };
        exchange.status = ended.status;
        exchange.complete &= !run.touched && !ended.touched;
        exchange.results_truncated = run.truncated;
    }
}

/// The number of rows in a command tag: its last word, if that is a number.
fn rows_of(tag: &Tag) -> Option<u64> {
    let space = tag.as_bytes().iter().rposition(|byte| *byte == b' ');
    tag.get(space.map_or(0, |space| space + 1)..)?.parse().ok()
}

/// A row before the first.
pub(super) fn blank() -> Exchange {
    Exchange {
        seq: 0,
        started_at: Micros(0),
        duration_us: None,
        first_row_us: None,
        protocol: Protocol::Simple,
        sql: None,
        statement_name: None,
        params: Vec::new(),
        params_body: Vec::new(),
        columns: None,
        rows: None,
        command_tag: None,
        status: Status::Unknown,
        sqlstate: None,
        error_message: None,
        bytes_in: 0,
        bytes_out: 0,
        frontend_range: (0, 0),
        complete: true,
        results_truncated: false,
        params_truncated: false,
        masked: 0,
        judged: None,
    }
}
