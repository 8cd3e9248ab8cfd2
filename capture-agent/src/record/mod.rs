//! What sessions said, as Parquet: `<data-dir>/<table>/date=YYYY-MM-DD/<node>-<ulid>.parquet`.
//!
//! [`Recorder`] is the [`Sink`] that fills columns on the reader thread. Full batches pass through a bounded queue
//! to one writer thread, which encodes, compresses and stores them. A file is hidden while it grows and renamed
//! when it is complete. What it is told goes to a journal first, so that the next agent can complete what this one
//! could not ([`journal`]). What is published is sealed first ([`crate::seal`]). While the disk takes nothing, recording goes on within the queue's bound; what exceeds it
//! is counted by session and declared in `gaps`, with reason `storage`, as soon as the disk takes data again.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

mod archive;
#[cfg(test)]
mod archive_tests;
mod batch;
mod builders;
mod callers;
mod chunk;
#[cfg(test)]
mod chunk_tests;
mod completer;
#[cfg(test)]
mod death_tests;
mod decision;
mod decisions;
mod disk;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod encryption_tests;
mod file;
mod filling;
#[cfg(test)]
pub(crate) mod fixture;
mod forms;
mod gaps;
mod hybrid;
pub mod journal;
mod keys;
mod labels;
mod layout;
mod lists;
mod loss;
mod lsn;
mod merge;
#[cfg(test)]
mod merge_tests;
mod queue;
#[cfg(test)]
mod refused_tests;
mod repeats;
mod results;
mod row_group;
mod sealing;
mod sessions;
mod settled;
mod slot;
mod statements;
mod steady;
#[cfg(test)]
mod storage_tests;
mod table;
mod tap;
#[cfg(test)]
mod tests;
mod texts;
mod writer;

pub use archive::{Archive, StoredFile};
pub use decision::{Decision, DecisionKind, Outcome};
pub use file::node_in_names;
pub use journal::StateKey;
pub use keys::{KeyMissing, Keys, RecordKey};
pub use merge::{MergeError, Merging};
pub use table::Table;
pub use tap::{Begun, Tap};

use builders::Builders;
use file::Place;
use journal::{Found, Journal, Rows as _, Syncing};
use lsn::Lsn;
use queue::Queue;
use settled::Settled;
use steady::Steady;
use writer::Writer;

use crate::seal::{Anchor, KeyError, SharedChain};
use crate::session::{Exchange, Gap, Micros, RowRun, RowValues, SessionEnd, SessionInfo, Sink};
use crate::telemetry::metrics;

/// Where the record is written, and in what pieces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The data directory. Made if it is not there.
    pub data_dir: PathBuf,
    /// This host's name in the record.
    pub node: String,
    /// A file is completed when its first row is this old.
    pub rotate_age: Duration,
    /// A file is completed when it has this many bytes.
    pub rotate_size: u64,
    /// How often the journal is brought to the disk, against a failure of power; none if never.
    pub journal_sync: Option<Duration>,
    /// The key that seals what is published; made if it is not there. None: in the data directory.
    pub seal_key: Option<PathBuf>,
    /// Where heads of the chain of seals are kept, if anywhere.
    pub anchor: Option<Anchor>,
    /// What files are encrypted with, if at all.
    pub keys: Keys,
    /// Bytes of a segment of the journal: [`journal::SEGMENT_BYTES`], but in tests.
    pub segment_bytes: u64,
}

