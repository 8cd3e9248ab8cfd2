//! The receiver's end of a spool.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use super::line::Line;
use super::{Spool, State};

/// An event and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::events) struct Event {
    pub(in crate::events) number: u64,
    pub(in crate::events) json: Vec<u8>,
}

/// Where the receiver's thread reads.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::events) struct Cursor {
    /// The next event.
    number: u64,
    /// The segment in which it was looked for last, by its first number, and how far.
    segment: u64,
    offset: u64,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::events) enum Next {
    /// Events, in order and without a hole.
    Events(Vec<Event>),
    /// These numbers were dropped, or cannot be read: the first and the last of them.
    Lost(u64, u64),
    /// Nothing, in the time that it was given.
    Nothing,
    /// Nothing more will come.
    Closed,
}

impl Spool {
    /// Where the receiver goes on: behind what it has taken.
    pub(in crate::events) fn cursor(&self) -> Cursor {
        Cursor { number: self.lock().taken, ..Cursor::default() }
    }

    /// What comes next, as soon as there is something: at most so many events, and bytes beyond the first.
    ///
    /// # Errors
    ///
    /// The disk cannot be read.
    pub(in crate::events) fn next(
        &self,
        cursor: &mut Cursor,
        most: usize,
        most_bytes: usize,
        patience: Duration,
    ) -> io::Result<Next> {
        let nothing = |state: &mut State| cursor.number >= state.next && !state.closed;
        let (state, _) = self
            .more
            .wait_timeout_while(self.lock(), patience, nothing)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return Ok(Next::Closed);
        }
        if cursor.number >= state.next {
            return Ok(Next::Nothing);
        }
        let Some(place) = place(&state, cursor.number) else {
            let end = state.segments.front().map_or(state.next, |segment| segment.first);
            return Ok(cursor.lose(end));
        };
        drop(state);
        if cursor.segment != place.first {
            (cursor.segment, cursor.offset) = (place.first, 0);
        }
        let mut file = match File::open(&place.path) {
            Ok(file) => file,
            // It was dropped just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Next::Nothing),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(cursor.offset))?;
        // What is appended meanwhile may not be whole.
        let mut file = BufReader::with_capacity(BUFFER, file.take(place.bytes.saturating_sub(cursor.offset)));
        let (mut events, mut bytes) = (Vec::new(), 0);
        let mut line = Vec::new();
        while events.len() < most && bytes < most_bytes {
            line.clear();
            let length = file.read_until(b'\n', &mut line)? as u64;
            if length == 0 {
                break;
            }
            if let Some(Line::Event { number, json, .. }) =
                Line::parse(line.strip_suffix(b"\n").unwrap_or(&line))
            {
                if number > cursor.number {
                    // A line before it is damaged. It is read again afterwards.
                    return Ok(if events.is_empty() { cursor.lose(number) } else { Next::Events(events) });
                }
                if number == cursor.number {
                    bytes += json.len();
                    events.push(Event { number, json: json.to_vec() });
                    cursor.number += 1;
                }
            }
            cursor.offset += length;
        }
        if !events.is_empty() {
            return Ok(Next::Events(events));
        }
        Ok(if cursor.number < place.end { cursor.lose(place.end) } else { Next::Nothing })
    }
}

impl Cursor {
    /// Everything up to `end` cannot be had.
    fn lose(&mut self, end: u64) -> Next {
        let first = std::mem::replace(&mut self.number, end);
        Next::Lost(first, end - 1)
    }
}

/// The segment that has an event.
struct Place {
    first: u64,
    /// One past its last number.
    end: u64,
    path: PathBuf,
    bytes: u64,
}

fn place(state: &State, number: u64) -> Option<Place> {
    let at = state.segments.iter().rposition(|segment| segment.first <= number)?;
    let segment = state.segments.get(at)?;
    let end = state.segments.get(at + 1).map_or(state.next, |after| after.first);
    Some(Place { first: segment.first, end, path: segment.path.clone(), bytes: segment.bytes })
}

const BUFFER: usize = 64 << 10;
