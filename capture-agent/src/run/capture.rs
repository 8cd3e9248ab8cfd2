//! The capture thread: from the ring to the recorder's builders.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use capture_common::{BACKEND, HOLD_GUARD, LOSS_RING_FULL, OpenInfo, SessionKey, Tracked};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::pace::Pace;
use super::reload::Reloaded;
use super::rules::Rules;
use super::servers::Servers;
use super::sessions::{Clock, Sessions};
use super::verdicts::{Hands, Verdicts, give_orders};
use super::{decisions, masking, shim};
use crate::config::{Config, OnStop};
use crate::enforce::{Backends, Overruns};
use crate::probes::{Counters, Event, Form, Kernel, Ring, Stop, Way, monotonic_now, thread_time};
use crate::record::{Recorder, Recovery};
use crate::session::Origin;
use crate::telemetry::{health, metrics};
use crate::upload::Backlog;

/// Everything that the capture thread owns.
pub(super) struct Capture {
    pub(super) kernel: Kernel,
    pub(super) ring: Ring,
    pub(super) sessions: Sessions,
    pub(super) servers: Servers,
    pub(super) recorder: Recorder,
    /// The way to stopped backends; none if no rule has any stopped.
    pub(super) backends: Option<Backends>,
    /// Those that wait for their record.
    pub(super) overruns: Overruns,
    /// Those that wait for a verdict.
    pub(super) verdicts: Verdicts,
    /// The configuration as it was at the start, and its file.
    pub(super) config: Config,
    pub(super) file: Option<PathBuf>,
    /// The file's later versions.
    pub(super) reloads: Receiver<Reloaded>,
    /// What the uploader says of its backlog.
    pub(super) backlogs: Receiver<Backlog>,
    pub(super) on_stop: OnStop,
    /// When this agent took over, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) began: u64,
    /// Who writes the metrics to a file, if anybody does.
    pub(super) metrics_file: Option<watch::Sender<()>>,
    /// How soon this thread gets a processor.
    pub(super) pace: Pace,
}

/// What is done now and then rather than for each event.
struct Rounds {
    clock: Clock,
    tick: u64,
    /// When the last event came.
    heard: u64,
    /// When the last look for servers and sessions was, and how much processor time it took.
    scan: (u64, u64),
    counters: Counters,
    /// When the last commit was, and how long it took.
    commit: (u64, u64),
    /// What the kernel had counted when it last lost something, and where the ring ended then. Compared once all that
    /// it delivered before has been drained.
    snapshot: Option<(Vec<Tracked>, u64)>,
}

impl Capture {
    /// Goes on where an earlier agent of the same data directory was ended: with its sessions, if the kernel side
    /// has captured without a break, else without.
    pub(super) fn resume(&mut self, recovery: &Recovery) {
        let epoch = recovery.states.iter().find(|(key, _)| *key == EPOCH);
        let unbroken = self.kernel.adopted
            && epoch.is_some_and(|(_, epoch)| **epoch == self.kernel.epoch.to_le_bytes())
            && recovery.position.is_none_or(|position| self.ring.resume(position));
        self.sessions.restore(&recovery.states, &mut self.recorder);
        if unbroken {
            info!(
                sessions = self.sessions.len(),
                rows = recovery.rows,
                "going on where the last agent ended"
            );
        } else {
            self.sessions.set_aside();
        }
        self.recorder.save_state(EPOCH, &self.kernel.epoch.to_le_bytes());
    }

    /// Finds the servers and sessions that are there.
    pub(super) fn scan(&mut self) {
        self.servers.scan(&mut self.kernel, &mut self.sessions, &mut self.recorder);
        // Those whose sessions go on were found by now.
        self.sessions.stop_left(Clock::now().unix(monotonic_now()), &mut self.recorder);
    }

