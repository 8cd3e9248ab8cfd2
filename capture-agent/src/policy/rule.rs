//! Guardrails and recording rules.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::condition::Condition;

/// A rule about statements.
#[derive(Clone, Debug, PartialEq)]
pub struct Guardrail {
    /// Its name, unique in the policy.
    pub name: String,
    /// What happens to a statement that it catches.
    pub action: Action,
    /// What the client is told.
    pub message: Option<String>,
    /// Whether it catches what cannot be known.
    pub on_unknown: OnUnknown,
    /// What happens to a statement that it caught, or may have caught, when nobody can decide.
    pub on_failure: OnFailure,
    /// How long a statement may be held for it.
    pub timeout: Duration,
    /// What an approval may cover; of the action `approve` only.
    pub approval: Approval,
    /// How many other sessions a statement that is held may block before it is treated as a failure; any number if
    /// none.
    pub max_blocked: Option<u32>,
    /// Of which sessions; all if none.
    pub(super) matching: Option<Condition>,
    /// Of which statements; all if none.
    pub(super) when: Option<Condition>,
}

/// What a guardrail does, from the mildest to the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Notes that it would have caught the statement.
    Observe,
    /// Notes it, and tells somebody.
    Alert,
    /// Holds the statement until somebody approves it.
    Approve,
    /// Lets it fail with an error.
    Block,
    /// Ends the session before the statement runs.
    Terminate,
}

/// Whether a guardrail catches what cannot be known: a statement that no parser can vouch for, or a field of the
/// session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// It does not.
    Allow,
    /// It does, as if its conditions were true.
    #[default]
    Block,
}

/// What happens when it cannot be decided: an agent or approver that is not there, a deadline that has passed, a
/// condition without a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The statement runs.
    Open,
    /// It does not.
    #[default]
    Closed,
}

/// What an approval may cover beyond the statement that is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Approval {
    /// The same text in the same session, until the session ends.
    pub text: bool,
    /// Everything that this guardrail catches in the session, for at most this long.
    pub at_most: Option<Duration>,
}

/// A rule about what of a session is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordRule {
    /// Its name, unique in the policy.
    pub name: String,
    /// Its place among the file's rules, from 0; none for the default.
    pub index: Option<usize>,
    /// How much of each statement's rows is recorded.
    pub results: RowLimits,
    /// Whether nothing of the session is recorded but that it was skipped.
    pub skip: bool,
    /// Whether no statement may run whose record is lost.
    pub required: bool,
    /// How long a session may be held until its record is safe; of required rules.
    pub timeout: Duration,
    /// What happens after that; of required rules.
    pub on_failure: OnFailure,
    /// Of which sessions; all if none.
    pub(super) matching: Option<Condition>,
}

/// How much of each statement's rows is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RowLimits {
    /// Rows.
    pub rows: u64,
    /// Bytes of their messages.
    pub bytes: u64,
}

impl RowLimits {
    /// Nothing but their number.
    pub const NONE: Self = Self { rows: 0, bytes: 0 };
    /// All of them.
    pub const FULL: Self = Self { rows: u64::MAX, bytes: u64::MAX };
}

impl Default for RowLimits {
    /// `docs/defaults.md` says why.
    fn default() -> Self {
        Self { rows: 10_000, bytes: 16 << 20 }
    }
}

impl Action {
    /// Whether statements wait for its word.
    pub fn holds(self) -> bool {
        self >= Self::Approve
    }

    /// How long a statement may be held, if the guardrail does not say: a decision takes milliseconds, an approver
    /// minutes.
    pub(super) fn timeout(self) -> Duration {
        if self == Self::Approve { Duration::from_secs(300) } else { Duration::from_secs(5) }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Observe => "observe",
            Self::Alert => "alert",
            Self::Approve => "approve",
            Self::Block => "block",
            Self::Terminate => "terminate",
        })
    }
}

impl RecordRule {
    /// What holds for sessions that no rule is about.
    pub(super) fn otherwise(results: RowLimits) -> Self {
        Self {
            name: "default".to_owned(),
            index: None,
            results,
            skip: false,
            required: false,
            timeout: REQUIRED_TIMEOUT,
            on_failure: OnFailure::default(),
            matching: None,
        }
    }
}

/// How long a session may be held until its record is safe, if the rule does not say.
pub(super) const REQUIRED_TIMEOUT: Duration = Duration::from_secs(5);
