//! The newest state of each open session: what a segment begins with.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use super::recovery::StateKey;
use super::segment::Segment;
use super::{SPILL, empty_frame, encode, frame};
use crate::record::lsn::Lsn;
use crate::telemetry::metrics;

/// All states.
#[derive(Debug)]
pub(super) struct States {
    newest: HashMap<StateKey, Held, foldhash::fast::RandomState>,
}

/// A state.
#[derive(Debug)]
enum Held {
    /// Its bytes.
    Here(Vec<u8>),
    /// Where they stand in a segment, if they are many.
    There { file: Arc<File>, offset: u64, length: usize },
}

impl States {
    /// What an earlier agent left.
    pub(super) fn new(found: &HashMap<StateKey, Vec<u8>>) -> Self {
        Self { newest: found.iter().map(|(key, state)| (*key, Held::Here(state.clone()))).collect() }
    }

    /// The state of a session, which stands at `place` in a segment, if it stands in any.
    pub(super) fn save(&mut self, key: StateKey, state: &[u8], place: Option<(Arc<File>, u64)>) {
        match (self.newest.get_mut(&key), place) {
            (Some(Held::Here(bytes)), _) if state.len() <= HELD_HERE => {
                bytes.clear();
                bytes.extend_from_slice(state);
            }
            (_, _) if state.len() <= HELD_HERE => {
                self.newest.insert(key, Held::Here(state.to_vec()));
            }
            (_, Some((file, offset))) => {
                self.newest.insert(key, Held::There { file, offset, length: state.len() });
            }
            // What is not written cannot be found there later, and an older state is worth nothing.
            (_, None) => {
                self.newest.remove(&key);
            }
        }
    }

    /// A state is no longer needed. Returns whether there was one.
    pub(super) fn forget(&mut self, key: &StateKey) -> bool {
        self.newest.remove(key).is_some()
    }

    /// The segment in use cannot be relied on: forgets what stands in segments only.
    pub(super) fn forget_written(&mut self) {
        self.newest.retain(|_, held| matches!(held, Held::Here(_)));
    }

    /// Writes all states and the reader's position, as the first transaction of a segment.
    pub(super) fn checkpoint(&mut self, segment: &mut Segment, reader: Option<u64>) -> io::Result<()> {
        let mut buffer = empty_frame();
        encode::checkpoint(&mut buffer);
        for (key, held) in &mut self.newest {
            let length = match held {
                Held::Here(state) => state.len(),
                Held::There { length, .. } => *length,
            };
            encode::state(&mut buffer, key, length);
            let mut offset = segment.bytes() + buffer.len() as u64;
            match held {
                Held::Here(state) if length <= HELD_HERE => {
                    buffer.extend_from_slice(state);
                    if buffer.len() >= SPILL {
                        write_frame(segment, &mut buffer, &[], false)?;
                    }
                    continue;
                }
                Held::Here(state) => write_frame(segment, &mut buffer, state, false)?,
                Held::There { file, offset: from, .. } => {
                    write_frame(segment, &mut buffer, &[], false)?;
                    segment.copy(file, *from, length as u64)?;
                    offset += frame::HEADER as u64;
                }
            }
            *held = Held::There { file: segment.file(), offset, length };
        }
        encode::commit(&mut buffer, reader);
        write_frame(segment, &mut buffer, &[], true)
    }
}

/// Writes a frame of a checkpoint.
fn write_frame(segment: &mut Segment, buffer: &mut Vec<u8>, tail: &[u8], commits: bool) -> io::Result<()> {
    let lsn = Lsn(segment.header.first.0 + segment.bytes());
    frame::seal(buffer, tail, lsn, commits);
    segment.write(buffer, tail)?;
    metrics::JOURNAL_BYTES.add((buffer.len() + tail.len()) as u64);
    buffer.truncate(frame::HEADER);
    Ok(())
}

/// States up to this size are kept in memory for the next checkpoint; larger ones are copied from the file.
const HELD_HERE: usize = 4 << 10;
