//! Which servers are followed: found by their start, or by looking.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use capture_common::{OpenInfo, SessionKey};
use tracing::{info, warn};

use super::origin::{open_origin, origin};
use super::sessions::{Clock, Sessions};
use crate::probes::{self, Access, Kernel, PodNames, Selector, Server, TlsProbes, monotonic_now};
use crate::record::Recorder;
use crate::session::{Origin, ServerOrigin};

/// The servers that are followed.
pub(super) struct Servers {
    selectors: Vec<Selector>,
    /// Who looks at other processes for this agent.
    access: Box<dyn Access + Send>,
    /// Whether somebody did the last time.
    blind: bool,
    followed: HashMap<u32, Followed>,
    tls: TlsProbes,
    /// Postmasters of which the kernel side knows the probes.
    sited: HashSet<u32>,
    /// The names of Kubernetes pods, if there is somebody to ask.
    pods: Option<PodNames>,
    /// Processes that are starting as a server and whose port is not known yet.
    starting: HashSet<u32>,
    /// Whether it was seen to that servers which start later have their probes in time.
    expected: bool,
}

impl Servers {
    /// Servers that any of `selectors` selects, with these probes for encrypted sessions.
    pub(super) fn new(
        selectors: Vec<Selector>,
        access: Box<dyn Access + Send>,
        tls: TlsProbes,
        pods: Option<PodNames>,
    ) -> Self {
        let (followed, sited, starting) = (HashMap::new(), HashSet::new(), HashSet::new());
        Self { selectors, access, blind: false, followed, tls, sited, pods, starting, expected: false }
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
        let found = match probes::find_servers(self.access.as_ref(), self.followed.keys().copied()) {
            Ok(found) => found,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    warn!(%error, "the shim does not answer: no new servers and sessions are found until it does (see docs/errors.md#no-eyes)");
                }
                return;
            }
        };
        self.blind = false;
        let gone = |pid: &u32| found.iter().all(|server| server.postmaster != *pid);
        let gone: Vec<u32> = self.followed.keys().copied().filter(gone).collect();
        for pid in gone {
            self.exited(pid);
        }
        for server in found {
            let starting = self.starting.contains(&server.postmaster);
            self.consider(server, starting, kernel);
        }
        self.tls.prune(kernel, monotonic_now());
        // Not at once: backends may outlive their postmaster for a moment.
        self.sited.retain(|pid| {
            let keep = self.followed.contains_key(pid);
            if !keep {
                kernel.forget_site_set(*pid);
            }
            keep
        });
        for followed in self.followed.values() {
            find_open_sessions(&followed.server, self.access.as_ref(), kernel, sessions, recorder);
        }
        if !std::mem::replace(&mut self.expected, true) && self.waits_for_one() {
            self.tls.expect(kernel, probes::installed_servers(), monotonic_now());
        }
    }

    /// Whether a server may start that has to be followed.
    fn waits_for_one(&self) -> bool {
        self.selectors.iter().any(|selector| match selector {
            Selector::Auto => true,
            Selector::Port(_) => !self.followed.values().any(|followed| selector.selects(&followed.server)),
            Selector::Pid(_) => false,
        })
    }

    /// A program with a server's name was executed.
    pub(super) fn executed(
        &mut self,
        tgid: u32,
        kernel: &mut Kernel,
        sessions: &mut Sessions,
        recorder: &mut Recorder,
    ) {
        let server = match probes::find_server(tgid, self.access.as_ref()) {
            Ok(Some(server)) => server,
            Ok(None) if self.waits_for_one() => {
                let program = probes::soon_to_serve(tgid, self.access.as_ref());
                return self.tls.expect(kernel, program, monotonic_now());
            }
            Ok(None) => return,
            // The shim is being restarted.
            Err(_) => {
                self.starting.insert(tgid);
                return;
            }
        };
        self.meet(server, kernel, sessions, recorder);
        if self.followed.get(&tgid).is_none_or(|followed| followed.server.port.is_none()) {
            self.starting.insert(tgid);
        }
    }

    /// Looks again at the servers that are starting. A server writes its port before it listens.
    pub(super) fn look_again(
        &mut self,
        kernel: &mut Kernel,
        sessions: &mut Sessions,
        recorder: &mut Recorder,
    ) {
        for tgid in std::mem::take(&mut self.starting) {
            let server = match probes::find_server(tgid, self.access.as_ref()) {
                Ok(Some(server)) => server,
                Ok(None) => continue,
                Err(_) => {
                    self.starting.insert(tgid);
                    continue;
                }
            };
            if server.port.is_none() {
                self.starting.insert(tgid);
            }
            self.meet(server, kernel, sessions, recorder);
        }
    }

    /// Considers a server that is starting. If it is followed only now that it may listen, because this thread heard of it late,
    /// its first sessions are looked for at once.
    fn meet(
        &mut self,
        server: Server,
        kernel: &mut Kernel,
        sessions: &mut Sessions,
        recorder: &mut Recorder,
    ) {
        let pid = server.postmaster;
        let late = server.port.is_some() && !self.followed.contains_key(&pid);
        self.consider(server, true, kernel);
        if late && let Some(followed) = self.followed.get(&pid) {
            find_open_sessions(&followed.server, self.access.as_ref(), kernel, sessions, recorder);
        }
    }

    /// A postmaster exited.
    pub(super) fn exited(&mut self, tgid: u32) {
        self.starting.remove(&tgid);
        self.tls.release(tgid);
        if let Some(Followed { server, .. }) = self.followed.remove(&tgid) {
            info!(pid = tgid, port = server.port, "server stopped");
            if let (Some(pods), Some(uid)) = (&self.pods, unnamed_pod(&server)) {
                pods.forget(uid);
            }
        }
    }

    /// The servers whose pod has got a name since the last time.
    pub(super) fn newly_named(&mut self) -> Vec<Arc<ServerOrigin>> {
        let Some(pods) = &self.pods else { return Vec::new() };
        let named = self.followed.values_mut().filter_map(|Followed { server, .. }| {
            server.pod = Some(pods.of(unnamed_pod(server)?)?);
            Some(server_origin(server))
        });
        named.collect()
    }

    /// What a connection that `info`'s postmaster accepted looks like from outside.
    pub(super) fn origin(&self, info: &OpenInfo, key: SessionKey, clock: Clock) -> Origin {
        let server = self
            .followed
            .get(&info.postmaster)
            .map_or_else(Default::default, |followed| server_origin(&followed.server));
        origin(info, clock.unix(key.born), server, self.access.as_ref())
    }

    fn consider(&mut self, mut server: Server, starting: bool, kernel: &mut Kernel) {
        if !self.selectors.iter().any(|selector| selector.selects(&server)) {
            if server.port.is_some() {
                self.tls.release(server.postmaster);
            }
            return;
        }
        let pid = server.postmaster;
        if let (Some(pods), Some(uid)) = (&self.pods, unnamed_pod(&server)) {
            server.pod = pods.of(uid);
        }
        let (known, probed) = match self.followed.get(&pid) {
            Some(followed) => (true, followed.probed),
            None => (false, false),
        };
        let may_lack_libraries = starting && server.port.is_none();
        // A running server's sessions come after the probes that read them. A starting server has none yet, and
        // attaching may take longer than it takes to its first.
        let probed = if known || starting {
            self.follow(server, kernel) && (probed || self.probe(pid, may_lack_libraries, kernel))
        } else {
            let probed = self.probe(pid, may_lack_libraries, kernel);
            self.follow(server, kernel) && probed
        };
        if let Some(followed) = self.followed.get_mut(&pid) {
            followed.probed = probed;
        }
    }

    /// Follows a server, if it is not followed yet. Whether it is now.
    fn follow(&mut self, server: Server, kernel: &mut Kernel) -> bool {
        let pid = server.postmaster;
        if let Some(known) = self.followed.get_mut(&pid) {
            known.server = server;
            return true;
        }
        if let Err(error) = kernel.follow_postmaster(pid) {
            warn!(pid, %error, "server is not recorded: the kernel's table of processes refused it");
            self.tls.release(pid);
            return false;
        }
        info!(pid, port = server.port, version = server.version, "server found");
        self.followed.insert(pid, Followed { server, probed: false });
        true
    }

    /// Attaches what reads the server's encrypted sessions. Whether that is settled: it is not while the server is
    /// starting and may not have mapped its libraries yet.
    fn probe(&mut self, pid: u32, may_lack_libraries: bool, kernel: &mut Kernel) -> bool {
        match self.tls.attach(kernel, pid, self.access.as_ref()) {
            Ok((set, probes)) => {
                info!(pid, probes, "encrypted sessions will be read");
                self.sited.insert(pid);
                if let Err(error) = kernel.set_site_set(pid, set) {
                    warn!(pid, %error, "encrypted sessions of this server will not be read: the kernel's table of servers refused it");
                }
            }
            Err(_) if may_lack_libraries => return false,
            Err(reason) if reason.may_pass() => return false,
            Err(reason) => {
                warn!(pid, %reason, "encrypted sessions of this server will not be read; see docs/errors.md#no-tls-probes");
            }
        }
        true
    }
}

