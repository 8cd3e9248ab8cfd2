//! Verdicts on what clients ask for: from a held backend to the word that lets it go on.

use std::sync::Arc;

use capture_common::{HOLD_ASTRAY, Hold, SessionKey};
use tracing::{info, warn};

use super::approving::{Approving, Waiting};
use super::decisions;
use super::sessions::Sessions;
use crate::config::Config;
use crate::enforce::{Backends, By, Case, Done, Guard, act};
use crate::policy::{Action, Guardrail, Policy, Verdict};
use crate::probes::{Kernel, monotonic_now};
use crate::record::{Outcome, Recorder};
use crate::session::{self, Judged, SessionId, SessionInfo};

/// Decides, acts, and sees to what was missed.
pub(super) struct Verdicts {
    guard: Guard,
    /// Asks approvers; none as long as no guardrail wants that.
    approving: Option<Approving>,
    /// When holds were last looked through that nobody has decided.
    looked: u64,
}

/// What a verdict needs of the capture thread.
pub(super) struct Hands<'a> {
    pub(super) kernel: &'a mut Kernel,
    pub(super) sessions: &'a mut Sessions,
    pub(super) backends: Option<&'a mut Backends>,
    pub(super) recorder: &'a mut Recorder,
}

impl Verdicts {
    pub(super) fn new(policy: Arc<Policy>) -> Self {
        Self { guard: Guard::new(policy), approving: None, looked: 0 }
    }

    /// Decides as `policy` says from now on.
    pub(super) fn set_policy(&mut self, policy: Arc<Policy>) {
        self.guard = Guard::new(policy);
    }

    /// Asks approvers from now on, if the policy wants that.
    ///
    /// # Errors
    ///
    /// Nobody can be asked.
    pub(super) fn prepare(
        &mut self,
        policy: &Policy,
        config: &Config,
        kernel: &Kernel,
    ) -> anyhow::Result<()> {
        let asks = |guardrail: &Arc<Guardrail>| matches!(guardrail.action, Action::Approve | Action::Alert);
        if self.approving.is_none() && kernel.pins().is_some() && policy.guardrails().iter().any(asks) {
            self.approving = Some(Approving::start(config, kernel)?);
        }
        Ok(())
    }

    /// How many backends wait for an approver.
    pub(super) fn waiting(&self) -> usize {
        self.approving.as_ref().map_or(0, Approving::waiting)
    }

    /// A session is over.
    pub(super) fn ended(&mut self, session: SessionId) {
        if let Some(approving) = &mut self.approving {
            approving.end_session(session);
        }
    }

    /// A client's bytes have come, at `offset` by the kernel side's count, and their backend goes on: what guardrails that
    /// only watch would have caught is noted.
    pub(super) fn watch(&mut self, key: SessionKey, offset: u64, hands: &mut Hands<'_>) {
        let passes = hands.sessions.passes_executes(key);
        let Some((_, cases)) = hands.sessions.decide(key, offset, &mut self.guard) else { return };
        if passes && cases.iter().any(|case| case.decision.verdict != Verdict::Allow) {
            return self.escaped(key, cases, false, hands);
        }
        if let Some(session) = hands.sessions.info(key) {
            for case in &cases {
                self.alert(None, case, session);
                decisions::verdict(session, case, Outcome::Allowed, &"policy".into(), None, hands.recorder);
            }
        }
        if passes {
            // It was decided when it was prepared.
            hands.sessions.judge(key, judged(&cases, Done::On, 0));
        }
    }

    /// A client's bytes have come, and the kernel could not stop their backend: what must not run may have run, unless the
    /// session was told to end.
    pub(super) fn missed(&mut self, key: SessionKey, offset: u64, ended: bool, hands: &mut Hands<'_>) {
        give_orders(hands.kernel, hands.sessions);
        let Some((_, cases)) = hands.sessions.decide(key, offset, &mut self.guard) else { return };
        self.escaped(key, cases, ended, hands);
    }

