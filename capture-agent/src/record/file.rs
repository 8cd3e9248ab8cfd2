//! A Parquet file on its way: hidden while it grows, in its place when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::writer::SerializedFileWriter;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use ulid::Ulid;

use super::batch::Day;
use super::keys::Keys;
use super::layout::{self, Layout};
use super::row_group::{Chunk, Encoder, RowGroup};
use super::sealing::{self, Hashed};
use super::table::Table;
use crate::seal::{self, Contents, Hasher, hex};

/// Where the files of one agent stand.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The data directory.
    pub(super) data_dir: PathBuf,
    /// The agent's node, as file names carry it.
    node: String,
    keys: Keys,
}

/// A file that grows by whole row groups.
///
/// Space for a row group and for the footer is reserved before anything is written, so that a file can be
/// completed when the disk turns out to be full.
pub(super) struct GrowingFile {
    /// A second handle on the file that `writer` writes to.
    file: File,
    writer: SerializedFileWriter<Hashed<File>>,
    table: Table,
    day: Day,
    id: Ulid,
    temporary: PathBuf,
    row_groups: usize,
    /// Bytes that are reserved on the disk.
    reserved: u64,
}

/// A node, as file names carry it.
pub fn node_in_names(node: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    node.chars().map(safe).collect()
}

impl Place {
    /// The files of `node` in `data_dir`, encrypted with these keys.
    pub(super) fn new(data_dir: PathBuf, node: &str, keys: Keys) -> Self {
        Self { data_dir, node: node_in_names(node), keys }
    }

    /// What its files are encrypted with.
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The folder of a table's day.
    fn folder(&self, table: Table, day: Day) -> PathBuf {
        self.data_dir.join(table.name()).join(day.folder())
    }

    /// The name under which a file grows: hidden, and not ending in `.parquet`, so that no reader's pattern
    /// matches it.
    fn temporary(&self, folder: &Path, id: Ulid) -> PathBuf {
        folder.join(format!(".{}-{id}{TEMPORARY}", self.node))
    }

    fn complete(&self, folder: &Path, id: Ulid) -> PathBuf {
        folder.join(format!("{}-{id}{COMPLETE}", self.node))
    }

    /// Makes the data directory and its tables, and checks that files can be made there.
    pub(super) fn prepare(&self) -> io::Result<()> {
        for table in Table::ALL {
            create_folder(&self.data_dir.join(table.name()))?;
        }
        let probe = self.temporary(&self.data_dir, Ulid::generate());
        drop(create_file(&probe)?);
        fs::remove_file(probe)
    }

    /// Where the journal of this node stands.
    pub(super) fn journal(&self) -> PathBuf {
        self.data_dir.join(format!(".journal-{}", self.node))
    }

    /// Where the chains of seals stand.
    pub(super) fn seals(&self) -> PathBuf {
        self.data_dir.join(seal::FOLDER)
    }

    /// Where this node's key stands, if it stands here.
    pub(super) fn seal_key(&self) -> PathBuf {
        self.data_dir.join(format!(".seal-{}.key", self.node))
    }

