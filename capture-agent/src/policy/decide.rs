//! What a policy says of a session and of a statement.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Policy;
use super::condition::{Condition, Fault, Missing, Outcome};
use super::facts::{SessionFacts, StatementFacts};
use super::fields::Field;
use super::rule::{Action, Guardrail, OnFailure, OnUnknown, RecordRule};
use crate::sql::Opinions;

/// What happens to a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// What is done.
    pub verdict: Verdict,
    /// The guardrail that says so: its message, its deadline, what holds if it fails. None if the statement is
    /// allowed.
    pub guardrail: Option<Arc<Guardrail>>,
    /// Why that guardrail caught the statement.
    pub reason: Option<Reason>,
    /// The guardrails with `observe` and `alert` that caught it, in the file's order.
    pub observed: Vec<Observed>,
    /// Whether a guardrail waits for the parameters: the statement must be decided again with each Bind.
    pub later: bool,
}

/// What is done with a statement, from the mildest to the strictest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It runs.
    #[default]
    Allow,
    /// It is held until somebody approves it.
    Approve,
    /// It fails with an error.
    Block,
    /// The session ends before it runs.
    Terminate,
}

/// Why a guardrail caught a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its conditions are true.
    True,
    /// They depend on what is not known, and the guardrail's `on_unknown` is `block`.
    Unknown,
    /// They have no value, and the guardrail's `on_failure` is `closed`.
    Failed(Fault),
}

/// A guardrail that only watches, and caught a statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Which.
    pub guardrail: Arc<Guardrail>,
    /// Why.
    pub reason: Reason,
}

/// How a session's statements wait for their verdicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Whether the session ends if no verdict comes in time; else it goes on.
    pub closed: bool,
    /// What is in time.
    pub timeout: Duration,
}

/// What the decisions about a session depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The parameters: each Execute must be decided, not each text.
    pub params: bool,
    /// What a statement does, and so another parser's word on it.
    pub opinions: Opinions,
}

/// What one guardrail says of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    pub(super) matching: Outcome,
    /// None if the session is none of the guardrail's.
    pub(super) when: Option<Outcome>,
    /// Why it caught the statement; none if it did not.
    pub(super) reason: Option<Reason>,
    /// Whether it waits for the parameters.
    pub(super) later: bool,
}

impl Policy {
    /// The rule that says what of a session is recorded: the first one that is about it.
    ///
    /// To be asked once the session's identity is known, or when it is known that it never will be. A rule that depends
    /// on what is not known is passed over, since recording more is the lesser harm; a required one is taken.
    pub fn record_rule(&self, session: &SessionFacts) -> &RecordRule {
        let rule = self.records.iter().find(|rule| rule_takes(rule, session));
        // The last rule is about all sessions.
        rule.unwrap_or_else(|| &self.records[self.records.len() - 1])
    }

    /// How this session's statements wait for their verdicts; none if they need not.
    pub fn waits(&self, session: &SessionFacts) -> Option<Waits> {
        let mut waits = None;
        for guardrail in self.guardrails.iter().filter(|guardrail| guardrail.action.holds()) {
            if outcome(guardrail.matching.as_ref(), session, None) == Outcome::False {
                continue;
            }
            let Waits { closed, timeout } = waits.unwrap_or_default();
            // An approver is asked once the decision is there.
            let own = if guardrail.action == Action::Approve { Duration::ZERO } else { guardrail.timeout };
            waits = Some(Waits {
                closed: closed || guardrail.on_failure == OnFailure::Closed,
                timeout: timeout.max(own).max(LEAST_WAIT),
            });
        }
        waits
    }

    /// Whether any guardrail may be about this session's statements, also one that only watches.
    pub fn watches(&self, session: &SessionFacts) -> bool {
        self.guardrails
            .iter()
            .any(|guardrail| outcome(guardrail.matching.as_ref(), session, None) != Outcome::False)
    }

    /// What decisions about this session's statements depend on.
    pub fn needs(&self, session: &SessionFacts) -> Needs {
        let mut needs = Needs { params: false, opinions: Opinions::One };
        for guardrail in &self.guardrails {
            if outcome(guardrail.matching.as_ref(), session, None) == Outcome::False {
                continue;
            }
            let Some(when) = &guardrail.when else { continue };
            needs.params |= when.reads().contains(&Field::Params);
            if when.reads().iter().any(|field| field.is_analyzed()) {
                needs.opinions = Opinions::Two;
            }
        }
        needs
    }

