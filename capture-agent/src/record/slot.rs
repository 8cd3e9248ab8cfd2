//! The rows of one table and day on their way to one file.
#![expect(clippy::disallowed_types, reason = "an IO room: files are completed by age")]

use std::io;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parquet::errors::ParquetError;

use super::batch::Day;
use super::disk::Disk;
use super::file::{GrowingFile, Place};
use super::loss::{Loss, Losses};
use super::lsn::{Lsn, Piece, Spans};
use super::row_group::{Encoder, RowGroup};
use super::settled;
use super::table::Table;
use crate::seal::{Chain, Contents, What};
use crate::telemetry::metrics;

/// The rows of one table and day that are on their way to one file.
pub(super) struct Slot {
    table: Table,
    day: Day,
    /// Rows in memory, which no file has yet; none if there are none.
    encoder: Option<Encoder>,
    /// Rows that a growing file has.
    file: Option<GrowingFile>,
    file_rows: u64,
    /// What is lost with the growing file.
    file_stake: Losses,
    /// Where the growing file's rows stand in the journal.
    file_spans: Spans,
    born: Instant,
}

impl Slot {
    pub(super) fn new(table: Table, day: Day) -> Self {
        Self {
            table,
            day,
            encoder: None,
            file: None,
            file_rows: 0,
            file_stake: Losses::default(),
            file_spans: Spans::default(),
            born: Instant::now(),
        }
    }

    /// Whether it has these rows.
    pub(super) fn is_of(&self, table: Table, day: Day) -> bool {
        self.table == table && self.day == day
    }

    /// The first of its rows in the journal.
    pub(super) fn first(&self) -> Option<Lsn> {
        self.spans().filter_map(Spans::first).min()
    }

    /// Whether all its rows are in complete transactions.
    pub(super) fn is_committed(&self, committed: Lsn) -> bool {
        self.spans().filter_map(Spans::last).max() < Some(committed)
    }

    /// Whether its file is to be completed: it is old or large enough, lost its place, or keeps too much of the journal from
    /// being removed.
    pub(super) fn is_due(&self, committed: Lsn, age: Duration, size: u64) -> bool {
        let behind = self.first().is_some_and(|first| committed.0.saturating_sub(first.0) > MAX_JOURNAL);
        self.born.elapsed() >= age
            || behind
            || self.spans().map(Spans::len).sum::<usize>() >= MAX_SPANS
            || self.file.as_ref().is_some_and(|file| file.bytes() >= size || file.is_removed())
    }

    /// Where its rows stand in the journal.
    fn spans(&self) -> impl Iterator<Item = &Spans> {
        [Some(&self.file_spans), self.encoder.as_ref().map(Encoder::spans)].into_iter().flatten()
    }

    /// Adds rows, and brings them into a file when they are many.
    pub(super) fn add(&mut self, disk: &mut Disk, rows: &RecordBatch, stake: &[Loss], piece: Option<Piece>) {
        let mut encoder = match self.encoder.take().map_or_else(|| self.begin(disk), Ok) {
            Ok(encoder) => encoder,
            Err(error) => return self.lose(disk, &error, stake, &piece.into_iter().collect()),
        };
        if let Err(error) = encoder.add(rows, stake, piece) {
            // Some of its columns have these rows, and others have not.
            return self.lose_encoder(disk, &error, encoder);
        }
        let is_full = encoder.is_full();
        self.encoder = Some(encoder);
        if is_full {
            self.flush(disk);
        }
    }

    /// Begins a row group: for any file; but what is encrypted is encrypted for its place in one, so that must be there
    /// first.
    fn begin(&mut self, disk: &mut Disk) -> Result<Encoder, ParquetError> {
        if !disk.place.keys().encrypt() {
            return Encoder::new(self.table);
        }
        let mut last = false;
        loop {
            let error = match self.file(disk) {
                Ok(file) => return self.file.insert(file).encoder(),
                Err(error) => error,
            };
            if !disk.wait_after(error, &mut last) {
                return Err(ParquetError::General("no file could be begun".to_owned()));
            }
        }
    }

    /// Takes the growing file, or begins one.
    fn file(&mut self, disk: &Disk) -> io::Result<GrowingFile> {
        match self.file.take() {
            Some(file) => Ok(file),
            None => GrowingFile::create(&disk.place, self.table, self.day, disk.shelf.now()),
        }
    }

    /// Brings the rows in memory into a file.
    fn flush(&mut self, disk: &mut Disk) {
        let Some(mut encoder) = self.encoder.take() else { return };
        let row_group = match encoder.finish() {
            Ok(row_group) => row_group,
            Err(error) => return self.lose_encoder(disk, &error, encoder),
        };
        let mut last = false;
        while let Err(error) = self.make_room(disk, &row_group) {
            if !disk.wait_after(error, &mut last) {
                disk.queue.lose(self.table, self.day, &row_group.stake.into_losses(), &row_group.spans);
                return;
            }
        }
        self.append(disk, row_group);
    }

    fn lose_encoder(&self, disk: &Disk, error: &ParquetError, encoder: Encoder) {
        let (stake, spans) = encoder.into_loss();
        self.lose(disk, error, &stake, &spans);
    }

    /// Encoding in memory fails only for columns that do not fit their table, or where no file can be begun.
    fn lose(&self, disk: &Disk, error: &ParquetError, stake: &[Loss], spans: &Spans) {
        let table = self.table.name();
        tracing::error!(table, %error, "rows could not be encoded; `gaps` declares them lost");
        disk.queue.lose(self.table, self.day, stake, spans);
    }

    /// Sees to a file with space for a row group. Where the disk has none left, the file is completed without it,
    /// in the space that was reserved for its footer; unless the row group is encrypted for its place in this file, which then
    /// has to wait for it.
    fn make_room(&mut self, disk: &mut Disk, row_group: &RowGroup) -> io::Result<()> {
        let mut file = self.file(disk)?;
        let reserved = file.reserve(row_group);
        if reserved.is_ok() || disk.place.keys().encrypt() {
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
    pub(super) fn complete(mut self, disk: &mut Disk) {
        self.flush(disk);
        match self.file.take() {
            Some(file) if self.file_rows > 0 => self.complete_file(disk, file),
            Some(file) => file.discard(),
            None => {}
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

/// Spans of the journal that one file names in its footer. There are several where losses or other days lie between.
const MAX_SPANS: usize = 64;

/// Bytes of the journal that wait for a file to be completed.
const MAX_JOURNAL: u64 = 512 << 20;
