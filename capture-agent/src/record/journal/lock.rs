//! One agent at a time for a data directory and node: a lock on a file that names its holder.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::RecordError;
use super::super::file::create_folder;

/// Held as long as it lives; the kernel releases it when its process dies.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    path: PathBuf,
}

/// Why the lock is not to be had.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another agent holds it: its process id, if it is told.
    Held(Option<u32>),
    /// The file cannot be made or locked.
    Io(io::Error),
}

impl Lock {
    /// Locks `folder`.
    pub(super) fn acquire(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(&path).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _ = (&mut file).take(32).read_to_string(&mut holder);
                return Err(LockError::Held(holder.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        // For people and for the next agent's message. Without it the lock holds as well, so a full disk is no matter.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file, path })
    }

    /// Whether the file is still there for others to find locked.
    pub(super) fn stands(&self) -> bool {
        let inode = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(found)) => inode(held) == inode(found),
            _ => false,
        }
    }
}

/// Locks the journal's folder, which is made if it is not there.
pub(super) fn lock(folder: &Path) -> Result<Arc<Lock>, RecordError> {
    let unwritable = |source| RecordError::DataDir { path: folder.to_owned(), source };
    create_folder(folder).map_err(unwritable)?;
    match Lock::acquire(folder) {
        Ok(lock) => Ok(Arc::new(lock)),
        Err(LockError::Held(holder)) => Err(RecordError::InUse {
            path: folder.to_owned(),
            holder: holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}")),
        }),
        Err(LockError::Io(error)) => Err(unwritable(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_come_learns_who_was_first() {
        let folder = tempfile::tempdir().unwrap();
        let first = Lock::acquire(folder.path()).unwrap();
        let Err(LockError::Held(holder)) = Lock::acquire(folder.path()) else { panic!("locked twice") };
        assert_eq!(holder, Some(std::process::id()));
        assert!(first.stands());
        drop(first);
        let again = Lock::acquire(folder.path()).unwrap();
        fs::remove_file(folder.path().join("lock")).unwrap();
        assert!(!again.stands());
    }
}