    /// Captures until `stop` is set; `wake` is readable then. Then drains and writes what there is.
    pub(super) fn run(mut self, stop: &AtomicBool, wake: RawFd) -> anyhow::Result<()> {
        self.pace.begin(self.backends.is_some());
        let _alive = health::CAPTURE.begin();
        let now = monotonic_now();
        let mut rounds = Rounds {
            clock: Clock::now(),
            tick: now,
            heard: now,
            scan: (now, 0),
            counters: Counters::default(),
            commit: (now, 0),
            snapshot: None,
        };
        self.ring.wake_by(wake)?;
        while !stop.load(Ordering::Acquire) {
            let limit = match self.overruns.any() {
                true => Duration::ZERO,
                _ if self.servers.any_starting() => LOOK_AGAIN,
                _ if self.is_quiet(&rounds) => QUIET_TICK,
                _ => TICK,
            };
            self.ring.wait(limit)?;
            self.pace.keep_up(&self.ring);
            let events = self.drain(rounds.clock);
            if events > 0 {
                rounds.heard = monotonic_now();
                self.sessions.pass_over(events < BATCH);
            }
            self.reload();
            give_orders(&mut self.kernel, &mut self.sessions);
            self.attend(rounds.clock);
            self.sweep();
            self.servers.look_again(&mut self.kernel, &mut self.sessions, &mut self.recorder);
            self.now_and_then(&mut rounds);
            self.commit_if_due(&mut rounds);
        }
        self.finish()
    }

    /// Whether nothing has come for so long that all of it is recorded, and nobody is to see this thread at work: then it looks
    /// after the rest more rarely. What comes next wakes it.
    fn is_quiet(&self, rounds: &Rounds) -> bool {
        self.backends.is_none() && rounds.tick.saturating_sub(rounds.heard) > nanos(QUIET_AFTER)
    }

    /// Handles at most a batch of events. Returns how many there were.
    fn drain(&mut self, clock: Clock) -> usize {
        let Self { kernel, ring, sessions, servers, recorder, backends, verdicts, began, .. } = self;
        ring.drain(BATCH, |event| match event {
            Event::Data { key, at, from_server, offset, end_of_call, stop, bytes, .. } => {
                let origin = |key, offset| first_seen(key, offset, kernel, servers, *began, clock);
                sessions.data_of_any(&event, clock, origin, recorder);
                let mut hands = Hands { kernel, sessions, backends: backends.as_mut(), recorder };
                match stop {
                    Stop::Held if end_of_call => verdicts.held(key, at, bytes, &mut hands),
                    Stop::Failed { ended } if end_of_call => verdicts.missed(key, offset, ended, &mut hands),
                    Stop::No if !from_server && hands.sessions.watched(key) => {
                        verdicts.watch(key, offset, &mut hands);
                    }
                    _ => {}
                }
            }
            Event::Open { key, info, .. } => sessions.begin(key, servers.origin(&info, key, clock), recorder),
            Event::Close { key: SessionKey { born: 0, tgid, .. }, .. } => servers.exited(tgid),
            Event::Close { key, at, info } => {
                if !sessions.contains(key.tgid) {
                    sessions.begin(key, servers.origin(&OpenInfo::default(), key, clock), recorder);
                }
                if let Some(session) = sessions.info(key) {
                    verdicts.ended(session.origin.id);
                }
                sessions.close(key, clock.unix(at), &info, recorder);
            }
            Event::Exec { tgid } => servers.executed(tgid, kernel, sessions, recorder),
        })
    }

    /// Takes over the rules of a file that has changed, or says why not.
    fn reload(&mut self) {
        let Ok(reloaded) = self.reloads.try_recv() else { return };
        let taken = reloaded.and_then(|config| {
            self.take_rules(&Rules::new(Arc::new(config.policy.clone())))
                .map_err(|error| format!("{error:#}"))?;
            Ok(config)
        });
        let file = self.file.as_deref();
        match taken {
            Ok(config) => {
                info!(
                    "the configuration file has changed: its rules hold from now on, the rest from the next start"
                );
                decisions::policy_loaded(&config, file, &mut self.recorder);
            }
            Err(error) => {
                warn!(
                    error,
                    "the configuration file has changed and is wrong: the old rules stay (see docs/errors.md#reload)"
                );
                decisions::policy_refused(&error, file, &mut self.recorder);
            }
        }
    }

