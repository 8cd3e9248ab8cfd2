//! The local chain, as the uploader reads it: line by line, behind the recorder that appends to it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

use super::pieces::Pieces;
use super::superseded::{stored, superseded};
use crate::seal::{What, read_line};

/// The chain, and how far it is stored: `next <= counted <= the file's length`.
#[derive(Debug)]
pub(super) struct ChainFile {
    path: PathBuf,
    /// Where the first line begins that is not dealt with.
    next: u64,
    /// Up to here its lines are known.
    counted: u64,
    /// The last of them, with its line feed.
    last: Vec<u8>,
    backlog: Backlog,
    /// Files of lines from `next` on, perhaps, that later lines say others took the place of.
    superseded: HashSet<String>,
    pub(super) pieces: Pieces,
}

/// What is not stored yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// A line that is to be dealt with.
#[derive(Debug)]
pub(super) struct Line {
    /// When it was sealed.
    pub(super) at: String,
    /// None: it is no seal.
    pub(super) what: Option<What>,
    /// Where the next one begins.
    pub(super) end: u64,
    /// Whether none is known behind it.
    pub(super) is_last: bool,
}

impl ChainFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            next: 0,
            counted: 0,
            last: Vec::new(),
            backlog: Backlog::default(),
            superseded: HashSet::new(),
            pieces: Pieces::default(),
        }
    }

    /// Reads what was appended. `confirmed` is the file that was stored last, by whichever agent; lines up to its own are
    /// dealt with. Whether it is another chain than before.
    pub(super) fn poll(&mut self, confirmed: Option<&str>) -> io::Result<bool> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let another = !self.still_there(&mut file)?;
        if another {
            // The recorder takes a seal back that the disk refused, and a person may have moved the chain away.
            *self = Self::new(self.path.clone());
        }
        let afresh = self.counted == 0;
        file.seek(SeekFrom::Start(self.counted))?;
        let mut lines = BufReader::new(file);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            lines.read_until(b'\n', &mut bytes)?;
            if bytes.last() != Some(&b'\n') {
                return Ok(another);
            }
            self.count(&bytes, confirmed.filter(|_| afresh));
            std::mem::swap(&mut self.last, &mut bytes);
        }
    }

    fn still_there(&self, file: &mut File) -> io::Result<bool> {
        if file.metadata()?.len() < self.counted {
            return Ok(false);
        }
        let mut last = vec![0; self.last.len()];
        file.seek(SeekFrom::Start(self.counted - self.last.len() as u64))?;
        file.read_exact(&mut last)?;
        Ok(last == self.last)
    }

    fn count(&mut self, line: &[u8], confirmed: Option<&str>) {
        let begin = self.counted;
        self.counted += line.len() as u64;
        let Some((number, _, what)) = parse(line) else {
            tracing::error!(chain = %self.path.display(), at = begin, "a line of the chain is no seal; run capture-agent verify");
            self.pieces.add(None, begin, self.counted);
            return;
        };
        self.pieces.add(Some(number), begin, self.counted);
        self.superseded.extend(superseded(&what).into_iter().map(str::to_owned));
        let Some(contents) = stored(&what) else { return };
        self.backlog.files += 1;
        self.backlog.bytes += contents.bytes;
        if confirmed == Some(&contents.file) {
            self.next = self.counted;
            self.backlog = Backlog::default();
            self.superseded.clear();
        }
    }

    /// The next line that is to be dealt with.
    pub(super) fn line(&self) -> io::Result<Option<Line>> {
        if self.next >= self.counted {
            return Ok(None);
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.next))?;
        let mut bytes = Vec::new();
        BufReader::new(file).read_until(b'\n', &mut bytes)?;
        let end = self.next + bytes.len() as u64;
        let (at, what) = parse(&bytes).map(|(_, at, what)| (at, what)).unzip();
        Ok(Some(Line { at: at.unwrap_or_default(), what, end, is_last: end == self.counted }))
    }

    /// The line is dealt with.
    pub(super) fn done(&mut self, line: &Line) {
        self.next = line.end;
        let Some(what) = &line.what else { return };
        for file in superseded(what) {
            self.superseded.remove(file);
        }
        if let Some(contents) = stored(what) {
            self.backlog.files = self.backlog.files.saturating_sub(1);
            self.backlog.bytes = self.backlog.bytes.saturating_sub(contents.bytes);
        }
    }

    /// Whether a later line says that another file took the place of this one.
    pub(super) fn is_superseded(&self, file: &str) -> bool {
        self.superseded.contains(file)
    }

    /// Whether it has no line.
    pub(super) fn nothing(&self) -> bool {
        self.counted == 0
    }

    pub(super) fn backlog(&self) -> Backlog {
        self.backlog
    }

    /// Up to here all is dealt with.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Its bytes from `begin` to `end`.
    pub(super) fn bytes(&self, begin: u64, end: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(begin))?;
        let mut bytes = Vec::new();
        file.take(end.saturating_sub(begin)).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }
}

fn parse(line: &[u8]) -> Option<(u64, String, What)> {
    read_line(std::str::from_utf8(line.strip_suffix(b"\n")?).ok()?)
}