    /// The node, as file names carry it.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// A file's place in the data directory.
    pub(super) fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.data_dir).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// What agents of this node left in a folder without giving it its name, and use no more.
    pub(super) fn temporaries(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if self.is_own_temporary(&entry.file_name().to_string_lossy()) && is_abandoned(&entry.path()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// The complete files of this node that were begun at `since` or later, in Unix milliseconds.
    pub(super) fn complete_since(&self, since: u64) -> io::Result<Vec<(Table, Day, PathBuf)>> {
        let files = self.complete_files()?.into_iter();
        let files = files.filter(|(.., id)| id.timestamp_ms() >= since);
        Ok(files.map(|(table, day, path, _)| (table, day, path)).collect())
    }

    /// The complete files of this node.
    pub(super) fn complete_files(&self) -> io::Result<Vec<(Table, Day, PathBuf, Ulid)>> {
        let mut found = Vec::new();
        for table in Table::ALL {
            for folder in fs::read_dir(self.data_dir.join(table.name()))? {
                let folder = folder?;
                let Some(day) = folder.file_name().to_str().and_then(Day::of_folder) else { continue };
                for entry in fs::read_dir(folder.path())? {
                    let entry = entry?;
                    let name = entry.file_name();
                    let id = name.to_str().and_then(|name| self.id_of(name.strip_suffix(COMPLETE)?));
                    if let Some(id) = id {
                        found.push((table, day, entry.path(), id));
                    }
                }
            }
        }
        Ok(found)
    }

    /// The id in the name of a file of this node, without its ending.
    fn id_of(&self, name: &str) -> Option<Ulid> {
        let id = name.strip_prefix(&self.node)?.strip_prefix('-')?;
        Ulid::from_string(id).ok()
    }

    /// Removes what an agent of this node left unfinished. Files of an agent that still runs are locked and stay.
    /// Returns how many were removed.
    pub(super) fn clean(&self) -> io::Result<u64> {
        let mut removed = 0;
        let mut folders = vec![self.data_dir.clone()];
        for table in Table::ALL {
            for entry in fs::read_dir(self.data_dir.join(table.name()))? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        for folder in folders {
            for path in self.temporaries(&folder)? {
                fs::remove_file(path)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn is_own_temporary(&self, name: &str) -> bool {
        let name = name.strip_prefix('.').and_then(|name| name.strip_suffix(TEMPORARY));
        name.and_then(|name| self.id_of(name)).is_some()
    }
}

impl GrowingFile {
    /// Begins a file, with its folders, at `now` in Unix milliseconds.
    pub(super) fn create(place: &Place, table: Table, day: Day, now: u64) -> io::Result<Self> {
        Self::with_layout(place, table, day, now, Layout::Recorded)
    }

    /// The same, with its columns laid out in this way.
    pub(super) fn with_layout(
        place: &Place,
        table: Table,
        day: Day,
        now: u64,
        layout: Layout,
    ) -> io::Result<Self> {
        let folder = place.folder(table, day);
        create_folder(&folder)?;
        let id = Ulid::from_parts(now, Ulid::generate().random());
        let temporary = place.temporary(&folder, id);
        let file = create_file(&temporary)?;
        let hashed = Hashed { to: file.try_clone()?, hasher: Hasher::new() };
        let properties = layout::properties(layout, place.keys.writing());
        let writer = RowGroup::file_writer(table, properties, hashed).map_err(io_error)?;
        Ok(Self { file, writer, table, day, id, temporary, row_groups: 0, reserved: 0 })
    }

    /// Begins its next row group.
    pub(super) fn encoder(&self) -> Result<Encoder, ParquetError> {
        Encoder::of_file(self.table, &self.writer, self.row_groups)
    }

    /// Reserves what `row_group` and the footer after it will take. On an error nothing has changed, and the file
    /// can still be completed as it is.
    pub(super) fn reserve(&mut self, row_group: &RowGroup) -> io::Result<()> {
        let written = self.writer.bytes_written() as u64;
        let footer = FOOTER_BYTES + (self.row_groups as u64 + 1) * ROW_GROUP_FOOTER_BYTES;
        let needed = written + row_group.bytes() + footer;
        if needed <= self.reserved {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, needed) {
            Ok(()) => {
                self.reserved = needed;
                Ok(())
            }
            // Not every file system can reserve; then a full disk costs the file that it fills up in.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Appends a row group. On an error the file is spoilt.
    pub(super) fn append(&mut self, columns: Vec<Chunk>) -> io::Result<()> {
        RowGroup::append(columns, &mut self.writer).map_err(io_error)?;
        self.row_groups += 1;
        Ok(())
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// Whether somebody removed it, or its folder.
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Writes the footer, with `said` in it, and brings everything to the disk. Yields what is to be sealed. On an error
    /// the file is spoilt.
    pub(super) fn complete(
        &mut self,
        place: &Place,
        said: impl IntoIterator<Item = KeyValue>,
    ) -> io::Result<Contents> {
        said.into_iter().for_each(|pair| self.writer.append_key_value_metadata(pair));
        let metadata = self.writer.finish().map_err(io_error)?;
        let bytes = self.writer.bytes_written() as u64;
        // Gives back what was reserved and not needed.
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        let file = place.relative(&place.complete(&place.folder(self.table, self.day), self.id));
        let sha256 = hex(&self.writer.inner().hasher.clone().finish());
        Ok(sealing::contents(file, sha256, bytes, &metadata))
    }

    /// Sees to it that a complete file is found again, by its hidden name, whatever happens from here on. May be tried
    /// again after an error.
    pub(super) fn keep(&mut self, place: &Place) -> io::Result<()> {
        let folder = place.folder(self.table, self.day);
        if self.is_removed() {
            self.copy_back(place, &folder)?;
        }
        File::open(&folder)?.sync_all()
    }

    /// Gives a complete file its name.
    pub(super) fn rename(&self, place: &Place) -> io::Result<()> {
        fs::rename(&self.temporary, place.complete(&place.folder(self.table, self.day), self.id))
    }

    /// Puts a complete file in its place. May be tried again after an error.
    pub(super) fn publish(&mut self, place: &Place) -> io::Result<()> {
        let folder = place.folder(self.table, self.day);
        self.rename(place)?;
        // The new name must survive a power failure as well.
        File::open(&folder)?.sync_all()
    }

    /// Makes a new file of what a removed one still holds.
    fn copy_back(&mut self, place: &Place, folder: &Path) -> io::Result<()> {
        create_folder(folder)?;
        let temporary = place.temporary(folder, Ulid::generate());
        let mut copy = create_file(&temporary)?;
        self.file.seek(SeekFrom::Start(0))?;
        let copied = io::copy(&mut self.file, &mut copy).and_then(|_| copy.sync_all());
        if let Err(error) = copied {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.file = copy;
        self.temporary = temporary;
        Ok(())
    }

    /// Removes what cannot be completed.
    pub(super) fn discard(self) {
        // If it cannot be removed now, the next start does.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Creates a folder that its owner alone can read: the record holds what the database returned.
pub(super) fn create_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn create_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // Says that the file is in use, for as long as the process lives. Where files cannot be locked, nothing is
    // ever taken for abandoned.
    let _ = file.try_lock();
    Ok(file)
}

fn is_abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|file| file.try_lock().is_ok())
}

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(error) => match error.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(error) => io::Error::other(error),
        },
        error => io::Error::other(error),
    }
}

/// How the names of complete files end.
const COMPLETE: &str = ".parquet";

/// How the names of growing files end.
const TEMPORARY: &str = ".tmp";

/// Space for a footer: schema, version, positions of the rows in the journal.
const FOOTER_BYTES: u64 = 16 << 10;

/// Space for what the footer says of one row group: up to 50 columns with names, statistics of twice 64 bytes,
/// sizes and encodings.
const ROW_GROUP_FOOTER_BYTES: u64 = 20 << 10;
