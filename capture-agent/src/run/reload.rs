//! A configuration file that changes while the agent runs: its rules replace those that hold, if all of them are right.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;

use crate::config::Config;

/// What became of a file that has changed: its configuration, or what is wrong with it.
pub(super) type Reloaded = Result<Box<Config>, String>;

/// Looks at the file, and hands what it says to the capture thread.
pub(super) struct Reload {
    file: PathBuf,
    /// How the file looked when it was last read.
    seen: Option<Look>,
    to: SyncSender<Reloaded>,
}

/// What tells one version of a file from the next: inode, length, and when it was changed.
type Look = (u64, u64, i64, i64);

impl Reload {
    /// Follows `file`, which has just been read.
    pub(super) fn new(file: PathBuf, to: SyncSender<Reloaded>) -> Self {
        let mut reload = Self { file, seen: None, to };
        reload.seen = reload.look();
        reload
    }

    /// Reads the file if it has changed.
    pub(super) fn if_changed(&mut self) {
        // One that is gone, or is being replaced, has not changed.
        if self.look().is_some_and(|look| self.seen != Some(look)) {
            self.now();
        }
    }

    /// Reads the file.
    pub(super) fn now(&mut self) {
        let look = self.look();
        let reloaded = Config::load(&self.file).map(Box::new).map_err(|error| error.to_string());
        // If the capture thread has not taken the last one yet, the next look finds the file changed again.
        if self.to.try_send(reloaded).is_ok() {
            self.seen = look;
        }
    }

    fn look(&self) -> Option<Look> {
        let metadata = fs::metadata(&self.file).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
    }
}
