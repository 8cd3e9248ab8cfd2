//! What was decided about a statement before it ran.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The word of the guardrail that decided about a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// What was decided.
    pub verdict: Verdict,
    /// The guardrail that decided; none if all of them let it pass.
    pub guardrail: Option<Arc<str>>,
    /// Who decided: `policy`, an approver by name and user id, `deadline`, `agent` or `shim`.
    pub decided_by: Option<Arc<str>>,
    /// How long the backend was held for it, in microseconds.
    pub held_us: u64,
}

/// What was decided about a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may run: no guardrail that stops statements caught it, or one failed open.
    Allowed,
    /// It must not run: a guardrail with `block` or `terminate` caught it, or one failed closed.
    Blocked,
    /// It may run: an approver said so.
    Approved,
    /// It must not run: an approver said so.
    Denied,
}

impl Verdict {
    /// Whether the server was kept from running the statement.
    pub fn stops(self) -> bool {
        matches!(self, Self::Blocked | Self::Denied)
    }
}
