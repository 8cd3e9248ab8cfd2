//! Finds the client sessions that a server holds already.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;

use capture_common::{OpenInfo, ROLE_BACKEND, STATE_FOUND, SessionKey, Tracked, WALK_ASTRAY, Walk};

use super::access::Access;
use super::processes;
use super::servers::Server;

/// A client session that was open before the hooks were attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenBackend {
    /// The backend's process id.
    pub tgid: u32,
    /// Its client socket and peer.
    pub info: OpenInfo,
    /// The port of the socket's own end; none for a Unix socket.
    pub own_port: Option<u16>,
    /// The role, from the process title.
    pub user: Option<String>,
    /// The database, from the process title.
    pub database: Option<String>,
}

impl OpenBackend {
    pub(super) fn entry(&self, session: SessionKey) -> Tracked {
        // Where a message of its client's begins is not known.
        let walk = Walk { state: WALK_ASTRAY, ..Walk::default() };
        Tracked {
            role: ROLE_BACKEND,
            state: STATE_FOUND,
            session,
            open: self.info,
            walk,
            ..Tracked::default()
        }
    }
}

/// The server's children that hold a client's connection, except those that `known` says are known.
pub fn open_backends(
    server: &Server,
    access: &dyn Access,
    mut known: impl FnMut(u32) -> bool,
) -> Vec<OpenBackend> {
    let Some(port) = server.port else { return Vec::new() };
    let children = processes::children(server.postmaster);
    // Whoever is among the children has its connection already, and all have the server's network.
    let connections = LazyCell::new(|| Connections::of(server.postmaster, port));
    // Both ends of a connection over a Unix socket belong to the network namespace of the client, which may be
    // another than the server's (`unix_stream_connect` in `net/unix/af_unix.c`). Looked at only if needed.
    let elsewhere = LazyCell::new(|| {
        let tables = processes::one_of_each_network().into_iter().map(unix_table);
        tables.flat_map(|table| unix_connections(&table, port).collect::<Vec<_>>()).collect()
    });
    children
        .into_iter()
        .filter(|child| !known(*child))
        .filter_map(|child| open_backend(server.postmaster, port, child, access, &connections, &elsewhere))
        .collect()
}

/// Whether the backend's title says that it waits for the client's next request. The server sets this title when
/// it has sent ReadyForQuery (`src/backend/tcop/postgres.c`), and another when a request arrives.
pub fn waits_for_client(tgid: u32) -> bool {
    processes::command_line(tgid).is_some_and(|title| title_waits(&title))
}

fn title_waits(title: &str) -> bool {
    title.starts_with("postgres: ")
        && [" idle", " idle in transaction", " idle in transaction (aborted)"]
            .iter()
            .any(|activity| title.ends_with(activity))
}

fn open_backend(
    postmaster: u32,
    port: u16,
    tgid: u32,
    access: &dyn Access,
    connections: &impl Deref<Target = Connections>,
    elsewhere: &impl Deref<Target = HashSet<u64>>,
) -> Option<OpenBackend> {
    let sockets = access.sockets(tgid);
    // The server's own workers have none. They are met again with each look, and the tables take milliseconds to read: the
    // kernel walks through all it has room for.
    if sockets.is_empty() {
        return None;
    }
    let title = processes::command_line(tgid).unwrap_or_default();
    let (fd, peer) = client_socket(&sockets, title.contains(" [local] "), connections, elsewhere)?;
    let own_pid = processes::own_pid(tgid).unwrap_or(0);
    let mut info = OpenInfo { postmaster, fd, own_pid, ..OpenInfo::default() };
    match peer {
        Peer::Unix => {
            info.family = libc::AF_UNIX as u16;
            info.peer_pid = access.unix_peer(tgid, fd).unwrap_or(0);
        }
        Peer::Tcp(IpAddr::V4(addr), port) => {
            info.family = libc::AF_INET as u16;
            info.port = port.to_be();
            info.addr[..4].copy_from_slice(&addr.octets());
        }
        Peer::Tcp(IpAddr::V6(addr), port) => {
            info.family = libc::AF_INET6 as u16;
            info.port = port.to_be();
            info.addr = addr.octets();
        }
    }
    let (user, database) = title_identity(&title);
    let own_port = (info.family != libc::AF_UNIX as u16).then_some(port);
    Some(OpenBackend { tgid, info, own_port, user, database })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Unix,
    Tcp(IpAddr, u16),
}

