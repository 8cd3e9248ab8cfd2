//! Whether the host's clock can be believed.
#![expect(clippy::disallowed_types, reason = "an IO room: it compares two clocks")]

use std::time::{Duration, Instant};

use crate::record::StoredFile;

/// Whether the host's clock can be believed. What one that jumped ahead calls old may be of yesterday.
pub(super) struct Clock {
    /// The host's clock and one that never jumps, when they were last looked at.
    last: Option<(u64, Instant)>,
    /// Until when ages are not looked at.
    doubted: Option<Instant>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { last: None, doubted: None }
    }

    /// Whether `now`, a Unix time in milliseconds, is. Says so when it begins to be doubted.
    pub(super) fn is_trusted(&mut self, now: u64, files: &[StoredFile]) -> bool {
        self.look(now, Instant::now(), files.iter().map(|file| file.id.timestamp_ms()).max())
    }

    /// The same at a given time, when the newest file was begun at `newest`.
    fn look(&mut self, now: u64, at: Instant, newest: Option<u64>) -> bool {
        let passed = match self.last {
            Some((then, since)) => {
                let passed = u64::try_from(at.duration_since(since).as_millis()).unwrap_or(u64::MAX);
                now.saturating_sub(then).saturating_sub(passed)
            }
            // How long no agent ran is not known; what it recorded last says when it did.
            None => newest.map_or(0, |newest| now.saturating_sub(newest)),
        };
        let most = if self.last.is_some() { JUMP } else { PAUSE };
        self.last = Some((now, at));
        if u128::from(passed) > most.as_millis() {
            tracing::warn!(
                seconds = passed / 1_000,
                "the clock is ahead of what the record says; no file is removed for its age until it has been so for a day"
            );
            self.doubted = Some(at + TRUST);
        }
        self.doubted = self.doubted.filter(|until| at < *until);
        self.doubted.is_none()
    }
}

/// The clock may be set by so much without a doubt.
const JUMP: Duration = Duration::from_secs(3_600);

/// And nothing may have been recorded for as long before an agent starts.
const PAUSE: Duration = Duration::from_secs(86_400);

/// How long a clock is doubted that jumped.
const TRUST: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_ahead_makes_nothing_old_for_a_day() {
        let start = Instant::now();
        let second = |n| start + Duration::from_secs(n);
        let day = 86_400_000;
        let mut clock = Clock::new();
        assert!(clock.look(100 * day, second(0), Some(100 * day - 1_000)));
        assert!(clock.look(100 * day + 5_000, second(5), None));
        // A year ahead.
        assert!(!clock.look(465 * day, second(10), None));
        assert!(!clock.look(465 * day + 3_600_000, second(3_610), None));
        assert!(clock.look(466 * day, second(86_411), None));
        // Back again, which makes nothing old.
        assert!(clock.look(101 * day, second(86_420), None));
        assert!(clock.look(101 * day + 5_000, second(86_425), None));
        // An agent that finds a record of long ago.
        assert!(!Clock::new().look(100 * day, second(0), Some(90 * day)));
        assert!(Clock::new().look(100 * day, second(0), None));
    }
}
