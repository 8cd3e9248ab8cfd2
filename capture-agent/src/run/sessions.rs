//! The open sessions, and what the kernel's keys, clocks and reasons mean to the rooms below.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use capture_common::{
    BACKEND, CloseInfo, FRONTEND, OpenInfo, ROLE_BACKEND, STATE_CLOSED, SessionKey, Tracked,
};
use uuid::{NoContext, Timestamp, Uuid};

use crate::probes::{self, Event, OpenBackend};
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
    open: HashMap<u32, (SessionKey, Session), foldhash::fast::RandomState>,
    limits: Limits,
}

impl Sessions {
    pub(super) fn new(limits: Limits) -> Self {
        Self { open: HashMap::default(), limits }
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
        if let Some((_, stale)) = self.open.insert(key.tgid, (key, session)) {
            // Its end was never told; its process id is in use again.
            stale.stop(at, recorder);
        }
    }

    /// Bytes passed. False if the session is not known.
    #[inline]
    pub(super) fn data(&mut self, event: &Event<'_>, clock: Clock, recorder: &mut Recorder) -> bool {
        let Event::Data { key, at, from_server, offset, loss, end_of_call, bytes } = *event else {
            return true;
        };
        let Some((known, session)) = self.open.get_mut(&key.tgid) else { return false };
        if *known != key {
            return false;
        }
        let direction = if from_server { Direction::Backend } else { Direction::Frontend };
        let loss = Loss::from_code(loss);
        session.data(Data { direction, offset, bytes, loss, end_of_call, at: clock.unix(at) }, recorder);
        true
    }

    /// A backend exited.
    pub(super) fn close(&mut self, key: SessionKey, at: Micros, info: &CloseInfo, recorder: &mut Recorder) {
        if self.open.get(&key.tgid).is_none_or(|(known, _)| *known != key) {
            return;
        }
        if let Some((_, session)) = self.open.remove(&key.tgid) {
            let losses = info.loss.map(Loss::from_code);
            session.close(Close { ends: info.end, losses, exit_status: info.exit_code, at }, recorder);
        }
    }

    /// Compares what the kernel counted with what arrived. Returns the processes whose end could not be told
    /// through the ring: their entries in the kernel's table are no longer needed.
    pub(super) fn reconcile(&mut self, tracked: &[Tracked], at: Micros, recorder: &mut Recorder) -> Vec<u32> {
        let mut ended = Vec::new();
        for entry in tracked.iter().filter(|entry| entry.role == ROLE_BACKEND) {
            if entry.state & STATE_CLOSED != 0 {
                let info = CloseInfo {
                    end: entry.offset,
                    loss: entry.loss,
                    exit_code: entry.exit_code,
                    reserved: 0,
                };
                self.close(entry.session, at, &info, recorder);
                ended.push(entry.session.tgid);
            } else if let Some((known, session)) = self.open.get_mut(&entry.session.tgid)
                && *known == entry.session
            {
                advance(session, entry.offset, entry.loss, at, recorder);
            }
        }
        ended
    }

    /// The agent stops: every session is written as it stands.
    pub(super) fn stop(&mut self, at: Micros, recorder: &mut Recorder) {
        for (_, (_, session)) in self.open.drain() {
            session.stop(at, recorder);
        }
    }
}

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
