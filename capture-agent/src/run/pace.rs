//! How soon the capture thread gets a processor.

use tracing::debug;

use crate::probes::{Ring, Turns, monotonic_now, run_first, run_promptly};

/// What the capture thread has asked the kernel's scheduler for.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether backends may be stopped: they wait for this thread.
    awaited: bool,
    /// Whether it runs before all others, because the ring fills up.
    hurries: bool,
    /// When it was last found to fill up, in nanoseconds of `CLOCK_MONOTONIC`.
    filled: u64,
}

impl Pace {
    /// Has the calling thread run promptly, and in short turns where it is `awaited` by stopped backends.
    pub(super) fn begin(&mut self, awaited: bool) {
        self.awaited = awaited;
        self.ask();
    }

    /// Has it run before the server's while the ring fills up: they fill it faster than it is drained, until they wait for
    /// a processor themselves. That lasts while it fills up again and again, since it is too late once this thread waits for a
    /// processor; between two looks it sleeps as ever.
    pub(super) fn keep_up(&mut self, ring: &Ring) {
        let filling = ring.is_filling(self.hurries);
        if !filling && !self.hurries {
            return;
        }
        let now = monotonic_now();
        if filling {
            self.filled = now;
        }
        let hurries = now.saturating_sub(self.filled) < CALM_NS;
        if hurries != self.hurries {
            self.hurries = hurries;
            self.ask();
        }
    }

    fn ask(&self) {
        let turns = if self.awaited { Turns::Short } else { Turns::Usual };
        let done = if self.hurries { run_first() } else { run_promptly(PRIORITY, turns) };
        if let Err(error) = done {
            debug!(%error, hurries = self.hurries, "the capture thread runs at its earlier priority");
        }
    }
}

/// On a host whose processors are all busy the reader must not wait for its turn until the ring is full. It needs
/// a few percent of one processor; with these levels it gets them promptly.
const PRIORITY: i32 = 10;

/// How long the ring must not have filled up before this thread no longer hurries.
const CALM_NS: u64 = 100_000_000;
