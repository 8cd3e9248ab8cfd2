//! The open sessions, and what the kernel's keys, clocks and reasons mean to the rooms below.

mod guarding;
mod passing;
mod saving;

use std::collections::HashMap;
use std::sync::Arc;

use capture_common::{
    BACKEND, CloseInfo, FRONTEND, OpenInfo, Orders, ROLE_BACKEND, STATE_CLOSED, SessionKey, Tracked,
};

use super::open::{Guarded, Open};
use super::rules::Rules;
use super::vault::Vault;
use crate::enforce::Prepared;
use crate::mask::{Key, Masked, Masker};
use crate::probes::{self, Event, Form, Passes};
use crate::record::Recorder;
use crate::session::{
    Close, Data, Direction, Exchange, Gap, Limits, Micros, Origin, RowRun, RowValues, ServerOrigin, Session,
    SessionEnd, SessionInfo, Sink,
};
use crate::streams::Loss;
use crate::telemetry::metrics;

/// Turns the kernel's clock into the Unix time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    offset: u64,
}

impl Clock {
    /// Reads both clocks. Made anew now and then, so that the record follows when the host's time is set.
    pub(super) fn now() -> Self {
        Self { offset: probes::unix_offset() }
    }

    /// The Unix time of `at` nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) fn unix(self, at: u64) -> Micros {
        Micros(i64::try_from(at.wrapping_add(self.offset) / 1_000).unwrap_or(i64::MAX))
    }
}

/// Every session that has begun and not ended.
pub(super) struct Sessions {
    open: HashMap<u32, Open, foldhash::fast::RandomState>,
    /// Those of an earlier agent, by process, since whose end nobody has captured.
    left: HashMap<u32, Open>,
    limits: Limits,
    rules: Rules,
    /// Whether any guardrail looks at statements.
    watching: bool,
    /// What the kernel side is to be told of sessions whose rule was found.
    orders: Vec<(SessionKey, Orders)>,
    /// Processes whose sessions have changed since they were last saved.
    changed: Vec<u32>,
    /// Sessions that were saved once and have ended since.
    ended: Vec<SessionKey>,
    state: Vec<u8>,
    sealed: Vec<u8>,
    masker: Masker,
    vault: Vault,
    passing: passing::Passing,
}

impl Sessions {
    pub(super) fn new(rules: Rules, masker: Masker, vault: Vault, passes: Passes) -> Self {
        let limits = Limits::default();
        Self {
            open: HashMap::default(),
            left: HashMap::new(),
            limits,
            watching: rules.watch_any(),
            rules,
            orders: Vec::new(),
            changed: Vec::new(),
            ended: Vec::new(),
            state: Vec::new(),
            sealed: Vec::new(),
            masker,
            vault,
            passing: passing::Passing::new(passes),
        }
    }

    /// Other rules hold from now on; the kernel side has been told what they mean for sessions that it does not know.
    pub(super) fn set_rules(&mut self, rules: &Rules, key: Option<Key>) {
        self.masker.set_rules(rules.policy());
        if let Some(key) = key {
            self.masker.set_key(key);
        }
        self.rules = rules.clone();
        self.watching = rules.watch_any();
        for open in self.open.values_mut() {
            open.guarded.orders = rules.default_orders();
            open.guarded.forget();
            open.rule(&self.rules, &mut self.orders);
            if self.watching {
                open.arm(&self.rules, &mut self.orders);
            }
        }
    }

    /// How many sessions are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether the process is a backend whose session is known.
    pub(super) fn contains(&self, tgid: u32) -> bool {
        self.open.contains_key(&tgid)
    }

    /// A session began.
    pub(super) fn begin(&mut self, key: SessionKey, mut origin: Origin, recorder: &mut Recorder) {
        origin.host_pid = key.tgid;
        // An event that was lost may have known better.
        if origin.backend_pid == 0 {
            origin.backend_pid = key.tgid;
        }
        let at = origin.started_at;
        let whole = !origin.partial;
        let session = Session::new(origin, self.limits);
        self.changed.push(key.tgid);
        let mut open = Open { changed: true, ..Open::new(key, session, &self.rules) };
        if whole {
            open.guarded.unsettled.prepared = Prepared::Nothing;
        }
        open.rule(&self.rules, &mut self.orders);
        if self.watching {
            open.arm(&self.rules, &mut self.orders);
        }
        if let Some(mut stale) = self.open.insert(key.tgid, open) {
            // Its end was never told; its process id is in use again.
            self.ended.extend(stale.saved.then_some(stale.key));
            stale.session.stop(at, &mut Masked::new(&mut self.masker, &mut stale.masks, recorder));
        }
    }

