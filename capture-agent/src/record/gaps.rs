//! Rows of `gaps`: what the streams lost, and what the disk did.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringArray, StringBuilder};
use arrow::error::ArrowError;

use super::labels::{append_display, constant, text_bytes};
use super::loss::{Loss, Stake};
use super::sessions::{number, times};
use super::table::Table;
use crate::session::{Direction, Gap, GapReason, SessionId};

/// Builds the table `gaps`.
#[derive(Debug)]
pub(super) struct Gaps {
    session_id: StringBuilder,
    direction: Vec<&'static str>,
    offset: Int64Builder,
    length: Int64Builder,
    at: Vec<i64>,
    reason: Vec<&'static str>,
    lost_table: StringBuilder,
    lost_rows: Int64Builder,
    first_seq: Int64Builder,
    last_seq: Int64Builder,
    stake: Stake,
}

impl Gaps {
    pub(super) fn new() -> Self {
        Self {
            session_id: StringBuilder::new(),
            direction: Vec::new(),
            offset: Int64Builder::new(),
            length: Int64Builder::new(),
            at: Vec::new(),
            reason: Vec::new(),
            lost_table: StringBuilder::new(),
            lost_rows: Int64Builder::new(),
            first_seq: Int64Builder::new(),
            last_seq: Int64Builder::new(),
            stake: Stake::default(),
        }
    }

    /// Appends a stretch of a stream that is missing.
    pub(super) fn append(&mut self, session: SessionId, gap: &Gap) {
        append_display(&mut self.session_id, session.0.hyphenated());
        self.direction.push(direction(gap.direction));
        self.offset.append_value(number(gap.offset));
        self.length.append_value(number(gap.length));
        self.at.push(gap.at.0);
        self.reason.push(match gap.reason {
            GapReason::RingFull => "ring_full",
            GapReason::Unreadable => "unreadable",
            GapReason::Oversize => "oversize",
            GapReason::Resync => "resync",
            GapReason::ProtocolError => "protocol_error",
            GapReason::Encrypted => "encrypted",
            GapReason::AgentStopped => "agent_stopped",
        });
        self.lost_table.append_null();
        self.lost_rows.append_null();
        self.first_seq.append_null();
        self.last_seq.append_null();
        self.stake.note(Loss {
            session: Some(session),
            table: Table::Gaps,
            direction: gap.direction,
            range: Some((gap.offset, gap.offset.saturating_add(gap.length))),
            statements: None,
            rows: 1,
            at: gap.at,
        });
    }

    /// Appends rows that were captured but not stored.
    pub(super) fn append_loss(&mut self, loss: Loss) {
        match loss.session {
            Some(id) => append_display(&mut self.session_id, id.0.hyphenated()),
            None => self.session_id.append_null(),
        }
        self.direction.push(direction(loss.direction));
        self.offset.append_option(loss.range.map(|(start, _)| number(start)));
        self.length.append_option(loss.range.map(|(start, end)| number(end.saturating_sub(start))));
        self.at.push(loss.at.0);
        self.reason.push("storage");
        self.lost_table.append_value(loss.table.name());
        self.lost_rows.append_value(number(loss.rows));
        self.first_seq.append_option(loss.statements.map(|(first, _)| number(first)));
        self.last_seq.append_option(loss.statements.map(|(_, last)| number(last)));
        // If this row is lost too, what it declares is to be declared again.
        self.stake.note(loss);
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// Memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        text_bytes(&self.session_id) + self.len() * 120
    }

    /// The rows, and an empty table in their place.
    pub(super) fn finish(&mut self, node: &str) -> Result<RecordBatch, ArrowError> {
        let rows = self.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.session_id.finish()),
            Arc::new(StringArray::from_iter_values(self.direction.drain(..))),
            Arc::new(self.offset.finish()),
            Arc::new(self.length.finish()),
            times(&mut self.at),
            Arc::new(StringArray::from_iter_values(self.reason.drain(..))),
            constant(node, rows),
            Arc::new(self.lost_table.finish()),
            Arc::new(self.lost_rows.finish()),
            Arc::new(self.first_seq.finish()),
            Arc::new(self.last_seq.finish()),
        ];
        RecordBatch::try_new(Table::Gaps.schema(), columns)
    }

    /// What is lost if the rows that were finished are.
    pub(super) fn take_stake(&mut self) -> Vec<Loss> {
        self.stake.take()
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Frontend => "frontend",
        Direction::Backend => "backend",
    }
}
