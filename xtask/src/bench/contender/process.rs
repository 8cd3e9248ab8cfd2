//! Another program beside the server: started, waited for, and ended also when a task fails.

use crate::shell;
use crate::usage::Usage;
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{fs, path::Path};

pub(super) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts it, what it says in `said`, and returns once it is `ready`.
    pub(super) fn start(command: &mut Command, said: &Path, ready: impl Fn() -> bool) -> Result<Self> {
        let file = fs::File::create(said)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot run {}", shell::show(command)))?;
        let mut process = Self { child, name: command.get_program().to_string_lossy().into_owned() };
        let deadline = Instant::now() + START_TIME;
        while !ready() {
            if process.child.try_wait()?.is_some() || Instant::now() > deadline {
                let said = fs::read_to_string(said).unwrap_or_default();
                bail!("{} does not start:\n{said}", process.name);
            }
            thread::sleep(POLL);
        }
        Ok(process)
    }

    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id()).with_context(|| format!("{} is gone", self.name))
    }

    /// Interrupts it, and waits until it has written what it has.
    pub(super) fn end(mut self) -> Result<()> {
        shell::signal(&self.child, Signal::INT)?;
        match shell::ended(&mut self.child, STOP_TIME)? {
            Some(_) => Ok(()),
            None => bail!("{} still runs {STOP_TIME:?} after SIGINT", self.name),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

const START_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);
