//! The capture thread: from the ring to the recorder's builders.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use capture_common::{OpenInfo, SessionKey, Tracked};
use tracing::{debug, error, info, warn};

use super::servers::Servers;
use super::sessions::{Clock, Sessions};
use crate::config::OnStop;
use crate::probes::{Counters, Event, Kernel, Ring, monotonic_now, raise_priority};
use crate::record::{Recorder, Recovery};
use crate::telemetry::metrics;

/// Everything that the capture thread owns.
pub(super) struct Capture {
    pub(super) kernel: Kernel,
    pub(super) ring: Ring,
    pub(super) sessions: Sessions,
    pub(super) servers: Servers,
    pub(super) recorder: Recorder,
    pub(super) on_stop: OnStop,
    /// When this agent took over, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) began: u64,
    /// Where the metrics are written, if they are.
    pub(super) metrics_file: Option<PathBuf>,
}

/// What is done now and then rather than for each event.
struct Rounds {
    clock: Clock,
    tick: u64,
    scan: u64,
    counters: Counters,
    /// When the last commit was, and how long it took.
    commit: (u64, u64),
    /// What the kernel had counted when it last lost something. Compared once all that it delivered before has
    /// been drained.
    snapshot: Option<Vec<Tracked>>,
}

impl Capture {
    /// Goes on where an earlier agent of the same data directory was ended: with its sessions, if the kernel side
    /// has captured without a break, else without.
    pub(super) fn resume(&mut self, recovery: &Recovery) {
        let epoch = recovery.states.iter().find(|(key, _)| *key == EPOCH);
        let unbroken = self.kernel.adopted
            && epoch.is_some_and(|(_, epoch)| **epoch == self.kernel.epoch.to_le_bytes())
            && recovery.position.is_none_or(|position| self.ring.resume(position));
        self.sessions.restore(&recovery.states);
        if unbroken {
            info!(
                sessions = self.sessions.len(),
                rows = recovery.rows,
                "going on where the last agent ended"
            );
        } else {
            self.sessions.stop(Clock::now().unix(monotonic_now()), &mut self.recorder);
        }
        self.recorder.save_state(EPOCH, &self.kernel.epoch.to_le_bytes());
    }

    /// Finds the servers and sessions that are there.
    pub(super) fn scan(&mut self) {
        self.servers.scan(&mut self.kernel, &mut self.sessions, &mut self.recorder);
    }

    /// Captures until `stop` is set; `wake` is readable then. Then drains and writes what there is.
    pub(super) fn run(mut self, stop: &AtomicBool, wake: RawFd) -> anyhow::Result<()> {
        if let Err(error) = raise_priority(PRIORITY) {
            debug!(%error, "the capture thread runs at normal priority");
        }
        let now = monotonic_now();
        let mut rounds = Rounds {
            clock: Clock::now(),
            tick: now,
            scan: now,
            counters: Counters::default(),
            commit: (now, 0),
            snapshot: None,
        };
        while !stop.load(Ordering::Acquire) {
            let limit = if self.servers.any_starting() { LOOK_AGAIN } else { TICK };
            self.ring.wait(wake, limit)?;
            let drained = self.drain(rounds.clock);
            self.servers.look_again(&mut self.kernel);
            self.now_and_then(&mut rounds, drained < BATCH && !self.ring.must_acknowledge());
            self.commit_if_due(&mut rounds);
        }
        self.finish()
    }

    /// Handles at most a batch of events. Returns how many there were.
    fn drain(&mut self, clock: Clock) -> usize {
        let Self { kernel, ring, sessions, servers, recorder, began, .. } = self;
        ring.drain(BATCH, |event| match event {
            Event::Data { key, offset, .. } => {
                if !sessions.data(&event, clock, recorder) {
                    let info =
                        kernel.tracked(key.tgid).filter(|entry| entry.session == key).map(|entry| entry.open);
                    let mut origin = servers.origin(&info.unwrap_or_default(), key, clock);
                    // An earlier agent's, whose state is lost or of another layout.
                    origin.partial = kernel.adopted && key.born < *began && offset > 0;
                    sessions.begin(key, origin, recorder);
                    sessions.data(&event, clock, recorder);
                }
            }
            Event::Open { key, info, .. } => sessions.begin(key, servers.origin(&info, key, clock), recorder),
            Event::Close { key: SessionKey { born: 0, tgid, .. }, .. } => servers.exited(tgid),
            Event::Close { key, at, info } => {
                if !sessions.contains(key.tgid) {
                    sessions.begin(key, servers.origin(&OpenInfo::default(), key, clock), recorder);
                }
                sessions.close(key, clock.unix(at), &info, recorder);
            }
            Event::Exec { tgid } => servers.executed(tgid, kernel),
        })
    }

