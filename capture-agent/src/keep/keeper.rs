//! The thread that keeps the record.
#![expect(clippy::disallowed_types, reason = "an IO room: what is old goes by the clock")]

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ulid::Ulid;

use super::expire::Held;
use super::uploaded::Uploaded;
use super::{Holds, Rule};
use crate::record::{Archive, StoredFile};
use crate::seal::{Live, hex};
use crate::telemetry::metrics;

/// What is to be done to the record.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// How long files are kept; for ever if there is no rule.
    pub rules: Vec<Rule>,
    /// Whether files are uploaded: then they are not removed before that is confirmed.
    pub uploads: bool,
}

/// Keeps the record until it is dropped.
#[derive(Debug)]
pub struct Keeper {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts to keep the files of an archive.
    ///
    /// # Errors
    ///
    /// The thread cannot be started.
    pub fn start(archive: Archive, settings: Settings) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("keep".to_owned()).spawn(move || {
            Work::new(archive, settings).run(&stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.stop.take());
        // It may have panicked, which has been said.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// What the thread knows.
struct Work {
    archive: Archive,
    settings: Settings,
    live: Live,
    held: Held,
    uploaded: Uploaded,
    /// Files that are gone by the words of the chain and could not be removed yet.
    left: HashSet<String>,
    clock: Clock,
    /// What was said last, so that it is said once.
    trouble: Option<String>,
}

impl Work {
    fn new(archive: Archive, settings: Settings) -> Self {
        let uploaded = archive.data_dir().join(format!(".uploaded-{}.jsonl", archive.node()));
        Self {
            archive,
            settings,
            live: Live::default(),
            held: Held::default(),
            uploaded: Uploaded::new(uploaded),
            left: HashSet::new(),
            clock: Clock::new(),
            trouble: None,
        }
    }

    fn run(mut self, stopped: &Receiver<()>) {
        // Whatever else the host does comes first.
        let own = rustix::thread::gettid();
        let _ = rustix::process::setpriority_process(Some(own), NICE);
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            if self.archive.is_busy() {
                continue;
            }
            match self.round() {
                Ok(()) => self.trouble = None,
                Err(error) => self.fails(error),
            }
        }
    }

    fn round(&mut self) -> Result<(), String> {
        let said = |error: io::Error| error.to_string();
        let files = self.archive.files().map_err(said)?;
        let there: HashSet<String> = files.iter().map(|file| file.name.clone()).collect();
        let (chain, length) = self.archive.chain();
        self.left.extend(self.live.read(&chain, length, &there).map_err(said)?);
        self.remove_left().map_err(said)?;
        if self.settings.rules.is_empty() {
            return Ok(());
        }
        self.uploaded.read(&there).map_err(said)?;
        let holds = Holds::open(self.archive.data_dir()).map_err(|error| error.to_string())?;
        self.held.set(holds.list());
        self.held.look(&files).map_err(|error| error.to_string())?;
        self.expire(&files)
    }

    /// Removes what should be gone.
    fn remove_left(&mut self) -> io::Result<()> {
        for name in self.left.clone() {
            self.archive.remove_left(&name)?;
            self.left.remove(&name);
        }
        Ok(())
    }

    /// Removes the files whose time is over.
    fn expire(&mut self, files: &[StoredFile]) -> Result<(), String> {
        let now = Ulid::generate().timestamp_ms();
        let now = self.clock.is_trusted(now, files).then_some(now);
        let needs_confirmation = self.settings.uploads || self.uploaded.is_used();
        let (mut gone, mut overdue) = (HashSet::new(), HashSet::new());
        for rule in &self.settings.rules {
            for (file, why) in rule.over(files, now) {
                if gone.contains(&file.id) {
                    continue;
                }
                let Some(sealed) = self.live.file(&file.name) else {
                    // Nobody vouches for it, and `verify` says so: it is no file of this record.
                    continue;
                };
                let confirmed = || self.uploaded.has(&file.name, &hex(&sealed.sha256));
                let kept = (needs_confirmation && !rule.unconfirmed && !confirmed())
                    || self
                        .held
                        .has(file, Some(sealed))
                        .map_err(|error| format!("{}: {error}", file.name))?;
                if kept {
                    overdue.insert(file.id);
                    continue;
                }
                self.archive.expire(file, &why).map_err(|error| format!("{}: {error}", file.name))?;
                tracing::info!(file = file.name, rule = why, "removed");
                metrics::EXPIRED_FILES.add(1);
                gone.insert(file.id);
            }
        }
        metrics::OVERDUE_FILES.set(overdue.difference(&gone).count() as u64);
        Ok(())
    }

    fn fails(&mut self, error: String) {
        metrics::KEEP_ERRORS.add(1);
        if self.trouble.as_ref() != Some(&error) {
            tracing::error!(
                "the record cannot be kept as configured: {error} (see docs/errors.md#keep-failed)"
            );
            self.trouble = Some(error);
        }
    }
}

/// Whether the host's clock can be believed. What one that jumped ahead calls old may be of yesterday.
struct Clock {
    /// The host's clock and one that never jumps, when they were last looked at.
    last: Option<(u64, Instant)>,
    /// Until when ages are not looked at.
    doubted: Option<Instant>,
}

impl Clock {
    fn new() -> Self {
        Self { last: None, doubted: None }
    }

    /// Whether `now`, a Unix time in milliseconds, is. Says so when it begins to be doubted.
    fn is_trusted(&mut self, now: u64, files: &[StoredFile]) -> bool {
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

/// How often the record is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// The least of all priorities.
const NICE: i32 = 19;

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
