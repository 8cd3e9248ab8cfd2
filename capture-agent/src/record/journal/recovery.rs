//! What an earlier agent's journal holds: the states of its sessions, the reader's position, and rows.
//!
//! Segments are read twice: once for what concerns all of them, and once for their rows, when it is known which rows
//! are needed. A segment is read up to the end of its last complete transaction; each begins with a checkpoint and so
//! can be read without the one before it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::decision::Decision;
use super::super::loss::Loss;
use super::super::lsn::Lsn;
use super::super::settled::Settled;
use super::decode::{Decoder, Record, RowBody};
use super::frame;
use super::kind;
use super::segment::{self, Header, HeaderError};
use super::wire::Malformed;
use crate::session::{Exchange, Gap, RowRun, RowValues, SessionEnd, SessionInfo, Values};

/// The name of a session's state.
pub type StateKey = [u8; 16];

/// Takes what is replayed, each with its position.
pub(in crate::record) trait Rows {
    /// See [`Sink::row`](crate::session::Sink::row).
    fn row(&mut self, lsn: Lsn, session: &SessionInfo, row: RowValues<'_>);
    /// See [`Sink::rows`](crate::session::Sink::rows).
    fn rows(&mut self, lsn: Lsn, session: &SessionInfo, run: RowRun<'_>);
    /// See [`Sink::statement`](crate::session::Sink::statement).
    fn statement(&mut self, lsn: Lsn, session: &SessionInfo, exchange: &Exchange);
    /// See [`Sink::gap`](crate::session::Sink::gap).
    fn gap(&mut self, lsn: Lsn, session: &SessionInfo, gap: &Gap);
    /// See [`Sink::end`](crate::session::Sink::end).
    fn end(&mut self, lsn: Lsn, session: &SessionInfo, end: &SessionEnd);
    /// See [`Recorder::decision`](crate::record::Recorder::decision).
    fn decision(&mut self, lsn: Lsn, session: Option<&SessionInfo>, decision: &Decision);
    /// Rows that could not be stored.
    fn loss(&mut self, lsn: Lsn, loss: &Loss);
    /// A statement that needs no replay, but that somebody else must be told of ([`Tap`](crate::record::Tap)).
    fn told_statement(&mut self, _lsn: Lsn, _session: &SessionInfo, _exchange: &Exchange) {}
    /// The same for a decision.
    fn told_decision(&mut self, _lsn: Lsn, _session: Option<&SessionInfo>, _decision: &Decision) {}
}

/// An earlier agent's journal.
#[derive(Debug, Default)]
pub(in crate::record) struct Found {
    /// Which journal it is.
    pub(in crate::record) journal: Option<u128>,
    /// When its oldest segment was made, in milliseconds.
    pub(in crate::record) oldest: u64,
    /// When its newest segment was made.
    pub(super) newest: u64,
    pub(super) segments: Vec<FoundSegment>,
    /// The states of the sessions that were open.
    pub(super) states: HashMap<StateKey, Vec<u8>>,
    /// The reader's position.
    pub(super) position: Option<u64>,
    /// Where the next segment may begin.
    pub(super) next: Lsn,
    /// Rows that the journal itself knows to need no replay.
    pub(in crate::record) settled: Settled,
}

/// A segment that an earlier agent left.
#[derive(Debug)]
pub(super) struct FoundSegment {
    pub(super) path: PathBuf,
    /// None if its beginning is torn; then it holds nothing.
    header: Option<Header>,
    /// One past its last position.
    pub(super) end: Lsn,
}

/// Why an earlier agent's journal cannot be used.
#[derive(Debug)]
pub(super) enum Unusable {
    /// A later version wrote this segment.
    Newer(PathBuf, u32),
    /// The folder, or a file in it, cannot be read.
    Io(PathBuf, io::Error),
}

impl Found {
    /// Looks through the segments in `folder`.
    pub(super) fn look(folder: &Path) -> Result<Self, Unusable> {
        let mut found = Self { oldest: u64::MAX, ..Self::default() };
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |error| Unusable::Io(path, error)
        };
        for (first, path) in segment::list(folder).map_err(unreadable(folder))? {
            let file = File::open(&path).map_err(unreadable(&path))?;
            let header = match Header::read(&file) {
                Ok(header) if header.first == first => Some(header),
                Ok(_) | Err(HeaderError::Torn) => None,
                Err(HeaderError::Newer(version)) => return Err(Unusable::Newer(path, version)),
                Err(HeaderError::Io(error)) => return Err(Unusable::Io(path, error)),
            };
            let mut end = Lsn(first.0.saturating_add(1));
            if let Some(header) = header {
                end = found.survey(&path, &file, header).map_err(unreadable(&path))?;
            }
            found.next = found.next.max(end);
            found.segments.push(FoundSegment { path, header, end });
        }
        Ok(found)
    }

    /// Looks through a segment's records. Yields where they end.
    fn survey(&mut self, path: &Path, file: &File, header: Header) -> io::Result<Lsn> {
        if self.journal.replace(header.journal).is_some_and(|journal| journal != header.journal) {
            // Never so unless somebody mixed folders up; what stands in this one's files is told by this one's name.
            tracing::warn!(segment = %path.display(), "this segment belongs to another journal than the one before it");
            self.settled = Settled::default();
        }
        self.oldest = self.oldest.min(header.created);
        self.newest = self.newest.max(header.created);
        let mut records = Records::open(file, header)?;
        if file.metadata()?.len() > records.end.0 - header.first.0 {
            tracing::info!(
                segment = %path.display(),
                end = records.end.0,
                "what this segment of the journal has behind its last complete transaction is left out"
            );
        }
        let mut decoder = Decoder::new();
        let mut seen = 0u64;
        while let Some((_, kind, mut body)) = records.next(path)? {
            seen += 1;
            let concerns_all =
                [kind::SETTLED, kind::STATE, kind::FORGET_STATE, kind::CHECKPOINT, kind::COMMIT];
            if !concerns_all.contains(&kind) {
                continue;
            }
            match decoder.decode(kind, &mut body) {
                Ok(Record::Settled(table, day, spans)) => {
                    spans.into_iter().for_each(|span| self.settled.add(table, day, span));
                }
                Ok(Record::State(key, state)) => {
                    self.states.insert(key, state.to_vec());
                }
                Ok(Record::ForgetState(key)) => {
                    self.states.remove(&key);
                }
                Ok(Record::Checkpoint) => self.states.clear(),
                Ok(Record::Commit(position)) => self.position = position,
                Ok(_) => {}
                Err(Malformed) => malformed(path),
            }
        }
        if header.interrupted && seen > 0 {
            // The sessions went on without the journal: what it knows of them is old.
            self.states.clear();
            self.position = None;
        }
        Ok(records.end)
    }

    /// The reader's position.
    pub(in crate::record) fn position(&self) -> Option<u64> {
        self.position
    }

    /// The states of the sessions that were open.
    pub(in crate::record) fn into_states(self) -> Vec<(StateKey, Vec<u8>)> {
        self.states.into_iter().collect()
    }

    /// Where the oldest record stands that can be read.
    pub(in crate::record) fn first(&self) -> Option<Lsn> {
        self.segments.iter().filter_map(|segment| segment.header).map(|header| header.first).min()
    }

    /// Hands over every row that is not settled, in order. Returns how many there were. Statements and decisions at `again`
    /// or behind are told all the same.
    pub(in crate::record) fn replay(
        &self,
        settled: &Settled,
        again: Option<Lsn>,
        rows: &mut impl Rows,
    ) -> io::Result<u64> {
        let mut replayed = 0;
        for segment in &self.segments {
            let Some(header) = segment.header else { continue };
            let file = File::open(&segment.path)?;
            let mut records = Records::open(&file, header)?;
            let mut decoder = Decoder::new();
            while let Some((lsn, kind, mut body)) = records.next(&segment.path)? {
                match decoder.decode(kind, &mut body) {
                    Ok(record) => {
                        let tell = again.is_some_and(|again| lsn >= again);
                        replayed += hand_over(lsn, record, settled, tell, rows);
                    }
                    Err(Malformed) => malformed(&segment.path),
                }
            }
        }
        Ok(replayed)
    }
}

/// Hands over a row, unless it is settled or no row. Returns how many rows it was. A settled one is told if `tell` says so.
fn hand_over(lsn: Lsn, record: Record<'_>, settled: &Settled, tell: bool, rows: &mut impl Rows) -> u64 {
    use super::super::batch::Day;
    use super::super::table::Table;

    let needed = |table, at| !settled.contains(table, Day::of(at), lsn);
    match record {
        Record::Row(session, row) if needed(Table::Results, row.started_at) => {
            let values = match &row.body {
                RowBody::DataRow(body) => Values::DataRow(body),
                RowBody::Fields(fields, binary) => Values::Fields { fields, binary: *binary },
            };
            let super::decode::Row { seq, row, started_at, columns, .. } = row;
            rows.row(lsn, session, RowValues { seq, row, sql: None, started_at, columns, values });
        }
        Record::Rows(session, run) if needed(Table::Results, run.started_at) => {
            let count = run.count as u64;
            rows.rows(lsn, session, run);
            return count;
        }
        Record::Statement(session, exchange) if needed(Table::Statements, exchange.started_at) => {
            rows.statement(lsn, session, &exchange);
        }
        Record::Gap(session, gap) if needed(Table::Gaps, gap.at) => rows.gap(lsn, session, &gap),
        Record::End(session, end) if needed(Table::Sessions, session.origin.started_at) => {
            rows.end(lsn, session, &end);
        }
        Record::Decision(session, decision) if needed(Table::Decisions, decision.at) => {
            rows.decision(lsn, session, &decision);
        }
        Record::Loss(loss) if needed(Table::Gaps, loss.at) => rows.loss(lsn, &loss),
        Record::Statement(session, exchange) if tell => {
            rows.told_statement(lsn, session, &exchange);
            return 0;
        }
        Record::Decision(session, decision) if tell => {
            rows.told_decision(lsn, session, &decision);
            return 0;
        }
        _ => return 0,
    }
    1
}

fn malformed(segment: &Path) {
    // Its checksum is right, so no disk did this.
    tracing::error!(segment = %segment.display(), "a record of the journal cannot be understood; this is a bug");
}

/// The records of a segment's complete transactions, one by one.
struct Records<R> {
    payload: Payload<BufReader<R>>,
    /// One past the last complete transaction.
    end: Lsn,
}

impl<'a> Records<&'a File> {
    fn open(mut file: &'a File, header: Header) -> io::Result<Self> {
        file.seek(SeekFrom::Start(segment::HEADER as u64))?;
        let first = Lsn(header.first.0.saturating_add(segment::HEADER as u64));
        let length = frame::committed(BufReader::with_capacity(BUFFER, file), first)?;
        file.seek(SeekFrom::Start(segment::HEADER as u64))?;
        Ok(Self::new(BufReader::with_capacity(BUFFER, file), first, length))
    }
}

impl<R: Read> Records<R> {
    /// The records in the first `length` bytes of `file`, which stands at position `first`.
    fn new(file: BufReader<R>, first: Lsn, length: u64) -> Self {
        let end = Lsn(first.0.saturating_add(length));
        Self { payload: Payload { file, position: first, end, frame: 0 }, end }
    }

