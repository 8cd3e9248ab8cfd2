//! The record, read back: lists of sessions, and what one session said.
//!
//! Files are read batch by batch. Folders are skipped by their date, row groups by their statistics.

use std::path::{Path, PathBuf};

use crate::record::Keys;

mod files;
mod groups;
mod scan;
mod session;
mod sessions;
#[cfg(test)]
mod tests;
mod value;

pub use session::{Decision, Found, Gap, Item, Shown, Statement, find, show};
pub use sessions::{Filter, SessionRow, StatementFilter, sessions};
pub use value::rfc3339;

/// A record that is read.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Its data directory.
    pub data_dir: &'a Path,
    /// What its files may be encrypted with.
    pub keys: &'a Keys,
}

/// Does something again if files went while it was done; they do not go often.
fn settled<T>(mut work: impl FnMut() -> Result<T, ReadError>) -> Result<T, ReadError> {
    for _ in 0..TRIES {
        match work() {
            Err(ReadError::Moved { .. }) => {}
            done => return done,
        }
    }
    work()
}

/// How often the record is read anew.
const TRIES: usize = 5;

/// Why the record cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The folder has no tables.
    #[error("{} holds no record (see docs/errors.md#no-record)", .path.display())]
    NoRecord {
        /// The data directory.
        path: PathBuf,
    },
    /// A file went while the record was read: it was merged with others, or its time was over.
    #[error(
        "{} went while it was read: files were merged or removed; run it again (see docs/errors.md#record-moved)",
        .path.display()
    )]
    Moved {
        /// The file.
        path: PathBuf,
    },
    /// A folder cannot be listed.
    #[error("cannot list {}: {source} (see docs/errors.md#record-unreadable)", .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source} (see docs/errors.md#record-unreadable)", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: parquet::errors::ParquetError,
    },
}
