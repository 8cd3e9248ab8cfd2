//! Which files somebody has confirmed to be elsewhere: `<data-dir>/.uploaded-<node>.jsonl`, a line for each.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use serde::Deserialize;

/// The confirmations, read as their file grows.
#[derive(Debug)]
pub(super) struct Uploaded {
    path: PathBuf,
    /// Hashes by file.
    files: HashMap<String, String>,
    /// Bytes that were read.
    read: u64,
    /// Which file they were read from: a long list is replaced by a shorter one.
    inode: u64,
}

#[derive(Deserialize)]
struct Line {
    file: String,
    sha256: String,
}

impl Uploaded {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, files: HashMap::new(), read: 0, inode: 0 }
    }

    /// Whether anything ever was.
    pub(super) fn is_used(&self) -> bool {
        self.path.exists()
    }

    /// Reads what was added, and forgets what is not `there` any more.
    pub(super) fn read(&mut self, there: &HashSet<String>) -> io::Result<()> {
        self.files.retain(|file, _| there.contains(file));
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if metadata.ino() != self.inode || metadata.len() < self.read {
            (self.read, self.inode) = (0, metadata.ino());
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut lines = BufReader::new(file);
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = lines.read_until(b'\n', &mut bytes)?;
            if bytes.last() != Some(&b'\n') {
                return Ok(());
            }
            self.read += read as u64;
            // What is no confirmation confirms nothing.
            if let Ok(line) = serde_json::from_slice::<Line>(&bytes)
                && there.contains(&line.file)
            {
                self.files.insert(line.file, line.sha256);
            }
        }
    }

    /// Whether a file with this hash was confirmed.
    pub(super) fn has(&self, file: &str, sha256: &str) -> bool {
        self.files.get(file).is_some_and(|known| known == sha256)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_confirmation_counts_for_the_bytes_that_were_sealed_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".uploaded-db1.jsonl");
        let mut uploaded = Uploaded::new(path.clone());
        let there = HashSet::from(["a".to_owned(), "b".to_owned()]);
        uploaded.read(&there).unwrap();
        assert!(!uploaded.is_used() && !uploaded.has("a", "00"));
        fs::write(&path, "{\"file\":\"a\",\"sha256\":\"00\",\"at\":\"x\"}\nnonsense\n{\"file\":\"b\",\"sha")
            .unwrap();
        uploaded.read(&there).unwrap();
        assert!(uploaded.has("a", "00") && !uploaded.has("a", "01") && !uploaded.has("b", "02"));
        // The rest of a line that was being written.
        let text = fs::read_to_string(&path).unwrap() + "256\":\"02\"}\n";
        fs::write(&path, text).unwrap();
        uploaded.read(&there).unwrap();
        assert!(uploaded.has("b", "02"));
        uploaded.read(&HashSet::new()).unwrap();
        assert!(!uploaded.has("a", "00"));
        // A list that took its place, and is as long.
        let new = folder.path().join("new");
        fs::write(&new, fs::read_to_string(&path).unwrap().replace("\"00\"", "\"03\"")).unwrap();
        fs::rename(&new, &path).unwrap();
        uploaded.read(&there).unwrap();
        assert!(uploaded.has("a", "03") && uploaded.has("b", "02"));
    }
}