    fn take_rules(&mut self, rules: &Rules) -> anyhow::Result<()> {
        let key = masking::key(&self.config, rules.policy())?;
        if self.backends.is_none() && (rules.require_any() || rules.guard_any()) {
            self.backends = Some(shim::backends(&self.config, self.file.as_deref(), &self.kernel)?);
        }
        self.verdicts.prepare(rules.policy(), &self.config, &self.kernel)?;
        self.verdicts.set_policy(Arc::clone(rules.policy()));
        self.kernel.set_default_orders(rules.default_orders())?;
        self.recorder.set_required(rules.require_any());
        self.sessions.set_rules(rules, key);
        self.pace.begin(self.backends.is_some());
        Ok(())
    }

    /// Sees to holds of which no event told.
    fn sweep(&mut self) {
        let Self { kernel, sessions, backends, verdicts, recorder, .. } = self;
        let mut hands = Hands { kernel, sessions, backends: backends.as_mut(), recorder };
        verdicts.sweep(monotonic_now(), &mut hands);
    }

    /// Lets the backends go on that wait because the ring had no room for their bytes: once these are recorded.
    fn attend(&mut self, clock: Clock) {
        let Self { kernel, ring, sessions, servers, recorder, began, backends, overruns, .. } = self;
        let Some(backends) = backends else { return };
        overruns.look(backends, monotonic_now(), || kernel.held(), || ring.end());
        let ready = overruns.ready(ring.position());
        if ready.is_empty() {
            return;
        }
        let fetched: Vec<_> = ready
            .iter()
            .map(|hold| {
                let mut held = Vec::new();
                let fetched = backends.fetch(hold, |offset, bytes| {
                    let end_of_call = offset + bytes.len() as u64 == hold.offset + hold.len;
                    let event = Event::Data {
                        key: hold.session,
                        at: hold.at,
                        from_server: hold.direction == BACKEND,
                        offset,
                        loss: LOSS_RING_FULL,
                        end_of_call,
                        form: Form::of_hold(hold),
                        stop: Stop::No,
                        bytes,
                    };
                    if hold.flags & HOLD_GUARD != 0 {
                        held.extend_from_slice(bytes);
                    }
                    let origin = |key, offset| first_seen(key, offset, kernel, servers, *began, clock);
                    sessions.data_of_any(&event, clock, origin, recorder);
                });
                if let Err(error) = &fetched {
                    warn!(pid = hold.session.tgid, bytes = hold.len, %error, "a required recording has a gap: the bytes of a stopped backend cannot be read (see docs/errors.md#hold-unread)");
                }
                fetched.map(|()| held)
            })
            .collect();
        for (hold, fetched) in ready.iter().zip(&fetched) {
            if fetched.is_err() {
                self.sessions.doubt(hold.session);
            }
        }
        give_orders(&mut self.kernel, &mut self.sessions);
        // Before they go on: what they wait with is nowhere else. And if this thread was held up for long, the kernel side would not
        // stop them again before it has seen it alive.
        self.commit();
        self.kernel.beat();
        let Self { kernel, sessions, backends: Some(backends), verdicts, recorder, .. } = self else {
            return;
        };
        for (hold, fetched) in ready.iter().zip(fetched) {
            match fetched {
                Ok(bytes) if hold.flags & HOLD_GUARD != 0 => {
                    let mut hands = Hands { kernel, sessions, backends: Some(backends), recorder };
                    verdicts.held(hold.session, hold.at, &bytes, &mut hands);
                }
                Ok(_) => backends.release(hold, Way::On),
                Err(_) => backends.release(hold, Way::of_failure(hold)),
            }
        }
    }

