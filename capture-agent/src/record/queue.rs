//! The bounded queue between the reader thread and the writer thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::batch::{Batch, Day};
use super::loss::{Loss, Losses};
use super::lsn::{Lsn, Spans};
use super::table::Table;
use crate::telemetry::{health, metrics};

/// Batches on their way to the disk, bounded by their bytes.
///
/// `held <= capacity`, or one batch alone is larger than that.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// There is a batch, or no more will come.
    filled: Condvar,
    /// There may be room, or storage failed.
    emptied: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    work: VecDeque<Work>,
    /// Bytes of all batches in `work` and of the one that the writer works on.
    held: usize,
    closed: bool,
    failing: bool,
    /// Whether rows of some session are required: then all wait for room, however long.
    required: bool,
    losses: Losses,
    /// Where the rows of `losses` stand in the journal.
    lost: Vec<Rows>,
    /// Rows that were ever lost, declared or not.
    lost_rows: u64,
    /// The first row of the batch that the writer works on.
    working: Option<Lsn>,
    /// The first row that the writer has in no complete file.
    unfinished: Option<Lsn>,
    /// Rows in files that are complete since this was last taken.
    stored: Vec<Rows>,
}

/// Rows of a table and day, by their positions in the journal.
#[derive(Clone, Debug)]
pub(super) struct Rows {
    pub(super) table: Table,
    pub(super) day: Day,
    pub(super) spans: Spans,
}

#[derive(Debug)]
enum Work {
    Batch(Batch),
    Complete,
}

/// What the writer finds in the queue.
#[derive(Debug)]
pub(super) enum Next {
    /// Rows to write. Followed by [`Queue::done`].
    Batch(Box<Batch>),
    /// All files are to be completed now.
    Complete,
    /// Nothing, in the time that it was given.
    Nothing,
    /// Nothing, and no more will come.
    Closed,
}

