//! What is published goes to object storage: each sealed file, in the order of the chain, and then the chain itself.
//!
//! A thread of its own does it, with what stands on the disk alone: it reads the chain that the recorder writes, and nobody
//! waits for it. What was stored and read back is noted in `<data-dir>/.uploaded-<node>.jsonl`; the next agent goes on behind
//! the last line of it. Local files are never touched. `docs/fleet.md` says what lies in the storage, and what a fleet costs.

mod backoff;
mod chain;
mod confirmed;
mod credentials;
mod http;
mod pace;
mod pieces;
mod put;
mod store;
mod superseded;
#[cfg(test)]
mod tests;
mod work;

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

pub use credentials::CredentialsError;
pub use store::{Provider, provider};

use crate::telemetry::metrics;
use work::Work;

/// Where published files go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The node, as file names carry it.
    pub node: String,
    /// Bucket and prefix: `s3://…`, `gs://…` or `az://…`.
    pub url: String,
    /// The server to speak with; none: the provider's own.
    pub endpoint: Option<String>,
    /// The region, where the provider has them; none: what the environment says.
    pub region: Option<String>,
    /// The file with the credentials; none: what the environment or the host's own identity gives.
    pub credentials_file: Option<PathBuf>,
    /// The file with the certificates of the authorities that the server's must be signed by.
    pub ca_file: PathBuf,
    /// Bytes that may pass in a second, both ways together; none: as many as can.
    pub bytes_per_second: Option<u64>,
    /// Bytes that may wait before that is called an error; none: any number.
    pub backlog_bytes: Option<u64>,
    /// Whether each object is read back and compared with its seal before it counts as stored.
    pub read_back: bool,
    /// How long an agent that is stopped goes on, until all is stored.
    pub drain: Duration,
}

/// Why something is not stored yet.
#[derive(Debug, Error)]
pub enum UploadError {
    /// The storage did not take it, or did not answer.
    #[error("{0}")]
    Store(#[from] object_store::Error),
    /// The credentials cannot be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A file of this host cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// An object is not what was sent.
    #[error("what the storage gives back for {0} is not what was sent")]
    Different(String),
    /// The server does not go on.
    #[error("the storage did not answer in time")]
    Silent,
    /// The place in the storage is somebody else's.
    #[error(
        "{0} in the storage is not of this chain: another node of the same name uploads there, or this one had another \
         chain before"
    )]
    Foreign(String),
}

/// More waits than may, or no longer: said once, each time that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Whether it is more than [`Settings::backlog_bytes`].
    pub over: bool,
    /// Files that wait.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What may wait.
    pub limit: u64,
}

/// The thread that uploads.
#[derive(Debug)]
pub struct Upload {
    stopping: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Upload {
    /// Starts the thread. It says in `backlogs` when more waits than may; while that is full, it says so later.
    ///
    /// # Errors
    ///
    /// The system has no thread left. Whether credentials and storage can be used, the thread finds out: they do not keep
    /// anybody from capturing.
    pub fn start(settings: Settings, backlogs: SyncSender<Backlog>) -> io::Result<Self> {
        let (stopping, stop) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("upload".into()).spawn(move || {
            let patience = settings.drain;
            let mut deadline = stop.clone();
            let mut work = Work::new(settings, stop, backlogs);
            runtime.block_on(async {
                tokio::select! {
                    () = work.run() => {}
                    () = async {
                        // An error: whoever could stop it is gone.
                        let _ = deadline.wait_for(|stopping| *stopping).await;
                        tokio::time::sleep(patience).await;
                    } => {}
                }
            });
        })?;
        Ok(Self { stopping, thread: Some(thread) })
    }

    /// Stores what is published now, as far as the configured time allows, and ends. What is left, the next agent stores.
    pub fn finish(mut self) {
        // An error: the thread has ended.
        let _ = self.stopping.send(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that uploads panicked; this is a bug");
        }
        let files = metrics::UPLOAD_BACKLOG_FILES.value();
        if files > 0 {
            let bytes = metrics::UPLOAD_BACKLOG_BYTES.value();
            tracing::warn!(
                files,
                bytes,
                "not all is uploaded; the next agent goes on (see docs/errors.md#upload-backlog)"
            );
        }
    }
}
