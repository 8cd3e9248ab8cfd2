//! What the threads know of the journal: the capture thread writes it, the writer thread asks how far it is, and a third
//! ([`super::syncing`]) brings it to the disk, makes room for the next segment and removes those that nobody needs any more.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;

use ulid::Ulid;

use super::super::lsn::Lsn;
use super::lock::Lock;
use super::segment::Spare;
use crate::telemetry::metrics;

/// The segments, and how far the journal, the record and the disk are.
#[derive(Debug, Default)]
pub(in crate::record) struct Shelf {
    state: Mutex<State>,
    /// Everything before this is in complete transactions, or will never be in the journal.
    committed: AtomicU64,
    /// All rows before this are settled: in complete files, or declared lost.
    settled: AtomicU64,
    /// The latest time that a segment or a file was given.
    clock: AtomicU64,
    /// The thread that waits for the disk.
    worker: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct State {
    /// Held as long as either thread lives.
    lock: Option<Arc<Lock>>,
    current: Option<Arc<File>>,
    closed: VecDeque<Closed>,
    /// Segments that were closed since the last synchronization.
    unsynced: Vec<Arc<File>>,
    /// The folder, if a segment was made in it since then.
    folder: Option<PathBuf>,
    synced: u64,
    spare: Spares,
}

/// What becomes of the file for the next segment.
#[derive(Debug, Default)]
enum Spares {
    /// Nobody wants one yet.
    #[default]
    None,
    /// One is to be made in this folder, of this size, and warm or not.
    Wanted(PathBuf, u64, bool),
    /// The thread is at it.
    Coming,
    Ready(Spare),
    /// None could be made. Whoever begins the next segment makes it, and finds out why.
    Refused,
    /// None is made any more.
    Over,
}

/// A segment that does not grow any more.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) path: PathBuf,
    /// One past its last position.
    pub(super) end: Lsn,
}

impl Shelf {
    /// A Unix time in milliseconds that never goes back, also if the host's clock does: a file is never older, by its
    /// name, than a segment that its rows stand in.
    pub(in crate::record) fn now(&self) -> u64 {
        self.not_before(Ulid::generate().timestamp_ms())
    }

    /// No time before `time` is given from now on.
    pub(in crate::record) fn not_before(&self, time: u64) -> u64 {
        self.clock.fetch_max(time, Ordering::Relaxed).max(time)
    }

    /// Where the last complete transaction ends.
    pub(in crate::record) fn committed(&self) -> Lsn {
        Lsn(self.committed.load(Ordering::Acquire))
    }

    pub(super) fn set_committed(&self, end: Lsn) {
        self.committed.store(end.0, Ordering::Release);
    }

    /// All rows before `low` are settled.
    pub(in crate::record) fn set_settled(&self, low: Lsn) {
        self.settled.store(low.0, Ordering::Release);
    }

