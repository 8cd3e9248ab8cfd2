//! What guardrails mean for the open sessions: what they are asked about, what was decided, what the kernel side is told.

use std::sync::Arc;

use capture_common::{Hold, ORDER_PREPARED, Orders, SessionKey};

use super::Sessions;
use crate::enforce::{Case, Guard, Prepared};
use crate::session::Judged;

impl Sessions {
    /// Whether any guardrail may be about the session.
    #[inline]
    pub(in crate::run) fn watched(&self, key: SessionKey) -> bool {
        self.watching && self.open.get(&key.tgid).is_some_and(|open| open.key == key && open.guarded.watched)
    }

    /// What is decided about what the client asks for with bytes behind `offset`, by the kernel side's count; and where that
    /// is in its stream. None if the session is not known.
    pub(in crate::run) fn decide(
        &mut self,
        key: SessionKey,
        offset: u64,
        guard: &mut Guard,
    ) -> Option<(u64, Vec<Case>)> {
        let open = self.open.get_mut(&key.tgid).filter(|open| open.key == key)?;
        let start = open.session.place_of(offset);
        let mut cases = guard.decide(&open.session, &mut open.guarded.unsettled, start);
        if cases.iter().any(Case::is_told) {
            let (masker, masks, info) = (&mut self.masker, &mut open.masks, open.session.info());
            for case in &mut cases {
                case.shown = case.text.as_ref().map(|text| masker.text(masks, info, text));
                let params = case.sent_params().iter().enumerate().map(|(at, value)| {
                    let value = value.as_ref()?;
                    let left = masker.parameter(masks, info, case.text.as_ref(), at, value);
                    Some(left.unwrap_or_else(|| value.clone()))
                });
                case.params = params.collect();
            }
        }
        open.order_prepared(&mut self.orders);
        Some((start, cases))
    }

    /// Whether an Execute of this session's waits for no verdict.
    pub(in crate::run) fn passes_executes(&self, key: SessionKey) -> bool {
        let open = self.open.get(&key.tgid).filter(|open| open.key == key);
        open.is_some_and(|open| open.guarded.orders.flags & ORDER_PREPARED != 0)
    }

    /// Something that the client asked for has escaped: each Execute waits from now on.
    pub(in crate::run) fn doubt(&mut self, key: SessionKey) {
        if let Some(open) = self.open.get_mut(&key.tgid).filter(|open| open.key == key) {
            open.guarded.unsettled.prepared = Prepared::Open;
            open.order_prepared(&mut self.orders);
        }
    }

    /// The session's facts, and a place for what was decided about the messages at offsets of its client's stream.
    pub(in crate::run) fn judge(&mut self, key: SessionKey, judged: impl Iterator<Item = (u64, Judged)>) {
        let Some(open) = self.open.get_mut(&key.tgid).filter(|open| open.key == key) else { return };
        for (offset, judged) in judged {
            open.session.note_verdict(offset, Arc::new(judged));
        }
    }

    /// The session's orders, with the place where its client's next message begins, if that is known.
    pub(in crate::run) fn orders_with_frame(&self, key: SessionKey) -> Option<Orders> {
        let open = self.open.get(&key.tgid).filter(|open| open.key == key)?;
        Some(Orders { frame: open.session.next_message()?.saturating_add(1), ..open.guarded.orders })
    }

    /// Whether all was seen that the client had sent when its backend was stopped.
    pub(in crate::run) fn has_received(&self, hold: &Hold) -> bool {
        let open = self.open.get(&hold.session.tgid).filter(|open| open.key == hold.session);
        open.is_some_and(|open| open.session.has_received(hold.offset.saturating_add(hold.len)))
    }

    /// What the kernel side is to be told since this was last asked.
    pub(in crate::run) fn orders(&mut self) -> impl Iterator<Item = (SessionKey, Orders)> {
        self.orders.drain(..)
    }
}
