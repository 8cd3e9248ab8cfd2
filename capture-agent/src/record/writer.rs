//! The writer thread: batches in, complete files out, whatever the disk does.
#![expect(clippy::disallowed_types, reason = "an IO room: files are completed by age")]

use std::io;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use arrow::array::RecordBatch;
use parquet::errors::ParquetError;

use super::batch::{Batch, Day};
use super::file::{GrowingFile, Place};
use super::gaps::Gaps;
use super::journal::Shelf;
use super::loss::{Loss, Losses};
use super::lsn::{Lsn, Piece, Spans};
use super::queue::{Next, Queue};
use super::row_group::{Encoder, RowGroup};
use super::settled;
use super::table::Table;
use super::{RecordError, Settings, Summary};
use crate::seal::{Chain, Contents, SharedChain, What};
use crate::telemetry::{health, metrics};

/// Turns batches into files.
pub(super) struct Writer {
    disk: Disk,
    slots: Vec<Slot>,
    rotate_age: Duration,
    rotate_size: u64,
    node: String,
    /// How often the journal is brought to the disk; none if never.
    sync: Option<Duration>,
    synced: Instant,
    /// When the chain's head was anchored last.
    anchored: Instant,
}

/// The rows of one table and day that are on their way to one file.
struct Slot {
    table: Table,
    day: Day,
    /// Rows in memory, which no file has yet.
    encoder: Encoder,
    /// Rows that a growing file has.
    file: Option<GrowingFile>,
    file_rows: u64,
    /// What is lost with the growing file.
    file_stake: Losses,
    /// Where the growing file's rows stand in the journal.
    file_spans: Spans,
    born: Instant,
}

/// What all files share: the place, and how it fares.
struct Disk {
    place: Place,
    queue: Arc<Queue>,
    shelf: Arc<Shelf>,
    /// Which journal the rows stand in.
    journal: u128,
    /// The proof of what is published.
    seals: SharedChain,
    summary: Summary,
    /// Since when, and when it was last said, while attempts fail.
    trouble: Option<(Instant, Instant)>,
    last_error: Option<io::Error>,
}

impl Writer {
    pub(super) fn new(
        place: Place,
        settings: &Settings,
        queue: Arc<Queue>,
        shelf: Arc<Shelf>,
        journal: u128,
        seals: SharedChain,
    ) -> Self {
        let summary = Summary::default();
        Self {
            disk: Disk { place, queue, shelf, journal, seals, summary, trouble: None, last_error: None },
            slots: Vec::new(),
            rotate_age: settings.rotate_age,
            rotate_size: settings.rotate_size,
            node: settings.node.clone(),
            sync: settings.journal_sync,
            synced: Instant::now(),
            anchored: Instant::now(),
        }
    }

    /// Works until the queue is closed and empty, then completes all files.
    pub(super) fn run(mut self) -> Result<Summary, RecordError> {
        let queue = Arc::clone(&self.disk.queue);
        // Whatever ends this thread, nobody may wait for it.
        let _close = CloseOnDrop(Arc::clone(&queue));
        let _alive = health::RECORD.begin();
        loop {
            match queue.next(self.patience()) {
                Next::Batch(batch) => {
                    let Batch { table, day, rows, bytes, stake, piece } = *batch;
                    self.write(table, day, &rows, &stake, Some(piece));
                    drop(rows);
                    queue.done(bytes, self.unfinished());
                }
                Next::Complete => self.complete_all(),
                Next::Nothing => {}
                Next::Closed => break,
            }
            self.rotate();
            queue.set_unfinished(self.unfinished());
            self.keep_journal();
            self.anchor();
        }
        self.close()
    }

    /// How long to wait for a batch: the journal does not wait longer than it is to.
    fn patience(&self) -> Duration {
        self.sync.map_or(TICK, |sync| sync.saturating_sub(self.synced.elapsed()).min(TICK))
    }

