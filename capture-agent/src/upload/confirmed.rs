//! Which files are stored: `<data-dir>/.uploaded-<node>.jsonl`, a line for each, in the order of the chain. Who removes local
//! copies reads it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::seal::Contents;

/// The list, open at its end.
#[derive(Debug)]
pub(super) struct Confirmed {
    file: File,
    path: PathBuf,
    length: u64,
    last: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Its place in the data directory.
    file: String,
    /// Its hash, which the stored object has as well.
    sha256: String,
    /// When it was confirmed: RFC 3339, UTC.
    at: String,
}

impl Confirmed {
    /// Opens the list of `node`. Half a line at the end, which an agent was killed in, is taken off; of a long list, only the
    /// files that are still here are kept, and the last.
    pub(super) fn open(data_dir: &Path, node: &str) -> io::Result<Self> {
        let path = data_dir.join(format!(".uploaded-{node}.jsonl"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path)?;
        let (mut length, mut last) = (0, None);
        let mut shorter = Vec::new();
        let mut lines = BufReader::new(&file);
        let mut line = String::new();
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            length += line.len() as u64;
            if let Ok(entry) = serde_json::from_str::<Entry>(&line) {
                if data_dir.join(&entry.file).exists() {
                    shorter.extend_from_slice(line.as_bytes());
                }
                last = Some((entry.file, line.clone()));
            }
            line.clear();
        }
        drop(lines);
        file.set_len(length)?;
        if length > LONG && shorter.len() as u64 <= length / 2 {
            if let Some((file, line)) = &last
                && !data_dir.join(file).exists()
            {
                shorter.extend_from_slice(line.as_bytes());
            }
            let new = path.with_extension("new");
            fs::write(&new, &shorter)?;
            File::open(&new)?.sync_all()?;
            fs::rename(&new, &path)?;
            file = OpenOptions::new().append(true).open(&path)?;
            length = shorter.len() as u64;
        }
        Ok(Self { file, path, length, last: last.map(|(file, _)| file) })
    }

    /// The file that was confirmed last.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Notes a file, and brings that to the disk.
    pub(super) fn add(&mut self, contents: &Contents) -> io::Result<()> {
        let entry = Entry {
            file: contents.file.clone(),
            sha256: contents.sha256.clone(),
            at: jiff::Timestamp::now().to_string(),
        };
        let mut line = serde_json::to_string(&entry)?;
        line.push('\n');
        if let Err(error) = self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()) {
            // Half a line must not stand before the next one.
            self.file.set_len(self.length)?;
            return Err(error);
        }
        self.length += line.len() as u64;
        self.last = Some(entry.file);
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Bytes from which a list is looked through for files that are gone.
const LONG: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(file: &str) -> Contents {
        Contents { file: file.into(), sha256: "00".into(), ..Contents::default() }
    }

    #[test]
    fn a_line_that_an_agent_was_killed_in_is_taken_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut list = Confirmed::open(folder.path(), "n").unwrap();
        assert_eq!(list.last(), None);
        list.add(&contents("a")).unwrap();
        list.add(&contents("b")).unwrap();
        let path = list.path().to_owned();
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"file\":\"c\"");
        fs::write(&path, text).unwrap();
        let mut list = Confirmed::open(folder.path(), "n").unwrap();
        assert_eq!(list.last(), Some("b"));
        list.add(&contents("d")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let files: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(files.iter().map(|entry| entry.file.as_str()).collect::<Vec<_>>(), ["a", "b", "d"]);
    }

    #[test]
    fn of_a_long_list_only_what_is_still_here_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kept"), "").unwrap();
        let line = |file: &str| format!("{{\"file\":\"{file}\",\"sha256\":\"00\",\"at\":\"x\"}}\n");
        let mut text = line("kept");
        while text.len() as u64 <= LONG {
            text.push_str(&line("gone"));
        }
        text.push_str(&line("last"));
        fs::write(folder.path().join(".uploaded-n.jsonl"), text).unwrap();
        let mut list = Confirmed::open(folder.path(), "n").unwrap();
        list.add(&contents("new")).unwrap();
        let text = fs::read_to_string(list.path()).unwrap();
        assert!(text.starts_with(&(line("kept") + &line("last"))) && text.lines().count() == 3, "{text}");
    }
}