    /// What happens to a statement: the strictest action of all guardrails that catch it; of several such, the first
    /// guardrail's.
    pub fn decide(&self, session: &SessionFacts, stmt: &StatementFacts) -> Decision {
        let mut decision = Decision::allow();
        for guardrail in &self.guardrails {
            let judgement = judge(guardrail, session, Some(stmt));
            decision.later |= judgement.later;
            if let Some(reason) = judgement.reason {
                decision.note(guardrail, reason);
            }
        }
        decision
    }
}

impl Decision {
    pub(super) fn allow() -> Self {
        Self { verdict: Verdict::Allow, guardrail: None, reason: None, observed: Vec::new(), later: false }
    }

    /// A guardrail caught the statement.
    pub(super) fn note(&mut self, guardrail: &Arc<Guardrail>, reason: Reason) {
        let verdict = match guardrail.action {
            Action::Observe | Action::Alert => {
                self.observed.push(Observed { guardrail: Arc::clone(guardrail), reason });
                return;
            }
            Action::Approve => Verdict::Approve,
            Action::Block => Verdict::Block,
            Action::Terminate => Verdict::Terminate,
        };
        if verdict > self.verdict {
            self.verdict = verdict;
            self.guardrail = Some(Arc::clone(guardrail));
            self.reason = Some(reason);
        }
    }
}

/// What one guardrail says; of a statement that is not known, if none is given.
pub(super) fn judge(
    guardrail: &Guardrail,
    session: &SessionFacts,
    stmt: Option<&StatementFacts>,
) -> Judgement {
    let matching = outcome(guardrail.matching.as_ref(), session, None);
    if matching == Outcome::False {
        return Judgement { matching, when: None, reason: None, later: false };
    }
    let when = outcome(guardrail.when.as_ref(), session, stmt);
    let both = both(matching.clone(), when.clone());
    let mut later = false;
    let reason = match both {
        Outcome::True => Some(Reason::True),
        Outcome::False => None,
        // The statement cannot run before its parameters come: it is decided then.
        Outcome::Unknown(missing) if missing.is(Missing::LATER) => {
            later = true;
            None
        }
        Outcome::Unknown(_) => (guardrail.on_unknown == OnUnknown::Block).then_some(Reason::Unknown),
        // A condition that cannot be computed says nothing: a client that could bring that about would otherwise turn
        // the guardrail off.
        Outcome::Failed(fault) => {
            (guardrail.on_failure == OnFailure::Closed).then_some(Reason::Failed(fault))
        }
    };
    Judgement { matching, when: Some(when), reason, later }
}

fn both(a: Outcome, b: Outcome) -> Outcome {
    match (a, b) {
        (Outcome::False, _) | (_, Outcome::False) => Outcome::False,
        (Outcome::Unknown(a), Outcome::Unknown(b)) => Outcome::Unknown(a | b),
        (unknown @ Outcome::Unknown(_), _) | (_, unknown @ Outcome::Unknown(_)) => unknown,
        (failed @ Outcome::Failed(_), _) | (_, failed @ Outcome::Failed(_)) => failed,
        (Outcome::True, Outcome::True) => Outcome::True,
    }
}

/// What a condition says; true if there is none.
pub(super) fn outcome(
    condition: Option<&Condition>,
    session: &SessionFacts,
    stmt: Option<&StatementFacts>,
) -> Outcome {
    condition.map_or(Outcome::True, |condition| condition.outcome(session, stmt))
}

/// A decision takes microseconds; an agent that is restarted, some seconds.
const LEAST_WAIT: Duration = Duration::from_secs(5);

/// Whether a recording rule is about a session.
pub(super) fn rule_takes(rule: &RecordRule, session: &SessionFacts) -> bool {
    match outcome(rule.matching.as_ref(), session, None) {
        Outcome::True => true,
        Outcome::False => false,
        Outcome::Unknown(_) | Outcome::Failed(_) => rule.required,
    }
}
