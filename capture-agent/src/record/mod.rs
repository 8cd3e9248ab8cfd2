//! What sessions said, as Parquet: `<data-dir>/<table>/date=YYYY-MM-DD/<node>-<ulid>.parquet`.
//!
//! [`Recorder`] is the [`Sink`] that fills columns on the reader thread. Full batches pass through a bounded queue
//! to one writer thread, which encodes, compresses and stores them. A file is hidden while it grows and renamed
//! when it is complete. While the disk takes nothing, recording goes on within the queue's bound; what exceeds it
//! is counted by session and declared in `gaps`, with reason `storage`, as soon as the disk takes data again.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::error::ArrowError;

mod batch;
mod file;
#[cfg(test)]
pub(crate) mod fixture;
mod gaps;
mod labels;
mod lists;
mod loss;
mod queue;
mod results;
mod row_group;
mod sessions;
mod statements;
#[cfg(test)]
mod storage_tests;
mod table;
#[cfg(test)]
mod tests;
mod writer;

pub use table::Table;

use arrow::array::RecordBatch;
use batch::{Batch, Day};
use file::Place;
use gaps::Gaps;
use labels::LabelCache;
use loss::Loss;
use queue::Queue;
use results::Results;
use sessions::Sessions;
use statements::Statements;
use writer::Writer;

use crate::session::{Exchange, Gap, Micros, RowValues, SessionEnd, SessionInfo, Sink};
use crate::sql::{Analyzer, Limits};

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
    /// The writer thread cannot be started, or ended early.
    #[error("the writer thread failed: {0} (see docs/errors.md#writer-failed)")]
    Writer(String),
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

/// Writes what sessions say.
#[derive(Debug)]
pub struct Recorder {
    node: String,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<Result<Summary, RecordError>>>,
    labels: LabelCache,
    analyzer: Analyzer,
    sessions: Pending<Sessions>,
    statements: Pending<Statements>,
    results: Pending<Results>,
    gaps: Pending<Gaps>,
    now: Micros,
}

impl Recorder {
    /// Makes the data directory, removes what an earlier agent of this node left unfinished, and starts the writer
    /// thread.
    ///
    /// # Errors
    ///
    /// The data directory cannot be written to, or the thread cannot be started.
    pub fn new(settings: Settings) -> Result<Self, RecordError> {
        let place = Place::new(settings.data_dir.clone(), &settings.node);
        let unwritable = |source| RecordError::DataDir { path: settings.data_dir.clone(), source };
        place.prepare().map_err(unwritable)?;
        let abandoned = place.clean().map_err(unwritable)?;
        if abandoned > 0 {
            tracing::warn!(
                files = abandoned,
                "removed what an earlier agent left unfinished; its latest rows are not in the record"
            );
        }
        let queue = Arc::new(Queue::new(QUEUE_BYTES));
        let writer = Writer::new(place, &settings, Arc::clone(&queue));
        let thread = std::thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| RecordError::Writer(error.to_string()))?;
        Ok(Self {
            node: settings.node,
            queue,
            writer: Some(thread),
            labels: LabelCache::new(),
            analyzer: Analyzer::new(Limits::default()),
            sessions: Pending::new(Sessions::new()),
            statements: Pending::new(Statements::new()),
            results: Pending::new(Results::new()),
            gaps: Pending::new(Gaps::new()),
            now: Micros(0),
        })
    }

    /// Time passes: hands over what has waited long enough. To be called about ten times a second.
    pub fn tick(&mut self, now: Micros) {
        self.now = now;
        if let Some(losses) = self.queue.declarable(loss::Losses::take) {
            for loss in losses {
                self.declare(loss);
            }
        }
        let due = Micros(now.0.saturating_sub(BATCH_AGE_US));
        if self.sessions.is_older_than(due) {
            self.flush_sessions();
        }
        if self.statements.is_older_than(due) {
            self.flush_statements();
        }
        if self.results.is_older_than(due) {
            self.flush_results();
        }
        if self.gaps.is_older_than(due) {
            self.flush_gaps();
        }
    }

    /// Writes everything that is left, completes all files, and says what was recorded.
    ///
    /// # Errors
    ///
    /// Rows are lost and the loss could not be declared, or the writer thread failed.
    pub fn finish(mut self) -> Result<Summary, RecordError> {
        self.flush_results();
        self.flush_statements();
        self.flush_sessions();
        self.flush_gaps();
        self.queue.close();
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(RecordError::Writer("it ended early".to_owned())),
        }
    }

    fn declare(&mut self, loss: Loss) {
        let day = Day::of(loss.at);
        if self.gaps.must_turn(day, self.gaps.rows.len()) {
            self.flush_gaps();
        }
        self.gaps.begin(day, self.now);
        self.gaps.rows.append_loss(loss);
    }

    fn flush_sessions(&mut self) {
        let bytes = self.sessions.rows.bytes();
        let rows = self.sessions.rows.finish(&self.node);
        self.send(Table::Sessions, self.sessions.day, bytes, rows);
        self.sessions.since = None;
    }

    fn flush_statements(&mut self) {
        let bytes = self.statements.rows.bytes();
        let rows = self.statements.rows.finish(&self.node);
        self.send(Table::Statements, self.statements.day, bytes, rows);
        self.statements.since = None;
    }

    fn flush_results(&mut self) {
        let bytes = self.results.rows.bytes();
        let rows = self.results.rows.finish();
        self.send(Table::Results, self.results.day, bytes, rows);
        self.results.since = None;
    }

    fn flush_gaps(&mut self) {
        let bytes = self.gaps.rows.bytes();
        let rows = self.gaps.rows.finish(&self.node);
        self.send(Table::Gaps, self.gaps.day, bytes, rows);
        self.gaps.since = None;
    }

    fn send(&self, table: Table, day: Day, bytes: usize, rows: Result<(RecordBatch, Vec<Loss>), ArrowError>) {
        match rows {
            Ok((rows, _)) if rows.num_rows() == 0 => {}
            Ok((rows, stake)) => self.queue.push(Batch { table, day, rows, bytes, stake }, PATIENCE),
            // The builders of a table always agree in their number of rows.
            Err(error) => tracing::error!(table = table.name(), %error, "a batch was malformed and is lost"),
        }
    }
}

