//! One open session, and what the rules mean for it.

use std::sync::Arc;

use capture_common::{ORDER_ARMED, ORDER_GUARD_CLOSED, ORDER_GUARDS, ORDER_PREPARED, Orders, SessionKey};

use super::decisions::recording_skipped;
use super::rules::Rules;
use crate::enforce::{Prepared, Unsettled};
use crate::mask::SessionMasks;
use crate::policy::SessionFacts;
use crate::record::Recorder;
use crate::session::Session;

/// A session that has begun and not ended.
pub(super) struct Open {
    pub(super) key: SessionKey,
    pub(super) session: Session,
    /// Whether it is known which rule is about it.
    pub(super) ruled: bool,
    /// Whether nothing but the session itself is recorded.
    pub(super) skip: bool,
    /// The rule because of which that is so, and the one of which the record says so.
    pub(super) skipped_by: Option<Arc<str>>,
    pub(super) skip_told: Option<Arc<str>>,
    /// Whether it stands in `Sessions::changed`.
    pub(super) changed: bool,
    pub(super) saved: bool,
    /// The version of the prepared statements that were saved last.
    pub(super) prepared: u64,
    pub(super) guarded: Guarded,
    pub(super) masks: SessionMasks,
}

/// What guardrails mean for a session.
#[derive(Default)]
pub(super) struct Guarded {
    /// What the kernel side was told.
    pub(super) orders: Orders,
    /// Whether any guardrail may be about it.
    pub(super) watched: bool,
    /// What of it was known when this was found out.
    known: Option<Known>,
    pub(super) unsettled: Unsettled,
}

/// User, `application_name`, whether the server has said ReadyForQuery, whether it is encrypted.
type Known = (Option<Arc<str>>, Option<Arc<str>>, bool, bool);

impl Guarded {
    /// Of a session of which nothing is known: what the kernel side does if it is told nothing.
    pub(super) fn new(rules: &Rules) -> Self {
        Self { orders: rules.default_orders(), ..Self::default() }
    }

    /// What the rules are, or what is known of the server, has changed: it is to be found out anew.
    pub(super) fn forget(&mut self) {
        self.known = None;
        self.unsettled.prepared.judge_anew();
    }
}

impl Open {
    pub(super) fn new(key: SessionKey, session: Session, rules: &Rules) -> Self {
        let (skipped_by, skip_told) = (None, None);
        let (ruled, skip, changed, saved) = (false, false, false, false);
        let guarded = Guarded::new(rules);
        let masks = SessionMasks::default();
        Self { key, session, ruled, skip, skipped_by, skip_told, changed, saved, prepared: 0, guarded, masks }
    }

    /// Finds the rule that is about the session, once its identity is known; of one that was open before, which it
    /// never will be more than now.
    pub(super) fn rule(&mut self, rules: &Rules, orders: &mut Vec<(SessionKey, Orders)>) {
        if !self.session.is_ready() {
            return;
        }
        let ruling = rules.ruling(self.session.info());
        self.ruled = true;
        self.skip = ruling.skip;
        self.skipped_by = ruling.skip.then_some(ruling.name);
        let (rows, bytes) = if self.skip { (0, 0) } else { (ruling.results.rows, ruling.results.bytes) };
        self.session.limit_rows(rows, bytes);
        let Orders { flags, wait_ms, .. } = ruling.orders;
        let guards = self.guarded.orders.flags & GUARDING;
        self.order(Orders { flags: flags | guards, wait_ms, ..self.guarded.orders }, orders);
    }

    /// Finds out whether its statements wait for verdicts, if more is known of it than before.
    pub(super) fn arm(&mut self, rules: &Rules, orders: &mut Vec<(SessionKey, Orders)>) {
        let (info, ready) = (self.session.info(), self.session.is_ready());
        let encrypted = info.tls || info.gss_encrypted;
        let known = (&info.user, &info.application_name, ready, encrypted);
        if self
            .guarded
            .known
            .as_ref()
            .is_some_and(|(user, name, ready, tls)| (user, name, *ready, *tls) == known)
        {
            return;
        }
        self.guarded.unsettled.prepared.judge_anew();
        self.guarded.known = Some((info.user.clone(), info.application_name.clone(), ready, encrypted));
        let facts = SessionFacts::of(info, ready);
        self.guarded.watched = rules.policy().watches(&facts);
        let armed = rules.armed(&facts);
        let required = self.guarded.orders.flags & !GUARDING;
        let new = Orders { flags: required | armed.flags, guard_ms: armed.guard_ms, ..self.guarded.orders };
        self.order(new, orders);
    }

    /// A message was decided about, or escaped: says whether an Execute waits for a verdict from now on.
    pub(super) fn order_prepared(&mut self, orders: &mut Vec<(SessionKey, Orders)>) {
        let mut new = self.guarded.orders;
        new.flags &= !ORDER_PREPARED;
        if self.guarded.unsettled.prepared == Prepared::Decided && new.flags & ORDER_ARMED != 0 {
            new.flags |= ORDER_PREPARED;
        }
        self.order(new, orders);
    }

    /// Tells the kernel side what is wanted, if that is something else than before.
    fn order(&mut self, new: Orders, orders: &mut Vec<(SessionKey, Orders)>) {
        if new != self.guarded.orders {
            self.guarded.orders = new;
            orders.push((self.key, new));
        }
    }

    /// Has the record say which rule leaves the session out, once. True if that must be saved.
    pub(super) fn tell_skip(&mut self, recorder: &mut Recorder) -> bool {
        let Some(rule) = self.skipped_by.as_ref().filter(|_| self.skipped_by != self.skip_told) else {
            return false;
        };
        recording_skipped(self.session.info(), rule, recorder);
        self.skip_told.clone_from(&self.skipped_by);
        true
    }

    /// Something has happened that must be saved.
    pub(super) fn touch(&mut self, changed: &mut Vec<u32>) {
        if !self.changed {
            self.changed = true;
            changed.push(self.key.tgid);
        }
    }
}

/// The flags of orders that guardrails give.
const GUARDING: u32 = ORDER_ARMED | ORDER_GUARD_CLOSED | ORDER_GUARDS | ORDER_PREPARED;
