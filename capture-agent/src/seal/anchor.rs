//! Heads of a chain, kept outside of the data directory: what stands before an anchor cannot be cut off unnoticed, not
//! even by somebody who has the key.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A file to which a chain's head is appended now and then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    /// The file; made if it is not there, never shortened.
    pub file: PathBuf,
    /// The time between two lines, at least.
    pub every: Duration,
}

/// A line of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) node: String,
    /// The number of the chain's last seal.
    pub(super) number: u64,
    /// The hash of that line.
    pub(super) hash: String,
    pub(super) at: String,
}

impl Anchor {
    pub(super) fn append(&self, head: &Head) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.file)?;
        let mut line = serde_json::to_string(head)?;
        line.push('\n');
        file.write_all(line.as_bytes())?;
        file.sync_data()
    }
}
