//! What was decided, as the table `decisions` tells it.

use std::sync::Arc;

use crate::policy::Action;
use crate::session::Micros;
use crate::telemetry::metrics::{self, Metric};

/// One row of `decisions`. Whose session it is about, the recorder is told beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// When it was decided.
    pub at: Micros,
    /// What kind of decision it is.
    pub kind: DecisionKind,
    /// The statement's number in its session, if it is known.
    pub seq: Option<u64>,
    /// The guardrail that decided.
    pub guardrail: Option<Arc<str>>,
    /// What that guardrail does with what it catches.
    pub action: Option<Action>,
    /// What was decided about a statement.
    pub verdict: Option<Outcome>,
    /// Why: see `docs/schema.md`.
    pub reason: Option<String>,
    /// Who decided: `policy`, an approver by name and user id, `deadline`, `agent` or `shim`.
    pub decided_by: Option<Arc<str>>,
    /// How long the backend was held for it, in microseconds; none if it was not held.
    pub held_us: Option<u64>,
    /// The text that was decided about; its first [`Decision::MOST_SQL`] bytes are recorded.
    pub sql: Option<Arc<str>>,
    /// What the client was told, or the approver's reason.
    pub message: Option<String>,
}

/// Kinds of decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionKind {
    /// A guardrail caught a statement, or a statement was held.
    Verdict,
    /// A recording rule leaves a session out of the record.
    RecordingSkipped,
    /// A policy holds from now on.
    PolicyLoaded,
    /// A new policy is wrong, and the old one stays.
    PolicyRefused,
    /// More of the record waits to be uploaded than may, or no longer.
    UploadBacklog,
}

/// What was decided about a statement, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was held, and ran.
    Allowed,
    /// A guardrail with `observe` caught it; it ran.
    Observed,
    /// A guardrail with `alert` caught it; it ran, and somebody was told.
    Alerted,
    /// It failed with an error instead.
    Blocked,
    /// An approver let it run.
    Approved,
    /// An approver did not.
    Denied,
    /// Its session was ended before it ran.
    Terminated,
    /// Nobody could decide, and it ran.
    FailedOpen,
    /// Nobody could decide, and it did not run.
    FailedClosed,
}

impl Decision {
    /// A decision of this kind, of which nothing else is known.
    pub fn new(kind: DecisionKind, at: Micros) -> Self {
        Self {
            at,
            kind,
            seq: None,
            guardrail: None,
            action: None,
            verdict: None,
            reason: None,
            decided_by: None,
            held_us: None,
            sql: None,
            message: None,
        }
    }

    /// Bytes of a text that are recorded: what is analysed of one. `statements` has it whole.
    pub const MOST_SQL: usize = 1 << 20;

    /// The text, as far as it is recorded.
    pub(super) fn recorded_sql(&self) -> Option<&str> {
        let sql = self.sql.as_deref()?;
        sql.get(..sql.floor_char_boundary(Self::MOST_SQL))
    }
}

impl DecisionKind {
    pub(in crate::record) const ALL: [Self; 5] =
        [Self::Verdict, Self::RecordingSkipped, Self::PolicyLoaded, Self::PolicyRefused, Self::UploadBacklog];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::RecordingSkipped => "recording_skipped",
            Self::PolicyLoaded => "policy_loaded",
            Self::PolicyRefused => "policy_refused",
            Self::UploadBacklog => "upload_backlog",
        }
    }
}

impl Outcome {
    pub(in crate::record) const ALL: [Self; 9] = [
        Self::Allowed,
        Self::Observed,
        Self::Alerted,
        Self::Blocked,
        Self::Approved,
        Self::Denied,
        Self::Terminated,
        Self::FailedOpen,
        Self::FailedClosed,
    ];

    /// The metric that counts it.
    pub(super) fn metric(self) -> Option<&'static Metric> {
        Some(match self {
            Self::Allowed => return None,
            Self::Observed => &metrics::OBSERVED,
            Self::Alerted => &metrics::ALERTED,
            Self::Blocked => &metrics::VERDICT_BLOCKED,
            Self::Approved => &metrics::APPROVED,
            Self::Denied => &metrics::DENIED,
            Self::Terminated => &metrics::TERMINATED,
            Self::FailedOpen => &metrics::FAILED_OPEN,
            Self::FailedClosed => &metrics::FAILED_CLOSED,
        })
    }

    /// Its word in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Observed => "observed",
            Self::Alerted => "alerted",
            Self::Blocked => "blocked",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Terminated => "terminated",
            Self::FailedOpen => "failed_open",
            Self::FailedClosed => "failed_closed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut decision = Decision::new(DecisionKind::Verdict, Micros(0));
        assert_eq!(decision.recorded_sql(), None);
        decision.sql = Some("select 'é'".into());
        assert_eq!(decision.recorded_sql(), Some("select 'é'"));
        decision.sql = Some(format!("x{}", "é".repeat(Decision::MOST_SQL)).into());
        assert_eq!(decision.recorded_sql().map(str::len), Some(Decision::MOST_SQL - 1));
    }
}