    fn write(&mut self, table: Table, day: Day, rows: &RecordBatch, stake: &[Loss], piece: Option<Piece>) {
        if let Err(error) = self.encode(table, day, rows, stake, piece) {
            // Encoding in memory fails only for columns that do not fit their table.
            tracing::error!(table = table.name(), %error, "rows could not be encoded and are lost");
            let mut spans = Spans::default();
            piece.into_iter().for_each(|piece| spans.push(piece));
            self.disk.queue.lose(table, day, stake, &spans);
        }
    }

    /// The first row that is in no complete file.
    fn unfinished(&self) -> Option<Lsn> {
        self.slots.iter().filter_map(Slot::first).min()
    }

    /// Brings the journal to the disk when it is time, and removes what is no longer needed of it.
    fn keep_journal(&mut self) {
        let shelf = &self.disk.shelf;
        if self.sync.is_some_and(|sync| self.synced.elapsed() >= sync) {
            self.synced = Instant::now();
            if let Err(error) = shelf.sync() {
                metrics::JOURNAL_ERRORS.add(1);
                tracing::error!(
                    "cannot bring the journal to the disk: {error} (see docs/errors.md#journal-failed)"
                );
            }
        }
        shelf.sweep(self.sync.is_some());
    }

    /// Anchors the chain's head when it is time.
    fn anchor(&mut self) {
        let every = self.disk.seals.lock().anchors().map(|anchor| anchor.every);
        if every.is_some_and(|every| self.anchored.elapsed() >= every) {
            self.anchored = Instant::now();
            self.disk.anchor();
        }
    }

    fn encode(
        &mut self,
        table: Table,
        day: Day,
        rows: &RecordBatch,
        stake: &[Loss],
        piece: Option<Piece>,
    ) -> Result<(), ParquetError> {
        let slot = match self.slots.iter().position(|slot| slot.table == table && slot.day == day) {
            Some(slot) => slot,
            None => {
                let committed = self.disk.shelf.committed();
                if self.slots.len() >= MAX_SLOTS
                    && let Some(at) = self.slots.iter().position(|slot| slot.is_committed(committed))
                {
                    self.slots.remove(at).complete(&mut self.disk);
                }
                self.slots.push(Slot::new(table, day)?);
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.encoder.add(rows, stake, piece)?;
            if slot.encoder.bytes() >= ROW_GROUP_BYTES {
                slot.flush(&mut self.disk)?;
            }
        }
        Ok(())
    }

    /// Completes the files that are old or large enough, or that lost their place, or that keep too much of the
    /// journal from being removed. What is not committed must wait: it may come again from the kernel.
    fn rotate(&mut self) {
        let mut at = 0;
        let committed = self.disk.shelf.committed();
        while let Some(slot) = self.slots.get(at) {
            let file = slot.file.as_ref();
            let behind = slot.first().is_some_and(|first| committed.0.saturating_sub(first.0) > MAX_JOURNAL);
            let due = slot.born.elapsed() >= self.rotate_age
                || behind
                || slot.file_spans.len() + slot.encoder.spans().len() >= MAX_SPANS
                || file.is_some_and(|file| file.bytes() >= self.rotate_size || file.is_removed());
            if due && slot.is_committed(committed) {
                self.slots.remove(at).complete(&mut self.disk);
            } else {
                at += 1;
            }
        }
    }

    fn complete_all(&mut self) {
        for slot in std::mem::take(&mut self.slots) {
            slot.complete(&mut self.disk);
        }
    }

    fn close(mut self) -> Result<Summary, RecordError> {
        self.complete_all();
        self.declare();
        self.disk.anchor();
        let rows = self.disk.queue.losses(|losses| losses.rows());
        if rows > 0 {
            let source = self.disk.last_error.unwrap_or_else(|| io::Error::other("unknown"));
            return Err(RecordError::Undeclared { rows, source });
        }
        Ok(Summary { lost_rows: self.disk.queue.lost_rows(), ..self.disk.summary })
    }

    /// Declares what was lost and not declared yet.
    fn declare(&mut self) {
        let mut by_day: Vec<(Day, Gaps)> = Vec::new();
        for loss in self.disk.queue.losses(Losses::take) {
            let day = Day::of(loss.at);
            // Losses come in the order of their times.
            match by_day.last_mut() {
                Some((last, gaps)) if *last == day => gaps.append_loss(loss),
                _ => {
                    let mut gaps = Gaps::new();
                    gaps.append_loss(loss);
                    by_day.push((day, gaps));
                }
            }
        }
        for (day, mut gaps) in by_day {
            let Ok((rows, stake)) = gaps.finish(&self.node) else { continue };
            self.write(Table::Gaps, day, &rows, &stake, None);
        }
        self.complete_all();
    }
}

impl Slot {
    fn new(table: Table, day: Day) -> Result<Self, ParquetError> {
        Ok(Self {
            table,
            day,
            encoder: Encoder::new(table)?,
            file: None,
            file_rows: 0,
            file_stake: Losses::default(),
            file_spans: Spans::default(),
            born: Instant::now(),
        })
    }

