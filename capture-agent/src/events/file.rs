//! Events to a file, one line each.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use super::courier::{Deliver, Failure};
use super::spool::Event;

/// A file that grows. Whoever renames or removes it gets another one.
#[derive(Debug)]
pub(super) struct Lines {
    path: PathBuf,
    file: Option<File>,
}

impl Lines {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    fn append(&mut self, events: &[Event]) -> io::Result<()> {
        if !self.file.as_ref().is_some_and(|file| self.is_there(file)) {
            self.file = None;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                let mut file = options.read(true).append(true).create(true).mode(0o600).open(&self.path)?;
                end_line(&mut file)?;
                self.file.insert(file)
            }
        };
        let length = file.metadata()?.len();
        let mut text = Vec::new();
        for event in events {
            text.extend_from_slice(&event.json);
            text.push(b'\n');
        }
        let written = file.write_all(&text).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next.
            let _ = file.set_len(length);
        }
        written
    }

    /// Whether the file still has its name.
    fn is_there(&self, file: &File) -> bool {
        let id = |found: &std::fs::Metadata| (found.dev(), found.ino());
        match (file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => id(&open) == id(&named),
            _ => false,
        }
    }
}

/// Ends a line that an agent was killed in.
fn end_line(file: &mut File) -> io::Result<()> {
    if !file.metadata()?.is_file() || file.seek(SeekFrom::End(0))? == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

impl Deliver for Lines {
    fn deliver(&mut self, events: &[Event]) -> Result<(), Failure> {
        self.append(events).map_err(|error| {
            self.file = None;
            Failure::Later(error.to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event { number, json: format!("{{\"n\":{number}}}").into_bytes() }
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_again_and_a_torn_line_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events.jsonl");
        std::fs::write(&path, "{\"torn").unwrap();
        let mut lines = Lines::new(path.clone());
        lines.append(&[event(1), event(2)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"torn\n{\"n\":1}\n{\"n\":2}\n");
        std::fs::rename(&path, folder.path().join("events.jsonl.1")).unwrap();
        lines.append(&[event(3)]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"n\":3}\n");
        let missing = Lines::new(folder.path().join("missing/events.jsonl")).deliver(&[event(1)]);
        assert!(matches!(missing, Err(Failure::Later(_))));
    }
}
