//! Why a policy decides as it does, for people.

use serde::Serialize;

use super::condition::{Condition, Missing, Outcome};
use super::decide::{Judgement, Reason, Verdict, judge, outcome, rule_takes};
use super::facts::{SessionFacts, StatementFacts};
use super::rule::{Action, RowLimits};
use super::{Decision, Policy};

/// What would happen to a session and a statement, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// Each recording rule up to the one that is taken, the last of the list.
    pub records: Vec<RuleReport>,
    /// Each guardrail.
    pub guardrails: Vec<GuardrailReport>,
    /// What is done with the statement.
    pub verdict: Verdict,
    /// By which guardrail.
    pub guardrail: Option<String>,
    /// What the client would be told.
    pub message: Option<String>,
    /// Whether a guardrail waits for the parameters.
    pub later: bool,
}

/// What became of a recording rule.
#[derive(Clone, Debug, Serialize)]
pub struct RuleReport {
    /// Its name.
    pub name: String,
    /// Its `match`.
    #[serde(rename = "match")]
    pub matching: Option<ConditionReport>,
    /// Whether it is taken.
    pub taken: bool,
    /// What it says of rows.
    pub results: RowLimits,
    /// Whether it skips the session.
    pub skip: bool,
    /// Whether the record is required.
    pub required: bool,
}

/// What became of a guardrail.
#[derive(Clone, Debug, Serialize)]
pub struct GuardrailReport {
    /// Its name.
    pub name: String,
    /// Its action.
    pub action: Action,
    /// Its `match`; none if it is about all sessions.
    #[serde(rename = "match")]
    pub matching: Option<ConditionReport>,
    /// Its `when`; none if it is about all statements, or the session is none of its.
    pub when: Option<ConditionReport>,
    /// What it does.
    pub effect: Effect,
}

/// What a condition says.
#[derive(Clone, Debug, Serialize)]
pub struct ConditionReport {
    /// The condition.
    pub condition: String,
    /// `true`, `false`, or why it is neither.
    pub says: String,
}

/// What a guardrail does with a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing.
    Passes,
    /// It catches the statement.
    Catches,
    /// It catches it because of what is not known.
    CatchesUnknown,
    /// It catches it because a condition cannot be computed.
    CatchesFailed,
    /// It waits for the parameters.
    Waits,
}

impl Policy {
    /// What would happen to a session and to a statement of it, and why. Without a statement, what is said of
    /// statements is unknown.
    pub fn explain(&self, session: &SessionFacts, stmt: Option<&StatementFacts>) -> Explanation {
        let mut decision = Decision::allow();
        let mut guardrails = Vec::with_capacity(self.guardrails.len());
        for guardrail in &self.guardrails {
            let judgement = judge(guardrail, session, stmt);
            let matching =
                guardrail.matching.as_ref().map(|condition| report(condition, &judgement.matching, stmt));
            let when = guardrail.when.as_ref().zip(judgement.when.as_ref());
            let when = when.map(|(condition, outcome)| report(condition, outcome, stmt));
            guardrails.push(GuardrailReport {
                name: guardrail.name.clone(),
                action: guardrail.action,
                matching,
                when,
                effect: effect(&judgement),
            });
            decision.later |= judgement.later;
            if let Some(reason) = judgement.reason {
                decision.note(guardrail, reason);
            }
        }
        Explanation {
            records: self.rules(session),
            guardrails,
            verdict: decision.verdict,
            message: decision.guardrail.as_ref().and_then(|guardrail| guardrail.message.clone()),
            guardrail: decision.guardrail.map(|guardrail| guardrail.name.clone()),
            later: decision.later,
        }
    }

    fn rules(&self, session: &SessionFacts) -> Vec<RuleReport> {
        let mut reports = Vec::new();
        for rule in &self.records {
            let taken = rule_takes(rule, session);
            let says = outcome(rule.matching.as_ref(), session, None);
            reports.push(RuleReport {
                name: rule.name.clone(),
                matching: rule.matching.as_ref().map(|condition| report(condition, &says, None)),
                taken,
                results: rule.results,
                skip: rule.skip,
                required: rule.required,
            });
            if taken {
                break;
            }
        }
        reports
    }
}

fn effect(judgement: &Judgement) -> Effect {
    match &judgement.reason {
        Some(Reason::True) => Effect::Catches,
        Some(Reason::Unknown) => Effect::CatchesUnknown,
        Some(Reason::Failed(_)) => Effect::CatchesFailed,
        None if judgement.later => Effect::Waits,
        None => Effect::Passes,
    }
}

fn report(condition: &Condition, outcome: &Outcome, stmt: Option<&StatementFacts>) -> ConditionReport {
    let says = match outcome {
        Outcome::True => "true".to_owned(),
        Outcome::False => "false".to_owned(),
        Outcome::Unknown(missing) => unknown(*missing, stmt),
        Outcome::Failed(fault) => format!("cannot be computed: {fault}"),
    };
    ConditionReport { condition: condition.source().to_owned(), says }
}

fn unknown(missing: Missing, stmt: Option<&StatementFacts>) -> String {
    let mut reasons = Vec::new();
    if missing.is(Missing::SESSION) {
        reasons.push("a field of the session is not known".to_owned());
    }
    if missing.is(Missing::STATEMENT) {
        match stmt {
            Some(stmt) => reasons.push(stmt.unknown.clone()),
            None => reasons.push("no statement is given".to_owned()),
        }
    }
    if missing.is(Missing::LATER) {
        reasons.push("the parameters are not known yet".to_owned());
    }
    format!("unknown: {}", reasons.join("; "))
}