/// A server that is followed.
struct Followed {
    server: Server,
    /// Whether it is settled how its encrypted sessions are read.
    probed: bool,
}

/// The UID of the server's pod, if that is all that is known of it.
fn unnamed_pod(server: &Server) -> Option<&str> {
    let uid = server.container.as_ref()?.pod_uid.as_deref()?;
    server.pod.is_none().then_some(uid)
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
    access: &dyn Access,
    kernel: &mut Kernel,
    sessions: &mut Sessions,
    recorder: &mut Recorder,
) {
    let known = |tgid| sessions.contains(tgid) || kernel.tracked(tgid).is_some();
    let found = probes::open_backends(server, access, known);
    let now = monotonic_now();
    for backend in found {
        match kernel.follow_backend(&backend, now) {
            Ok(Some(key)) => {
                // The title is read after the kernel side counts: if nothing moved by then, nothing moved since.
                let idle = probes::waits_for_client(backend.tgid)
                    && kernel.tracked(backend.tgid).is_some_and(|entry| entry.offset == [0, 0]);
                let origin =
                    open_origin(&backend, Clock::now().unix(now), server_origin(server), idle, access);
                let moved =
                    sessions.is_left(key.tgid).then(|| kernel.moved_before(&backend, key, access)).flatten();
                if !moved.is_some_and(|moved| sessions.take_up(key, &origin, moved, recorder)) {
                    sessions.begin(key, origin, recorder);
                }
            }
            // Forked in this moment: the kernel side is faster.
            Ok(None) => {}
            Err(error) => warn!(pid = backend.tgid, %error, "session is not recorded"),
        }
    }
}