    /// The next record: its position, kind and body.
    fn next(&mut self, path: &Path) -> io::Result<Option<(Lsn, u8, Vec<u8>)>> {
        if !self.payload.begin()? {
            return Ok(None);
        }
        let lsn = self.payload.position;
        let prefix = self.payload.read(kind::PREFIX)?;
        let Some(&[kind, l0, l1, l2, l3]) = prefix.as_deref() else {
            malformed(path);
            return Ok(None);
        };
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        match self.payload.read(length)? {
            Some(body) => Ok(Some((lsn, kind, body))),
            None => {
                malformed(path);
                Ok(None)
            }
        }
    }
}

/// The payloads of frames, as if they were one.
struct Payload<R> {
    file: R,
    position: Lsn,
    end: Lsn,
    /// Bytes left of the current frame.
    frame: usize,
}

impl<R: Read> Payload<R> {
    /// Goes to the next byte of a payload. False if there is none.
    fn begin(&mut self) -> io::Result<bool> {
        while self.frame == 0 {
            if self.position >= self.end {
                return Ok(false);
            }
            let mut bytes = [0; frame::HEADER];
            self.file.read_exact(&mut bytes)?;
            // The frames were checked when the end was looked for.
            let Some(header) = frame::Header::parse(&bytes, self.position) else { return Ok(false) };
            self.position.0 += frame::HEADER as u64;
            self.frame = header.length as usize;
        }
        Ok(true)
    }

