//! The threads that see to the journal's files: one makes room for the next segment, another brings what is written to the disk now
//! and then, and removes what nobody needs any more. All of it takes the disk's time, while rows wait for the threads that capture
//! and write them. Room has a thread of its own, since it is wanted again long before a busy disk has taken a second's rows.
#![expect(clippy::disallowed_types, reason = "an IO room: the disk is asked at intervals")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::shelf::Shelf;
use crate::telemetry::metrics;

/// Works until it is dropped, which waits for what it is about.
#[derive(Debug)]
pub(in crate::record) struct Syncing {
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Syncing {
    /// Starts the threads, which bring the journal to the disk `every` so often; not at all if none is given.
    pub(in crate::record) fn start(shelf: Arc<Shelf>, every: Option<Duration>) -> io::Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let mut started = Self { ends: Arc::clone(&ends), threads: Vec::new() };
        let (its_shelf, its_end) = (Arc::clone(&shelf), Arc::clone(&ends));
        started.spawn("journal-room", move || make_room(&its_shelf, &its_end))?;
        if let Some(room) = started.threads.first() {
            shelf.set_worker(room.thread().clone());
        }
        started.spawn("journal", move || sync(&shelf, every, &ends))?;
        Ok(started)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            thread.thread().unpark();
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

fn make_room(shelf: &Shelf, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        shelf.make_spare();
        thread::park();
    }
}

fn sync(shelf: &Shelf, every: Option<Duration>, ends: &AtomicBool) {
    let (mut synced, mut swept) = (Instant::now(), Instant::now());
    while !ends.load(Ordering::Acquire) {
        if every.is_some_and(|every| synced.elapsed() >= every) {
            synced = Instant::now();
            if let Err(error) = shelf.sync() {
                metrics::JOURNAL_ERRORS.add(1);
                tracing::error!(
                    "cannot bring the journal to the disk: {error} (see docs/errors.md#journal-failed)"
                );
            }
        }
        if swept.elapsed() >= TICK {
            swept = Instant::now();
            shelf.sweep(every.is_some());
        }
        let rest = TICK.saturating_sub(swept.elapsed());
        thread::park_timeout(every.map_or(rest, |every| every.saturating_sub(synced.elapsed()).min(rest)));
    }
}

/// How often it is looked for what can be removed.
const TICK: Duration = Duration::from_millis(500);