    /// Bytes passed. False if the session is not known.
    #[inline]
    fn data(&mut self, event: &Event<'_>, clock: Clock, recorder: &mut Recorder) -> bool {
        let Event::Data { key, at, from_server, offset, loss, end_of_call, form, bytes, .. } = *event else {
            return true;
        };
        let Some(open) = self.open.get_mut(&key.tgid).filter(|open| open.key == key) else { return false };
        open.touch(&mut self.changed);
        let direction = if from_server { Direction::Backend } else { Direction::Frontend };
        if form == Form::Sealed {
            open.session.sealed(direction, offset, bytes);
            return true;
        }
        let loss = Loss::from_code(loss);
        if form == (Form::Plaintext { gss: true }) {
            open.session.by_gss();
        }
        let (plaintext, at) = (matches!(form, Form::Plaintext { .. }), clock.unix(at));
        let data = Data { direction, offset, bytes, loss, end_of_call, plaintext, at };
        if from_server {
            self.passing.before(open, offset, at, &mut self.masker, recorder);
            self.passing.note(key.tgid, bytes);
        }
        if open.skip {
            open.session.data(data, &mut Skipped(recorder));
        } else {
            open.session.data(data, &mut Masked::new(&mut self.masker, &mut open.masks, recorder));
        }
        if !open.ruled {
            open.rule(&self.rules, &mut self.orders);
        }
        if self.watching {
            open.arm(&self.rules, &mut self.orders);
        }
        true
    }

    /// What is known of a session.
    pub(super) fn info(&self, key: SessionKey) -> Option<&SessionInfo> {
        self.open.get(&key.tgid).filter(|open| open.key == key).map(|open| open.session.info())
    }

    /// Bytes passed, perhaps of a session that is not known yet: then `origin` says what it looks like from outside, by
    /// its key and the bytes' place in its stream.
    #[inline]
    pub(super) fn data_of_any(
        &mut self,
        event: &Event<'_>,
        clock: Clock,
        origin: impl FnOnce(SessionKey, u64) -> Origin,
        recorder: &mut Recorder,
    ) {
        if let Event::Data { key, offset, .. } = *event
            && !self.data(event, clock, recorder)
        {
            self.begin(key, origin(key, offset), recorder);
            self.data(event, clock, recorder);
        }
    }

    /// More is known of a server, and so of its open sessions.
    pub(super) fn name(&mut self, server: &Arc<ServerOrigin>) {
        for open in self.open.values_mut() {
            if open.session.info().origin.server.pid == server.pid {
                open.session.set_server(Arc::clone(server));
                open.touch(&mut self.changed);
                // A rule may ask for the name.
                open.rule(&self.rules, &mut self.orders);
                if self.watching {
                    open.guarded.forget();
                    open.arm(&self.rules, &mut self.orders);
                }
            }
        }
    }

    /// A backend exited.
    pub(super) fn close(&mut self, key: SessionKey, at: Micros, info: &CloseInfo, recorder: &mut Recorder) {
        if self.open.get(&key.tgid).is_none_or(|open| open.key != key) {
            return;
        }
        if let Some(mut open) = self.open.remove(&key.tgid) {
            self.ended.extend(open.saved.then_some(key));
            open.tell_skip(recorder);
            self.passing.before(&mut open, info.end[usize::from(BACKEND)], at, &mut self.masker, recorder);
            let CloseInfo { end: ends, socket, exit_code: exit_status, .. } = *info;
            let losses = info.loss.map(Loss::from_code);
            count_unnamed(&open.session);
            let close = Close { ends, socket, losses, exit_status, at };
            if open.skip {
                open.session.close(close, &mut Skipped(recorder));
            } else {
                open.session.close(close, &mut Masked::new(&mut self.masker, &mut open.masks, recorder));
            }
        }
    }

    /// Compares what the kernel counted with what arrived. Returns the processes whose end could not be told
    /// through the ring: their entries in the kernel's table are no longer needed. Of a session whose beginning could
    /// not be told either, `origin` says what it looks like from outside.
    pub(super) fn reconcile(
        &mut self,
        tracked: &[Tracked],
        at: Micros,
        origin: impl Fn(&OpenInfo, SessionKey) -> Origin,
        recorder: &mut Recorder,
    ) -> Vec<u32> {
        let mut ended = Vec::new();
        for entry in tracked.iter().filter(|entry| entry.role == ROLE_BACKEND) {
            if entry.state & STATE_CLOSED != 0 {
                let info = CloseInfo {
                    end: entry.offset,
                    socket: entry.socket,
                    loss: entry.loss,
                    exit_code: entry.exit_code,
                    reserved: 0,
                };
                if !self.contains(entry.session.tgid) {
                    self.begin(entry.session, origin(&entry.open, entry.session), recorder);
                }
                self.close(entry.session, at, &info, recorder);
                ended.push(entry.session.tgid);
            } else if let Some(open) = self.open.get_mut(&entry.session.tgid)
                && open.key == entry.session
            {
                open.session.socket_at(entry.socket);
                self.passing.before(open, entry.told[usize::from(BACKEND)], at, &mut self.masker, recorder);
                let mut sink = Masked::new(&mut self.masker, &mut open.masks, recorder);
                advance(&mut open.session, entry.told, entry.loss, at, &mut sink);
                open.touch(&mut self.changed);
            }
        }
        ended
    }