    /// The first of its rows in the journal.
    fn first(&self) -> Option<Lsn> {
        self.file_spans.first().into_iter().chain(self.encoder.spans().first()).min()
    }

    /// Whether all its rows are in complete transactions.
    fn is_committed(&self, committed: Lsn) -> bool {
        self.file_spans.last().max(self.encoder.spans().last()) < Some(committed)
    }

    /// Brings the rows in memory into a file.
    fn flush(&mut self, disk: &mut Disk) -> Result<(), ParquetError> {
        let encoder = std::mem::replace(&mut self.encoder, Encoder::new(self.table)?);
        if encoder.is_empty() {
            return Ok(());
        }
        let row_group = encoder.finish()?;
        let mut last = false;
        while let Err(error) = self.make_room(disk, &row_group) {
            if !disk.wait_after(error, &mut last) {
                disk.queue.lose(self.table, self.day, &row_group.stake.into_losses(), &row_group.spans);
                return Ok(());
            }
        }
        self.append(disk, row_group);
        Ok(())
    }

    /// Sees to a file with space for a row group. Where the disk has none left, the file is completed without it,
    /// in the space that was reserved for its footer.
    fn make_room(&mut self, disk: &mut Disk, row_group: &RowGroup) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => GrowingFile::create(&disk.place, self.table, self.day, disk.shelf.now())?,
        };
        let reserved = file.reserve(row_group);
        if reserved.is_ok() {
            self.file = Some(file);
        } else if self.file_rows > 0 {
            self.complete_file(disk, file);
        } else {
            file.discard();
        }
        reserved
    }

    fn append(&mut self, disk: &mut Disk, row_group: RowGroup) {
        let Some(mut file) = self.file.take() else { return };
        let rows = row_group.rows as u64;
        match file.append(row_group.columns) {
            Ok(()) => {
                self.file = Some(file);
                self.file_rows += rows;
                self.file_stake.add(&row_group.stake.into_losses());
                self.file_spans.append(&row_group.spans);
                disk.fares_well();
            }
            Err(error) => {
                disk.fails(error);
                disk.queue.lose(self.table, self.day, &row_group.stake.into_losses(), &row_group.spans);
                self.lose_file(disk, file);
            }
        }
    }

    /// Brings all rows into a complete file.
    fn complete(mut self, disk: &mut Disk) {
        if let Err(error) = self.flush(disk) {
            // Its encoder is gone; what it held cannot be told any more.
            tracing::error!(table = self.table.name(), %error, "a row group could not be encoded and is lost");
        }
        if let Some(file) = self.file.take() {
            self.complete_file(disk, file);
        }
    }

    fn complete_file(&mut self, disk: &mut Disk, mut file: GrowingFile) {
        let contents = match file.complete(&disk.place, settled::footer(disk.journal, &self.file_spans)) {
            Ok(contents) => contents,
            Err(error) => {
                disk.fails(error);
                return self.lose_file(disk, file);
            }
        };
        if !disk.wait_committed(self.file_spans.last()) {
            // The recorder is gone without its last commit: these rows come again from the kernel.
            return file.discard();
        }
        let (mut last, mut sealed) = (false, false);
        let shared = disk.seals.clone();
        // Held until the file has its name: what is sealed and unpublished is what was sealed last.
        let mut seals = shared.lock();
        while let Err(error) = publish(&disk.place, &mut seals, &mut file, &contents, &mut sealed) {
            if !disk.wait_after(error, &mut last) {
                withdraw(&mut seals, contents.file, sealed);
                return self.lose_file(disk, file);
            }
        }
        drop(seals);
        disk.fares_well();
        disk.summary.files += 1;
        disk.summary.rows += self.file_rows;
        metrics::RECORDED_FILES.add(1);
        metrics::RECORDED_ROWS.add(self.file_rows);
        disk.queue.store(self.table, self.day, std::mem::take(&mut self.file_spans));
        self.file_rows = 0;
        self.file_stake = Losses::default();
    }

    fn lose_file(&mut self, disk: &mut Disk, file: GrowingFile) {
        disk.queue.lose(self.table, self.day, &self.file_stake.take(), &std::mem::take(&mut self.file_spans));
        self.file_rows = 0;
        file.discard();
    }
}