/// The connections to a server, server's end, by the inodes of their sockets.
struct Connections {
    tcp: HashMap<u64, Peer>,
    unix: HashSet<u64>,
}

impl Connections {
    /// Those in the network namespace of the process `pid`, to `port`.
    fn of(pid: u32, port: u16) -> Self {
        let read = |table| fs::read_to_string(processes::proc(pid, table)).unwrap_or_default();
        let tables = ["net/tcp", "net/tcp6"].map(read);
        let lines = tables.iter().flat_map(|table| table.lines().skip(1));
        Self {
            tcp: lines.filter_map(|line| tcp_connection(line, port)).collect(),
            unix: unix_connections(&unix_table(pid), port).collect(),
        }
    }
}

/// Of a backend's sockets, with their inodes, the one whose local end is the server's own address: others (postgres_fdw,
/// dblink, name service) are connected the other way round. `elsewhere` are the Unix sockets of all network namespaces, for
/// a `local` client that is not found in the server's own.
fn client_socket(
    sockets: &[(u32, u64)],
    local: bool,
    connections: &Connections,
    elsewhere: &impl Deref<Target = HashSet<u64>>,
) -> Option<(u32, Peer)> {
    let unix = |among: &HashSet<u64>| {
        let found = sockets.iter().find(|(_, inode)| among.contains(inode));
        found.map(|(fd, _)| (*fd, Peer::Unix))
    };
    sockets
        .iter()
        .find_map(|(fd, inode)| Some((*fd, *connections.tcp.get(inode)?)))
        .or_else(|| unix(&connections.unix))
        .or_else(|| local.then(|| unix(elsewhere)).flatten())
}

/// The Unix sockets of a process's network namespace.
fn unix_table(pid: u32) -> String {
    fs::read_to_string(processes::proc(pid, "net/unix")).unwrap_or_default()
}

/// The inodes of connections to a server's Unix socket, server's end.
fn unix_connections(table: &str, port: u16) -> impl Iterator<Item = u64> {
    let name = format!("/.s.PGSQL.{port}");
    table.lines().filter(move |line| line.ends_with(&name)).filter_map(unix_connection)
}

/// A line of `/proc/net/tcp`: `sl local remote st … inode`, of an established connection to `port`.
fn tcp_connection(line: &str, port: u16) -> Option<(u64, Peer)> {
    const ESTABLISHED: &str = "01";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.split_once(':')?;
    if u16::from_str_radix(local_port, 16).ok()? != port || *fields.get(3)? != ESTABLISHED {
        return None;
    }
    let (addr, peer_port) = fields.get(2)?.split_once(':')?;
    let peer = Peer::Tcp(hex_addr(addr)?, u16::from_str_radix(peer_port, 16).ok()?);
    Some((fields.get(9)?.parse().ok()?, peer))
}

/// A line of `/proc/net/unix`: `num refcount protocol flags type state inode path`, of a connected socket.
fn unix_connection(line: &str) -> Option<u64> {
    const CONNECTED: &str = "03";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(5)? != CONNECTED {
        return None;
    }
    fields.get(6)?.parse().ok()
}