impl Queue {
    /// An empty queue for this many bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new(), capacity }
    }

    /// Hands a batch to the writer, and waits for room: at most `patience`, and not while storage fails; but as long as it takes
    /// if rows are required. What finds none is lost.
    pub(super) fn push(&self, batch: Batch, patience: Duration) {
        let no_room = |state: &State| state.held > 0 && state.held + batch.bytes > self.capacity;
        let crowded =
            |state: &mut State| no_room(state) && !state.closed && (!state.failing || state.required);
        let mut state = self.lock();
        loop {
            state = self
                .emptied
                .wait_timeout_while(state, patience, crowded)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if !crowded(&mut state) || !state.required {
                break;
            }
            // Who waits for the disk, as a rule wants it, is alive.
            health::CAPTURE.beat();
        }
        if state.closed || no_room(&state) {
            state.lose(batch.table, batch.day, &batch.stake, &Spans::from_iter([batch.piece]));
            return;
        }
        state.held += batch.bytes;
        state.work.push_back(Work::Batch(batch));
        drop(state);
        self.filled.notify_one();
    }

    /// Has the files completed that hold what was handed over so far.
    pub(super) fn complete(&self) {
        self.lock().work.push_back(Work::Complete);
        self.filled.notify_one();
    }

    /// Waits until the writer holds nothing, at most `patience`: before memory is taken for a large value.
    pub(super) fn wait_idle(&self, patience: Duration) {
        let busy = |state: &mut State| state.held > 0 && !state.failing && !state.closed;
        drop(self.emptied.wait_timeout_while(self.lock(), patience, busy));
    }

    /// The next batch, as soon as there is one.
    pub(super) fn next(&self, patience: Duration) -> Next {
        let empty = |state: &mut State| state.work.is_empty() && !state.closed;
        let (mut state, _) = self
            .filled
            .wait_timeout_while(self.lock(), patience, empty)
            .unwrap_or_else(PoisonError::into_inner);
        match state.work.pop_front() {
            Some(Work::Complete) => Next::Complete,
            Some(Work::Batch(batch)) => {
                state.working = Some(batch.piece.span.first);
                Next::Batch(Box::new(batch))
            }
            None if state.closed => Next::Closed,
            None => Next::Nothing,
        }
    }

    /// The writer no longer holds a batch of this many bytes. The first row that it has in no complete file is
    /// `unfinished`.
    pub(super) fn done(&self, bytes: usize, unfinished: Option<Lsn>) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(bytes);
        state.working = None;
        state.unfinished = unfinished;
        drop(state);
        self.emptied.notify_one();
    }

    /// The first row that the writer has in no complete file is `unfinished`.
    pub(super) fn set_unfinished(&self, unfinished: Option<Lsn>) {
        self.lock().unfinished = unfinished;
    }

    /// Rows are in a complete file.
    pub(super) fn store(&self, table: Table, day: Day, spans: Spans) {
        self.lock().stored.push(Rows { table, day, spans });
    }

    /// Rows that came into complete files since this was last asked, and the first row that was handed over and is
    /// neither in a complete file nor declared lost.
    pub(super) fn progress(&self) -> (Vec<Rows>, Option<Lsn>) {
        let mut state = self.lock();
        let waiting = state.work.iter().filter_map(Work::first);
        let lost = state.lost.iter().filter_map(|rows| rows.spans.first());
        let first = waiting.chain(lost).chain(state.working).chain(state.unfinished).min();
        (std::mem::take(&mut state.stored), first)
    }

    /// No more batches will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
        self.emptied.notify_one();
    }

    /// Waits for [`Queue::close`], at most `patience`. Returns whether it came.
    pub(super) fn wait_closed(&self, patience: Duration) -> bool {
        let open = |state: &mut State| !state.closed;
        let (state, _) = self
            .filled
            .wait_timeout_while(self.lock(), patience, open)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed
    }

    /// Whether rows of some session are required: then all wait for room as long as it takes.
    pub(super) fn set_required(&self, required: bool) {
        self.lock().required = required;
        self.emptied.notify_one();
    }

    /// Whether storage fails: then nobody waits for room, unless rows are required.
    pub(super) fn set_failing(&self, failing: bool) {
        self.lock().failing = failing;
        health::STORAGE.set(failing);
        metrics::STORAGE_FAILING.set(u64::from(failing));
        self.emptied.notify_one();
    }

    /// Whether storage fails.
    #[cfg(test)]
    pub(super) fn is_failing(&self) -> bool {
        self.lock().failing
    }

    /// Whether so much waits that the writer should hurry: an eighth of the room; once it is `hurrying`, half of that.
    pub(super) fn is_behind(&self, hurrying: bool) -> bool {
        self.lock().held > self.capacity / if hurrying { 16 } else { 8 }
    }

    /// Whether the writer has no time for anything else: half of the room is taken, storage fails, or it is to end.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.held > self.capacity / 2 || state.failing || state.closed
    }

    /// Takes what is lost and not declared yet, and where it stands in the journal; none while storage fails, since
    /// the declaration would be lost as well.
    pub(super) fn declarable(&self) -> Option<(Vec<Loss>, Vec<Rows>)> {
        let mut state = self.lock();
        (!state.failing && !state.losses.is_empty())
            .then(|| (state.losses.take(), std::mem::take(&mut state.lost)))
    }

    /// Notes rows of a table that will not be in the record.
    pub(super) fn lose(&self, table: Table, day: Day, stake: &[Loss], spans: &Spans) {
        self.lock().lose(table, day, stake, spans);
    }

    /// Rows that were ever lost, declared or not.
    pub(super) fn lost_rows(&self) -> u64 {
        self.lock().lost_rows
    }

    /// Works on what is lost and not declared yet.
    pub(super) fn losses<T>(&self, work: impl FnOnce(&mut Losses) -> T) -> T {
        work(&mut self.lock().losses)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // State is consistent after each statement that changes it, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Work {
    /// The first row.
    fn first(&self) -> Option<Lsn> {
        match self {
            Self::Batch(batch) => Some(batch.piece.span.first),
            Self::Complete => None,
        }
    }
}

impl State {
    fn lose(&mut self, table: Table, day: Day, stake: &[Loss], spans: &Spans) {
        let rows = Loss::rows_of(table, stake);
        self.lost_rows += rows;
        metrics::LOST_ROWS.add(rows);
        self.losses.add(stake);
        match self.lost.iter_mut().rev().find(|rows| rows.table == table && rows.day == day) {
            Some(rows) => rows.spans.append(spans),
            None => self.lost.push(Rows { table, day, spans: spans.clone() }),
        }
    }
}
