//! Events that wait for their receiver, on the disk: `<data-dir>/.events-<node>/<receiver>/`.
//!
//! A receiver's events are numbered here, from 0, without a hole. They stand in files named for their first number, which
//! are removed when the receiver has taken them, or, the oldest first, when there are too many bytes: their numbers are then
//! declared lost. `taken` holds the number up to which the receiver has everything.

mod line;
mod read;

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use line::Line;
pub(super) use line::Lines;
#[cfg(test)]
use read::Cursor;
pub(super) use read::{Event, Next};

use crate::telemetry::metrics;

/// One receiver's events. `taken <= next`; the last segment is the one that grows.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    limit: u64,
    state: Mutex<State>,
    /// There are more events, or no more will come.
    more: Condvar,
}

#[derive(Debug)]
struct State {
    segments: VecDeque<Segment>,
    /// The last segment.
    file: File,
    taken_file: File,
    /// The number that the next event gets.
    next: u64,
    /// The number up to which the receiver has taken everything.
    taken: u64,
    closed: bool,
    /// Whether the last attempt to deliver failed.
    failing: bool,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    path: PathBuf,
    bytes: u64,
}

/// Up to where of which journal everything is in a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) journal: u128,
    pub(super) next: u64,
}

impl Spool {
    /// Opens the spool in `folder`, which is made if it is not there, and says up to where it goes; nothing if it is new.
    pub(super) fn open(folder: PathBuf, limit: u64) -> io::Result<(Self, Option<Position>)> {
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let mut segments = list(&folder)?;
        let mut position = None;
        let mut next = None;
        // The last is the one in which an agent may have died.
        for (from_end, segment) in segments.iter_mut().rev().enumerate() {
            let found = survey(segment)?;
            if from_end == 0 {
                OpenOptions::new().write(true).open(&segment.path)?.set_len(found.bytes)?;
                segment.bytes = found.bytes;
            }
            next = next.or(found.last.map(|last| last + 1)).or((from_end == 0).then_some(segment.first));
            position = position.or(found.position);
            if position.is_some() {
                break;
            }
        }
        let taken_file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(TAKEN))?;
        let oldest = segments.front().map_or(0, |segment| segment.first);
        let next = next.unwrap_or(0);
        let taken = read_taken(&taken_file).unwrap_or(oldest);
        // Whatever a failure of power has cost: no number is used twice.
        let next = next.max(taken);
        let path = segments.back().map_or_else(|| folder.join(name(next)), |segment| segment.path.clone());
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path)?;
        if segments.is_empty() {
            segments.push_back(Segment { first: next, path, bytes: 0 });
        }
        let state = State { segments, file, taken_file, next, taken, closed: false, failing: false };
        let spool = Self { folder, limit, state: Mutex::new(state), more: Condvar::new() };
        Ok((spool, position))
    }

    /// The number that the next event gets.
    pub(super) fn next_number(&self) -> u64 {
        self.lock().next
    }

    /// Appends lines: all of them, or none. `begin` says what stands first in a new segment.
    pub(super) fn append(&self, lines: &Lines, begin: Position) -> io::Result<()> {
        let mut state = self.lock();
        let segment_bytes = self.limit / SEGMENTS;
        if state.segments.back().is_some_and(|segment| segment.bytes >= segment_bytes) {
            self.turn(&mut state, begin)?;
        }
        let bytes = lines.bytes();
        if let Err(error) = (&state.file).write_all(bytes) {
            let length = state.segments.back().map_or(0, |segment| segment.bytes);
            // What was written of them is not counted, and overwritten by nothing: it must go.
            state.file.set_len(length)?;
            return Err(error);
        }
        if let Some(segment) = state.segments.back_mut() {
            segment.bytes += bytes.len() as u64;
        }
        state.next += lines.events();
        state.shrink(self.limit);
        drop(state);
        if lines.events() > 0 {
            self.more.notify_all();
        }
        Ok(())
    }

    /// Begins a new segment; in the place of the last one, if that holds positions only.
    fn turn(&self, state: &mut State, begin: Position) -> io::Result<()> {
        let path = self.folder.join(name(state.next));
        let hidden = path.with_extension(NEW);
        let mut lines = Lines::default();
        lines.position(begin.journal, begin.next);
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&hidden)?;
        file.set_len(0)?;
        (&file).write_all(lines.bytes())?;
        state.file.sync_data()?;
        file.sync_data()?;
        fs::rename(&hidden, &path)?;
        state.file = file;
        state.segments.pop_back_if(|segment| segment.path == path);
        state.segments.push_back(Segment { first: state.next, path, bytes: lines.bytes().len() as u64 });
        File::open(&self.folder)?.sync_all()
    }

    /// Brings what was appended to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let file = self.lock().file.try_clone()?;
        file.sync_data()
    }

    /// The receiver has everything before the number `next`.
    pub(super) fn taken(&self, next: u64) -> io::Result<()> {
        let mut state = self.lock();
        state.taken = state.taken.max(next);
        state.remove_taken();
        write_taken(&state.taken_file, state.taken)?;
        drop(state);
        self.more.notify_all();
        Ok(())
    }

    /// Events that wait, and bytes of all files.
    pub(super) fn waiting(&self) -> (u64, u64) {
        let state = self.lock();
        (state.next.saturating_sub(state.taken), state.bytes())
    }

    /// Whether the receiver takes nothing.
    pub(super) fn set_failing(&self, failing: bool) {
        self.lock().failing = failing;
    }

    /// No more will come. Waits at most `patience` until the receiver has taken what there is, unless it takes nothing.
    pub(super) fn close(&self, patience: Duration) {
        let waits = |state: &mut State| state.taken < state.next && !state.failing;
        let (mut state, _) = self
            .more
            .wait_timeout_while(self.lock(), patience, waits)
            .unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        drop(state);
        self.more.notify_all();
    }

    /// Waits for [`Spool::close`], at most `patience`. Returns whether it came.
    pub(super) fn wait_closed(&self, patience: Duration) -> bool {
        let open = |state: &mut State| !state.closed;
        let (state, _) =
            self.more.wait_timeout_while(self.lock(), patience, open).unwrap_or_else(PoisonError::into_inner);
        state.closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // State is consistent after each statement that changes it, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Removes the oldest segments until there are no more bytes than `limit`.
    fn shrink(&mut self, limit: u64) {
        while self.bytes() > limit && self.segments.len() > 1 {
            let Some(oldest) = self.segments.pop_front() else { return };
            let end = self.segments.front().map_or(self.next, |segment| segment.first);
            metrics::SIEM_DROPPED.add(end.saturating_sub(self.taken.max(oldest.first)));
            // If it cannot be removed now, the next agent finds it.
            let _ = fs::remove_file(&oldest.path);
        }
    }

    fn remove_taken(&mut self) {
        while self.segments.get(1).is_some_and(|second| second.first <= self.taken) {
            let Some(oldest) = self.segments.pop_front() else { return };
            let _ = fs::remove_file(&oldest.path);
        }
    }
}

