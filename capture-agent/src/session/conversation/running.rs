//! The statement that the server is working on, and its row in the record.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::{Conversation, Turn};
use crate::session::copy::CopyRows;
use crate::session::{
    Column, Exchange, Limits, Micros, Protocol, RowValues, Sink, SqlState, Status, Tag, Values,
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
    /// Whether the client sent CopyDone or CopyFail.
    pub(super) input_over: bool,
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
    /// Bytes of rows that may still be recorded.
    pub(super) fn room(&self, limits: &Limits) -> usize {
        if self.truncated || self.kept_rows >= limits.rows {
            return 0;
        }
        usize::try_from(limits.bytes.saturating_sub(self.kept_bytes)).unwrap_or(usize::MAX)
    }

    /// Counts a row of `size` bytes. Whether it is to be recorded.
    pub(super) fn admit(&mut self, size: usize, limits: &Limits) -> bool {
        let admitted = self.room(limits) >= size && self.kept_rows < limits.rows && !self.truncated;
        if admitted {
            self.kept_rows += 1;
            self.kept_bytes = self.kept_bytes.saturating_add(size as u64);
        } else {
            self.truncated = true;
        }
        self.rows = self.rows.saturating_add(1);
        admitted
    }
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
