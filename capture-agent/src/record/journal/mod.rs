//! The journal under the recorder: what was recorded and stands in no complete Parquet file yet, and the states of
//! open sessions, so that the agent may die at any moment.
//!
//! ```text
//! segment = header, then transactions       one file of about 64 MiB, <data-dir>/.journal-<node>/<first lsn>.seg
//! transaction = frame ... frame that commits          its first is a checkpoint: all states, the reader's position
//! frame = checksum, length, position, payload         one write
//! payload = records
//! ```
//!
//! A position in the journal is an `Lsn`. Every row has one, every complete file says in its footer which rows it
//! has, and a file becomes complete by a rename: so a row stands in exactly one of them, or is replayed from here.
//! No file is renamed before its rows are committed here, since what is not committed comes again from the kernel.
//!
//! While the disk takes nothing the journal is off: rows have positions still, but nothing is written. It begins
//! again with a new segment.

mod decision;
mod decode;
mod dictionary;
mod encode;
mod frame;
mod kind;
mod lock;
mod recovery;
mod segment;
mod shelf;
mod states;
mod syncing;
#[cfg(test)]
mod tests;
mod wire;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use recovery::StateKey;
pub(super) use recovery::{Found, Rows};
pub(super) use segment::VERSION;
pub(super) use shelf::Shelf;
pub(super) use syncing::Syncing;

use super::RecordError;
use super::batch::Day;
use super::decision::Decision;
use super::file::create_folder;
use super::loss::Loss;
use super::lsn::{Lsn, Spans};
use super::table::Table;
use crate::session::{Exchange, Gap, Micros, RowRun, RowValues, SessionEnd, SessionInfo};
use crate::telemetry::{health, metrics};
use encode::Encoder;
use lock::{Lock, lock};
use recovery::Unusable;
use segment::{Header, Segment, Spare};
use shelf::Closed;
use states::States;

/// The journal, as the recorder writes it.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    lock: Arc<Lock>,
    /// Which journal this is: the same for all segments of a folder, until it is empty.
    id: u128,
    segment_bytes: u64,
    /// The journal stops while more than this waits for files to be completed.
    waiting_bytes: u64,
    /// None while the journal is off.
    segment: Option<Segment>,
    /// The frame that grows, with room for its header.
    buffer: Vec<u8>,
    /// Where `buffer` will stand.
    position: Lsn,
    encoder: Encoder,
    states: States,
    /// What the reader's position was at the last commit.
    reader: Option<u64>,
    shelf: Arc<Shelf>,
    now: Micros,
    /// When to try again while the journal is off.
    retry: Micros,
    /// When the segment in use began.
    begun: Micros,
    /// Where the last tick was, and bytes from the one before to it.
    ticked: (Lsn, u64),
}

impl Journal {
    /// Locks `folder`, which is made if it is not there, and looks at what an earlier agent left in it.
    pub(super) fn open(folder: PathBuf, segment_bytes: u64) -> Result<(Self, Found), RecordError> {
        let unwritable = |path: &Path, source| RecordError::DataDir { path: path.to_owned(), source };
        let lock = lock(&folder)?;
        let found = Found::look(&folder).map_err(|unusable| match unusable {
            Unusable::Newer(path, version) => RecordError::JournalVersion { path, version },
            Unusable::Io(path, error) => unwritable(&path, error),
        })?;
        Spare::remove_left(&folder);
        let shelf = Arc::new(Shelf::default());
        shelf.hold(Arc::clone(&lock));
        shelf.not_before(found.newest);
        for segment in &found.segments {
            // Worth no more than the space.
            let _ = segment::give_back(&segment.path);
            shelf.inherit(Closed { path: segment.path.clone(), end: segment.end });
        }
        let journal = Self {
            folder,
            lock,
            id: found.journal.unwrap_or_else(|| uuid::Uuid::now_v7().as_u128()),
            segment_bytes,
            waiting_bytes: WAITING_BYTES,
            segment: None,
            buffer: empty_frame(),
            position: found.next,
            encoder: Encoder::new(),
            states: States::new(&found.states),
            reader: found.position,
            shelf,
            now: Micros(0),
            retry: Micros(0),
            begun: Micros(0),
            ticked: (found.next, 0),
        };
        Ok((journal, found))
    }

