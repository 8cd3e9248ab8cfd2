//! How long to wait after a failure: longer each time, and never as long as the other nodes of a fleet.

use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};

/// The pause after the next failure.
#[derive(Debug)]
pub(super) struct Backoff {
    longest: Duration,
    random: SystemRandom,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { longest: SHORTEST, random: SystemRandom::new() }
    }

    /// A pause of half to all of what it may be now; the next may be twice as long.
    pub(super) fn pause(&mut self) -> Duration {
        let longest = self.longest;
        self.longest = LONGEST.min(2 * longest);
        let mut byte = [0];
        // Without chance, all of a fleet come back at once: slower, and not wrong.
        let _ = self.random.fill(&mut byte);
        longest / 2 + longest.mul_f64(f64::from(byte[0]) / 510.0)
    }

    /// Something succeeded.
    pub(super) fn reset(&mut self) {
        self.longest = SHORTEST;
    }
}

/// The first pause at most, and the longest.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_differ() {
        let mut backoff = Backoff::new();
        let pauses: Vec<_> = (0..40).map(|_| backoff.pause()).collect();
        assert!(pauses[0] <= SHORTEST && pauses[0] >= SHORTEST / 2);
        let last = &pauses[10..];
        assert!(last.iter().all(|pause| *pause >= LONGEST / 2 && *pause <= LONGEST), "{pauses:?}");
        assert!(last.windows(2).any(|pair| pair[0] != pair[1]), "{pauses:?}");
        backoff.reset();
        assert!(backoff.pause() <= SHORTEST);
    }
}
