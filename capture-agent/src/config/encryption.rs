//! What the record is encrypted with.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use crate::record::{Keys, RecordKey};

/// Where the keys of an encrypted record are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Encryption {
    /// The file of the key.
    pub key_file: Option<PathBuf>,
    /// The program that prints the key, with its arguments.
    pub key_command: Option<Vec<String>>,
    /// The files of keys that were used before: what they encrypted is read, nothing else is encrypted with them.
    pub old_key_files: Vec<PathBuf>,
}

/// Why a key cannot be had.
#[derive(Debug, Error)]
#[error("cannot use the key of the record {place}: {source} (see docs/errors.md#record-key)")]
pub struct NoKey {
    /// Its file, or the program that should print it.
    place: String,
    /// What is wrong with it.
    source: io::Error,
}

impl Encryption {
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.key_file, &self.key_command) {
            (Some(_), None) => Ok(()),
            (None, Some(command)) if !command.is_empty() => Ok(()),
            _ => Err("`encryption` needs `key_file` or `key_command`, one of them".to_owned()),
        }
    }

    /// The keys: read from their files, printed by the program.
    ///
    /// # Errors
    ///
    /// One cannot be had.
    pub fn keys(&self) -> Result<Keys, NoKey> {
        let current = match (&self.key_file, &self.key_command) {
            (_, Some(command)) => printed(command)
                .map_err(|source| NoKey { place: format!("that {command:?} should print"), source })?,
            (Some(path), None) => of_file(path)?,
            (None, None) => return Ok(Keys::default()),
        };
        let older = self.old_key_files.iter().map(|path| of_file(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Keys::new(&current, &older))
    }
}

fn of_file(path: &Path) -> Result<RecordKey, NoKey> {
    let read = || {
        let mode = fs::metadata(path)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let words = format!("others than its owner can read it (mode {mode:o}): `chmod 600` it");
            return Err(io::Error::other(words));
        }
        parse(&fs::read(path)?)
    };
    read().map_err(|source| NoKey { place: path.display().to_string(), source })
}

fn printed(command: &[String]) -> io::Result<RecordKey> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let stdout = child.stdout.take();
    let (send, receive) = channel();
    // Ends when the program does, or whoever it left its output to.
    drop(std::thread::Builder::new().name("key".to_owned()).spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(LONGEST).read_to_end(&mut text));
        // Nobody may be waiting any more.
        let _ = send.send(read.map(|_| text));
    })?);
    let text = receive.recv_timeout(PATIENCE);
    if text.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let text =
        text.map_err(|_| io::Error::other(format!("it printed none in {} s", PATIENCE.as_secs())))??;
    if !status.success() {
        return Err(io::Error::other(format!("it ended with {status}")));
    }
    parse(&text)
}

fn parse(text: &[u8]) -> io::Result<RecordKey> {
    let words = "expected 32 bytes in base64, as `openssl rand -base64 32` prints them";
    RecordKey::parse(text).ok_or_else(|| io::Error::other(words))
}

/// How long a program may take: it may have to ask a server elsewhere.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are read of what it prints, many times those of a key.
const LONGEST: u64 = 4_096;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// 32 times the byte 7.
    const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

    #[test]
    fn a_key_comes_from_its_file_or_its_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, format!("{KEY}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let command = |words: &[&str]| Encryption {
            key_command: Some(words.iter().map(|word| (*word).to_owned()).collect()),
            ..Encryption::default()
        };
        let of_file = Encryption { key_file: Some(path.clone()), ..Encryption::default() };
        assert!(of_file.keys().unwrap().encrypt());
        assert!(command(&["echo", KEY]).keys().unwrap().encrypt());
        assert!(!Encryption::default().keys().unwrap().encrypt());

        let error = |encryption: &Encryption| encryption.keys().unwrap_err().to_string();
        assert!(error(&command(&["echo", "secret"])).contains("openssl rand"));
        assert!(!error(&command(&["echo", "secret"])).contains(": secret"));
        assert!(error(&command(&["false"])).contains("it ended with"));
        assert!(error(&command(&["/nowhere"])).contains("/nowhere"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(error(&of_file).contains("chmod 600"));
        let older = Encryption { old_key_files: vec![path.clone()], ..command(&["echo", KEY]) };
        assert!(error(&older).contains("chmod 600"));
    }
}
