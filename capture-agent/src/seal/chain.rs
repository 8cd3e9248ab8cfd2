//! A chain as the recorder writes it.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::anchor::{Anchor, Head};
use super::entry::{self, FORMAT, Line, Seal, What};
use super::key::SigningKey;
use super::live::Live;
use super::{CHAIN, PUBLIC_KEY};

/// The end of a node's chain, to which seals are appended.
#[derive(Debug)]
pub struct Chain {
    path: PathBuf,
    file: File,
    /// Its size: up to here it consists of whole lines.
    length: u64,
    node: String,
    key: SigningKey,
    anchor: Option<Anchor>,
    /// The next seal's number, and the hash of the line before it.
    next: u64,
    previous: String,
    /// What was sealed last.
    last: Option<What>,
    /// The number of the first seal that no anchor covers yet.
    anchored: u64,
}

/// A chain to which several threads append. Whoever seals a file holds it until the file has its name, so that nothing but
/// what was sealed last may be unfinished.
#[derive(Clone, Debug)]
pub struct SharedChain(Arc<Mutex<Chain>>);

impl SharedChain {
    /// Shares a chain.
    pub fn new(chain: Chain) -> Self {
        Self(Arc::new(Mutex::new(chain)))
    }

    /// Waits until nobody else appends.
    pub fn lock(&self) -> MutexGuard<'_, Chain> {
        // A chain is whole after each statement that changes it, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same without waiting: none while somebody appends.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Chain>> {
        match self.0.try_lock() {
            Ok(chain) => Some(chain),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Follows the chain: see [`Live::read`].
    ///
    /// # Errors
    ///
    /// Its file cannot be read.
    pub fn follow(&self, live: &mut Live, there: &HashSet<String>) -> io::Result<Vec<String>> {
        let chain = self.lock();
        let (path, length, key) = (chain.path.clone(), chain.length, chain.key.public());
        // Only lines are added, and nobody shall wait for a long chain to be read.
        drop(chain);
        live.read(&path, length, &key, there)
    }
}

impl Chain {
    /// Opens the chain of `node` in `folder`, or begins it. A line that an agent was killed in is taken off: no file was
    /// published with it.
    ///
    /// # Errors
    ///
    /// The files cannot be read or written, or somebody else signed the chain.
    pub fn open(
        folder: &Path,
        name: &str,
        node: &str,
        key: SigningKey,
        anchor: Option<Anchor>,
    ) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let path = folder.join(format!("{name}.{CHAIN}"));
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let (length, last) = last_line(&mut file)?;
        if length < file.metadata()?.len() {
            tracing::warn!(chain = %path.display(), "an agent died while it wrote the last seal; it is taken off");
            file.set_len(length)?;
        }
        let mut chain = Self {
            path,
            file,
            length,
            node: node.to_owned(),
            key,
            anchor,
            next: 0,
            previous: entry::none(),
            last: None,
            anchored: 0,
        };
        if let Some(line) = last {
            chain.go_on_behind(&line)?;
        }
        chain.publish_key(folder)?;
        Ok(chain)
    }

    fn go_on_behind(&mut self, line: &str) -> io::Result<()> {
        let path = self.path.display();
        let parsed = Line::parse(line).ok_or_else(|| {
            io::Error::other(format!("the last line of {path} is no seal; keep the file and move it away"))
        })?;
        if !parsed.is_signed_by(&self.key.public()) {
            return Err(io::Error::other(format!(
                "another key than `seals.key` signed {path}: put that key back, or move the chain away"
            )));
        }
        self.next = parsed.seal.number + 1;
        self.anchored = self.next;
        self.previous = entry::previous(line);
        self.last = Some(parsed.seal.what);
        Ok(())
    }

    /// What was sealed last.
    pub fn last(&self) -> Option<&What> {
        self.last.as_ref()
    }