    /// Reads `length` bytes; none if there are fewer. Allocates for what is there, not for what `length` claims.
    fn read(&mut self, length: usize) -> io::Result<Option<Vec<u8>>> {
        let left = usize::try_from(self.end.0 - self.position.0).unwrap_or(usize::MAX);
        if length > left {
            return Ok(None);
        }
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            if !self.begin()? {
                return Ok(None);
            }
            let part = (length - filled).min(self.frame);
            self.file.read_exact(&mut bytes[filled..filled + part])?;
            filled += part;
            self.frame -= part;
            self.position.0 += part as u64;
        }
        Ok(Some(bytes))
    }
}

/// Reads a segment's bytes behind its header as far as they are complete transactions. Yields the number of
/// records, and how many of them are malformed.
pub(super) fn read_all(bytes: &[u8]) -> (usize, usize) {
    // Reading from memory does not fail.
    let length = frame::committed(bytes, Lsn(0)).unwrap_or(0);
    let mut records = Records::new(BufReader::new(bytes), Lsn(0), length);
    let mut decoder = Decoder::new();
    let (mut read, mut bad) = (0, 0);
    while let Ok(Some((_, kind, mut body))) = records.next(Path::new("")) {
        read += 1;
        bad += usize::from(decoder.decode(kind, &mut body).is_err());
    }
    (read, bad)
}

/// Bytes that are read from a segment at a time.
const BUFFER: usize = 256 << 10;
