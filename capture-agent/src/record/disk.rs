//! The disk, as one of the threads that write files knows it: where files stand, and how it fares.
#![expect(clippy::disallowed_types, reason = "an IO room: a trouble that lasts is said again")]

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::file::Place;
use super::journal::Shelf;
use super::lsn::Lsn;
use super::queue::Queue;
use super::{RecordError, Summary};
use crate::seal::{Chain, SharedChain};
use crate::telemetry::metrics;

/// What all files share: the place, and how it fares. Each thread that writes has one of its own.
pub(super) struct Disk {
    pub(super) place: Place,
    pub(super) queue: Arc<Queue>,
    pub(super) shelf: Arc<Shelf>,
    /// Which journal the rows stand in.
    pub(super) journal: u128,
    /// The proof of what is published.
    pub(super) seals: SharedChain,
    /// Whether this thread waits before it tries again.
    waits: bool,
    fares: Arc<Mutex<Fares>>,
}

/// How all threads fare.
#[derive(Debug, Default)]
struct Fares {
    /// Threads that wait before they try again.
    waiting: u32,
    /// Since when, and when it was last said, while attempts fail.
    trouble: Option<(Instant, Instant)>,
    last_error: Option<io::Error>,
    /// Without what was lost.
    summary: Summary,
}

impl Disk {
    pub(super) fn new(
        place: Place,
        queue: Arc<Queue>,
        shelf: Arc<Shelf>,
        journal: u128,
        seals: SharedChain,
    ) -> Self {
        Self { place, queue, shelf, journal, seals, waits: false, fares: Arc::default() }
    }

    /// The same for another thread.
    pub(super) fn another(&self) -> Self {
        Self {
            place: self.place.clone(),
            queue: Arc::clone(&self.queue),
            shelf: Arc::clone(&self.shelf),
            journal: self.journal,
            seals: self.seals.clone(),
            waits: false,
            fares: Arc::clone(&self.fares),
        }
    }

    /// Notes an error and waits a while, unless this was the `last` attempt. Returns whether to try again; the
    /// attempt after the queue was closed is the last.
    pub(super) fn wait_after(&mut self, error: io::Error, last: &mut bool) -> bool {
        self.fails(error);
        if *last {
            self.set_waits(false);
            return false;
        }
        self.set_waits(true);
        *last = self.queue.wait_closed(RETRY);
        true
    }

    /// Waits until the journal has committed the row at `last`: for as long as the recorder takes until its next
    /// commit. False if that does not come.
    pub(super) fn wait_committed(&self, last: Option<Lsn>) -> bool {
        let Some(last) = last else { return true };
        while self.shelf.committed() <= last {
            if self.queue.wait_closed(COMMIT_TICK) {
                return self.shelf.committed() > last;
            }
        }
        true
    }

    /// Notes an error, and says so at its first time and then now and again.
    pub(super) fn fails(&self, error: io::Error) {
        metrics::STORAGE_ERRORS.add(1);
        let mut fares = self.fares();
        self.queue.set_failing(true);
        let now = Instant::now();
        let (since, said) = fares.trouble.unwrap_or((now, now));
        if fares.trouble.is_none() || now.duration_since(said) >= REMINDER {
            tracing::error!(
                data_dir = %self.place.data_dir.display(),
                "cannot write the record: {error}; sessions are recorded in memory as far as it goes, what is lost \
                 is declared in the table gaps once the disk takes data again (see docs/errors.md#storage-failed)"
            );
            fares.trouble = Some((since, now));
        }
        fares.last_error = Some(error);
    }

    /// Notes a success: it is over if no other thread waits.
    pub(super) fn fares_well(&mut self) {
        self.set_waits(false);
        let mut fares = self.fares();
        if fares.waiting == 0
            && let Some((since, _)) = fares.trouble.take()
        {
            self.queue.set_failing(false);
            let lost = self.queue.losses(|losses| losses.rows());
            tracing::info!(
                seconds = since.elapsed().as_secs(),
                lost_rows = lost,
                "the record is written again"
            );
        }
    }

    /// Notes that a file with so many rows is complete.
    pub(super) fn completed(&self, rows: u64) {
        metrics::RECORDED_FILES.add(1);
        metrics::RECORDED_ROWS.add(rows);
        let summary = &mut self.fares().summary;
        summary.files += 1;
        summary.rows += rows;
    }

    /// What was recorded, unless rows were lost that nothing declares.
    pub(super) fn sum_up(&self) -> Result<Summary, RecordError> {
        let mut fares = self.fares();
        let rows = self.queue.losses(|losses| losses.rows());
        if rows > 0 {
            let source = fares.last_error.take().unwrap_or_else(|| io::Error::other("unknown"));
            return Err(RecordError::Undeclared { rows, source });
        }
        Ok(Summary { lost_rows: self.queue.lost_rows(), ..fares.summary })
    }

    fn set_waits(&mut self, waits: bool) {
        if waits != self.waits {
            self.waits = waits;
            let mut fares = self.fares();
            fares.waiting = if waits { fares.waiting + 1 } else { fares.waiting.saturating_sub(1) };
        }
    }

    fn fares(&self) -> MutexGuard<'_, Fares> {
        // It is whole after each statement that changes it, so a panic elsewhere does not spoil it.
        self.fares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Anchors the head of a chain, or says why not.
pub(super) fn anchor(seals: &mut Chain) {
    if let Err(error) = seals.anchor() {
        metrics::STORAGE_ERRORS.add(1);
        tracing::error!("cannot anchor the chain of seals: {error} (see docs/errors.md#anchor-failed)");
    }
}

/// How often the journal is looked at while it has not committed the rows of a file that cannot grow any more.
const COMMIT_TICK: Duration = Duration::from_millis(5);

/// How long to wait before the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a trouble that lasts is logged.
const REMINDER: Duration = Duration::from_secs(60);
