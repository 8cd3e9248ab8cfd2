//! A growing file with what it holds: published, or lost as a whole.

use std::io;

use super::batch::Day;
use super::disk::Disk;
use super::file::{GrowingFile, Place};
use super::loss::Losses;
use super::lsn::Spans;
use super::row_group::RowGroup;
use super::settled;
use super::table::Table;
use crate::seal::{Chain, Contents, What};

/// A file that grows, and the rows that it has.
pub(super) struct Filling {
    pub(super) file: GrowingFile,
    table: Table,
    day: Day,
    rows: u64,
    /// What is lost with it.
    stake: Losses,
    /// Where its rows stand in the journal.
    spans: Spans,
}

impl Filling {
    /// Begins a file.
    pub(super) fn begin(disk: &Disk, table: Table, day: Day) -> io::Result<Self> {
        let file = GrowingFile::create(&disk.place, table, day, disk.shelf.now())?;
        Ok(Self { file, table, day, rows: 0, stake: Losses::default(), spans: Spans::default() })
    }

    /// Whether it has no rows yet.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Where its rows stand in the journal.
    pub(super) fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Appends a row group, for which there is space. If that fails, all is lost.
    pub(super) fn append(mut self, disk: &mut Disk, row_group: RowGroup) -> Option<Self> {
        let rows = row_group.rows as u64;
        match self.file.append(row_group.columns) {
            Ok(()) => {
                self.rows += rows;
                self.stake.add(&row_group.stake.into_losses());
                self.spans.append(&row_group.spans);
                disk.fares_well();
                Some(self)
            }
            Err(error) => {
                disk.fails(error);
                disk.queue.lose(self.table, self.day, &row_group.stake.into_losses(), &row_group.spans);
                self.lose(disk);
                None
            }
        }
    }

    /// Completes it and puts it in its place, however often the disk has to be tried.
    pub(super) fn publish(mut self, disk: &mut Disk) {
        let contents = match self.file.complete(&disk.place, settled::footer(disk.journal, &self.spans)) {
            Ok(contents) => contents,
            Err(error) => {
                disk.fails(error);
                return self.lose(disk);
            }
        };
        if !disk.wait_committed(self.spans.last()) {
            // The recorder is gone without its last commit: these rows come again from the kernel.
            return self.discard();
        }
        let (mut last, mut sealed) = (false, false);
        let shared = disk.seals.clone();
        // Held until the file has its name: what is sealed and unpublished is what was sealed last.
        let mut seals = shared.lock();
        while let Err(error) = publish(&disk.place, &mut seals, &mut self.file, &contents, &mut sealed) {
            if !disk.wait_after(error, &mut last) {
                withdraw(&mut seals, contents.file, sealed);
                return self.lose(disk);
            }
        }
        drop(seals);
        disk.fares_well();
        disk.completed(self.rows);
        disk.queue.store(self.table, self.day, self.spans);
    }

    /// Gives it up, with no row lost.
    pub(super) fn discard(self) {
        self.file.discard();
    }

    fn lose(mut self, disk: &Disk) {
        disk.queue.lose(self.table, self.day, &self.stake.take(), &self.spans);
        self.discard();
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