    /// What was handed on so far becomes permanent, and may go from the ring. A commit saves all sessions that have
    /// changed; where they hold much, it comes more rarely, so that it takes a small part of the time.
    fn commit_if_due(&mut self, rounds: &mut Rounds) {
        let (last, took) = rounds.commit;
        let now = monotonic_now();
        let rested = now.saturating_sub(last) >= took.saturating_mul(COMMIT_REST);
        if rested || self.ring.must_acknowledge() {
            self.commit();
            rounds.commit = (now, monotonic_now().saturating_sub(now));
        }
    }

    fn commit(&mut self) {
        self.sessions.save(&mut self.recorder);
        self.recorder.commit(self.ring.position());
        self.ring.acknowledge();
    }

    fn now_and_then(&mut self, rounds: &mut Rounds, drained_all: bool) {
        let now = monotonic_now();
        if now.saturating_sub(rounds.tick) < nanos(TICK) {
            return;
        }
        rounds.tick = now;
        self.kernel.flush_log();
        rounds.clock = Clock::now();
        let unix = rounds.clock.unix(now);
        self.recorder.tick(unix);
        if drained_all && let Some(tracked) = rounds.snapshot.take() {
            let origin = |info: &OpenInfo, key| self.servers.origin(info, key, rounds.clock);
            for tgid in self.sessions.reconcile(&tracked, unix, origin, &mut self.recorder) {
                self.kernel.forget(tgid);
            }
        }
        match self.kernel.counters() {
            Ok(counters) => {
                if counters.lost_events != rounds.counters.lost_events {
                    warn!(
                        events = counters.lost_events - rounds.counters.lost_events,
                        bytes = counters.lost_bytes - rounds.counters.lost_bytes,
                        "the recorder fell behind: these are declared in `gaps`; see docs/errors.md#ring-full"
                    );
                    rounds.snapshot = Some(self.kernel.all_tracked());
                }
                rounds.counters = counters;
                self.publish(counters);
            }
            Err(error) => error!(%error, "cannot read the kernel side's counters"),
        }
        if now.saturating_sub(rounds.scan) >= nanos(SCAN) {
            rounds.scan = now;
            self.scan();
        }
    }

    fn publish(&self, counters: Counters) {
        metrics::EVENTS.set(counters.events);
        metrics::BYTES.set(counters.bytes);
        metrics::LOST_EVENTS.set(counters.lost_events);
        metrics::LOST_BYTES.set(counters.lost_bytes);
        metrics::UNTRACKED.set(counters.untracked);
        metrics::SERVERS.set(self.servers.len() as u64);
        metrics::SESSIONS.set(self.sessions.len() as u64);
        if let Some(path) = &self.metrics_file
            && let Err(error) = std::fs::write(path, metrics::render())
        {
            warn!(path = %path.display(), %error, "cannot write the metrics");
        }
    }

    /// Drains what the hooks left, and writes everything. Then they are gone, or wait for the next agent.
    fn finish(mut self) -> anyhow::Result<()> {
        let clock = Clock::now();
        if self.on_stop == OnStop::Stay && self.kernel.is_pinned() {
            self.drain(clock);
            self.commit();
            self.sessions.pause(&self.kernel.all_tracked(), &mut self.recorder);
            self.recorder.suspend()?;
            return Ok(());
        }
        self.kernel.detach();
        while self.drain(clock) > 0 {
            self.commit();
        }
        let at = clock.unix(monotonic_now());
        let tracked = self.kernel.all_tracked();
        let origin = |info: &OpenInfo, key| self.servers.origin(info, key, clock);
        self.sessions.reconcile(&tracked, at, origin, &mut self.recorder);
        self.sessions.stop(at, &mut self.recorder);
        if let Ok(counters) = self.kernel.counters() {
            self.publish(counters);
        }
        self.recorder.finish()?;
        Ok(())
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// On a host whose processors are all busy the reader must not wait for its turn until the ring is full. It needs
/// a few percent of one processor; with these levels it gets them promptly.
const PRIORITY: i32 = 10;
/// A commit comes after this many times the time that the last one took.
const COMMIT_REST: u64 = 20;
/// Names the state that says which kernel side all others belong to.
const EPOCH: [u8; 16] = [0xff; 16];
/// Events handled before anything else gets a turn.
const BATCH: usize = 4096;
/// How often the recorder is told the time, and losses are looked for.
const TICK: Duration = Duration::from_millis(100);
/// How often a starting server is looked at. It listens some tens of milliseconds after its start.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How often all processes are looked through. The exec hook finds new servers at once; this finds what
/// it missed.
const SCAN: Duration = Duration::from_secs(5);