    /// Messages went on without a verdict, unless their session was told to end.
    fn escaped(&mut self, key: SessionKey, mut cases: Vec<Case>, ended: bool, hands: &mut Hands<'_>) {
        hands.sessions.doubt(key);
        give_orders(hands.kernel, hands.sessions);
        let mut must_end = false;
        for case in cases.iter_mut().filter(|case| case.decision.verdict != Verdict::Allow) {
            case.fail(UNHELD);
            must_end |= case.decision.verdict != Verdict::Allow && !ended;
            if !ended {
                case.decision.verdict = Verdict::Allow;
            }
        }
        warn!(pid = key.tgid, ended, "{UNHELD} (see docs/errors.md#unheld)");
        if must_end && let Some(Err(error)) = hands.backends.as_mut().map(|backends| backends.end(key)) {
            warn!(pid = key.tgid, %error, "nor could its session be ended");
        }
        self.note(key, None, &cases, if ended { Done::Ended } else { Done::On }, 0, hands);
    }

    /// A backend was stopped `at` this moment, and waits with `bytes`.
    pub(super) fn held(&mut self, key: SessionKey, at: u64, bytes: &[u8], hands: &mut Hands<'_>) {
        // None: decided by an earlier agent, or over time.
        let hold = hands.backends.as_ref().and_then(|backends| backends.find(key.tgid, at));
        if let Some(hold) = hold {
            self.decide(&hold, bytes, hands);
        }
    }

    /// Sees to the backends that wait for an approver, and, now and then, to those of which nobody was told, or was told
    /// and died.
    pub(super) fn sweep(&mut self, now: u64, hands: &mut Hands<'_>) {
        if hands.backends.is_none() {
            return;
        }
        let decided = self.approving.as_mut().map(Approving::decided).unwrap_or_default();
        for Waiting { hold, start, bytes, cases, .. } in decided {
            self.carry_out(&hold, start, &bytes, &cases, hands);
        }
        if now.saturating_sub(self.looked) < SWEEP_NS {
            return;
        }
        self.looked = now;
        let Some(backends) = hands.backends.as_deref_mut() else { return };
        if let Some(approving) = &mut self.approving {
            approving.look(backends);
        }
        for hold in backends.waiting(false) {
            let waits = self.approving.as_ref().is_some_and(|approving| approving.holds(hold.session.tgid));
            if waits || now.saturating_sub(hold.at) < SWEEP_NS || !hands.sessions.has_received(&hold) {
                continue;
            }
            let mut bytes = Vec::new();
            if let Some(backends) = hands.backends.as_deref_mut() {
                // Without them, what must not run ends with its session.
                let _ = backends.fetch(&hold, |_, piece| bytes.extend_from_slice(piece));
            }
            self.decide(&hold, &bytes, hands);
        }
    }

    fn decide(&mut self, hold: &Hold, bytes: &[u8], hands: &mut Hands<'_>) {
        let key = hold.session;
        // Before it goes on: a session that turned out not to be guarded is not stopped again.
        give_orders(hands.kernel, hands.sessions);
        let Some((start, mut cases)) = hands.sessions.decide(key, hold.offset, &mut self.guard) else {
            return;
        };
        // Before it goes on, too: whether an Execute waits.
        give_orders(hands.kernel, hands.sessions);
        if hold.flags & HOLD_ASTRAY != 0
            && let Some(orders) = hands.sessions.orders_with_frame(key)
            && let Err(error) = hands.kernel.set_orders(key, orders)
        {
            warn!(pid = key.tgid, %error, "the kernel side does not learn where a session's messages begin; it stops it at each receive");
        }
        let worst = cases.iter().map(|case| case.decision.verdict).max().unwrap_or_default();
        // A session that ends needs nobody's approval.
        let asks =
            worst < Verdict::Terminate && cases.iter().any(|case| case.decision.verdict == Verdict::Approve);
        if asks {
            let session = hands.sessions.info(key);
            cases = match (&mut self.approving, session, hands.backends.as_deref_mut()) {
                (Some(approving), Some(session), Some(backends)) => {
                    match approving.ask(hold, start, bytes, cases, session, backends) {
                        Some(cases) => cases,
                        // Until somebody decides.
                        None => return,
                    }
                }
                _ => {
                    let waiting = cases.iter_mut().filter(|case| case.decision.verdict == Verdict::Approve);
                    waiting.for_each(|case| case.fail("nobody can be asked"));
                    cases
                }
            };
        }
        self.carry_out(hold, start, bytes, &cases, hands);
    }

    /// Does with a backend what was decided, and records it.
    fn carry_out(&self, hold: &Hold, start: u64, bytes: &[u8], cases: &[Case], hands: &mut Hands<'_>) {
        let Some(backends) = hands.backends.as_deref_mut() else { return };
        let done = act(backends, hold, start, bytes, cases);
        let held_us = monotonic_now().saturating_sub(hold.at) / 1_000;
        self.note(hold.session, Some(hold), cases, done, held_us, hands);
    }