    /// Begins to write: at `from`, or behind what is there already.
    pub(super) fn begin(&mut self, from: Lsn, found: &Found) {
        self.position = self.position.max(from);
        let Err(error) = self.turn() else { return };
        if let Some(last) = found.segments.last() {
            // Sessions go on from here without the journal.
            let _ =
                File::options().write(true).open(&last.path).and_then(|file| segment::set_interrupted(&file));
        }
        self.off(&error);
    }

    /// Which journal this is.
    pub(super) fn id(&self) -> u128 {
        self.id
    }

    /// What the writer thread needs of it.
    pub(super) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    /// Where the next record will stand, or later.
    pub(super) fn next(&self) -> Lsn {
        Lsn(self.position.0 + self.buffer.len() as u64)
    }

    /// The reader's position at the last commit.
    pub(super) fn reader(&self) -> Option<u64> {
        self.reader
    }

    /// A row of a result.
    pub(super) fn row(&mut self, session: &SessionInfo, row: &RowValues<'_>) -> Lsn {
        self.record(
            |encoder, out| encoder.row(out, session, row),
            |journal| encode::tail_of(&row.values).for_each(|value| journal.tail(value)),
        )
    }

    /// Rows that follow each other, as one record.
    pub(super) fn rows(&mut self, session: &SessionInfo, run: &RowRun<'_>) -> Lsn {
        self.record(|encoder, out| encoder.rows(out, session, run), |journal| journal.tail(run.messages))
    }

    /// A statement.
    pub(super) fn statement(&mut self, session: &SessionInfo, exchange: &Exchange) -> Lsn {
        self.record(
            |encoder, out| encoder.statement(out, session, exchange),
            |journal| {
                journal.tail(exchange.error_message.as_deref().unwrap_or_default().as_bytes());
                journal.tail(&exchange.params_body);
            },
        )
    }

    /// A stretch of a stream that is missing.
    pub(super) fn gap(&mut self, session: &SessionInfo, gap: &Gap) -> Lsn {
        self.record(|encoder, out| encoder.gap(out, session, gap), |_| {})
    }

    /// A session's end.
    pub(super) fn end(&mut self, session: &SessionInfo, end: &SessionEnd) -> Lsn {
        self.record(|encoder, out| encoder.end(out, session, end), |_| {})
    }

    /// A decision, about a session if one is given.
    pub(super) fn decision(&mut self, session: Option<&SessionInfo>, decision: &Decision) -> Lsn {
        self.record(
            |encoder, out| encoder.decision(out, session, decision),
            |journal| journal.tail(decision.recorded_sql().unwrap_or_default().as_bytes()),
        )
    }

    /// Rows that could not be stored.
    pub(super) fn loss(&mut self, loss: &Loss) -> Lsn {
        self.record(|_, out| encode::loss(out, loss), |_| {})
    }

    /// Rows that need no replay.
    pub(super) fn settled(&mut self, table: Table, day: Day, spans: &Spans) {
        if self.segment.is_some() {
            encode::settled(&mut self.buffer, table, day, spans);
            self.spill();
        }
    }

    /// The state of an open session. The newest counts.
    pub(super) fn save_state(&mut self, key: StateKey, state: &[u8]) {
        let mut place = None;
        if let Some(segment) = &self.segment {
            encode::state(&mut self.buffer, &key, state.len());
            let at = self.position.0 - segment.header.first.0 + self.buffer.len() as u64;
            place = Some((segment.file(), at));
            self.tail(state);
            self.spill();
        }
        // It may have failed just now.
        self.states.save(key, state, place.filter(|_| self.segment.is_some()));
    }

    /// The state of a session is no longer needed.
    pub(super) fn forget_state(&mut self, key: &StateKey) {
        if self.states.forget(key) && self.segment.is_some() {
            encode::forget_state(&mut self.buffer, key);
        }
    }

    /// Ends a transaction: everything since the last one is recovered from now on, and the reader's position with it.
    pub(super) fn commit(&mut self, position: u64) {
        let is_empty = self.buffer.len() == frame::HEADER && self.shelf.committed() == self.position;
        if is_empty && self.reader == Some(position) && self.segment.is_some() {
            return;
        }
        self.reader = Some(position);
        if self.segment.is_some() {
            encode::commit(&mut self.buffer, self.reader);
            self.flush(&[], true);
        }
        self.shelf.set_committed(self.position);
        let due = match &self.segment {
            None => self.now >= self.retry,
            Some(segment) => {
                if segment.bytes() >= self.segment_bytes / SPARE_FROM {
                    self.shelf.want_spare(&self.folder, self.segment_bytes, self.is_fast());
                }
                segment.bytes() >= self.segment_bytes
            }
        };
        if due && let Err(error) = self.turn() {
            self.fail(&error);
        }
    }