/// Why the record cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The data directory cannot be made, or no files in it.
    #[error(
        "cannot write to the data directory {path}: {source} (see docs/errors.md#data-dir-unwritable)",
        path = path.display()
    )]
    DataDir {
        /// The data directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another agent records to the same data directory as the same node.
    #[error(
        "{holder} records to this data directory as the same node already, and holds {path}/lock \
         (see docs/errors.md#data-dir-in-use)",
        path = path.display()
    )]
    InUse {
        /// The journal's folder.
        path: PathBuf,
        /// Who holds it.
        holder: String,
    },
    /// A later version left a journal that this one cannot read.
    #[error(
        "a later version of the agent wrote the journal {path}: it has format {version}, this version reads up to {reads} \
         (see docs/errors.md#journal-version)",
        path = path.display(), reads = journal::VERSION
    )]
    JournalVersion {
        /// The segment.
        path: PathBuf,
        /// Its format's number.
        version: u32,
    },
    /// A complete file that says what of the journal it has cannot be read.
    #[error("cannot continue the record: of {path} is not known what it has: {source}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key that is missing.
        source: KeyMissing,
    },
    /// The key that seals files cannot be used.
    #[error(transparent)]
    SealKey(#[from] KeyError),
    /// The chain of seals cannot be continued.
    #[error("cannot continue the seals in {path}: {source} (see docs/errors.md#seals)", path = path.display())]
    Seals {
        /// The folder of the chains.
        path: PathBuf,
        /// What is wrong with them.
        source: std::io::Error,
    },
    /// The writer thread cannot be started, or ended early.
    #[error("the writer thread failed: {0} (see docs/errors.md#writer-failed)")]
    Writer(String),
    /// Who is told what is recorded cannot be.
    #[error(transparent)]
    Tap(Box<dyn std::error::Error + Send + Sync>),
    /// Rows are lost, and the loss could not be declared in the record either.
    #[error(
        "{rows} rows could not be stored, and this is declared nowhere but here: {source} \
         (see docs/errors.md#loss-undeclared)"
    )]
    Undeclared {
        /// How many.
        rows: u64,
        /// What the system said last.
        source: std::io::Error,
    },
}

/// What was recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows in complete files, of all tables.
    pub rows: u64,
    /// Complete files.
    pub files: u64,
    /// Rows that were captured but not stored; declared in `gaps`.
    pub lost_rows: u64,
}

/// What an earlier agent left, whether it ended or was killed.
#[derive(Debug, Default)]
pub struct Recovery {
    /// The states of the sessions that were open at its last commit.
    pub states: Vec<(StateKey, Vec<u8>)>,
    /// The reader's position at its last commit; none if it is not known, then `states` is empty.
    pub position: Option<u64>,
    /// Rows that it had committed and that stood in no complete file. They are recorded like new ones.
    pub rows: u64,
}

/// Writes what sessions say.
#[derive(Debug)]
pub struct Recorder {
    /// None when it ends.
    journal: Option<Journal>,
    builders: Builders,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<Summary, RecordError>>>,
    /// None when it ends.
    syncing: Option<Syncing>,
    /// All rows before this are settled once the next commit is.
    settled: Lsn,
    archive: Archive,
    clock: Steady,
}

impl Recorder {
    /// Makes the data directory, takes over what an earlier agent of this node left, and starts the writer thread.
    ///
    /// # Errors
    ///
    /// The data directory cannot be written to, another agent writes to it as the same node, a later version wrote
    /// its journal, or the thread cannot be started.
    pub fn new(settings: Settings) -> Result<(Self, Recovery), RecordError> {
        Self::with_tap(settings, None)
    }

