//! The writer thread: batches in, files for the completer out, whatever the disk does.
#![expect(clippy::disallowed_types, reason = "an IO room: files are completed by age")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::batch::{Batch, Day};
use super::completer::Completer;
use super::disk::{self, Disk};
use super::file::Place;
use super::gaps::Gaps;
use super::journal::Shelf;
use super::loss::{Loss, Losses};
use super::lsn::{Lsn, Piece, Spans};
use super::queue::{Next, Queue};
use super::slot::Slot;
use super::table::Table;
use super::{RecordError, Settings, Summary};
use crate::probes::{Turns, run_first, run_promptly};
use crate::seal::SharedChain;
use crate::telemetry::health;

/// Turns batches into files.
pub(super) struct Writer {
    disk: Disk,
    slots: Vec<Slot>,
    completer: Completer,
    rotate_age: Duration,
    rotate_size: u64,
    node: String,
    /// Whether this thread runs before all others.
    first: bool,
    /// When the chain's head was anchored last.
    anchored: Instant,
}

impl Writer {
    /// Starts the completer too.
    pub(super) fn new(
        place: Place,
        settings: &Settings,
        queue: Arc<Queue>,
        shelf: Arc<Shelf>,
        journal: u128,
        seals: SharedChain,
    ) -> io::Result<Self> {
        let disk = Disk::new(place, queue, shelf, journal, seals);
        Ok(Self {
            completer: Completer::start(disk.another())?,
            disk,
            slots: Vec::new(),
            rotate_age: settings.rotate_age,
            rotate_size: settings.rotate_size,
            node: settings.node.clone(),
            first: false,
            anchored: Instant::now(),
        })
    }

    /// Works until the queue is closed and empty, then completes all files.
    pub(super) fn run(mut self) -> Result<Summary, RecordError> {
        let queue = Arc::clone(&self.disk.queue);
        // Whatever ends this thread, nobody may wait for it.
        let _close = CloseOnDrop(Arc::clone(&queue));
        let _alive = health::RECORD.begin();
        loop {
            self.keep_up();
            let patience = match self.completer.is_busy() {
                true => COMPLETER_TICK,
                false if self.slots.is_empty() => QUIET_TICK,
                false => TICK,
            };
            match queue.next(patience) {
                Next::Batch(batch) => {
                    let Batch { table, day, rows, bytes, stake, piece } = *batch;
                    self.write(table, day, &rows, &stake, Some(piece));
                    drop(rows);
                    queue.done(bytes, self.unfinished());
                }
                Next::Complete => self.complete_all(),
                Next::Nothing => {}
                Next::Closed => break,
            }
            self.rotate();
            queue.set_unfinished(self.unfinished());
            self.anchor();
        }
        self.close()
    }

    /// Has this thread run before the server's while much waits for it, on a host whose processors are all busy: otherwise the thread
    /// that captures waits for room, and the kernel's ring loses what comes meanwhile.
    fn keep_up(&mut self) {
        let behind = self.disk.queue.is_behind(self.first);
        if behind != self.first {
            self.first = behind;
            let done = match behind {
                true => run_first().or_else(|_| run_promptly(PRIORITY, Turns::Usual)),
                false => run_promptly(0, Turns::Usual),
            };
            if let Err(error) = done {
                tracing::debug!(%error, "the writer thread runs at its earlier priority");
            }
        }
    }

    /// The first row that is in no complete file.
    fn unfinished(&self) -> Option<Lsn> {
        self.slots.iter().filter_map(Slot::first).chain(self.completer.first()).min()
    }

    /// Anchors the chain's head when it is time, and nobody appends to the chain: that may take.
    fn anchor(&mut self) {
        let Some(mut seals) = self.disk.seals.try_lock() else { return };
        let every = seals.anchors().map(|anchor| anchor.every);
        if every.is_some_and(|every| self.anchored.elapsed() >= every) {
            self.anchored = Instant::now();
            disk::anchor(&mut seals);
        }
    }

    fn write(&mut self, table: Table, day: Day, rows: &RecordBatch, stake: &[Loss], piece: Option<Piece>) {
        let slot = match self.slots.iter().position(|slot| slot.is_of(table, day)) {
            Some(slot) => slot,
            None => {
                let committed = self.disk.shelf.committed();
                if self.slots.len() >= MAX_SLOTS
                    && let Some(at) = self.slots.iter().position(|slot| slot.is_committed(committed))
                {
                    let ended = self.slots.remove(at).end(&mut self.disk);
                    self.completer.complete(ended.into_iter().collect());
                }
                self.slots.push(Slot::new(table, day));
                self.slots.len() - 1
            }
        };
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.add(&mut self.disk, rows, stake, piece);
        }
    }

    /// Completes the files that are old or large enough, or that lost their place, or that keep too much of the
    /// journal from being removed. What is not committed must wait: it may come again from the kernel.
    fn rotate(&mut self) {
        let committed = self.disk.shelf.committed();
        let due = |slot: &mut Slot| {
            slot.is_due(committed, self.rotate_age, self.rotate_size) && slot.is_committed(committed)
        };
        let due: Vec<_> = self.slots.extract_if(.., due).collect();
        self.end(due);
    }

    fn complete_all(&mut self) {
        let all = std::mem::take(&mut self.slots);
        self.end(all);
    }

    fn end(&mut self, slots: Vec<Slot>) {
        let ended = slots.into_iter().filter_map(|slot| slot.end(&mut self.disk)).collect();
        self.completer.complete(ended);
    }

    fn close(mut self) -> Result<Summary, RecordError> {
        self.complete_all();
        // What it loses is declared as well.
        self.completer.wait();
        self.declare();
        self.completer.finish();
        disk::anchor(&mut self.disk.seals.lock());
        self.disk.sum_up()
    }

    /// Declares what was lost and not declared yet.
    fn declare(&mut self) {
        let mut by_day: Vec<(Day, Gaps)> = Vec::new();
        for loss in self.disk.queue.losses(Losses::take) {
            let day = Day::of(loss.at);
            // Losses come in the order of their times.
            match by_day.last_mut() {
                Some((last, gaps)) if *last == day => gaps.append_loss(loss),
                _ => {
                    let mut gaps = Gaps::new();
                    gaps.append_loss(loss);
                    by_day.push((day, gaps));
                }
            }
        }
        for (day, mut gaps) in by_day {
            let rows = gaps.finish(&self.node);
            let stake = gaps.take_stake();
            match rows {
                Ok(rows) => self.write(Table::Gaps, day, &rows, &stake, None),
                Err(error) => {
                    tracing::error!(%error, "rows that are lost could not be declared");
                    self.disk.queue.lose(Table::Gaps, day, &stake, &Spans::default());
                }
            }
        }
        self.complete_all();
    }
}

/// Closes the queue when the writer ends, however it ends.
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Levels of nice(2) while this thread is behind and may not run first: those of the thread that captures.
const PRIORITY: i32 = 10;

/// How often it is looked whether the completer is done, when nothing comes in.
const COMPLETER_TICK: Duration = Duration::from_millis(20);

/// How often ages are looked at when nothing comes in.
const TICK: Duration = Duration::from_millis(250);

/// The same while no file grows.
const QUIET_TICK: Duration = Duration::from_secs(1);

/// Tables and days that grow at once. Two days of each table overlap at midnight.
const MAX_SLOTS: usize = 10;
