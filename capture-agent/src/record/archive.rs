//! The complete files of a node, for whoever keeps them: what there is, and how one goes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use ulid::Ulid;

use super::batch::Day;
use super::file::Place;
use super::queue::Queue;
use super::sealing;
use super::table::Table;
use crate::seal::{Chain, Live, SharedChain, What};
use crate::session::Micros;

/// The complete files of one node. Whatever is done to them stands in its chain of seals first.
#[derive(Clone, Debug)]
pub struct Archive {
    pub(super) place: Place,
    pub(super) seals: SharedChain,
    queue: Arc<Queue>,
    /// The journal that rows of the newest files may still stand in.
    pub(super) journal: u128,
}

/// A complete file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its table.
    pub table: Table,
    pub(super) day: Day,
    /// When it was begun, and its name.
    pub id: Ulid,
    /// Its place in the data directory, as its seal says it.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

impl Archive {
    pub(super) fn new(place: Place, seals: SharedChain, queue: Arc<Queue>, journal: u128) -> Self {
        Self { place, seals, queue, journal }
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.place.data_dir
    }

    /// The node, as file names carry it.
    pub fn node(&self) -> &str {
        self.place.node()
    }

    /// Recording is to end: nobody waits any more for a disk that takes nothing.
    pub fn end_waiting(&self) {
        self.queue.set_required(false);
    }

    /// Opens one of its files, to read rows.
    ///
    /// # Errors
    ///
    /// It cannot be read, or its key is missing.
    pub fn open(&self, file: &StoredFile) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
        let options = self.place.keys().reader_options();
        ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(&file.path)?, options)
    }

    /// All files, by table and day, each day's in the order of their rows.
    ///
    /// # Errors
    ///
    /// A folder cannot be read.
    pub fn files(&self) -> io::Result<Vec<StoredFile>> {
        let mut found = Vec::new();
        for (table, day, path, id) in self.place.complete_files()? {
            // It may have been removed since.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let name = self.place.relative(&path);
            found.push(StoredFile { table, day, id, name, path, bytes: metadata.len() });
        }
        found.sort_by_key(|file| (file.table, file.day, file.id));
        Ok(found)
    }

    /// Takes in what was sealed since the last time. Yields files of `there` that are gone by the words of the chain.
    ///
    /// # Errors
    ///
    /// The chain cannot be read.
    pub fn follow(&self, live: &mut Live, there: &HashSet<String>) -> io::Result<Vec<String>> {
        self.seals.follow(live, there)
    }

    /// Whether the writer is behind, or the disk fails: then nothing else shall use them.
    pub fn is_busy(&self) -> bool {
        self.queue.is_busy()
    }

    /// Removes a file because of a `rule`, and seals that it was removed: before, so that none ever is without a word.
    ///
    /// # Errors
    ///
    /// The disk does not take the seal, and the file stays; or the file cannot be removed, though it is sealed.
    pub fn expire(&self, file: &StoredFile, rule: &str) -> io::Result<()> {
        // Held until it is gone: what is unfinished is always what was sealed last.
        let mut seals = self.chain()?;
        seals.append(What::Expired { file: file.name.clone(), rule: rule.to_owned() })?;
        sealing::remove(&self.place, &file.name)?;
        drop(seals);
        // The next start finds it if a failure of power brings it back; until then it shall not lie around.
        sync_folder(&file.path)
    }

    /// Waits until nobody else appends to the chain. An error once recording ends: the next agent may append to it already.
    pub(super) fn chain(&self) -> io::Result<MutexGuard<'_, Chain>> {
        let chain = self.seals.lock();
        let ended = self.queue.wait_closed(Duration::ZERO);
        if ended { Err(io::Error::other("recording ends")) } else { Ok(chain) }
    }

    /// Removes a file that is removed by the words of its chain.
    ///
    /// # Errors
    ///
    /// It cannot be removed.
    pub fn remove_left(&self, name: &str) -> io::Result<()> {
        sealing::remove(&self.place, name)
    }
}

impl StoredFile {
    /// Whether it is of the same table and day as another.
    pub fn is_beside(&self, other: &Self) -> bool {
        (self.table, self.day) == (other.table, other.day)
    }

    /// Whether no more rows of its day are expected at `now`, a Unix time in milliseconds.
    pub fn is_of_the_past(&self, now: u64) -> bool {
        let now = i64::try_from(now.saturating_sub(GRACE_MS)).unwrap_or(i64::MAX);
        self.day < Day::of(Micros(now.saturating_mul(1_000)))
    }

    /// A file of the first day of all.
    #[cfg(test)]
    pub(crate) fn for_test(table: Table, id: Ulid, path: PathBuf, bytes: u64) -> Self {
        Self { table, day: Day(0), id, name: id.timestamp_ms().to_string(), path, bytes }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// How long after midnight files of the day before are still expected: statements that run long, and an agent that was away.
const GRACE_MS: u64 = 3_600_000;
