//! Time, for what the agent says about itself.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Microseconds of `CLOCK_MONOTONIC`.
pub(super) fn monotonic() -> u64 {
    micros(clock_gettime(ClockId::Monotonic))
}

/// Microseconds since the Unix epoch.
pub(super) fn unix() -> u64 {
    micros(clock_gettime(ClockId::Realtime))
}

/// Microseconds of processor time that all threads of this process have used.
pub(super) fn processor() -> u64 {
    micros(clock_gettime(ClockId::ProcessCPUTime))
}

fn micros(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000
}