    /// Records what was decided and done, and tells of it.
    fn note(
        &self,
        key: SessionKey,
        hold: Option<&Hold>,
        cases: &[Case],
        done: Done,
        held_us: u64,
        hands: &mut Hands<'_>,
    ) {
        if let Some(session) = hands.sessions.info(key) {
            for case in cases {
                let outcome = outcome(case, done);
                say(key, case, outcome);
                self.alert(hold, case, session);
                decisions::verdict(session, case, outcome, &decided_by(case), Some(held_us), hands.recorder);
            }
        }
        hands.sessions.judge(key, judged(cases, done, held_us));
    }

    /// Tells of what guardrails with `alert` caught.
    fn alert(&self, hold: Option<&Hold>, case: &Case, session: &SessionInfo) {
        let Some(approving) = &self.approving else { return };
        for observed in case.decision.observed.iter().filter(|one| one.guardrail.action == Action::Alert) {
            let reason = decisions::reason(&observed.reason);
            approving.alert(hold, case, &observed.guardrail, &reason, session);
        }
    }
}

/// What is recorded of the messages, with the place of each in the client's stream.
fn judged(cases: &[Case], done: Done, held_us: u64) -> impl Iterator<Item = (u64, Judged)> {
    cases.iter().map(move |case| {
        let verdict = match outcome(case, done) {
            Outcome::Allowed | Outcome::FailedOpen => session::Verdict::Allowed,
            Outcome::Approved => session::Verdict::Approved,
            Outcome::Denied => session::Verdict::Denied,
            _ => session::Verdict::Blocked,
        };
        let guardrail = case.decision.guardrail.as_ref().map(|guardrail| guardrail.name.as_str().into());
        let judged = Judged { verdict, guardrail, decided_by: Some(decided_by(case)), held_us };
        (case.asked.range.0, judged)
    })
}

fn decided_by(case: &Case) -> Arc<str> {
    match &case.by {
        Some(By::Approver(who, _)) => Arc::clone(who),
        Some(By::Nobody(why)) if *why == UNHELD => "agent".into(),
        Some(By::Nobody(_)) => "deadline".into(),
        None => "policy".into(),
    }
}

/// What came of a message.
fn outcome(case: &Case, done: Done) -> Outcome {
    match (case.decision.verdict, &case.by, done) {
        // What comes with it does not run either.
        (_, None, Done::Ended) => Outcome::Terminated,
        (Verdict::Allow, Some(By::Approver(..)), Done::On) => Outcome::Approved,
        (Verdict::Allow, Some(By::Nobody(_)), Done::On) => Outcome::FailedOpen,
        (Verdict::Allow, None, Done::On) => Outcome::Allowed,
        (_, Some(By::Approver(..)), _) => Outcome::Denied,
        (_, Some(By::Nobody(_)), _) => Outcome::FailedClosed,
        (_, None, Done::On) => Outcome::Blocked,
    }
}

/// Tells the kernel side what the rules want of the sessions of which more is known now.
pub(super) fn give_orders(kernel: &mut Kernel, sessions: &mut Sessions) {
    for (session, orders) in sessions.orders() {
        if let Err(error) = kernel.set_orders(session, orders) {
            warn!(pid = session.tgid, %error, "the kernel side does not take a session's orders: those of an unknown session go on to hold");
        }
    }
}

/// Tells whoever reads the agent's log.
fn say(key: SessionKey, case: &Case, outcome: Outcome) {
    let Some(guardrail) = case.decision.guardrail.as_ref().map(|guardrail| guardrail.name.as_str()) else {
        return;
    };
    let pid = key.tgid;
    match outcome {
        Outcome::Terminated => info!(pid, guardrail, "a session was ended before its statement ran"),
        Outcome::FailedOpen => info!(pid, guardrail, "nobody could decide about a statement: it runs"),
        Outcome::Approved => info!(pid, guardrail, by = %decided_by(case), "a statement was approved"),
        Outcome::Allowed => {}
        _ => info!(pid, guardrail, "a statement was blocked"),
    }
}

/// What happened to a backend that goes on.
const UNHELD: &str = "a backend could not be stopped for a verdict";
/// How long a hold stays unnoticed before it is looked at.
const SWEEP_NS: u64 = 200_000_000;
