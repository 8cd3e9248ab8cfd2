//! The thread that brings the journal to the disk now and then, makes room for its next segment, and removes what nobody needs
//! any more of it. All of it takes the disk's time, while rows wait for the threads that capture and write them.
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
    thread: Option<JoinHandle<()>>,
}

impl Syncing {
    /// Starts the thread, which brings the journal to the disk `every` so often; none if never.
    pub(in crate::record) fn start(shelf: Arc<Shelf>, every: Option<Duration>) -> io::Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let (its_shelf, its_end) = (Arc::clone(&shelf), Arc::clone(&ends));
        let work = move || run(&its_shelf, every, &its_end);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(work)?;
        shelf.set_worker(thread.thread().clone());
        Ok(Self { ends, thread: Some(thread) })
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has said so.
            drop(thread.join());
        }
    }
}

fn run(shelf: &Shelf, every: Option<Duration>, ends: &AtomicBool) {
    let (mut synced, mut swept) = (Instant::now(), Instant::now());
    while !ends.load(Ordering::Acquire) {
        shelf.make_spare();
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
