//! The names of Kubernetes pods, asked of the cluster's API server by a thread of its own: whoever needs a name gets it
//! from memory, or none and later one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use super::container::Pod;
use super::kubernetes::PodList;
use crate::telemetry::metrics;

/// The names of this node's pods, as far as they are known.
#[derive(Clone, Debug)]
pub struct PodNames {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<Names>,
    asked: Condvar,
}

#[derive(Debug, Default)]
struct Names {
    known: HashMap<String, Pod>,
    /// UIDs that were asked for and are not known.
    wanted: HashSet<String>,
    /// One of them was not wanted when the API server was last asked.
    fresh: bool,
}

impl PodNames {
    /// Starts the thread that asks the API server.
    ///
    /// # Errors
    ///
    /// The system has no thread left.
    pub fn start(pods: PodList) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let own = Arc::clone(&shared);
        // It is never joined: an answer that the agent waits for as it stops is of no use any more.
        std::thread::Builder::new().name("pods".into()).spawn(move || own.ask_forever(&pods))?;
        Ok(Self { shared })
    }

    /// The names of the pod with this UID. If they are not known, the API server will be asked.
    pub fn of(&self, uid: &str) -> Option<Pod> {
        let mut names = self.shared.lock();
        let known = names.known.get(uid).cloned();
        if known.is_none() && names.wanted.insert(uid.to_owned()) {
            names.fresh = true;
            self.shared.asked.notify_one();
        }
        known
    }

    /// Nobody needs this pod's names any more.
    pub fn forget(&self, uid: &str) {
        self.shared.lock().wanted.remove(uid);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask_forever(&self, pods: &PodList) {
        let mut pause = SHORTEST;
        let mut failing = false;
        loop {
            self.wait_until_asked();
            match pods.fetch() {
                Ok(known) => {
                    if std::mem::take(&mut failing) {
                        info!("the API server of Kubernetes answers again");
                    }
                    let mut names = self.lock();
                    names.wanted.retain(|uid| !known.contains_key(uid));
                    names.known = known;
                }
                Err(error) => {
                    metrics::KUBERNETES_ERRORS.add(1);
                    if !std::mem::replace(&mut failing, true) {
                        warn!(
                            %error,
                            "the pods of this node cannot be listed: sessions are recorded without the pod's name; see \
                             docs/errors.md#pods-unknown"
                        );
                    }
                }
            }
            pause = if self.lock().wanted.is_empty() { SHORTEST } else { LONGEST.min(pause * 2) };
            if self.pause(pause) {
                pause = SHORTEST;
            }
        }
    }

    fn wait_until_asked(&self) {
        let mut names = self.lock();
        while names.wanted.is_empty() {
            names = self.asked.wait(names).unwrap_or_else(PoisonError::into_inner);
        }
        names.fresh = false;
    }

    /// Lets the API server rest: always a little, and for `pause` unless somebody asks for another pod meanwhile. Whether
    /// somebody did.
    fn pause(&self, pause: Duration) -> bool {
        let rest = |time, until_fresh: bool| {
            let waited =
                self.asked.wait_timeout_while(self.lock(), time, |names| !(until_fresh && names.fresh));
            waited.unwrap_or_else(PoisonError::into_inner).0.fresh
        };
        rest(SHORTEST, false);
        rest(pause.saturating_sub(SHORTEST), true)
    }
}

/// The API server is asked once a second at most, whatever happens on this node.
const SHORTEST: Duration = Duration::from_secs(1);
/// And once a minute for a pod that it does not know, or while it fails.
const LONGEST: Duration = Duration::from_secs(60);
