//! When a reader waits for the next hold awake.
//!
//! Waking a reader that sleeps takes longer than deciding: 20 to 50 µs on a virtual machine, in which a backend is stopped and
//! a processor idle. Clients ask in bursts: where one hold of a session came soon after its last, so will the next. That is worth
//! a processor while nobody else talks. Where several sessions do, the processors are busy: a reader that waited awake would take
//! the time of those it waits for.

/// Whether to wait awake, and until when.
#[derive(Debug, Default)]
pub(super) struct Spin {
    /// Whose hold was answered last, and when.
    backend: u32,
    answered: u64,
    /// Whether others have been heard since.
    others: bool,
    /// Whether it had come so soon after the one before that waiting awake pays.
    pays: bool,
}

impl Spin {
    /// Something was heard of the process `backend`.
    #[inline]
    pub(super) fn heard(&mut self, backend: u32) {
        if backend != self.backend {
            self.others = true;
            self.pays = false;
        }
    }

    /// The process `backend` was stopped `at` this moment, in nanoseconds of `CLOCK_MONOTONIC`, and answered `now`.
    pub(super) fn held(&mut self, backend: u32, at: u64, now: u64) {
        self.pays = backend == self.backend && !self.others && at.saturating_sub(self.answered) < LONGEST_NS;
        self.others = false;
        self.answered = now;
        self.backend = backend;
    }

    /// Until when to wait awake; none if it does not pay.
    pub(super) fn until(&self) -> Option<u64> {
        self.pays.then_some(self.answered.saturating_add(LONGEST_NS))
    }
}

/// What a client needs from one short statement to the next, and the server for it, on a busy host.
const LONGEST_NS: u64 = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_of_one_session_are_waited_for() {
        let mut spin = Spin::default();
        spin.held(7, 1_000_000, 1_010_000);
        assert_eq!(spin.until(), None);
        spin.heard(7);
        spin.held(7, 1_060_000, 1_070_000);
        assert_eq!(spin.until(), Some(1_070_000 + LONGEST_NS));
        spin.held(7, 2_000_000, 2_010_000);
        assert_eq!(spin.until(), None, "the pause was too long to be waited out");
    }

    #[test]
    fn sessions_in_turn_are_not() {
        let mut spin = Spin::default();
        for round in 0..10 {
            let at = 1_000_000 + u64::from(round) * 50_000;
            spin.heard(round % 2);
            spin.held(round % 2, at, at + 10_000);
            assert_eq!(spin.until(), None);
        }
    }

    #[test]
    fn nor_is_one_among_others() {
        let mut spin = Spin::default();
        for round in 0..10 {
            let at = 1_000_000 + round * 50_000;
            spin.heard(7);
            spin.held(7, at, at + 10_000);
            spin.heard(8);
            assert_eq!(spin.until(), None);
        }
    }
}