    /// What was handed on so far becomes permanent, and may go from the ring. A commit saves all sessions that have
    /// changed; where they hold much, it comes more rarely, so that it takes a small part of the time.
    fn commit_if_due(&mut self, rounds: &mut Rounds) {
        let (last, took) = rounds.commit;
        let now = monotonic_now();
        let rested = now.saturating_sub(last) >= took.saturating_mul(COMMIT_REST).max(nanos(COMMIT_AGE));
        if rested || self.ring.must_acknowledge() {
            self.commit();
            rounds.commit = (now, monotonic_now().saturating_sub(now));
            metrics::COMMIT_TIME.set(rounds.commit.1 / 1_000);
        }
    }

    fn commit(&mut self) {
        self.sessions.save(&mut self.recorder);
        self.recorder.commit(self.ring.position());
        self.ring.acknowledge();
        health::COMMIT.now();
    }

    fn now_and_then(&mut self, rounds: &mut Rounds) {
        let now = monotonic_now();
        if now.saturating_sub(rounds.tick) < nanos(TICK) {
            return;
        }
        rounds.tick = now;
        self.kernel.beat();
        health::CAPTURE.beat();
        self.kernel.flush_log();
        rounds.clock = Clock::now();
        let unix = rounds.clock.unix(now);
        self.recorder.tick(unix);
        self.declare_backlogs();
        for server in self.servers.newly_named() {
            self.sessions.name(&server);
        }
        let position = self.ring.position();
        if let Some((mut tracked, _)) = rounds.snapshot.take_if(|(_, end)| *end <= position) {
            tracked.retain(|entry| !self.overruns.holds(entry.session.tgid));
            let origin = |info: &OpenInfo, key| self.servers.origin(info, key, rounds.clock);
            for tgid in self.sessions.reconcile(&tracked, unix, origin, &mut self.recorder) {
                self.kernel.forget(tgid);
            }
        }
        match self.kernel.counters() {
            Ok(counters) => {
                if counters.lost_bytes != rounds.counters.lost_bytes {
                    warn!(
                        events = counters.lost_events - rounds.counters.lost_events,
                        bytes = counters.lost_bytes - rounds.counters.lost_bytes,
                        "the recorder fell behind: these are declared in `gaps`; see docs/errors.md#ring-full"
                    );
                }
                // Of those that were held, somebody else may have let one go on unrecorded.
                if counters.lost_bytes != rounds.counters.lost_bytes
                    || counters.lost_events != rounds.counters.lost_events
                    || counters.held != rounds.counters.held
                {
                    rounds.snapshot = Some((self.kernel.all_tracked(), self.ring.end()));
                }
                rounds.counters = counters;
                self.publish(counters);
            }
            Err(error) => error!(%error, "cannot read the kernel side's counters"),
        }
        let (last, took) = rounds.scan;
        let least = if self.is_quiet(rounds) { SCAN_QUIET } else { SCAN };
        let rest = took.saturating_mul(SCAN_REST).clamp(nanos(least), nanos(SCAN_LONGEST));
        if now.saturating_sub(last) >= rest {
            let before = thread_time();
            self.scan();
            rounds.scan = (now, thread_time().saturating_sub(before));
        }
    }

    fn declare_backlogs(&mut self) {
        for backlog in self.backlogs.try_iter() {
            decisions::upload_backlog(backlog, &mut self.recorder);
        }
    }

    fn publish(&self, counters: Counters) {
        metrics::EVENTS.set(counters.events);
        metrics::BYTES.set(counters.bytes);
        metrics::LOST_EVENTS.set(counters.lost_events);
        metrics::LOST_BYTES.set(counters.lost_bytes);
        metrics::UNTRACKED.set(counters.untracked);
        metrics::HELD.set(counters.held);
        metrics::GUARDED.set(counters.guarded);
        metrics::UNHELD.set(counters.unheld);
        metrics::PASSED_BYTES.set(counters.passed_bytes);
        metrics::SERVERS.set(self.servers.len() as u64);
        metrics::SESSIONS.set(self.sessions.len() as u64);
        metrics::MASKED_VALUES.set(self.sessions.masked());
        metrics::RING_SIZE.set(self.ring.size());
        metrics::RING_USED.set(self.ring.end().saturating_sub(self.ring.position()));
        metrics::WAITING.set(self.verdicts.waiting() as u64);
        if let Some(fresh) = &self.metrics_file {
            fresh.send_replace(());
        }
    }

