//! What the thread does: the chain's lines, one after the other, until a failure, which it waits out.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use jiff::Timestamp;
use object_store::ObjectStoreExt as _;
use tokio::sync::watch;

use super::backoff::Backoff;
use super::chain::{ChainFile, Line};
use super::confirmed::Confirmed;
use super::pieces;
use super::put::{self, Outcome, Parts};
use super::store::{self, Store};
use super::superseded::{stored, superseded};
use super::{Backlog, Settings, UploadError};
use crate::seal::{CHAIN, Contents, FOLDER, What};
use crate::telemetry::metrics;

/// All that it knows.
pub(super) struct Work {
    settings: Settings,
    stop: watch::Receiver<bool>,
    backlogs: SyncSender<Backlog>,
    chain: ChainFile,
    parts: Parts,
    /// None: not read yet.
    confirmed: Option<Confirmed>,
    /// None: to be opened, with the credentials as they are then.
    store: Option<Store>,
    /// Whether the node's place in the storage is known to be this chain's.
    claimed: bool,
    /// Whether the next file may be there already.
    look: bool,
    backoff: Backoff,
    failing: Option<Failure>,
    /// Whether it was said that more waits than may.
    over: bool,
}

/// Kinds of failures, each with an entry in `docs/errors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Credentials,
    Foreign,
    Other,
}

impl Work {
    pub(super) fn new(
        settings: Settings,
        stop: watch::Receiver<bool>,
        backlogs: SyncSender<Backlog>,
    ) -> Self {
        let chain = settings.data_dir.join(FOLDER).join(format!("{}.{CHAIN}", settings.node));
        Self {
            parts: Parts::new(&settings.data_dir, &settings.node),
            settings,
            stop,
            backlogs,
            chain: ChainFile::new(chain),
            confirmed: None,
            store: None,
            claimed: false,
            look: true,
            backoff: Backoff::new(),
            failing: None,
            over: false,
        }
    }

    #[cfg(test)]
    pub(super) fn with_store(
        settings: Settings,
        stop: watch::Receiver<bool>,
        backlogs: SyncSender<Backlog>,
        store: Store,
    ) -> Self {
        Self { store: Some(store), ..Self::new(settings, stop, backlogs) }
    }

    /// Works until it is told to stop and all is stored.
    pub(super) async fn run(&mut self) {
        metrics::UPLOAD_LIMIT.set(self.settings.backlog_bytes.unwrap_or(0));
        loop {
            // Before the chain is read: what was sealed before the word is seen below.
            let stopping = *self.stop.borrow_and_update();
            match self.round().await {
                Ok(()) => {
                    self.backoff.reset();
                    if self.failing.take().is_some() {
                        tracing::info!(url = self.settings.url, "the storage takes files again");
                    }
                    if stopping {
                        return;
                    }
                    self.wait(LOOK).await;
                }
                Err(error) => {
                    self.fail(&error);
                    let pause = self.backoff.pause();
                    self.wait(pause).await;
                }
            }
        }
    }

