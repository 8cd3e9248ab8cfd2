//! What passes from the capture thread to the thread that makes events.

use std::sync::Arc;

use crate::record::Decision;
use crate::session::{Exchange, Judged, Micros, Protocol, SessionInfo, SqlState, Status, Tag};
use crate::sql::Analysis;

/// A transaction of the recorder: what came to be in it, and where it ends in the journal.
#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) items: Vec<Item>,
    pub(super) end: u64,
    /// Memory that the items hold, about.
    pub(super) bytes: usize,
    /// What found no room before them.
    pub(super) missed: Missed,
}

/// What was recorded, and where it stands in the journal.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) at: u64,
    pub(super) session: Option<SessionInfo>,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Statement(Box<Statement>),
    Decision(Box<Decision>),
}

/// What is told of a statement: neither parameters nor rows.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) seq: u64,
    pub(super) started_at: Micros,
    pub(super) duration_us: Option<i64>,
    pub(super) protocol: Protocol,
    pub(super) sql: Option<Arc<str>>,
    pub(super) rows: Option<u64>,
    pub(super) command_tag: Option<Tag>,
    pub(super) status: Status,
    pub(super) sqlstate: Option<SqlState>,
    pub(super) error_message: Option<String>,
    pub(super) bytes_out: u64,
    pub(super) complete: bool,
    pub(super) judged: Option<Arc<Judged>>,
    pub(super) analysis: Option<Arc<Analysis>>,
}

/// How many were not handed over, of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missed {
    pub(super) statements: u64,
    pub(super) decisions: u64,
}

impl Item {
    pub(super) fn statement(
        at: u64,
        session: &SessionInfo,
        exchange: &Exchange,
        analysis: Option<&Arc<Analysis>>,
    ) -> Self {
        let statement = Statement {
            seq: exchange.seq,
            started_at: exchange.started_at,
            duration_us: exchange.duration_us,
            protocol: exchange.protocol,
            sql: exchange.sql.clone(),
            rows: exchange.rows,
            command_tag: exchange.command_tag.clone(),
            status: exchange.status,
            sqlstate: exchange.sqlstate,
            error_message: exchange.error_message.clone(),
            bytes_out: exchange.bytes_out,
            complete: exchange.complete,
            judged: exchange.judged.clone(),
            analysis: analysis.cloned(),
        };
        Self { at, session: Some(session.clone()), body: Body::Statement(Box::new(statement)) }
    }

    pub(super) fn decision(at: u64, session: Option<&SessionInfo>, decision: &Decision) -> Self {
        Self { at, session: session.cloned(), body: Body::Decision(Box::new(decision.clone())) }
    }

    /// Memory that it holds, about; a text that others hold too counts as well.
    pub(super) fn bytes(&self) -> usize {
        BASE_BYTES
            + match &self.body {
                Body::Statement(statement) => {
                    statement.sql.as_ref().map_or(0, |text| text.len())
                        + statement.error_message.as_ref().map_or(0, String::len)
                }
                Body::Decision(decision) => decision.sql.as_ref().map_or(0, |text| text.len()),
            }
    }
}

impl Missed {
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Adds what `item` is.
    pub(super) fn note(&mut self, item: &Item) {
        match item.body {
            Body::Statement(_) => self.statements += 1,
            Body::Decision(_) => self.decisions += 1,
        }
    }
}

/// A session's and a statement's facts without their texts.
const BASE_BYTES: usize = 1_000;