    /// Drains what the hooks left, and writes everything. Then they are gone, or wait for the next agent.
    fn finish(mut self) -> anyhow::Result<()> {
        health::DETACHED.set(true);
        // While the hooks go, one after the other, whoever outruns the ring is stopped, as before.
        self.kernel.beat();
        self.declare_backlogs();
        let clock = Clock::now();
        if self.on_stop == OnStop::Stay && self.kernel.is_pinned() {
            self.drain(clock);
            self.overruns.ask_again();
            self.attend(clock);
            self.commit();
            self.sessions.pause(&self.kernel.all_tracked(), &mut self.recorder);
            self.recorder.suspend()?;
            return Ok(());
        }
        self.kernel.detach();
        loop {
            let drained = self.drain(clock);
            // Also when nothing was drained: a backend may have been stopped just before the hooks went.
            self.overruns.ask_again();
            self.attend(clock);
            self.commit();
            if drained == 0 && !self.overruns.any() {
                break;
            }
        }
        self.kernel.unpin();
        let at = clock.unix(monotonic_now());
        let mut tracked = self.kernel.all_tracked();
        for entry in &mut tracked {
            // No program is at work any more: what was not told by now is lost.
            entry.told = entry.offset;
        }
        let origin = |info: &OpenInfo, key| self.servers.origin(info, key, clock);
        self.sessions.reconcile(&tracked, at, origin, &mut self.recorder);
        self.sessions.stop(at, &mut self.recorder);
        if let Ok(counters) = self.kernel.counters() {
            self.publish(counters);
        }
        self.sessions.forget_key();
        self.recorder.finish()?;
        Ok(())
    }
}

/// What a session looks like of which something else than its beginning is seen first.
fn first_seen(
    key: SessionKey,
    offset: u64,
    kernel: &Kernel,
    servers: &Servers,
    began: u64,
    clock: Clock,
) -> Origin {
    let info = kernel.tracked(key.tgid).filter(|entry| entry.session == key).map(|entry| entry.open);
    // An earlier agent's, whose state is lost or of another layout.
    let partial = kernel.adopted && key.born < began && offset > 0;
    Origin { partial, ..servers.origin(&info.unwrap_or_default(), key, clock) }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The least time between two commits. What waits for one is in the ring as long.
const COMMIT_AGE: Duration = Duration::from_millis(20);
/// A commit comes after this many times the time that the last one took.
const COMMIT_REST: u64 = 20;
/// Names the state that says which kernel side all others belong to.
const EPOCH: [u8; 16] = [0xff; 16];
/// Events handled before anything else gets a turn.
const BATCH: usize = 4096;
/// How often the recorder is told the time, and losses are looked for.
const TICK: Duration = Duration::from_millis(100);
/// The same once nothing has come for a while.
const QUIET_TICK: Duration = Duration::from_millis(500);
/// How long that is: what came last is in the record's hands by then.
const QUIET_AFTER: Duration = Duration::from_secs(2);
/// How often a starting server is looked at. It listens some tens of milliseconds after its start.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How often all processes are looked through. The exec hook finds new servers at once; this finds what
/// it missed.
const SCAN: Duration = Duration::from_secs(5);
/// The same while nothing comes.
const SCAN_QUIET: Duration = Duration::from_secs(30);
/// Where there are so many that it takes long, it is done more rarely: after this many times what the last took, within
/// bounds. A look at a thousand sessions must take far less than a thousandth of a core.
const SCAN_REST: u64 = 5_000;
const SCAN_LONGEST: Duration = Duration::from_secs(60);