    /// The same, and tells `tap` what is recorded.
    ///
    /// # Errors
    ///
    /// As [`Recorder::new`], or the tap cannot begin.
    pub fn with_tap(
        settings: Settings,
        mut tap: Option<Box<dyn Tap>>,
    ) -> Result<(Self, Recovery), RecordError> {
        let place = Place::new(settings.data_dir.clone(), &settings.node, settings.keys.clone());
        let unwritable = |source| RecordError::DataDir { path: settings.data_dir.clone(), source };
        place.prepare().map_err(unwritable)?;
        let (mut journal, found) = Journal::open(place.journal(), settings.segment_bytes)?;
        // Before anything is removed: what was sealed last may wait for its name only.
        let seals = SharedChain::new(sealing::open(&place, &settings)?);
        // Their rows are in the journal, but for what was recorded while there was none.
        place.clean().map_err(unwritable)?;
        let mut settled = found.settled.clone();
        settled.read_files(&place, journal.id(), found.oldest)?;
        // Positions are never used again, also if a failure of power cost the journal its end.
        let mut next = settled.last().map_or(0, |last| last.0 + 1);
        let mut again = None;
        if let Some(tap) = &mut tap {
            let begun = tap
                .begin(journal.id(), found.first().map(|first| first.0), journal.next().0.max(next))
                .map_err(RecordError::Tap)?;
            next = next.max(begun.next);
            again = Some(Lsn(begun.from));
        }
        journal.begin(Lsn(next), &found);

        let queue = Arc::new(Queue::new(QUEUE_BYTES));
        let shelf = Arc::clone(journal.shelf());
        let failed = |error: std::io::Error| RecordError::Writer(error.to_string());
        let archive = Archive::new(place.clone(), seals.clone(), Arc::clone(&queue), journal.id());
        let writer =
            Writer::new(place, &settings, Arc::clone(&queue), Arc::clone(&shelf), journal.id(), seals)
                .map_err(failed)?;
        let thread = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || writer.run())
            .map_err(failed)?;
        let syncing = Syncing::start(shelf, settings.journal_sync).map_err(|error| {
            queue.close();
            failed(error)
        })?;
        let mut recorder = Self {
            journal: Some(journal),
            builders: Builders::new(settings.node.clone(), Arc::clone(&queue), RECOVERY_PATIENCE, tap),
            queue,
            writer: Some(thread),
            syncing: Some(syncing),
            settled: Lsn(0),
            archive,
            clock: Steady::default(),
        };
        let rows = recorder.replay(&found, &settled, again).map_err(unwritable)?;
        let position = found.position();
        Ok((recorder, Recovery { states: found.into_states(), position, rows }))
    }

    /// Records what an earlier agent had committed and not completed, and tells the tap what stands at `again` or behind.
    fn replay(&mut self, found: &Found, settled: &Settled, again: Option<Lsn>) -> std::io::Result<u64> {
        let rows = found.replay(settled, again, &mut self.builders)?;
        self.commit_tap();
        self.builders.flush();
        // An agent that is killed again and again must not replay more each time.
        if rows > 0 {
            self.queue.complete();
        }
        self.builders.set_patience(PATIENCE);
        metrics::RECOVERED_ROWS.add(rows);
        if rows > 0 {
            tracing::info!(rows, "recorded what an earlier agent had captured and not completed");
        }
        Ok(rows)
    }

    /// Time passes: hands over what has waited long enough. To be called about ten times a second.
    pub fn tick(&mut self, now: Micros) {
        let Some(journal) = &mut self.journal else { return };
        let now = self.clock.follow(now);
        journal.tick(now);
        let (stored, waiting) = self.queue.progress();
        for rows in stored {
            journal.settled(rows.table, rows.day, &rows.spans);
        }
        if let Some((losses, lost)) = self.queue.declarable() {
            for loss in losses {
                self.builders.loss(journal.loss(&loss), &loss);
            }
            for rows in lost {
                journal.settled(rows.table, rows.day, &rows.spans);
            }
        }
        self.builders.tick(now);
        let first = [waiting, self.builders.first()].into_iter().flatten().min();
        self.settled = first.map_or(journal.next(), |first| first.min(journal.next()));
        if let Some(tap) = self.builders.tap() {
            self.settled = self.settled.min(Lsn(tap.kept()));
        }
        metrics::JOURNAL_WAITING.set(journal.next().0 - self.settled.0);
    }

    /// Whether a rule requires that sessions are recorded. While the disk takes nothing, whoever hands over rows then waits instead of
    /// losing them: the ring fills, and the kernel side has the required sessions wait or end.
    pub fn set_required(&self, required: bool) {
        self.queue.set_required(required);
    }

    /// Its complete files.
    pub fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Records a decision: about a session, or about all of them if none is given.
    pub fn decision(&mut self, session: Option<&SessionInfo>, decision: &Decision) {
        decision.verdict.and_then(Outcome::metric).into_iter().for_each(|metric| metric.add(1));
        if let Some(journal) = &mut self.journal {
            self.builders.decision(journal.decision(session, decision), session, decision);
        }
    }

    /// Keeps the state of a session that is still open, for the next agent. The newest counts, with the next commit.
    pub fn save_state(&mut self, key: StateKey, state: &[u8]) {
        if let Some(journal) = &mut self.journal {
            journal.save_state(key, state);
        }
    }

    /// The state of a session is no longer needed.
    pub fn forget_state(&mut self, key: StateKey) {
        if let Some(journal) = &mut self.journal {
            journal.forget_state(&key);
        }
    }

    /// Ends a transaction: what was recorded since the last one survives the agent from here on, and so does
    /// `position`, the place in the kernel's ring up to which events have become part of it. To be called often: no
    /// file is completed before its rows are committed.
    pub fn commit(&mut self, position: u64) {
        if let Some(journal) = &mut self.journal {
            journal.commit(position);
            journal.shelf().set_settled(self.settled);
        }
        self.commit_tap();
    }

    fn commit_tap(&mut self) {
        if let (Some(tap), Some(journal)) = (self.builders.tap(), &self.journal) {
            tap.commit(journal.shelf().committed().0);
        }
    }

    /// Writes everything that is left, completes all files, and says what was recorded. Nothing is left to the next
    /// agent.
    ///
    /// # Errors
    ///
    /// Rows are lost and the loss could not be declared, or the writer thread failed. What the journal has stays there.
    pub fn finish(self) -> Result<Summary, RecordError> {
        self.complete(false)
    }

    /// Like [`Recorder::finish`], but leaves the states of the open sessions and the last commit's position to the
    /// next agent.
    ///
    /// # Errors
    ///
    /// As [`Recorder::finish`].
    pub fn suspend(self) -> Result<Summary, RecordError> {
        self.complete(true)
    }

    fn complete(mut self, keep: bool) -> Result<Summary, RecordError> {
        self.builders.flush();
        let journal = self.journal.take().map(|mut journal| {
            journal.commit(journal.reader().unwrap_or(0));
            if let Some(tap) = self.builders.tap() {
                tap.commit(journal.shelf().committed().0);
            }
            journal
        });
        self.queue.close();
        let result = match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(RecordError::Writer("it ended early".to_owned())),
        };
        drop(self.syncing.take());
        // What only the journal has stays there, for the next agent.
        let told = self.builders.tap().is_none_or(|tap| tap.close());
        if result.is_ok() && told {
            journal.into_iter().for_each(|journal| journal.close(keep));
        }
        result
    }
}