/// An address as `/proc/net/tcp` prints it: 32-bit words in host byte order, each as hex.
fn hex_addr(text: &str) -> Option<IpAddr> {
    let words: Vec<u32> = (0..text.len() / 8)
        .map(|word| u32::from_str_radix(text.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    match words.as_slice() {
        [v4] => Some(IpAddr::V4(Ipv4Addr::from(v4.to_ne_bytes()))),
        [a, b, c, d] => {
            let mut octets = [0; 16];
            for (slot, word) in octets.chunks_exact_mut(4).zip([a, b, c, d]) {
                slot.copy_from_slice(&word.to_ne_bytes());
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

/// Role and database from a title such as `postgres: main: alice shop 10.0.0.7(5123) idle`
/// (`src/backend/utils/misc/ps_status.c`, `BackendInitialize` in `src/backend/postmaster/postmaster.c` and, since 17,
/// `src/backend/tcop/backend_startup.c`). A name with a space in it makes the title ambiguous: then none.
fn title_identity(title: &str) -> (Option<String>, Option<String>) {
    let Some(title) = title.strip_prefix("postgres: ") else { return (None, None) };
    let words: Vec<&str> = title.split(' ').collect();
    let is_host = |word: &&str| *word == "[local]" || (word.ends_with(')') && word.contains('('));
    let Some(host) = words.iter().position(is_host) else { return (None, None) };
    let (names, activity) = words.split_at(host);
    // cluster_name, if set, ends in a colon.
    let first = names.iter().position(|word| word.ends_with(':')).map_or(0, |cluster| cluster + 1);
    let name = |name: &str| Some(name.to_owned());
    match names.get(first..).unwrap_or_default() {
        // A physical walsender has no database. Or is it a role of this name?
        ["walsender", user] if activity.get(1).is_some_and(|word| REPLICATES.contains(word)) => {
            (name(user), None)
        }
        ["walsender", _] => (None, None),
        ["walsender", user, database] | [user, database] => (name(user), name(database)),
        _ => (None, None),
    }
}

/// What a walsender's title says that it does, and no other's (`src/backend/replication/walsender.c`,
/// `basebackup.c`).
const REPLICATES: &[&str] = &["streaming", "sending", "START_REPLICATION", "BASE_BACKUP"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_name_role_and_database() {
        let of = |title| title_identity(title);
        let none = (None, None);
        let pair = |a: &str, b: &str| (Some(a.to_owned()), Some(b.to_owned()));
        assert_eq!(of("postgres: alice shop [local] idle"), pair("alice", "shop"));
        assert_eq!(of("postgres: alice shop 10.0.0.7(5123) SELECT"), pair("alice", "shop"));
        assert_eq!(of("postgres: 15/main: alice shop ::1(5123) idle in transaction"), pair("alice", "shop"));
        assert_eq!(of("postgres: checkpointer"), none);
        assert_eq!(of("postgres: al ice shop [local] idle"), none);
        assert_eq!(of("nginx: worker process"), none);
        let streaming = "postgres: walsender rep 10.0.0.7(5123) streaming 0/3000060";
        assert_eq!(of(streaming), (Some("rep".to_owned()), None));
        assert_eq!(of("postgres: walsender rep [local] idle"), none);
        assert_eq!(of("postgres: walsender rep shop [local] START_REPLICATION"), pair("rep", "shop"));
    }

    #[test]
    fn a_title_tells_whether_the_server_waits() {
        assert!(title_waits("postgres: alice shop [local] idle"));
        assert!(title_waits("postgres: alice shop 10.0.0.7(5123) idle in transaction (aborted)"));
        assert!(!title_waits("postgres: alice shop [local] SELECT"));
        assert!(!title_waits("postgres: alice shop [local] authentication"));
    }

    #[test]
    fn connections_are_read_from_the_kernels_tables() {
        let line =
            "   1: 0100007F:1538 0200000A:C350 01 00000000:00000000 00:00000000 00000000  105 0 4242 1";
        let peer = Peer::Tcp(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 50000);
        assert_eq!(tcp_connection(line, 5432), Some((4242, peer)));
        assert_eq!(tcp_connection(line, 5433), None);
        assert_eq!(hex_addr("00000000000000000000000001000000"), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        let unix = "0000000000000000: 00000003 00000000 00000000 0001 03 777 /tmp/.s.PGSQL.5432";
        assert_eq!(unix_connection(unix), Some(777));
        assert_eq!(tcp_connection("garbage", 1), None);
        assert_eq!(unix_connection(""), None);
    }
}
