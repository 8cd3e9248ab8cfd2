//! Which servers are followed: found by their start, or by looking.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use capture_common::{OpenInfo, SessionKey};
use tracing::{info, warn};

use super::sessions::{Clock, Sessions, open_origin, origin};
use crate::probes::{self, Kernel, Selector, Server, TlsProbes};
use crate::record::Recorder;
use crate::session::{Origin, ServerOrigin};

/// The servers that are followed.
pub(super) struct Servers {
    selectors: Vec<Selector>,
    followed: HashMap<u32, Followed>,
    tls: TlsProbes,
    /// Processes that are starting as a server and whose port is not known yet.
    starting: HashSet<u32>,
}

impl Servers {
    /// Servers that any of `selectors` selects, with these probes for encrypted sessions.
    pub(super) fn new(selectors: Vec<Selector>, tls: TlsProbes) -> Self {
        Self { selectors, followed: HashMap::new(), tls, starting: HashSet::new() }
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
        let gone = |pid: &u32| found.iter().all(|server| server.postmaster != *pid);
        let gone: Vec<u32> = self.followed.keys().copied().filter(gone).collect();
        for pid in gone {
            self.exited(pid);
        }
        for server in found {
            let starting = self.starting.contains(&server.postmaster);
            self.consider(server, starting, kernel);
        }
        // Not at once: a server that is restarted needs them again.
        self.tls.prune(kernel);
        for followed in self.followed.values() {
            find_open_sessions(followed, kernel, sessions, recorder);
        }
    }

    /// A program with a server's name was executed.
    pub(super) fn executed(&mut self, tgid: u32, kernel: &mut Kernel) {
        if !probes::is_server_process(tgid) {
            return;
        }
        match Server::inspect(tgid) {
            Some(server) => {
                // Attaching takes longer than it takes the server from writing its port to listening there. So it is
                // done for a server that may not be selected: `consider` then lets go of it.
                if server.port.is_none() {
                    let _ = self.tls.attach(kernel, tgid);
                }
                self.consider(server, true, kernel);
            }
            None => return,
        }
        if self.followed.get(&tgid).is_none_or(|followed| followed.server.port.is_none()) {
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
            self.consider(server, true, kernel);
        }
    }

    /// A postmaster exited.
    pub(super) fn exited(&mut self, tgid: u32) {
        self.starting.remove(&tgid);
        self.tls.release(tgid);
        if let Some(Followed { server, .. }) = self.followed.remove(&tgid) {
            info!(pid = tgid, port = server.port, "server stopped");
        }
    }

    /// What a connection that `info`'s postmaster accepted looks like from outside.
    pub(super) fn origin(&self, info: &OpenInfo, key: SessionKey, clock: Clock) -> Origin {
        let server = self
            .followed
            .get(&info.postmaster)
            .map_or_else(Default::default, |followed| server_origin(&followed.server));
        origin(info, clock.unix(key.born), server)
    }

    fn consider(&mut self, server: Server, starting: bool, kernel: &mut Kernel) {
        if !self.selectors.iter().any(|selector| selector.selects(&server)) {
            if server.port.is_some() {
                self.tls.release(server.postmaster);
            }
            return;
        }
        let pid = server.postmaster;
        if let Some(known) = self.followed.get_mut(&pid) {
            known.server = server;
            return;
        }
        // The probes come first: they must see the first session's first byte.
        let Some(sites) = self.probe(pid, starting && server.port.is_none(), kernel) else { return };
        if let Err(error) = kernel.follow_postmaster(pid, sites) {
            warn!(pid, %error, "server is not recorded: the kernel's table of processes refused it");
            self.tls.release(pid);
            return;
        }
        info!(pid, port = server.port, version = server.version, "server found");
        self.followed.insert(pid, Followed { server, sites });
    }

    /// Attaches what reads the server's encrypted sessions. Yields the number of the set of probes, 0 for none; and
    /// none if the server is only `starting`: it has not mapped its libraries yet.
    fn probe(&mut self, pid: u32, starting: bool, kernel: &mut Kernel) -> Option<u16> {
        match self.tls.attach(kernel, pid) {
            Ok((sites, probes)) => {
                info!(pid, probes, "encrypted sessions will be read");
                Some(sites)
            }
            Err(_) if starting => None,
            Err(reason) => {
                warn!(pid, %reason, "encrypted sessions of this server will not be read; see docs/errors.md#no-tls-probes");
                Some(0)
            }
        }
    }
}

/// A server that is followed.
struct Followed {
    server: Server,
    /// The set of probes that read its encrypted sessions; 0 for none.
    sites: u16,
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
    Followed { server, sites }: &Followed,
    kernel: &mut Kernel,
    sessions: &mut Sessions,
    recorder: &mut Recorder,
) {
    let found =
        probes::open_backends(server, |tgid| sessions.contains(tgid) || kernel.tracked(tgid).is_some());
    let now = probes::monotonic_now();
    for backend in found {
        match kernel.follow_backend(&backend, *sites, now) {
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
