//! COPY: data that flows outside of rows.

use super::request::Kind;
use super::running::{Copied, CopySide, Copying};
use super::{Conversation, Turn};
use crate::frames::Frame;
use crate::frames::backend::CopyResponse;
use crate::session::copy::{CopyRow, CopyRows, Options};
use crate::session::data_row::bodies;
use crate::session::{Protocol, RowRun, RowValues, Sink, Values};

impl Conversation {
    /// CopyInResponse, CopyOutResponse or CopyBothResponse: the head turns into a COPY.
    pub(super) fn begin_copy(&mut self, side: CopySide, body: &[u8], turn: &mut Turn<'_, impl Sink>) {
        let is_replication = self.exchange.protocol == Protocol::Replication;
        if !is_replication {
            self.exchange.protocol =
                if side == CopySide::Both { Protocol::Replication } else { Protocol::Copy };
        }
        let response = CopyResponse::read(body);
        let rows = response.filter(|_| side != CopySide::Both && !is_replication).map(|response| {
            let options = Options::of(
                self.exchange.sql.as_deref().unwrap_or_default(),
                turn.info.standard_conforming_strings,
            );
            CopyRows::new(response.binary, &options)
        });
        self.run.copy = Some(Box::new(Copying {
            side,
            rows,
            copied: Copied::default(),
            input_over: side == CopySide::Server,
        }));
        // What the client sent ahead is data now.
        while self.takes_copy_data()
            && self.queue.behind_head().is_some_and(|kind| kind.is_silent() || kind == Kind::Sync)
        {
            let Some(request) = self.queue.pop_behind_head() else { break };
            self.exchange.bytes_in = self.exchange.bytes_in.saturating_add(request.wire);
            self.exchange.frontend_range.1 = request.range().1;
            let whole = !request.holed && !request.truncated;
            self.input(request.kind, &request.body, whole, request.holed, turn);
            self.queue.recycle(request.body);
        }
    }

    /// Whether the server takes COPY data from the client.
    pub(super) fn takes_copy_data(&self) -> bool {
        self.run.copy.as_ref().is_some_and(|copy| !copy.input_over)
    }

    /// A message of the client's while the server takes COPY data. Whether it is part of the COPY.
    pub(super) fn copy_input(
        &mut self,
        kind: Kind,
        frame: &Frame<'_>,
        turn: &mut Turn<'_, impl Sink>,
    ) -> bool {
        if !kind.is_silent() && kind != Kind::Sync {
            return false;
        }
        self.exchange.bytes_in = self.exchange.bytes_in.saturating_add(frame.wire);
        self.exchange.frontend_range.1 = frame.end();
        let whole = !frame.holed && !frame.truncated;
        self.input(kind, frame.body(), whole, frame.holed, turn);
        true
    }

    /// Sync and Flush are passed over by the server in a COPY from the client (`CopyGetData` in
    /// `src/backend/commands/copyfromparse.c`).
    fn input(&mut self, kind: Kind, body: &[u8], whole: bool, holed: bool, turn: &mut Turn<'_, impl Sink>) {
        self.run.touched |= holed;
        match kind {
            Kind::CopyData => self.copy_rows(body, whole, turn),
            Kind::CopyDone | Kind::CopyFail => {
                if kind == Kind::CopyDone {
                    self.last_copy_row(turn);
                }
                if let Some(copy) = &mut self.run.copy {
                    copy.input_over = true;
                }
            }
            _ => {}
        }
    }

    /// CopyData from the server.
    pub(super) fn copy_output(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(frame.wire);
        let whole = !frame.holed && !frame.truncated;
        if self.run.copy.as_ref().is_some_and(|copy| copy.side == CopySide::Server) {
            self.copy_rows(frame.body(), whole, turn);
        }
    }

    /// CopyDone from the server.
    pub(super) fn copy_output_over(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(frame.wire);
        self.last_copy_row(turn);
    }

    /// CopyData messages from the server that follow each other, each whole.
    pub(super) fn copy_messages(&mut self, messages: &[u8], turn: &mut Turn<'_, impl Sink>) {
        self.copy_pieces(bodies(messages), true, turn);
    }

