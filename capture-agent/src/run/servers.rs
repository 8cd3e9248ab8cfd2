//! Which servers are followed: found by their start, or by looking.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use capture_common::{OpenInfo, SessionKey};
use tracing::{info, warn};

use super::sessions::{Clock, Sessions, open_origin, origin};
use crate::probes::{self, Kernel, Selector, Server};
use crate::record::Recorder;
use crate::session::{Origin, ServerOrigin};

/// The servers that are followed.
pub(super) struct Servers {
    selectors: Vec<Selector>,
    followed: HashMap<u32, Server>,
    /// Processes that are starting as a server and whose port is not known yet.
    starting: HashSet<u32>,
}

impl Servers {
    /// Servers that any of `selectors` selects.
    pub(super) fn new(selectors: Vec<Selector>) -> Self {
        Self { selectors, followed: HashMap::new(), starting: HashSet::new() }
    }

    /// How many servers are followed.
    pub(super) fn len(&self) -> usize {
        self.followed.len()
    }

    /// Whether a server is starting that may have to be followed before its first connection.
    pub(super) fn any_starting(&self) -> bool {
        !self.starting.is_empty()
    }

    /// Looks through all processes for servers that are not followed yet, and through the followed servers for
    /// sessions that are not known.
    pub(super) fn scan(&mut self, kernel: &mut Kernel, sessions: &mut Sessions, recorder: &mut Recorder) {
        let found = probes::find_servers();
        self.followed.retain(|pid, _| found.iter().any(|server| server.postmaster == *pid));
        for server in found {
            self.consider(server, kernel);
        }
        for server in self.followed.values() {
            find_open_sessions(server, kernel, sessions, recorder);
        }
    }

    /// A program with a server's name was executed.
    pub(super) fn executed(&mut self, tgid: u32, kernel: &mut Kernel) {
        if !probes::is_server_process(tgid) {
            return;
        }
        match Server::inspect(tgid) {
            Some(server) => self.consider(server, kernel),
            None => return,
        }
        if self.followed.get(&tgid).is_none_or(|server| server.port.is_none()) {
            self.starting.insert(tgid);
        }
    }

    /// Looks again at the servers that are starting. A server writes its port before it listens.
    pub(super) fn look_again(&mut self, kernel: &mut Kernel) {
        for tgid in std::mem::take(&mut self.starting) {
            let Some(server) = Server::inspect(tgid).filter(|_| probes::is_server_process(tgid)) else {
                continue;
            };
            if server.port.is_none() {
                self.starting.insert(tgid);
            }
            self.consider(server, kernel);
        }
    }

    /// A postmaster exited.
    pub(super) fn exited(&mut self, tgid: u32) {
        self.starting.remove(&tgid);
        if let Some(server) = self.followed.remove(&tgid) {
            info!(pid = tgid, port = server.port, "server stopped");
        }
    }

    /// What a connection that `info`'s postmaster accepted looks like from outside.
    pub(super) fn origin(&self, info: &OpenInfo, key: SessionKey, clock: Clock) -> Origin {
        let server = self.followed.get(&info.postmaster).map_or_else(Default::default, server_origin);
        origin(info, clock.unix(key.born), server)
    }

    fn consider(&mut self, server: Server, kernel: &mut Kernel) {
        if !self.selectors.iter().any(|selector| selector.selects(&server)) {
            return;
        }
        let pid = server.postmaster;
        if let Some(known) = self.followed.get_mut(&pid) {
            *known = server;
            return;
        }
        if let Err(error) = kernel.follow_postmaster(pid) {
            warn!(pid, %error, "server is not recorded: the kernel's table of processes refused it");
            return;
        }
        info!(pid, port = server.port, version = server.version, "server found");
        self.followed.insert(pid, server);
    }
}

/// What the record says of a server.
fn server_origin(server: &Server) -> Arc<ServerOrigin> {
    let container = server.container.as_ref();
    Arc::new(ServerOrigin {
        pid: server.postmaster,
        port: server.port,
        version: server.version.clone(),
        container_id: container.map(|container| container.id.clone()),
        pod_uid: container.and_then(|container| container.pod_uid.clone()),
        pod: server.pod.as_ref().map(|pod| pod.name.clone()),
        namespace: server.pod.as_ref().map(|pod| pod.namespace.clone()),
    })
}

/// Follows the sessions that the server held before it was followed.
fn find_open_sessions(
    server: &Server,
    kernel: &mut Kernel,
    sessions: &mut Sessions,
    recorder: &mut Recorder,
) {
    let found =
        probes::open_backends(server, |tgid| sessions.contains(tgid) || kernel.tracked(tgid).is_some());
    let now = probes::monotonic_now();
    for backend in found {
        match kernel.follow_backend(&backend, now) {
            Ok(Some(key)) => {
                // The title is read after the kernel side counts: if nothing moved by then, nothing moved since.
                let idle = probes::waits_for_client(backend.tgid)
                    && kernel.tracked(backend.tgid).is_some_and(|entry| entry.offset == [0, 0]);
                let origin = open_origin(&backend, Clock::now().unix(now), server_origin(server), idle);
                sessions.begin(key, origin, recorder);
            }
            // Forked in this moment: the kernel side is faster.
            Ok(None) => {}
            Err(error) => warn!(pid = backend.tgid, %error, "session is not recorded"),
        }
    }
}
