//! The rows of one table and day on their way to one file.
#![expect(clippy::disallowed_types, reason = "an IO room: files are completed by age")]

use std::io;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parquet::errors::ParquetError;

use super::batch::Day;
use super::disk::Disk;
use super::filling::Filling;
use super::loss::Loss;
use super::lsn::{Lsn, Piece, Spans};
use super::row_group::{Encoder, RowGroup};
use super::table::Table;

/// The rows of one table and day that are on their way to one file.
pub(super) struct Slot {
    table: Table,
    day: Day,
    /// Rows in memory, which no file has yet; none if there are none.
    encoder: Option<Encoder>,
    /// Rows that a growing file has.
    file: Option<Filling>,
    born: Instant,
}

impl Slot {
    pub(super) fn new(table: Table, day: Day) -> Self {
        Self { table, day, encoder: None, file: None, born: Instant::now() }
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
            || self
                .file
                .as_ref()
                .is_some_and(|Filling { file, .. }| file.bytes() >= size || file.is_removed())
    }

    /// Where its rows stand in the journal.
    fn spans(&self) -> impl Iterator<Item = &Spans> {
        let file = self.file.as_ref().map(Filling::spans);
        [file, self.encoder.as_ref().map(Encoder::spans)].into_iter().flatten()
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
                Ok(file) => return self.file.insert(file).file.encoder(),
                Err(error) => error,
            };
            if !disk.wait_after(error, &mut last) {
                return Err(ParquetError::General("no file could be begun".to_owned()));
            }
        }
    }

    /// Takes the growing file, or begins one.
    fn file(&mut self, disk: &Disk) -> io::Result<Filling> {
        self.file.take().map_or_else(|| Filling::begin(disk, self.table, self.day), Ok)
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
        self.file = self.file.take().and_then(|file| file.append(disk, row_group));
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
        let reserved = file.file.reserve(row_group);
        if reserved.is_ok() || disk.place.keys().encrypt() {
            self.file = Some(file);
        } else if file.is_empty() {
            file.discard();
        } else {
            file.publish(disk);
        }
        reserved
    }

    /// Brings all rows into a file, if there are any: it can be completed.
    pub(super) fn end(mut self, disk: &mut Disk) -> Option<Filling> {
        self.flush(disk);
        let file = self.file.take()?;
        if file.is_empty() {
            file.discard();
            return None;
        }
        Some(file)
    }
}

/// Spans of the journal that one file names in its footer. There are several where losses or other days lie between.
const MAX_SPANS: usize = 64;

/// Bytes of the journal that wait for a file to be completed.
const MAX_JOURNAL: u64 = 512 << 20;
