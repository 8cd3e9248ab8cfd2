//! Which files a chain says are there: read from its file as it grows, line by line, so that a long chain is read once.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::entry::{Line, What};
use super::hex::unhex;
use super::key::PublicKey;
use super::{Contents, Hash};

/// A chain's files that are neither removed nor replaced.
#[derive(Debug, Default)]
pub struct Live {
    files: HashMap<String, Sealed>,
    /// Bytes of the chain that were read.
    read: u64,
}

/// What the chain says of one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Its hash.
    pub sha256: Hash,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// The least and the greatest session id, if it has any.
    pub sessions: Option<(String, String)>,
}

impl Live {
    /// Reads what was appended to a chain since the last time, up to `length`. Says which files of `there` are gone by its
    /// words: an agent died, or a disk failed, before they were removed.
    ///
    /// # Errors
    ///
    /// The chain cannot be read.
    pub fn read(
        &mut self,
        chain: &Path,
        length: u64,
        key: &PublicKey,
        there: &HashSet<String>,
    ) -> io::Result<Vec<String>> {
        let mut left = HashSet::new();
        if length < self.read {
            // Somebody put another chain in its place.
            *self = Self::default();
        }
        let mut file = File::open(chain)?;
        file.seek(SeekFrom::Start(self.read))?;
        let mut lines = BufReader::with_capacity(BLOCK, file.take(length - self.read));
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = lines.read_until(b'\n', &mut bytes)?;
            if bytes.pop_if(|last| *last == b'\n').is_none() {
                break;
            }
            self.read += read as u64;
            let Some(line) = std::str::from_utf8(&bytes).ok().and_then(Line::parse) else { continue };
            let signed = || line.is_signed_by(key);
            let mut gone = |file: String| {
                // Nobody else's word is enough.
                if there.contains(&file) && signed() {
                    left.insert(file);
                }
            };
            match line.seal.what.clone() {
                What::File(contents) | What::Found(contents) => {
                    left.remove(&contents.file);
                    self.add(contents);
                }
                What::Withdrawn { file } => {
                    self.files.remove(&file);
                }
                What::Expired { file, .. } => {
                    self.files.remove(&file);
                    gone(file);
                }
                What::Merged(merged) => {
                    for replaced in merged.replaced {
                        self.files.remove(&replaced.file);
                        gone(replaced.file);
                    }
                    self.add(merged.contents);
                }
            }
        }
        Ok(left.into_iter().collect())
    }

    /// What is known of a file.
    pub fn file(&self, name: &str) -> Option<&Sealed> {
        self.files.get(name)
    }

    fn add(&mut self, contents: Contents) {
        let Some(sha256) = unhex(&contents.sha256) else { return };
        let Contents { file, bytes, rows, first_session, last_session, .. } = contents;
        self.files.insert(file, Sealed { sha256, bytes, rows, sessions: first_session.zip(last_session) });
    }
}

/// Bytes that are read at once.
const BLOCK: usize = 256 << 10;
