//! Rows of `decisions`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringArray, StringBuilder};
use arrow::error::ArrowError;

use super::decision::{Decision, Outcome};
use super::labels::{Labels, append_display, constant, text_bytes};
use super::loss::{Loss, Stake};
use super::sessions::{number, times};
use super::table::Table;
use crate::session::{Direction, SessionInfo};

/// Builds the table `decisions`.
#[derive(Debug)]
pub(super) struct Decisions {
    at: Vec<i64>,
    kind: Vec<&'static str>,
    session_id: StringBuilder,
    seq: Int64Builder,
    pg_user: StringBuilder,
    database: StringBuilder,
    application_name: StringBuilder,
    client_addr: StringBuilder,
    guardrail: StringBuilder,
    action: StringBuilder,
    verdict: Vec<Option<&'static str>>,
    reason: StringBuilder,
    decided_by: StringBuilder,
    held_us: Int64Builder,
    sql: StringBuilder,
    message: StringBuilder,
    stake: Stake,
}

impl Decisions {
    pub(super) fn new() -> Self {
        Self {
            at: Vec::new(),
            kind: Vec::new(),
            session_id: StringBuilder::new(),
            seq: Int64Builder::new(),
            pg_user: StringBuilder::new(),
            database: StringBuilder::new(),
            application_name: StringBuilder::new(),
            client_addr: StringBuilder::new(),
            guardrail: StringBuilder::new(),
            action: StringBuilder::new(),
            verdict: Vec::new(),
            reason: StringBuilder::new(),
            decided_by: StringBuilder::new(),
            held_us: Int64Builder::new(),
            sql: StringBuilder::new(),
            message: StringBuilder::new(),
            stake: Stake::default(),
        }
    }

    /// Appends a decision; about a session, if one is given.
    pub(super) fn append(&mut self, session: Option<(&Labels, &SessionInfo)>, decision: &Decision) {
        self.at.push(decision.at.0);
        self.kind.push(decision.kind.name());
        self.append_session(session);
        self.seq.append_option(decision.seq.map(number));
        self.guardrail.append_option(decision.guardrail.as_deref());
        match decision.action {
            Some(action) => append_display(&mut self.action, action),
            None => self.action.append_null(),
        }
        self.verdict.push(decision.verdict.map(Outcome::name));
        self.reason.append_option(decision.reason.as_deref());
        self.decided_by.append_option(decision.decided_by.as_deref());
        self.held_us.append_option(decision.held_us.map(number));
        self.sql.append_option(decision.recorded_sql());
        self.message.append_option(decision.message.as_deref());
        self.stake.note(Loss {
            session: session.map(|(_, session)| session.origin.id),
            table: Table::Decisions,
            direction: Direction::Frontend,
            range: None,
            statements: decision.seq.map(|seq| (seq, seq)),
            rows: 1,
            at: decision.at,
        });
    }

    fn append_session(&mut self, session: Option<(&Labels, &SessionInfo)>) {
        let Some((labels, session)) = session else {
            for column in [
                &mut self.session_id,
                &mut self.pg_user,
                &mut self.database,
                &mut self.application_name,
                &mut self.client_addr,
            ] {
                column.append_null();
            }
            return;
        };
        let origin = &session.origin;
        self.session_id.append_value(labels.id());
        self.pg_user.append_option(session.user.as_deref().or(origin.user.as_deref()));
        self.database.append_option(session.database.as_deref().or(origin.database.as_deref()));
        self.application_name.append_option(session.application_name.as_deref());
        self.client_addr.append_option(labels.client_addr.as_deref());
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// Memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.sql, &self.message, &self.reason, &self.session_id];
        texts.map(text_bytes).iter().sum::<usize>() + self.len() * 200
    }

    /// The rows, and an empty table in their place.
    pub(super) fn finish(&mut self, node: &str) -> Result<RecordBatch, ArrowError> {
        let rows = self.len();
        let columns: Vec<ArrayRef> = vec![
            constant(node, rows),
            times(&mut self.at),
            Arc::new(StringArray::from_iter_values(self.kind.drain(..))),
            Arc::new(self.session_id.finish()),
            Arc::new(self.seq.finish()),
            Arc::new(self.pg_user.finish()),
            Arc::new(self.database.finish()),
            Arc::new(self.application_name.finish()),
            Arc::new(self.client_addr.finish()),
            Arc::new(self.guardrail.finish()),
            Arc::new(self.action.finish()),
            Arc::new(self.verdict.drain(..).collect::<StringArray>()),
            Arc::new(self.reason.finish()),
            Arc::new(self.decided_by.finish()),
            Arc::new(self.held_us.finish()),
            Arc::new(self.sql.finish()),
            Arc::new(self.message.finish()),
        ];
        RecordBatch::try_new(Table::Decisions.schema(), columns)
    }

    /// What is lost if the rows that were finished are.
    pub(super) fn take_stake(&mut self) -> Vec<Loss> {
        self.stake.take()
    }
}