/// What a segment holds.
struct Found {
    /// The last event's number.
    last: Option<u64>,
    journal: Option<u128>,
    position: Option<Position>,
    /// Bytes up to the end of its last whole line.
    bytes: u64,
}

fn survey(segment: &Segment) -> io::Result<Found> {
    let mut found = Found { last: None, journal: None, position: None, bytes: 0 };
    let mut file = BufReader::new(File::open(&segment.path)?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 || line.pop() != Some(b'\n') {
            break;
        }
        match Line::parse(&line) {
            Some(Line::Position { journal, next }) => {
                found.journal = Some(journal);
                found.position = Some(Position { journal, next });
            }
            Some(Line::Event { at, number, .. }) => {
                found.last = Some(number);
                found.position = found.journal.map(|journal| Position { journal, next: at + 1 });
            }
            // Only the disk can have done this; what follows may be whole.
            None => {}
        }
        found.bytes += line.len() as u64 + 1;
    }
    Ok(found)
}

fn list(folder: &Path) -> io::Result<VecDeque<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let first = path.file_name().and_then(|name| name.to_str()?.strip_suffix(SUFFIX)?.parse().ok());
        if let Some(first) = first {
            segments.push(Segment { first, path, bytes: entry.metadata()?.len() });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments.into())
}

fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

fn read_taken(file: &File) -> Option<u64> {
    let mut bytes = [0; TAKEN_BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (checksum, number) = str::from_utf8(&bytes).ok()?.trim_end().split_once(' ')?;
    (u32::from_str_radix(checksum, 16).ok()? == crc32c::crc32c(number.as_bytes()))
        .then(|| number.parse().ok())?
}

/// One small write: a process that is killed leaves the old number or the new one.
fn write_taken(file: &File, number: u64) -> io::Result<()> {
    let number = format!("{number:020}");
    let line = format!("{:08x} {number}\n", crc32c::crc32c(number.as_bytes()));
    file.write_all_at(line.as_bytes(), 0)
}

const SUFFIX: &str = ".events";
/// The ending of a segment that has not its name yet.
const NEW: &str = "new";
const TAKEN: &str = "taken";
/// Checksum, space, number, newline.
const TAKEN_BYTES: usize = 8 + 1 + 20 + 1;
/// Segments in a full spool: what is dropped at once is an eighth of it.
const SEGMENTS: u64 = 8;

#[cfg(test)]
mod tests;