impl Sink for Recorder {
    fn row(&mut self, session: &SessionInfo, row: RowValues<'_>) {
        let day = Day::of(row.started_at);
        if self.results.must_turn(day, self.results.rows.len()) {
            self.flush_results();
        }
        self.results.begin(day, self.now);
        self.results.rows.append(self.labels.of(session), session, &row);
        if self.results.rows.bytes() >= BATCH_BYTES {
            self.flush_results();
        }
    }

    fn statement(&mut self, session: &SessionInfo, exchange: &Exchange) {
        let day = Day::of(exchange.started_at);
        if exchange.params_body.len() >= LARGE_BYTES {
            // Otherwise the writer's copies of the value before this one would add to the copies of this one.
            self.flush_statements();
            self.queue.wait_idle(PATIENCE);
        }
        if self.statements.must_turn(day, self.statements.rows.len()) {
            self.flush_statements();
        }
        self.statements.begin(day, self.now);
        let analysis = exchange
            .sql
            .as_ref()
            .map(|text| self.analyzer.analyze(text, session.standard_conforming_strings));
        let labels = self.labels.of(session);
        self.statements.rows.append(labels, session, exchange, analysis.as_deref());
        if self.statements.rows.bytes() >= BATCH_BYTES {
            self.flush_statements();
        }
    }

    fn gap(&mut self, session: &SessionInfo, gap: &Gap) {
        let day = Day::of(gap.at);
        if self.gaps.must_turn(day, self.gaps.rows.len()) {
            self.flush_gaps();
        }
        self.gaps.begin(day, self.now);
        self.gaps.rows.append(session.origin.id, gap);
    }

    fn end(&mut self, session: &SessionInfo, end: &SessionEnd) {
        let day = Day::of(session.origin.started_at);
        if self.sessions.must_turn(day, self.sessions.rows.len()) {
            self.flush_sessions();
        }
        self.sessions.begin(day, self.now);
        let labels = self.labels.of(session);
        self.sessions.rows.append(labels, session, end);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Without `finish` what the writer has is completed all the same.
        self.queue.close();
    }
}

/// The rows of one table and one day that were not handed over yet.
#[derive(Debug)]
struct Pending<T> {
    rows: T,
    day: Day,
    /// When the first of them came.
    since: Option<Micros>,
}

impl<T> Pending<T> {
    fn new(rows: T) -> Self {
        Self { rows, day: Day(0), since: None }
    }

    /// Whether the `rows` so far must be handed over before one of `day` is added.
    fn must_turn(&self, day: Day, rows: usize) -> bool {
        rows >= BATCH_ROWS || (rows > 0 && day != self.day)
    }

    /// A row of `day` is about to be added.
    fn begin(&mut self, day: Day, now: Micros) {
        self.day = day;
        self.since.get_or_insert(now);
    }

    fn is_older_than(&self, due: Micros) -> bool {
        self.since.is_some_and(|since| since <= due)
    }
}

/// Rows of a batch: large enough that the cost per batch (about 50 column writes) vanishes.
const BATCH_ROWS: usize = 8_192;

/// Bytes of a batch, before it is handed over.
const BATCH_BYTES: usize = 4 << 20;

/// Parameters from this size on are copied only when the writer is done with all that came before.
const LARGE_BYTES: usize = 16 << 20;

/// How long rows wait for their batch to fill: half a second.
const BATCH_AGE_US: i64 = 500_000;

/// Bytes of all batches that wait for the writer.
const QUEUE_BYTES: usize = 24 << 20;

/// How long the reader thread waits for a writer that is busy. Longer stalls cost more in the kernel's ring than
/// the batch is worth.
const PATIENCE: Duration = Duration::from_secs(5);
