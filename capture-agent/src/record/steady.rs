//! Time that passes, whatever the host's clock does.

use crate::session::Micros;

/// Follows a clock, and stands still while that goes back. What waits for an age must not wait for a clock to catch up that was set
/// back by a year.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Steady {
    /// What the clock said last.
    last: Micros,
    /// What was made of it: never goes back.
    now: Micros,
}

impl Steady {
    /// The time, now that the clock says `now`.
    pub(super) fn follow(&mut self, now: Micros) -> Micros {
        let passed = now.0.saturating_sub(self.last.0).max(0);
        self.last = now;
        self.now = Micros(self.now.0.saturating_add(passed));
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_when_the_clock_goes_back() {
        let mut steady = Steady::default();
        let mut times = [1_000, 1_010, 400, 410, 415, 2_000].map(|now| steady.follow(Micros(now)).0);
        assert_eq!(times, [1_000, 1_010, 1_010, 1_020, 1_025, 2_610]);
        times.reverse();
        assert!(!times.is_sorted());
    }
}