impl Sink for Recorder {
    fn row(&mut self, session: &SessionInfo, row: RowValues<'_>) {
        metrics::RESULT_ROWS.add(1);
        if let Some(journal) = &mut self.journal {
            self.builders.row(journal.row(session, &row), session, row);
        }
    }

    fn rows(&mut self, session: &SessionInfo, run: RowRun<'_>) {
        metrics::RESULT_ROWS.add(run.count as u64);
        if let Some(journal) = &mut self.journal {
            self.builders.rows(journal.rows(session, &run), session, run);
        }
    }

    fn statement(&mut self, session: &SessionInfo, exchange: &Exchange) {
        statements::metric(exchange).add(1);
        if let Some(journal) = &mut self.journal {
            self.builders.statement(journal.statement(session, exchange), session, exchange);
        }
    }

    fn gap(&mut self, session: &SessionInfo, gap: &Gap) {
        metrics::GAPS.add(1);
        if let Some(journal) = &mut self.journal {
            self.builders.gap(journal.gap(session, gap), session, gap);
        }
    }

    fn end(&mut self, session: &SessionInfo, end: &SessionEnd) {
        if let Some(journal) = &mut self.journal {
            self.builders.end(journal.end(session, end), session, end);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Without `finish` what is committed is completed all the same.
        self.queue.close();
    }
}

/// Bytes of all batches that wait for the writer.
const QUEUE_BYTES: usize = 48 << 20;

/// How long the reader thread waits for a writer that is busy. Longer stalls cost more in the kernel's ring than
/// the batch is worth.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same while nothing is captured yet.
const RECOVERY_PATIENCE: Duration = Duration::from_secs(60);