    /// Whether everything committed is settled.
    pub(in crate::record) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) >= self.committed.load(Ordering::Acquire)
    }

    pub(super) fn hold(&self, lock: Arc<Lock>) {
        self.state().lock = Some(lock);
    }

    /// Where the oldest segment ends that is still needed and does not grow any more.
    pub(super) fn oldest_end(&self) -> Option<Lsn> {
        self.state().closed.front().map(|closed| closed.end)
    }

    /// A segment of an earlier agent's.
    pub(super) fn inherit(&self, closed: Closed) {
        self.state().closed.push_back(closed);
    }

    /// A new segment is in use, with a complete checkpoint, and the one before it is closed.
    pub(super) fn turn(&self, folder: PathBuf, current: Arc<File>, before: Option<(Closed, Arc<File>)>) {
        let mut state = self.state();
        if let Some((closed, file)) = before {
            state.closed.push_back(closed);
            state.unsynced.push(file);
        }
        state.current = Some(current);
        state.folder = Some(folder);
        metrics::JOURNAL_SEGMENTS.set(state.closed.len() as u64 + 1);
    }

    /// The segment in use is not to be written any more, and none takes its place yet.
    pub(super) fn interrupt(&self, before: Option<(Closed, Arc<File>)>) {
        let mut state = self.state();
        if let Some((closed, file)) = before {
            state.closed.push_back(closed);
            state.unsynced.push(file);
        }
        state.current = None;
    }

    /// Brings what is committed to the disk.
    pub(in crate::record) fn sync(&self) -> io::Result<()> {
        let committed = self.committed().0;
        let (files, folder) = {
            let mut state = self.state();
            if state.synced == committed && state.folder.is_none() && state.unsynced.is_empty() {
                return Ok(());
            }
            state.synced = committed;
            let mut files = std::mem::take(&mut state.unsynced);
            files.extend(state.current.clone());
            (files, state.folder.take())
        };
        for file in files {
            file.sync_data()?;
            self.make_spare();
        }
        folder.map_or(Ok(()), |folder| File::open(folder)?.sync_all())
    }

    /// Removes segments whose rows are all settled. The checkpoint of the segment in use takes their place, and if
    /// there is none, their states are worthless. `synced` if that checkpoint must be on the disk first.
    pub(in crate::record) fn sweep(&self, synced: bool) {
        let settled = Lsn(self.settled.load(Ordering::Acquire));
        // One at a time: the other threads need the state while the disk takes its time to remove it.
        let next = || {
            let mut state = self.state();
            if synced && state.folder.is_some() {
                return None;
            }
            state.closed.pop_front_if(|closed| closed.end <= settled)
        };
        while let Some(closed) = next() {
            // If it cannot be removed now, the next agent does.
            let _ = fs::remove_file(&closed.path);
            self.make_spare();
            metrics::JOURNAL_SEGMENTS.set(self.state().closed.len() as u64 + 1);
        }
    }

    /// The thread to be woken when a file for the next segment is wanted.
    pub(super) fn set_worker(&self, thread: Thread) {
        // There is one such thread.
        let _ = self.worker.set(thread);
    }

    /// A segment of `size` bytes will soon be needed in `folder`; it will fill up fast if it is to be `warm`.
    pub(super) fn want_spare(&self, folder: &Path, size: u64, warm: bool) {
        let mut state = self.state();
        let Some(worker) = self.worker.get() else { return };
        if matches!(state.spare, Spares::None) {
            state.spare = Spares::Wanted(folder.to_owned(), size, warm);
            worker.unpark();
        }
    }

    /// Makes the file that is wanted, if one is. Asked between all else that the thread has to wait for: who needs the file when it
    /// is not there makes it, and the ring fills meanwhile.
    pub(super) fn make_spare(&self) {
        let wanted = {
            let mut state = self.state();
            if !matches!(state.spare, Spares::Wanted(..)) {
                return;
            }
            std::mem::replace(&mut state.spare, Spares::Coming)
        };
        let Spares::Wanted(folder, size, warm) = wanted else { return };
        let made = Spare::create(&folder, size, warm);
        let mut state = self.state();
        match (made, &state.spare) {
            (Ok(spare), Spares::Coming) => state.spare = Spares::Ready(spare),
            (Ok(spare), _) => spare.remove(),
            (Err(_), Spares::Coming) => state.spare = Spares::Refused,
            (Err(_), _) => {}
        }
    }

    /// The file for the next segment, if one is there.
    pub(super) fn take_spare(&self) -> Option<Spare> {
        let mut state = self.state();
        match std::mem::take(&mut state.spare) {
            Spares::Ready(spare) => Some(spare),
            Spares::Wanted(..) | Spares::Refused => None,
            other => {
                state.spare = other;
                None
            }
        }
    }

    /// No segment follows.
    pub(super) fn end_spares(&self) {
        if let Spares::Ready(spare) = std::mem::replace(&mut self.state().spare, Spares::Over) {
            spare.remove();
        }
    }

    /// The segments of which nothing is needed any more, for a journal that ends.
    pub(super) fn take_closed(&self) -> Vec<PathBuf> {
        self.state().closed.drain(..).map(|closed| closed.path).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // State is consistent after each statement that changes it, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
