//! Whether the agent is well: its threads say that they live, and whoever meets trouble says so until it is over.
//!
//! Alive is what a supervisor restarts the agent for when it is not; ready is what tells people and balancers that
//! everything is captured and recorded.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use serde::Serialize;

use super::clock;

/// A thread that the agent does not work without.
#[derive(Debug)]
pub struct Vital {
    name: &'static str,
    /// How long it may go without a sign of life, in microseconds; any time if zero.
    patience: u64,
    state: AtomicU8,
    beat: AtomicU64,
}

/// As long as this lives, its thread does.
#[derive(Debug)]
pub struct Alive(&'static Vital);

/// Something that may be wrong, or not done yet.
#[derive(Debug)]
pub struct Condition {
    /// What is wrong, in words.
    reason: &'static str,
    /// The entry of `docs/errors.md` that says what to do.
    see: &'static str,
    wrong: AtomicBool,
}

/// A moment that is to come again soon.
#[derive(Debug)]
pub struct Moment(AtomicU64);

/// Why the agent is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What is wrong.
    pub reason: String,
    /// Where it is explained.
    pub see: &'static str,
}

/// The thread that captures. Its rounds take a tenth of a second; what holds it up at worst is a busy writer, for some seconds.
pub static CAPTURE: Vital = Vital::new("capture", 30_000_000);
/// The thread that writes the record. A disk may take its time.
pub static RECORD: Vital = Vital::new("record", 0);
/// The thread that makes events for receivers elsewhere.
pub static EVENTS: Vital = Vital::new("events", 0);

/// The hooks are not attached.
pub static DETACHED: Condition =
    Condition::new(true, "the hooks are not attached", "docs/errors.md#cannot-attach");
/// The journal is not written.
pub static JOURNAL: Condition =
    Condition::new(false, "the journal cannot be written", "docs/errors.md#journal-failed");
/// The record is not written.
pub static STORAGE: Condition =
    Condition::new(false, "the record cannot be written", "docs/errors.md#storage-failed");
/// The last commit.
pub static COMMIT: Moment = Moment(AtomicU64::new(0));

/// Why the agent is not alive; nothing if it is.
pub fn deaths() -> Vec<Reason> {
    let now = clock::monotonic();
    let dead = [&CAPTURE, &RECORD, &EVENTS].into_iter().filter_map(|vital| vital.death(now));
    dead.map(|reason| Reason { reason, see: "docs/errors.md#not-alive" }).collect()
}

/// Why the agent is not ready; nothing if it is.
pub fn obstacles() -> Vec<Reason> {
    let wrong = [&DETACHED, &JOURNAL, &STORAGE].into_iter().filter(|condition| condition.is_wrong());
    let mut reasons = deaths();
    reasons.extend(wrong.map(|condition| Reason { reason: condition.reason.to_owned(), see: condition.see }));
    let age = COMMIT.age();
    if !DETACHED.is_wrong() && age > COMMIT_PATIENCE {
        let reason =
            format!("nothing that was captured has become permanent for {} seconds", age / 1_000_000);
        reasons.push(Reason { reason, see: "docs/errors.md#not-alive" });
    }
    reasons
}

impl Vital {
    const fn new(name: &'static str, patience: u64) -> Self {
        Self { name, patience, state: AtomicU8::new(NOT_YET), beat: AtomicU64::new(0) }
    }

    /// The thread that calls this is the one.
    pub fn begin(&'static self) -> Alive {
        self.beat();
        self.state.store(LIVES, Ordering::Release);
        Alive(self)
    }

    /// It is at work.
    pub fn beat(&self) {
        self.beat.store(clock::monotonic(), Ordering::Relaxed);
    }

    fn death(&self, now: u64) -> Option<String> {
        let silent = now.saturating_sub(self.beat.load(Ordering::Relaxed));
        match self.state.load(Ordering::Acquire) {
            ENDED => Some(format!("the thread `{}` has ended", self.name)),
            LIVES if self.patience > 0 && silent > self.patience => Some(format!(
                "the thread `{}` has given no sign of life for {} seconds",
                self.name,
                silent / 1_000_000
            )),
            _ => None,
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.state.store(ENDED, Ordering::Release);
    }
}

impl Condition {
    const fn new(wrong: bool, reason: &'static str, see: &'static str) -> Self {
        Self { reason, see, wrong: AtomicBool::new(wrong) }
    }

    /// Says whether it is wrong from now on.
    pub fn set(&self, wrong: bool) {
        self.wrong.store(wrong, Ordering::Relaxed);
    }

    fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Relaxed)
    }
}

impl Moment {
    /// It is now.
    pub fn now(&self) {
        self.0.store(clock::monotonic(), Ordering::Relaxed);
    }

    /// How long ago it was, in microseconds; 0 if it never was.
    pub fn age(&self) -> u64 {
        match self.0.load(Ordering::Relaxed) {
            0 => 0,
            at => clock::monotonic().saturating_sub(at),
        }
    }
}

const NOT_YET: u8 = 0;
const LIVES: u8 = 1;
const ENDED: u8 = 2;

/// A commit comes fifty times a second, and where it takes long, in a twentieth of the time: ten seconds.
const COMMIT_PATIENCE: u64 = 10_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_missed_once_it_has_ended_or_gone_silent() {
        static STEADY: Vital = Vital::new("steady", 1_000);
        assert_eq!(STEADY.death(clock::monotonic()), None, "it has not begun");
        let alive = STEADY.begin();
        assert_eq!(STEADY.death(clock::monotonic()), None);
        let later = STEADY.death(clock::monotonic() + 5_000_000).unwrap();
        assert!(later.contains("`steady`") && later.contains("seconds"), "{later}");
        drop(alive);
        assert!(STEADY.death(clock::monotonic()).unwrap().contains("has ended"));
    }

    #[test]
    fn what_is_wrong_is_said_until_it_is_over() {
        static WRONG: Condition = Condition::new(false, "", "");
        WRONG.set(true);
        assert!(WRONG.is_wrong());
        WRONG.set(false);
        assert!(!WRONG.is_wrong());
        let moment = Moment(AtomicU64::new(0));
        assert_eq!(moment.age(), 0);
        moment.now();
        assert!(moment.age() < 60_000_000);
    }
}