    /// Whether a segment fills up within seconds.
    fn is_fast(&self) -> bool {
        let (at, before) = self.ticked;
        before.max(self.position.0.saturating_sub(at.0)) >= FAST
    }

    /// Time passes.
    pub(super) fn tick(&mut self, now: Micros) {
        self.now = now;
        self.ticked = (self.position, self.position.0.saturating_sub(self.ticked.0.0));
        let Some(segment) = &self.segment else { return };
        if segment.is_removed() || !self.lock.stands() {
            self.retry = now;
            return self.off_with(&io::Error::other("somebody removed it"), now);
        }
        // What is settled shall not stand here for long.
        let old = self.begun.0 + SETTLED_AGE_US < now.0 && segment.bytes() > SETTLED_BYTES;
        let between = self.buffer.len() == frame::HEADER && self.shelf.committed() == self.position;
        if old
            && between
            && self.shelf.is_settled()
            && let Err(error) = self.turn()
        {
            self.fail(&error);
        }
    }

    /// Ends the journal when all rows are settled. `keep` leaves the states and the reader's position to the next
    /// agent, otherwise nothing is left.
    pub(super) fn close(mut self, keep: bool) {
        self.shelf.end_spares();
        if keep {
            if let Err(error) = self.turn() {
                return self.fail(&error);
            }
        } else if let Some(segment) = &self.segment {
            let _ = fs::remove_file(&segment.path);
        }
        for path in self.shelf.take_closed() {
            // If it cannot be removed now, the next agent does: its rows are settled.
            let _ = fs::remove_file(path);
        }
        if keep && let Err(error) = self.shelf.sync() {
            self.fail(&error);
        }
    }

    /// Appends a record: what is encoded of it, then its long values. Yields its position.
    #[inline]
    fn record(
        &mut self,
        encode: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> usize,
        tail: impl FnOnce(&mut Self),
    ) -> Lsn {
        if self.segment.is_none() {
            let lsn = self.position;
            self.position.0 += 1;
            return lsn;
        }
        let start = encode(&mut self.encoder, &mut self.buffer);
        let lsn = Lsn(self.position.0 + start as u64);
        tail(self);
        self.spill();
        lsn
    }

    /// Appends a long value of a record; it goes to the file from where it is, if it is long enough.
    #[inline]
    fn tail(&mut self, value: &[u8]) {
        if value.len() < WRITTEN_IN_PLACE {
            self.buffer.extend_from_slice(value);
        } else {
            self.flush(value, false);
        }
    }

    /// Writes the buffer, if it is large: the transaction goes on in the next frame.
    #[inline]
    fn spill(&mut self) {
        if self.segment.is_none() {
            // It failed in the middle of the record.
            self.buffer.truncate(frame::HEADER);
        } else if self.buffer.len() >= SPILL {
            self.flush(&[], false);
        }
    }

    /// Writes the buffer and `tail` as one frame.
    fn flush(&mut self, tail: &[u8], commits: bool) {
        let Some(segment) = &mut self.segment else { return };
        frame::seal(&mut self.buffer, tail, self.position, commits);
        let length = (self.buffer.len() + tail.len()) as u64;
        self.position.0 += length;
        let written = segment.write(&self.buffer, tail);
        self.buffer.truncate(frame::HEADER);
        match written {
            Ok(()) => metrics::JOURNAL_BYTES.add(length),
            Err(error) => self.fail(&error),
        }
    }

    /// Begins a new segment with a checkpoint. Until that is complete, the one before it stays in use. Only between
    /// transactions.
    fn turn(&mut self) -> io::Result<()> {
        let waiting = self.shelf.oldest_end().map_or(0, |end| self.position.0.saturating_sub(end.0));
        if waiting > self.waiting_bytes {
            return Err(io::Error::other(format!("{waiting} bytes of it wait for files to be completed")));
        }
        // Making what is there waits for whoever changes what is in the data directory.
        if !self.folder.is_dir() {
            create_folder(&self.folder)?;
        }
        if !self.lock.stands() {
            self.lock = lock(&self.folder).map_err(io::Error::other)?;
            self.shelf.hold(Arc::clone(&self.lock));
        }
        let header =
            Header { journal: self.id, first: self.position, created: self.shelf.now(), interrupted: false };
        let spare = self.shelf.take_spare();
        let mut segment = Segment::create(&self.folder, header, self.segment_bytes, spare)?;
        if let Err(error) = self.states.checkpoint(&mut segment, self.reader) {
            let _ = fs::remove_file(&segment.path);
            return Err(error);
        }
        self.position.0 += segment.bytes();
        self.encoder.begin_segment();
        self.begun = self.now;
        let file = segment.file();
        let was_off = self.segment.is_none() && self.retry != Micros(0);
        let before = self.segment.replace(segment).map(|before| close(&before));
        self.shelf.turn(self.folder.clone(), file, before);
        self.shelf.set_committed(self.position);
        health::JOURNAL.set(false);
        metrics::JOURNAL_OFF.set(0);
        if was_off {
            tracing::info!("the journal is written again");
        }
        Ok(())
    }

