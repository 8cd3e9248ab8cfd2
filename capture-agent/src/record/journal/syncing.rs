//! The thread that brings the journal to the disk now and then, and removes what nobody needs any more of it. Either takes the
//! disk's time, while rows wait for the threads that capture and write them.
#![expect(clippy::disallowed_types, reason = "an IO room: the disk is asked at intervals")]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::shelf::Shelf;
use crate::telemetry::metrics;

/// Works until it is dropped, which waits for what it is about.
#[derive(Debug)]
pub(in crate::record) struct Syncing {
    /// None when it ends.
    go_on: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncing {
    /// Starts the thread, which brings the journal to the disk `every` so often; none if never.
    pub(in crate::record) fn start(shelf: Arc<Shelf>, every: Option<Duration>) -> io::Result<Self> {
        let (go_on, ends) = channel();
        let work = move || run(&shelf, every, &ends);
        let thread = thread::Builder::new().name("journal".to_owned()).spawn(work)?;
        Ok(Self { go_on: Some(go_on), thread: Some(thread) })
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.go_on.take();
        // A thread that panicked has said so.
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn run(shelf: &Shelf, every: Option<Duration>, ends: &Receiver<()>) {
    let mut synced = Instant::now();
    loop {
        let rest = every.map_or(TICK, |every| every.saturating_sub(synced.elapsed()).min(TICK));
        if !matches!(ends.recv_timeout(rest), Err(RecvTimeoutError::Timeout)) {
            return;
        }
        if every.is_some_and(|every| synced.elapsed() >= every) {
            synced = Instant::now();
            if let Err(error) = shelf.sync() {
                metrics::JOURNAL_ERRORS.add(1);
                tracing::error!(
                    "cannot bring the journal to the disk: {error} (see docs/errors.md#journal-failed)"
                );
            }
        }
        shelf.sweep(every.is_some());
    }
}

/// How often it is looked for what can be removed.
const TICK: Duration = Duration::from_millis(500);