    /// What was sealed lately: the whole lines of its last `bytes`.
    ///
    /// # Errors
    ///
    /// The file cannot be read.
    pub fn tail(&mut self, bytes: u64) -> io::Result<Vec<What>> {
        let from = self.length.saturating_sub(bytes);
        self.file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        Read::take(&mut self.file, self.length - from).read_to_end(&mut tail)?;
        let mut lines = tail.split(|byte| *byte == b'\n');
        if from > 0 {
            // It began before.
            lines.next();
        }
        let key = self.key.public();
        let lines = lines.filter_map(|line| Line::parse(std::str::from_utf8(line).ok()?));
        Ok(lines.filter(|line| line.is_signed_by(&key)).map(|line| line.seal.what).collect())
    }

    /// Seals something, and brings the seal to the disk. After an error nothing is sealed.
    ///
    /// # Errors
    ///
    /// The disk does not take it.
    pub fn append(&mut self, what: What) -> io::Result<()> {
        if self.file.metadata()?.nlink() == 0 {
            self.restore()?;
        }
        let seal = Seal {
            format: FORMAT,
            number: self.next,
            node: self.node.clone(),
            at: jiff::Timestamp::now().to_string(),
            previous: self.previous.clone(),
            what,
        };
        let line = seal.line(&self.key)?;
        let written = self.write(&line);
        if written.is_err() {
            // Half a line must not stand before the next one.
            self.file.set_len(self.length)?;
        }
        written?;
        self.length += line.len() as u64 + 1;
        self.next += 1;
        self.previous = entry::previous(&line);
        self.last = Some(seal.what);
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(line.as_bytes())?;
        self.file.write_all(b"\n")?;
        self.file.sync_data()
    }

    /// Makes a new file of what a removed one still holds.
    fn restore(&mut self) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut copy =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&self.path)?;
        self.file.seek(SeekFrom::Start(0))?;
        if let Err(error) = io::copy(&mut self.file, &mut copy).and_then(|_| copy.sync_all()) {
            let _ = fs::remove_file(&self.path);
            return Err(error);
        }
        self.file = copy;
        if let Some(folder) = self.path.parent() {
            self.publish_key(folder)?;
        }
        self.key.restore()
    }

    /// Puts the public key beside the chain. The names must survive a power failure as well.
    fn publish_key(&self, folder: &Path) -> io::Result<()> {
        fs::write(self.path.with_extension(PUBLIC_KEY), self.key.public().pem())?;
        File::open(folder)?.sync_all()
    }

    /// How often the chain's head is to be anchored; none if nowhere.
    pub fn anchors(&self) -> Option<&Anchor> {
        self.anchor.as_ref()
    }

    /// Anchors the head, if it was not yet.
    ///
    /// # Errors
    ///
    /// The anchor's file does not take it.
    pub fn anchor(&mut self) -> io::Result<()> {
        let (Some(anchor), true) = (&self.anchor, self.anchored < self.next) else { return Ok(()) };
        anchor.append(&Head {
            node: self.node.clone(),
            number: self.next - 1,
            hash: self.previous.clone(),
            at: jiff::Timestamp::now().to_string(),
        })?;
        self.anchored = self.next;
        Ok(())
    }
}

/// The bytes of whole lines in `file`, and the last of them without its line feed.
fn last_line(file: &mut File) -> io::Result<(u64, Option<String>)> {
    let length = file.metadata()?.len();
    let mut reach = TAIL;
    loop {
        let from = length.saturating_sub(reach);
        file.seek(SeekFrom::Start(from))?;
        let mut tail = Vec::new();
        Read::take(&mut *file, length - from).read_to_end(&mut tail)?;
        let end = tail.iter().rposition(|byte| *byte == b'\n');
        let begin = end.and_then(|end| tail.get(..end)?.iter().rposition(|byte| *byte == b'\n'));
        match (begin, end) {
            (Some(begin), Some(end)) => return Ok((from + end as u64 + 1, text(tail.get(begin + 1..end)))),
            (None, Some(end)) if from == 0 => return Ok((end as u64 + 1, text(tail.get(..end)))),
            (None, None) if from == 0 => return Ok((0, None)),
            _ => reach *= 2,
        }
    }
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Bytes in which the last line is looked for first.
const TAIL: u64 = 16 << 10;
