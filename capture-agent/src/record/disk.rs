//! The disk, as the writer thread knows it: where files stand, and how it fares.
#![expect(clippy::disallowed_types, reason = "an IO room: a trouble that lasts is said again")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Summary;
use super::file::Place;
use super::journal::Shelf;
use super::lsn::Lsn;
use super::queue::Queue;
use crate::seal::SharedChain;
use crate::telemetry::metrics;

/// What all files share: the place, and how it fares.
pub(super) struct Disk {
    pub(super) place: Place,
    pub(super) queue: Arc<Queue>,
    pub(super) shelf: Arc<Shelf>,
    /// Which journal the rows stand in.
    pub(super) journal: u128,
    /// The proof of what is published.
    pub(super) seals: SharedChain,
    pub(super) summary: Summary,
    /// Since when, and when it was last said, while attempts fail.
    trouble: Option<(Instant, Instant)>,
    pub(super) last_error: Option<io::Error>,
}

impl Disk {
    pub(super) fn new(
        place: Place,
        queue: Arc<Queue>,
        shelf: Arc<Shelf>,
        journal: u128,
        seals: SharedChain,
    ) -> Self {
        let summary = Summary::default();
        Self { place, queue, shelf, journal, seals, summary, trouble: None, last_error: None }
    }

    /// Notes an error and waits a while, unless this was the `last` attempt. Returns whether to try again; the
    /// attempt after the queue was closed is the last.
    pub(super) fn wait_after(&mut self, error: io::Error, last: &mut bool) -> bool {
        self.fails(error);
        if *last {
            return false;
        }
        *last = self.queue.wait_closed(RETRY);
        true
    }

    pub(super) fn anchor(&mut self) {
        if let Err(error) = self.seals.lock().anchor() {
            metrics::STORAGE_ERRORS.add(1);
            tracing::error!("cannot anchor the chain of seals: {error} (see docs/errors.md#anchor-failed)");
        }
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
    pub(super) fn fails(&mut self, error: io::Error) {
        metrics::STORAGE_ERRORS.add(1);
        self.queue.set_failing(true);
        let now = Instant::now();
        let (since, said) = self.trouble.unwrap_or((now, now));
        if self.trouble.is_none() || now.duration_since(said) >= REMINDER {
            tracing::error!(
                data_dir = %self.place.data_dir.display(),
                "cannot write the record: {error}; sessions are recorded in memory as far as it goes, what is lost \
                 is declared in the table gaps once the disk takes data again (see docs/errors.md#storage-failed)"
            );
            self.trouble = Some((since, now));
        }
        self.last_error = Some(error);
    }

    /// Notes a success.
    pub(super) fn fares_well(&mut self) {
        if let Some((since, _)) = self.trouble.take() {
            self.queue.set_failing(false);
            let lost = self.queue.losses(|losses| losses.rows());
            tracing::info!(
                seconds = since.elapsed().as_secs(),
                lost_rows = lost,
                "the record is written again"
            );
        }
    }
}

/// How often the journal is looked at while it has not committed the rows of a file that cannot grow any more.
const COMMIT_TICK: Duration = Duration::from_millis(5);

/// How long to wait before the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a trouble that lasts is logged.
const REMINDER: Duration = Duration::from_secs(60);
