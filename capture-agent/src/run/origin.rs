//! What sessions look like from outside, before their first byte is read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use capture_common::OpenInfo;
use uuid::{NoContext, Timestamp, Uuid};

use crate::probes::{Access, OpenBackend};
use crate::session::{Micros, Origin, ServerOrigin, SessionId, Transport};

/// What a connection that was just accepted looks like from outside.
pub(super) fn origin(
    info: &OpenInfo,
    started_at: Micros,
    server: Arc<ServerOrigin>,
    access: &dyn Access,
) -> Origin {
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
        peer_exe: peer_pid
            .and_then(|pid| access.executable(pid).ok()?)
            .map(|path| path.to_string_lossy().into_owned()),
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
    access: &dyn Access,
) -> Origin {
    Origin {
        user: backend.user.clone(),
        database: backend.database.clone(),
        partial: true,
        idle,
        ..origin(&backend.info, started_at, server, access)
    }
}

fn session_id(at: Micros) -> SessionId {
    let micros = u64::try_from(at.0).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    SessionId(Uuid::new_v7(Timestamp::from_unix(NoContext, micros / 1_000_000, nanos)))
}
