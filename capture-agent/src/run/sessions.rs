//! The open sessions, and what the kernel's keys, clocks and reasons mean to the rooms below.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use capture_common::{
    BACKEND, CloseInfo, FRONTEND, OpenInfo, ROLE_BACKEND, STATE_CLOSED, SessionKey, Tracked,
};
use uuid::{NoContext, Timestamp, Uuid};

use crate::probes::{self, Event, Form, OpenBackend};
use crate::record::Recorder;
use crate::session::{
    Close, Data, Direction, Limits, Micros, Origin, ServerOrigin, Session, SessionId, Transport,
};
use crate::streams::Loss;

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
    limits: Limits,
    /// Processes whose sessions have changed since they were last saved.
    changed: Vec<u32>,
    /// Sessions that were saved once and have ended since.
    ended: Vec<SessionKey>,
    state: Vec<u8>,
}

struct Open {
    key: SessionKey,
    session: Session,
    /// Whether it stands in `Sessions::changed`.
    changed: bool,
    saved: bool,
    /// The version of the prepared statements that were saved last.
    prepared: u64,
}

impl Open {
    /// Something has happened that must be saved.
    fn touch(&mut self, changed: &mut Vec<u32>) {
        if !self.changed {
            self.changed = true;
            changed.push(self.key.tgid);
        }
    }
}

impl Sessions {
    pub(super) fn new(limits: Limits) -> Self {
        Self { open: HashMap::default(), limits, changed: Vec::new(), ended: Vec::new(), state: Vec::new() }
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
        let session = Session::new(origin, self.limits);
        self.changed.push(key.tgid);
        let open = Open { key, session, changed: true, saved: false, prepared: 0 };
        if let Some(stale) = self.open.insert(key.tgid, open) {
            // Its end was never told; its process id is in use again.
            self.ended.extend(stale.saved.then_some(stale.key));
            stale.session.stop(at, recorder);
        }
    }

    /// Bytes passed. False if the session is not known.
    #[inline]
    pub(super) fn data(&mut self, event: &Event<'_>, clock: Clock, recorder: &mut Recorder) -> bool {
        let Event::Data { key, at, from_server, offset, loss, end_of_call, form, bytes } = *event else {
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
        let (plaintext, at) = (form == Form::Plaintext, clock.unix(at));
        open.session.data(Data { direction, offset, bytes, loss, end_of_call, plaintext, at }, recorder);
        true
    }

    /// A backend exited.
    pub(super) fn close(&mut self, key: SessionKey, at: Micros, info: &CloseInfo, recorder: &mut Recorder) {
        if self.open.get(&key.tgid).is_none_or(|open| open.key != key) {
            return;
        }
        if let Some(open) = self.open.remove(&key.tgid) {
            self.ended.extend(open.saved.then_some(key));
            let CloseInfo { end: ends, socket, exit_code: exit_status, .. } = *info;
            let losses = info.loss.map(Loss::from_code);
            open.session.close(Close { ends, socket, losses, exit_status, at }, recorder);
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
                advance(&mut open.session, entry.offset, entry.loss, at, recorder);
                open.touch(&mut self.changed);
            }
        }
        ended
    }