    /// The disk does not take the journal: goes on without it.
    fn fail(&mut self, error: &io::Error) {
        if let Some(segment) = &self.segment {
            // What the segment knows of the sessions will be old when somebody reads it.
            let _ = segment::set_interrupted(&segment.file());
        }
        self.off(error);
    }

    fn off(&mut self, error: &io::Error) {
        self.off_with(error, Micros(self.now.0.saturating_add(RETRY_US)));
    }

    fn off_with(&mut self, error: &io::Error, retry: Micros) {
        metrics::JOURNAL_ERRORS.add(1);
        metrics::JOURNAL_OFF.set(1);
        health::JOURNAL.set(true);
        if self.segment.is_some() || self.retry == Micros(0) {
            tracing::error!(
                journal = %self.folder.display(),
                "cannot write the journal: {error}; recording goes on without it, and what is not in complete files \
                 is lost if the agent dies now (see docs/errors.md#journal-failed)"
            );
        }
        self.retry = Micros(retry.0.max(1));
        self.position = self.next();
        self.buffer.truncate(frame::HEADER);
        // What stands in a segment that is to be removed cannot be copied from it later.
        self.states.forget_written();
        let before = self.segment.take().map(|segment| close(&segment));
        self.shelf.interrupt(before);
    }
}

fn close(segment: &Segment) -> (Closed, Arc<File>) {
    let end = Lsn(segment.header.first.0 + segment.bytes());
    (Closed { path: segment.path.clone(), end }, segment.file())
}

/// Room for a frame's header.
fn empty_frame() -> Vec<u8> {
    let mut buffer = Vec::with_capacity(WRITTEN_IN_PLACE);
    buffer.resize(frame::HEADER, 0);
    buffer
}

/// The first position of the oldest segment in `folder`: no row before it can be replayed.
pub(super) fn oldest(folder: &Path) -> io::Result<Lsn> {
    Ok(segment::list(folder)?.first().map_or(Lsn(0), |(first, _)| *first))
}

/// Reads bytes as if they were a segment behind its header: for fuzzing. Yields the number of records, and how many
/// of them are malformed.
#[doc(hidden)]
pub fn read_all(bytes: &[u8]) -> (usize, usize) {
    recovery::read_all(bytes)
}

/// A transaction of one frame with this payload, at the beginning of a segment: for fuzzing.
#[doc(hidden)]
pub fn frame_of(payload: &[u8]) -> Vec<u8> {
    let mut buffer = empty_frame();
    buffer.extend_from_slice(payload);
    frame::seal(&mut buffer, &[], Lsn(0), true);
    buffer
}

/// Bytes from one tick to the next, a tenth of a second, from which on a new segment's memory is found in advance.
const FAST: u64 = 2 << 20;
/// A segment that is filled to this fraction will soon have a next.
const SPARE_FROM: u64 = 4;
/// Bytes of a segment, before the next begins.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Bytes that wait for their rows to be completed: twice what the writer allows while the disk takes data.
const WAITING_BYTES: u64 = 1 << 30;

/// Values from this size on are written from where they are: two copies of a frame's bytes cost more than a write.
const WRITTEN_IN_PLACE: usize = 64 << 10;

/// Bytes of one frame, before the transaction goes on in another.
const SPILL: usize = 1 << 20;

/// How long the journal waits before it tries again: one second.
const RETRY_US: i64 = 1_000_000;

/// A segment whose rows are all settled is left behind when it is this old: a minute.
const SETTLED_AGE_US: i64 = 60_000_000;

/// A segment with no more than this is not worth another.
const SETTLED_BYTES: u64 = 64 << 10;