    /// Nobody has captured since the sessions were saved: each waits for [`Sessions::take_up`].
    pub(super) fn set_aside(&mut self) {
        self.left.extend(self.open.drain());
    }

    /// Whether an earlier agent left a session of this process.
    pub(super) fn is_left(&self, tgid: u32) -> bool {
        self.left.contains_key(&tgid)
    }

    /// A session that was found open goes on where an earlier agent left it, with a gap of what nobody captured: before
    /// it was found, `moved` bytes had passed over its socket. False if that agent did not have it.
    pub(super) fn take_up(
        &mut self,
        key: SessionKey,
        origin: &Origin,
        moved: [u64; 2],
        recorder: &mut Recorder,
    ) -> bool {
        let Some(mut open) = self.left.remove(&key.tgid) else { return false };
        let known = &open.session.info().origin;
        let same = (known.client_addr, known.client_port) == (origin.client_addr, origin.client_port)
            && known.client_port.is_some();
        let mut sink = Masked::new(&mut self.masker, &mut open.masks, recorder);
        if !same || !open.session.resume_at(moved, origin.started_at, &mut sink) {
            self.left.insert(key.tgid, open);
            return false;
        }
        self.ended.extend(open.saved.then_some(open.key));
        self.changed.push(key.tgid);
        // The kernel side knows nothing of it.
        let guarded = Guarded::new(&self.rules);
        let mut open = Open { key, changed: true, saved: false, ruled: false, guarded, ..open };
        open.rule(&self.rules, &mut self.orders);
        if self.watching {
            open.arm(&self.rules, &mut self.orders);
        }
        self.open.insert(key.tgid, open);
        true
    }

    /// The sessions that were set aside and not taken up are written as they stand.
    pub(super) fn stop_left(&mut self, at: Micros, recorder: &mut Recorder) {
        for (_, mut open) in self.left.drain() {
            self.ended.extend(open.saved.then_some(open.key));
            open.session.stop(at, &mut Masked::new(&mut self.masker, &mut open.masks, recorder));
        }
    }

    /// The agent stops: every session is written as it stands.
    pub(super) fn stop(&mut self, at: Micros, recorder: &mut Recorder) {
        for (_, mut open) in self.open.drain() {
            self.ended.extend(open.saved.then_some(open.key));
            open.tell_skip(recorder);
            count_unnamed(&open.session);
            if open.skip {
                open.session.stop(at, &mut Skipped(recorder));
            } else {
                open.session.stop(at, &mut Masked::new(&mut self.masker, &mut open.masks, recorder));
            }
        }
    }

    /// The agent stops and the kernel side, which has counted so much, goes on: every session gets a row, which a later
    /// one supersedes, and stays as it is.
    pub(super) fn pause(&mut self, tracked: &[Tracked], recorder: &mut Recorder) {
        for entry in tracked.iter().filter(|entry| entry.role == ROLE_BACKEND) {
            if let Some(open) =
                self.open.get_mut(&entry.session.tgid).filter(|open| open.key == entry.session)
            {
                open.session.socket_at(entry.socket);
            }
        }
        for open in self.open.values() {
            open.session.pause(recorder);
        }
    }

    /// Values masked so far.
    pub(super) fn masked(&self) -> u64 {
        self.masker.masked()
    }

    /// Nothing is left to a next agent, not even a way to read it.
    pub(super) fn forget_key(&self) {
        self.vault.forget();
    }
}

/// Counts a session that ends without its pod's name in the record.
fn count_unnamed(session: &Session) {
    let server = &session.info().origin.server;
    metrics::UNNAMED_PODS.add(u64::from(server.pod_uid.is_some() && server.pod.is_none()));
}

/// A session that a rule skips: it is counted, and nothing of what it says is recorded.
struct Skipped<'a>(&'a mut Recorder);

impl Sink for Skipped<'_> {
    fn row(&mut self, _: &SessionInfo, _: RowValues<'_>) {}
    fn rows(&mut self, _: &SessionInfo, _: RowRun<'_>) {}

    fn statement(&mut self, _: &SessionInfo, _: &Exchange) {}

    fn gap(&mut self, session: &SessionInfo, gap: &Gap) {
        self.0.gap(session, gap);
    }

    fn end(&mut self, session: &SessionInfo, end: &SessionEnd) {
        self.0.end(session, end);
    }
}

fn advance(session: &mut Session, end: [u64; 2], loss: [u32; 2], at: Micros, recorder: &mut impl Sink) {
    for (direction, index) in [(Direction::Frontend, FRONTEND), (Direction::Backend, BACKEND)] {
        let index = usize::from(index);
        session.advance_to(direction, end[index], Loss::from_code(loss[index]), at, recorder);
    }
}
