//! What the recording rules mean for a session: limits, and orders to the kernel side.

use std::sync::Arc;
use std::time::Duration;

use capture_common::{ORDER_ARMED, ORDER_CLOSED, ORDER_GUARD_CLOSED, ORDER_GUARDS, ORDER_REQUIRED, Orders};

use crate::policy::{OnFailure, Policy, RecordRule, RowLimits, SessionFacts};
use crate::session::SessionInfo;

/// The rules that hold at the moment.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    policy: Arc<Policy>,
}

/// What the first rule that is about a session says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ruling {
    /// How much of each statement's rows is recorded.
    pub(super) results: RowLimits,
    /// Whether nothing but the session itself is recorded.
    pub(super) skip: bool,
    /// The rule's name.
    pub(super) name: Arc<str>,
    /// What the kernel side is to do if the ring has no room for its bytes.
    pub(super) orders: Orders,
}

impl Rules {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self { policy }
    }

    pub(super) fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Whether any statement must wait for a verdict.
    pub(super) fn guard_any(&self) -> bool {
        self.policy.guardrails().iter().any(|guardrail| guardrail.action.holds())
    }

    /// Whether any guardrail looks at statements.
    pub(super) fn watch_any(&self) -> bool {
        !self.policy.guardrails().is_empty()
    }

    /// Whether any recording is required.
    pub(super) fn require_any(&self) -> bool {
        self.required().next().is_some()
    }

    /// The orders for a session of which it is not known yet which rule is about it: those of every required rule, since
    /// it may be any of them.
    pub(super) fn default_orders(&self) -> Orders {
        let required = self.required().map(orders).fold(Orders::default(), |all, one| Orders {
            flags: all.flags | one.flags,
            wait_ms: all.wait_ms.max(one.wait_ms),
            ..all
        });
        let guards = if self.guard_any() { ORDER_GUARDS } else { 0 };
        let armed = self.armed(&SessionFacts::default());
        Orders { flags: required.flags | armed.flags | guards, guard_ms: armed.guard_ms, ..required }
    }

    /// Whether this session's statements wait for verdicts: the part of its orders that says so.
    pub(super) fn armed(&self, session: &SessionFacts) -> Orders {
        let Some(waits) = self.policy.waits(session) else { return Orders::default() };
        let closed = if waits.closed { ORDER_GUARD_CLOSED } else { 0 };
        Orders { flags: ORDER_ARMED | closed, guard_ms: millis(waits.timeout), ..Orders::default() }
    }

    /// What holds for this session, of which all is known that ever will be: the server has said ReadyForQuery.
    pub(super) fn ruling(&self, session: &SessionInfo) -> Ruling {
        let rule = self.policy.record_rule(&SessionFacts::of(session, true));
        let name = rule.name.as_str().into();
        Ruling { results: rule.results, skip: rule.skip, name, orders: orders(rule) }
    }

    fn required(&self) -> impl Iterator<Item = &RecordRule> {
        self.policy.record_rules().iter().filter(|rule| rule.required)
    }
}

fn orders(rule: &RecordRule) -> Orders {
    if !rule.required {
        return Orders::default();
    }
    let closed = if rule.on_failure == OnFailure::Closed { ORDER_CLOSED } else { 0 };
    Orders { flags: ORDER_REQUIRED | closed, wait_ms: millis(rule.timeout), ..Orders::default() }
}

fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture;
    use crate::session::Micros;

    fn rules(text: &str) -> Rules {
        Rules::new(Arc::new(Policy::compile(text, RowLimits::default()).unwrap()))
    }

    #[test]
    fn before_a_session_is_known_the_strictest_of_all_required_rules_holds() {
        assert_eq!(rules("").default_orders(), Orders::default());
        let rules = rules(
            "[[record]]\nmatch = 'session.user == \"a\"'\nrequired = true\non_failure = 'open'\ntimeout = '9s'\n\
             [[record]]\nmatch = 'session.user == \"b\"'\nrequired = true\non_failure = 'closed'\ntimeout = '3s'\n",
        );
        let expected = Orders { flags: ORDER_REQUIRED | ORDER_CLOSED, wait_ms: 9_000, ..Orders::default() };
        assert_eq!(rules.default_orders(), expected);
        let session = fixture::session(1, Micros(0));
        assert_eq!(rules.ruling(&session).orders, Orders::default());
    }
}