    /// The agent stops: every session is written as it stands.
    pub(super) fn stop(&mut self, at: Micros, recorder: &mut Recorder) {
        for (_, open) in self.open.drain() {
            self.ended.extend(open.saved.then_some(open.key));
            open.session.stop(at, recorder);
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

    /// Hands the state of every session that has changed to the recorder.
    pub(super) fn save(&mut self, recorder: &mut Recorder) {
        for key in self.ended.drain(..) {
            for part in [Part::Rest, Part::Prepared] {
                recorder.forget_state(state_key(key, part));
            }
        }
        for tgid in self.changed.drain(..) {
            let Some(open) = self.open.get_mut(&tgid) else { continue };
            open.changed = false;
            self.state.clear();
            open.session.save(&mut self.state);
            recorder.save_state(state_key(open.key, Part::Rest), &self.state);
            let prepared = open.session.prepared_version();
            if prepared != open.prepared {
                self.state.clear();
                open.session.save_prepared(&mut self.state);
                recorder.save_state(state_key(open.key, Part::Prepared), &self.state);
                open.prepared = prepared;
            }
            open.saved = true;
        }
        // One session's large state must not be held forever.
        self.state.shrink_to(MOST_SPARE);
    }

    /// Takes over the sessions of an earlier agent. Those that this one cannot read are left out.
    pub(super) fn restore(&mut self, states: &[([u8; 16], Vec<u8>)]) {
        let prepared: HashMap<_, _> = states
            .iter()
            .filter_map(|(key, state)| Some((parse_key(*key, Part::Prepared)?, state.as_slice())))
            .collect();
        for (key, state) in states {
            let Some(key) = parse_key(*key, Part::Rest) else { continue };
            let prepared = prepared.get(&key).copied().unwrap_or_default();
            match Session::restore(state, prepared, self.limits) {
                Ok(session) => {
                    let prepared = session.prepared_version();
                    let open = Open { key, session, changed: false, saved: true, prepared };
                    self.open.insert(key.tgid, open);
                }
                Err(error) => {
                    tracing::warn!(pid = key.tgid, %error, "a session cannot be taken over");
                    self.ended.push(key);
                }
            }
        }
    }
}

/// What of a session a saved state holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Rest,
    Prepared,
}

/// Names a saved state: the session, in 12 bytes, and the part.
fn state_key(key: SessionKey, part: Part) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&key.born.to_le_bytes());
    bytes[8..12].copy_from_slice(&key.tgid.to_le_bytes());
    bytes[12] = part as u8;
    bytes
}

/// The session, if the state is this part of one.
fn parse_key(bytes: [u8; 16], part: Part) -> Option<SessionKey> {
    let (born, rest) = bytes.split_first_chunk()?;
    let (tgid, _) = rest.split_first_chunk()?;
    let key = SessionKey { born: u64::from_le_bytes(*born), tgid: u32::from_le_bytes(*tgid), reserved: 0 };
    (state_key(key, part) == bytes).then_some(key)
}

/// Capacity that is kept between two rounds of saving.
const MOST_SPARE: usize = 1 << 20;

/// What a connection that was just accepted looks like from outside.
pub(super) fn origin(info: &OpenInfo, started_at: Micros, server: Arc<ServerOrigin>) -> Origin {
    let (transport, client_addr) = match i32::from(info.family) {
        libc::AF_INET => {
            let [a, b, c, d, ..] = info.addr;
            (Transport::Tcp, Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d))))
        }
        libc::AF_INET6 => (Transport::Tcp, Some(IpAddr::V6(Ipv6Addr::from(info.addr)))),
        _ => (Transport::Unix, None),
    };
    let peer_pid = (info.peer_pid != 0).then_some(info.peer_pid);
    Origin {
        id: session_id(started_at),
        started_at,
        transport,
        client_addr,
        client_port: client_addr.map(|_| u16::from_be(info.port)),
        backend_pid: info.own_pid,
        host_pid: 0,
        peer_pid,
        peer_exe: peer_pid.and_then(probes::executable).map(|path| path.to_string_lossy().into_owned()),
        server,
        user: None,
        database: None,
        partial: false,
        idle: false,
    }
}

/// What a session that was open before the agent looks like from outside. `idle`: see [`Origin::idle`].
pub(super) fn open_origin(
    backend: &OpenBackend,
    started_at: Micros,
    server: Arc<ServerOrigin>,
    idle: bool,
) -> Origin {
    Origin {
        user: backend.user.clone(),
        database: backend.database.clone(),
        partial: true,
        idle,
        ..origin(&backend.info, started_at, server)
    }
}

fn session_id(at: Micros) -> SessionId {
    let micros = u64::try_from(at.0).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    SessionId(Uuid::new_v7(Timestamp::from_unix(NoContext, micros / 1_000_000, nanos)))
}

fn advance(session: &mut Session, end: [u64; 2], loss: [u32; 2], at: Micros, recorder: &mut Recorder) {
    for (direction, index) in [(Direction::Frontend, FRONTEND), (Direction::Backend, BACKEND)] {
        let index = usize::from(index);
        session.advance_to(direction, end[index], Loss::from_code(loss[index]), at, recorder);
    }
}
