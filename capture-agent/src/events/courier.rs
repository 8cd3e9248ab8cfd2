//! Brings a receiver's events to it: one thread for each receiver, which repeats what is not taken.

use std::sync::Arc;
use std::time::Duration;

use super::ocsf::{Context, Loss};
use super::spool::{Event, Next, Spool};
use crate::telemetry::metrics;

/// A way to a receiver.
pub(super) trait Deliver: Send {
    /// Hands events over. Success means that the receiver has them.
    fn deliver(&mut self, events: &[Event]) -> Result<(), Failure>;

    /// How long to wait for more after less than a whole batch: where each delivery costs the receiver something.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }
}

/// Why events were not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Perhaps later.
    Later(String),
    /// Not these.
    Never(String),
}

pub(super) struct Courier {
    pub(super) context: Arc<Context>,
    pub(super) spool: Arc<Spool>,
    pub(super) way: Box<dyn Deliver>,
    pub(super) batch_events: usize,
    /// The first pause after a failure, and the longest.
    pub(super) retry: (Duration, Duration),
}

impl Courier {
    /// Works until the spool is closed.
    pub(super) fn work(mut self) {
        let mut cursor = self.spool.cursor();
        loop {
            match self.spool.next(&mut cursor, self.batch_events, BATCH_BYTES, PATIENCE) {
                Ok(Next::Events(events)) => {
                    if !self.hand_over(&events) {
                        return;
                    }
                    if events.len() < self.batch_events && self.spool.wait_closed(self.way.linger()) {
                        return;
                    }
                }
                Ok(Next::Lost(first, last)) => {
                    let lost = self.lost(first, last, "the spool was full");
                    if !self.hand_over(&[lost]) {
                        return;
                    }
                }
                Ok(Next::Nothing) => {}
                Ok(Next::Closed) => return,
                Err(error) => {
                    self.say(&format!("cannot read the spool: {error}"));
                    if self.spool.wait_closed(self.retry.1) {
                        return;
                    }
                }
            }
        }
    }

    /// Repeats until the receiver has these events, or what is said in their place. False if there is no time left.
    fn hand_over(&mut self, events: &[Event]) -> bool {
        let mut pause = self.retry.0;
        let mut failing = false;
        loop {
            match self.way.deliver(events) {
                Ok(()) => {
                    metrics::SIEM_SENT.add(events.len() as u64);
                    if failing {
                        self.spool.set_failing(false);
                        tracing::info!(receiver = self.context.log, "the receiver takes events again");
                    }
                    if let Some(last) = events.last()
                        && let Err(error) = self.spool.taken(last.number + 1)
                    {
                        // They come again after the next start.
                        metrics::SIEM_ERRORS.add(1);
                        tracing::warn!(receiver = self.context.log, %error, "cannot note what a receiver has taken (see docs/errors.md#events-spool)");
                    }
                    return true;
                }
                // Which of them it does not take is found by halves.
                Err(Failure::Never(_)) if events.len() > 1 => {
                    let (front, back) = events.split_at(events.len() / 2);
                    return self.hand_over(front) && self.hand_over(back);
                }
                Err(Failure::Never(why)) if !self.context.is_loss(events) => {
                    let Some(event) = events.first() else { return true };
                    metrics::SIEM_DROPPED.add(1);
                    metrics::SIEM_ERRORS.add(1);
                    tracing::error!(
                        receiver = self.context.log,
                        number = event.number,
                        "the receiver refuses an event: {why}; it is told that the event is lost (see docs/errors.md#events-refused)"
                    );
                    let lost = self.lost(event.number, event.number, "the receiver refused the event");
                    return self.hand_over(&[lost]);
                }
                Err(Failure::Later(why) | Failure::Never(why)) => {
                    metrics::SIEM_ERRORS.add(1);
                    if !failing {
                        failing = true;
                        self.spool.set_failing(true);
                        self.say(&why);
                    }
                    if self.spool.wait_closed(pause) {
                        return false;
                    }
                    pause = self.retry.1.min(pause * 2);
                }
            }
        }
    }

    fn say(&self, why: &str) {
        tracing::warn!(
            receiver = self.context.log,
            "a receiver does not take events: {why}; they wait in the spool, and it is tried again (see docs/errors.md#events-delivery)"
        );
    }

    fn lost(&self, first: u64, last: u64, reason: &str) -> Event {
        let loss = Loss { first: Some(first), events: Some(last - first + 1), reason };
        Event { number: last, json: self.context.lost(last, &loss) }
    }
}

/// Bytes of one delivery, beyond its first event.
const BATCH_BYTES: usize = 1 << 20;

/// How long the spool is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