impl Disk {
    /// Notes an error and waits a while, unless this was the `last` attempt. Returns whether to try again; the
    /// attempt after the queue was closed is the last.
    fn wait_after(&mut self, error: io::Error, last: &mut bool) -> bool {
        self.fails(error);
        if *last {
            return false;
        }
        *last = self.queue.wait_closed(RETRY);
        true
    }

    fn anchor(&mut self) {
        if let Err(error) = self.seals.lock().anchor() {
            metrics::STORAGE_ERRORS.add(1);
            tracing::error!("cannot anchor the chain of seals: {error} (see docs/errors.md#anchor-failed)");
        }
    }

    /// Waits until the journal has committed the row at `last`: for as long as the recorder takes until its next
    /// commit. False if that does not come.
    fn wait_committed(&self, last: Option<Lsn>) -> bool {
        let Some(last) = last else { return true };
        while self.shelf.committed() <= last {
            if self.queue.wait_closed(COMMIT_TICK) {
                return self.shelf.committed() > last;
            }
        }
        true
    }

    /// Notes an error, and says so at its first time and then now and again.
    fn fails(&mut self, error: io::Error) {
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
    fn fares_well(&mut self) {
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

/// Seals a file, unless it is `sealed`, and publishes it: in this order, so that no file ever stands there without a seal.
fn publish(
    place: &Place,
    seals: &mut Chain,
    file: &mut GrowingFile,
    contents: &Contents,
    sealed: &mut bool,
) -> io::Result<()> {
    file.keep(place)?;
    if !*sealed {
        seals.append(What::File(contents.clone()))?;
        *sealed = true;
    }
    file.publish(place)
}

/// Takes back that a file was `sealed` which is not published.
fn withdraw(seals: &mut Chain, file: String, sealed: bool) {
    if sealed && let Err(error) = seals.append(What::Withdrawn { file: file.clone() }) {
        tracing::error!(file, %error, "this file was sealed, could not be published, and will be missed by `verify`");
    }
}

/// Closes the queue when the writer ends, however it ends.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// How often ages are looked at when nothing comes in.
const TICK: Duration = Duration::from_millis(250);

/// How often the journal is looked at while it has not committed the rows of a file that cannot grow any more.
const COMMIT_TICK: Duration = Duration::from_millis(5);

/// How long to wait before the disk is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often a trouble that lasts is logged.
const REMINDER: Duration = Duration::from_secs(60);

/// Memory that the rows of one slot take before they become a row group.
const ROW_GROUP_BYTES: usize = 8 << 20;

/// Tables and days that grow at once. Two days of each table overlap at midnight.
const MAX_SLOTS: usize = 10;

/// Spans of the journal that one file names in its footer. There are several where losses or other days lie between.
const MAX_SPANS: usize = 64;

/// Bytes of the journal that wait for a file to be completed.
const MAX_JOURNAL: u64 = 512 << 20;