    fn copy_rows(&mut self, data: &[u8], whole: bool, turn: &mut Turn<'_, impl Sink>) {
        self.copy_pieces([data].into_iter(), whole, turn);
    }

    /// COPY data; `whole` unless some of it is missing or not wanted.
    fn copy_pieces<'d>(
        &mut self,
        mut pieces: impl Iterator<Item = &'d [u8]>,
        whole: bool,
        turn: &mut Turn<'_, impl Sink>,
    ) {
        let Some((mut rows, mut copied)) = self.run.copy.as_mut().and_then(|copy| copy.take()) else {
            return;
        };
        let more = pieces.all(|data| rows.feed(data, |row| self.copy_row(row, &mut copied, turn)));
        self.hand_out(&mut copied, turn);
        // Past a limit, or a hole, rows cannot be told apart.
        if !whole || rows.held() > self.run.room(&self.limits) {
            self.run.truncated = true;
        } else if more && let Some(copy) = &mut self.run.copy {
            (copy.rows, copy.copied) = (Some(rows), copied);
        }
    }

    fn last_copy_row(&mut self, turn: &mut Turn<'_, impl Sink>) {
        if let Some((rows, mut copied)) = self.run.copy.as_mut().and_then(|copy| copy.take()) {
            rows.finish(|row| self.copy_row(row, &mut copied, turn));
            self.hand_out(&mut copied, turn);
        }
    }

    /// One row, which joins those that wait to be handed out together. Whether more are wanted.
    fn copy_row(&mut self, row: &CopyRow<'_>, copied: &mut Copied, turn: &mut Turn<'_, impl Sink>) -> bool {
        if self.run.rows == 0 {
            self.exchange.first_row_us = Some(turn.at.0.saturating_sub(self.exchange.started_at.0));
        }
        let (number, at) = (self.run.rows, copied.messages.len());
        let size = if row.len() <= LARGE { row.put(&mut copied.messages) } else { None };
        let Some(size) = size else { return self.large_copy_row(row, copied, turn) };
        let admitted = self.run.admit(size, &self.limits);
        if !admitted {
            copied.messages.truncate(at);
            return false;
        }
        if copied.count == 0 {
            (copied.first, copied.binary) = (number, row.is_binary());
        }
        copied.count += 1;
        if copied.messages.len() >= MOST_WAITING {
            self.hand_out(copied, turn);
        }
        true
    }

    /// A row that is not copied once more, behind those that wait.
    fn large_copy_row(
        &mut self,
        row: &CopyRow<'_>,
        copied: &mut Copied,
        turn: &mut Turn<'_, impl Sink>,
    ) -> bool {
        self.hand_out(copied, turn);
        let fields = row.fields();
        let fields: Vec<Option<&[u8]>> = fields.iter().map(Option::as_deref).collect();
        let number = self.run.rows;
        let size = fields.iter().flatten().map(|field| field.len()).sum();
        let admitted = self.run.admit(size, &self.limits);
        if admitted {
            let row = RowValues {
                seq: self.exchange.seq,
                row: number,
                sql: self.exchange.sql.as_ref(),
                started_at: self.exchange.started_at,
                columns: &[],
                values: Values::Fields { fields: &fields, binary: row.is_binary() },
            };
            turn.sink.row(turn.info, row);
        }
        admitted
    }

    /// Hands out the rows that wait.
    fn hand_out(&self, copied: &mut Copied, turn: &mut Turn<'_, impl Sink>) {
        if copied.count > 0 {
            let run = RowRun {
                seq: self.exchange.seq,
                first: copied.first,
                count: copied.count,
                sql: self.exchange.sql.as_ref(),
                started_at: self.exchange.started_at,
                columns: &[],
                copied: Some(copied.binary),
                messages: &copied.messages,
            };
            turn.sink.rows(turn.info, run);
        }
        copied.count = 0;
        copied.messages.clear();
    }
}

/// Bytes of a row that is copied once more, so that it can be handed out with others.
const LARGE: usize = 16 << 10;
/// Bytes of rows that wait for others.
const MOST_WAITING: usize = 64 << 10;
