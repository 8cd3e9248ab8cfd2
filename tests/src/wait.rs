//! Waiting for something to become true, with a deadline: the only clock and the only sleep of the tests.
#![expect(clippy::disallowed_types, reason = "a deadline needs a clock")]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A moment after which waiting fails.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    limit: Duration,
}

impl Deadline {
    /// A deadline that lies `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        Instant::now() >= self.at
    }
}

/// Polls `ready` until it yields a value; fails after `limit` (see [`patient`]), naming `what` was waited for.
///
/// # Errors
/// The error of `ready` at once, or that the time is over.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut ready: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Deadline::after(patient(limit));
    loop {
        if let Some(value) = ready()? {
            return Ok(value);
        }
        anyhow::ensure!(!deadline.passed(), "waited {:?} in vain for {what}", deadline.limit);
        pause(POLL);
    }
}

/// `limit` on this machine: `CAPTURE_PATIENCE` times as long where it is set, as on an emulated processor.
pub fn patient(limit: Duration) -> Duration {
    static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
        std::env::var("CAPTURE_PATIENCE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
    });
    limit * *PATIENCE
}

/// Lets time pass: for a test whose subject is time itself, such as rotation by age.
#[expect(clippy::disallowed_methods, reason = "the one sleep of the tests: between two looks at a condition")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Long enough for what happens in a moment.
pub const SOON: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(5);
