//! Legal holds: what must not be removed, however old it is. `<data-dir>/holds.jsonl`, a line for each hold and for each that
//! is over; lines are only ever added.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The holds of a data directory.
#[derive(Debug)]
pub struct Holds {
    holds: Vec<Hold>,
    next: u64,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Its number.
    pub hold: u64,
    /// What is held.
    #[serde(flatten)]
    pub whose: Whose,
    /// Why, in somebody's words.
    pub reason: String,
    /// When it was made: RFC 3339, UTC.
    pub at: String,
}

/// What is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// A session.
    Session(Uuid),
    /// All sessions of a role.
    User(String),
}

/// A hold that is over.
#[derive(Serialize, Deserialize)]
struct Release {
    release: u64,
    reason: String,
    at: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Hold(Hold),
    Release(Release),
}

/// Why holds cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The file cannot be read or written.
    #[error("cannot read or write the legal holds {}: {source} (see docs/errors.md#holds)", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A line is none of those that `holds` writes.
    #[error("line {line} of {} is no legal hold: nothing is removed until it is mended (see docs/errors.md#holds)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// There is no such hold.
    #[error("there is no hold {0}: `capture-agent holds list` lists them (see docs/errors.md#holds)")]
    Unknown(u64),
}

impl Holds {
    /// Those of a data directory, as they are now.
    ///
    /// # Errors
    ///
    /// See [`HoldError`].
    pub fn open(data_dir: &Path) -> Result<Self, HoldError> {
        let path = data_dir.join(FILE);
        match File::open(&path) {
            Ok(mut file) => Self::read(path, &mut file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self { holds: Vec::new(), next: 1 }),
            Err(source) => Err(HoldError::File { path, source }),
        }
    }

    fn read(path: PathBuf, file: &mut File) -> Result<Self, HoldError> {
        let mut text = String::new();
        if let Err(source) = file.read_to_string(&mut text) {
            return Err(HoldError::File { path, source });
        }
        let mut holds: Vec<Hold> = Vec::new();
        let mut next = 1;
        for (line, text) in (1..).zip(text.lines()) {
            match serde_json::from_str(text) {
                Ok(Line::Hold(hold)) => {
                    next = next.max(hold.hold.saturating_add(1));
                    holds.push(hold);
                }
                Ok(Line::Release(Release { release, .. })) => holds.retain(|hold| hold.hold != release),
                Err(_) => return Err(HoldError::Line { path, line }),
            }
        }
        Ok(Self { holds, next })
    }

    /// All that hold.
    pub fn list(&self) -> &[Hold] {
        &self.holds
    }

    /// Holds something from now on.
    ///
    /// # Errors
    ///
    /// See [`HoldError`].
    pub fn add(data_dir: &Path, whose: Whose, reason: &str) -> Result<Hold, HoldError> {
        change(data_dir, |holds| {
            let hold = Hold { hold: holds.next, whose, reason: reason.to_owned(), at: now() };
            Ok((serde_json::to_string(&hold), hold))
        })
    }

    /// Ends a hold.
    ///
    /// # Errors
    ///
    /// See [`HoldError`].
    pub fn remove(data_dir: &Path, number: u64, reason: &str) -> Result<(), HoldError> {
        change(data_dir, |holds| {
            if !holds.holds.iter().any(|hold| hold.hold == number) {
                return Err(HoldError::Unknown(number));
            }
            let release = Release { release: number, reason: reason.to_owned(), at: now() };
            Ok((serde_json::to_string(&release), ()))
        })
    }
}

/// Adds a line, while nobody else does.
fn change<T>(
    data_dir: &Path,
    line: impl FnOnce(&Holds) -> Result<(serde_json::Result<String>, T), HoldError>,
) -> Result<T, HoldError> {
    let path = data_dir.join(FILE);
    let failed = |source| HoldError::File { path: path.clone(), source };
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
    file.lock().map_err(failed)?;
    let holds = Holds::read(path.clone(), &mut file)?;
    let (line, value) = line(&holds)?;
    let line = line.map_err(|error| failed(error.into()))? + "\n";
    file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    // The name of a new file must survive a failure of power as well.
    File::open(data_dir).and_then(|folder| folder.sync_all()).map_err(failed)?;
    Ok(value)
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Its name in the data directory.
const FILE: &str = "holds.jsonl";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn holds_are_numbered_and_end_when_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path();
        assert!(Holds::open(data_dir).unwrap().list().is_empty());
        let session = Whose::Session(Uuid::from_u128(7));
        assert_eq!(Holds::add(data_dir, session.clone(), "case 1").unwrap().hold, 1);
        assert_eq!(Holds::add(data_dir, Whose::User("bob".to_owned()), "case 2").unwrap().hold, 2);
        Holds::remove(data_dir, 1, "settled").unwrap();
        assert!(matches!(Holds::remove(data_dir, 1, ""), Err(HoldError::Unknown(1))));
        assert_eq!(Holds::add(data_dir, session, "case 3").unwrap().hold, 3);
        let holds = Holds::open(data_dir).unwrap();
        assert_eq!(holds.list().iter().map(|hold| hold.hold).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(holds.list()[0].whose, Whose::User("bob".to_owned()));
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        Holds::add(folder.path(), Whose::User("bob".to_owned()), "case").unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, fs::read_to_string(&path).unwrap() + "{}\n").unwrap();
        assert!(matches!(Holds::open(folder.path()), Err(HoldError::Line { line: 2, .. })));
        assert!(Holds::add(folder.path(), Whose::User("eve".to_owned()), "case").is_err());
    }
}
