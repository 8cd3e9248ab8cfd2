//! A proxy that meets requests with failures: the program `clients/fault_proxy.py`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use anyhow::Context as _;
use serde::Deserialize;

use super::ObjectStorage;
use crate::clients;

/// Stands before a storage.
#[derive(Debug)]
pub struct FaultProxy {
    folder: tempfile::TempDir,
    process: Child,
    port: u16,
}

/// A request that passed it.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// `PUT` and so on.
    pub method: String,
    /// The path, with the query.
    pub path: String,
    /// Of the body.
    pub bytes: u64,
    /// The failure that it met; empty if none.
    pub failure: String,
}

impl FaultProxy {
    /// Starts one in this mood.
    ///
    /// # Errors
    /// Python is missing.
    pub fn start(storage: &ObjectStorage, mood: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("mood"), mood)?;
        let mut command = clients::command("fault_proxy.py")?;
        let mut process =
            command.arg(storage.port().to_string()).arg(folder.path()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut said)?;
        let port = said.trim().parse().with_context(|| format!("fault_proxy.py said {said:?}"))?;
        Ok(Self { folder, process, port })
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on it is in this mood.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_mood(&self, mood: &str) -> anyhow::Result<()> {
        let new = self.folder.path().join("new");
        fs::write(&new, mood)?;
        Ok(fs::rename(new, self.folder.path().join("mood"))?)
    }

    /// Every request so far.
    ///
    /// # Errors
    /// The file holds something else.
    pub fn requests(&self) -> anyhow::Result<Vec<Request>> {
        let text = fs::read_to_string(self.folder.path().join("requests")).unwrap_or_default();
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