    /// Lets time pass; less if it is told to stop meanwhile.
    async fn wait(&mut self, time: Duration) {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            Ok(()) = self.stop.changed() => {}
        }
    }

    /// Stores all that is sealed now.
    pub(super) async fn round(&mut self) -> Result<(), UploadError> {
        self.look_at_chain()?;
        if self.chain.nothing() {
            return Ok(());
        }
        let store = match self.store.take() {
            Some(store) => store,
            None => store::open(&self.settings)?,
        };
        if !self.claimed {
            pieces::claim(&store, &self.settings.node, &mut self.chain).await?;
            self.parts.abandon(&store).await?;
            self.claimed = true;
        }
        let mut lines = 0;
        while let Some(line) = self.next_line()? {
            if !self.line(&store, &line).await? {
                break;
            }
            self.chain.done(&line);
            lines += 1;
            if lines % LINES == 0 {
                self.push(&store).await?;
            }
            // For the metrics: there may be much to do.
            self.look_at_chain()?;
        }
        self.push(&store).await?;
        // After a failure it is opened again: the credentials may have been renewed.
        self.store = Some(store);
        Ok(())
    }

    fn look_at_chain(&mut self) -> Result<(), UploadError> {
        if self.confirmed.is_none() {
            let Settings { data_dir, node, .. } = &self.settings;
            self.confirmed =
                Some(Confirmed::open(data_dir, node).map_err(|source| put::local(data_dir, source))?);
        }
        let last = self.confirmed.as_ref().and_then(Confirmed::last);
        if self.chain.poll(last).map_err(|source| put::local(self.chain.path(), source))? {
            self.claimed = false;
        }
        self.measure();
        Ok(())
    }

    fn next_line(&self) -> Result<Option<Line>, UploadError> {
        self.chain.line().map_err(|source| put::local(self.chain.path(), source))
    }

    async fn push(&mut self, store: &Store) -> Result<(), UploadError> {
        let end = self.chain.next();
        pieces::push(store, &self.settings.node, &mut self.chain, end).await
    }

    /// Does what a line asks for. False: its file has no name yet.
    async fn line(&mut self, store: &Store, line: &Line) -> Result<bool, UploadError> {
        let Some(what) = &line.what else { return Ok(true) };
        let contents = stored(what).filter(|contents| !self.chain.is_superseded(&contents.file));
        if let Some(contents) = contents {
            match self.file(store, contents).await? {
                Outcome::Stored => {}
                // A file is sealed before it gets its name.
                Outcome::Missing if line.is_last => return Ok(false),
                outcome => {
                    skip(contents, outcome);
                    return Ok(true);
                }
            }
        }
        self.remove_superseded(store, what, line.end).await?;
        if let (Some(contents), Some(confirmed)) = (contents, &mut self.confirmed) {
            confirmed.add(contents).map_err(|source| put::local(confirmed.path(), source))?;
            metrics::UPLOADED_FILES.add(1);
            metrics::UPLOADED_BYTES.add(contents.bytes);
            self.backoff.reset();
        }
        Ok(true)
    }

    /// Stores a file and proves that it is there.
    async fn file(&mut self, store: &Store, contents: &Contents) -> Result<Outcome, UploadError> {
        let path = store.path(&contents.file)?;
        if self.look {
            // An earlier attempt, or an earlier agent, may have got as far as this.
            self.look = put::holds(store, &path, contents).await?;
            if self.look {
                return Ok(Outcome::Stored);
            }
        }
        let local = self.settings.data_dir.join(&contents.file);
        let outcome = put::put(store, &path, &local, contents, &self.parts).await?;
        let proven = match outcome {
            Outcome::Stored if self.settings.read_back => put::holds(store, &path, contents).await?,
            Outcome::Stored => put::is_there(store, &path, contents).await?,
            Outcome::Missing | Outcome::Changed => return Ok(outcome),
        };
        if proven { Ok(outcome) } else { Err(UploadError::Different(contents.file.clone())) }
    }

    /// Removes what another file took the place of, once the chain in the storage says so.
    async fn remove_superseded(&mut self, store: &Store, what: &What, end: u64) -> Result<(), UploadError> {
        let files = superseded(what);
        if files.is_empty() {
            return Ok(());
        }
        pieces::push(store, &self.settings.node, &mut self.chain, end).await?;
        for file in files {
            match store.storage.delete(&store.path(file)?).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Publishes how much waits, and says so if that is too much.
    fn measure(&mut self) {
        let backlog = self.chain.backlog();
        metrics::UPLOAD_BACKLOG_FILES.set(backlog.files);
        metrics::UPLOAD_BACKLOG_BYTES.set(backlog.bytes);
        let oldest = if backlog.files == 0 { None } else { self.chain.line().ok().flatten() };
        metrics::UPLOAD_BACKLOG_SECONDS.set(oldest.map_or(0, |line| age(&line.at)));
        let Some(limit) = self.settings.backlog_bytes else { return };
        let over = backlog.bytes > limit;
        if over == self.over {
            return;
        }
        let said = Backlog { over, files: backlog.files, bytes: backlog.bytes, limit };
        if let Err(TrySendError::Full(_)) = self.backlogs.try_send(said) {
            return;
        }
        self.over = over;
        if over {
            tracing::error!(
                files = backlog.files,
                bytes = backlog.bytes,
                "more waits to be uploaded than `upload.backlog_bytes`; it stays on this disk \
                 (see docs/errors.md#upload-backlog)"
            );
        } else {
            tracing::info!(
                files = backlog.files,
                bytes = backlog.bytes,
                "less waits to be uploaded than the limit again"
            );
        }
    }

    fn fail(&mut self, error: &UploadError) {
        self.store = None;
        self.look = true;
        metrics::UPLOAD_ERRORS.add(1);
        let failure = kind(error);
        if self.failing.replace(failure) == Some(failure) {
            return;
        }
        let url = &self.settings.url;
        let error: String = error.to_string().chars().take(MOST_WORDS).collect();
        match failure {
            Failure::Credentials => tracing::error!(
                url,
                "the storage refuses the credentials: {error}; renew them, they are read again for each attempt (see \
                 docs/errors.md#upload-credentials)"
            ),
            Failure::Foreign => {
                tracing::error!(url, "nothing is uploaded: {error} (see docs/errors.md#upload-foreign)");
            }
            Failure::Other => tracing::warn!(
                url,
                "the storage does not take files: {error}; trying again, the files stay here (see \
                 docs/errors.md#upload-failing)"
            ),
        }
    }
}

fn kind(error: &UploadError) -> Failure {
    use object_store::Error::{PermissionDenied, Unauthenticated};
    match error {
        UploadError::Credentials(_)
        | UploadError::Store(PermissionDenied { .. } | Unauthenticated { .. }) => Failure::Credentials,
        // S3 answers some of these with 400.
        UploadError::Store(error) if REFUSALS.iter().any(|word| error.to_string().contains(word)) => {
            Failure::Credentials
        }
        UploadError::Foreign(_) => Failure::Foreign,
        _ => Failure::Other,
    }
}

/// Says that a sealed file is not stored.
fn skip(contents: &Contents, outcome: Outcome) {
    metrics::UPLOAD_SKIPPED.add(1);
    let why = match outcome {
        Outcome::Missing => "it is not there any more",
        Outcome::Changed | Outcome::Stored => "it is not what was sealed",
    };
    tracing::error!(
        file = contents.file,
        "a sealed file is not uploaded: {why} (see docs/errors.md#upload-skipped)"
    );
}

/// Seconds since then.
fn age(at: &str) -> u64 {
    let Ok(at) = at.parse::<Timestamp>() else { return 0 };
    u64::try_from(Timestamp::now().as_second() - at.as_second()).unwrap_or(0)
}

/// How often it looks for new seals.
const LOOK: Duration = Duration::from_secs(1);

/// Lines after which the chain is stored as far as it goes, while there are more.
const LINES: u64 = 64;

/// Of what a storage answers, what is said.
const MOST_WORDS: usize = 600;

/// Codes of S3 and Azure that are about credentials.
const REFUSALS: [&str; 6] = [
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AuthenticationFailed",
];
