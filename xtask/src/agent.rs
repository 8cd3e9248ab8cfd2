//! A running agent: started, waited for, and stopped also when a task fails.

use crate::shell;
use crate::usage::Usage;
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use std::io::{BufRead as _, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A running `capture-agent run`.
pub(crate) struct Agent {
    child: Child,
    program: PathBuf,
    /// What it writes to its standard error, line by line.
    log: Receiver<String>,
}

impl Agent {
    /// Starts the agent for one server and returns once it captures.
    ///
    /// # Errors
    ///
    /// If it ends or stays silent instead; then with what it said.
    pub(crate) fn start(program: &Path, data_dir: &Path, port: u16) -> Result<Self> {
        Self::start_with(program, data_dir, port, None)
    }

    /// The same, with a configuration file.
    ///
    /// # Errors
    ///
    /// As [`Agent::start`].
    pub(crate) fn start_with(
        program: &Path,
        data_dir: &Path,
        port: u16,
        config: Option<&Path>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["run", "--server", &port.to_string(), "--data-dir"]).arg(data_dir);
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", shell::show(&command)))?;
        let log = follow(child.stderr.take().context("no pipe")?);
        let agent = Self { child, program: program.to_owned(), log };
        agent.wait_until_capturing()?;
        Ok(agent)
    }

    /// Stops the agent as systemd would, and waits until everything is written.
    ///
    /// # Errors
    ///
    /// If it does not end in time or does not exit with 0; then with what it said.
    pub(crate) fn stop(mut self) -> Result<()> {
        shell::signal(&self.child, Signal::TERM)?;
        match shell::ended(&mut self.child, STOP_TIME)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the agent ended with {status}:\n{}", self.said()),
            None => bail!("the agent still runs {STOP_TIME:?} after SIGTERM:\n{}", self.said()),
        }
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it used so far.
    ///
    /// # Errors
    ///
    /// If the process is gone.
    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.child.id()).context("the agent is gone")
    }

    /// A command that reads what was recorded, with its output as it shows it to people.
    pub(crate) fn reader(program: &Path, arguments: &[&str], data_dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).arg("--data-dir").arg(data_dir);
        command
    }

    fn wait_until_capturing(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIME;
        let mut said = String::new();
        loop {
            match self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("capturing ") => return Ok(()),
                Ok(line) => said = said + &line + "\n",
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the agent does not capture after {START_TIME:?}:\n{said}")
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "the agent ended before it captured anything; `{} doctor` may say more:\n{said}",
                        self.program.display()
                    )
                }
            }
        }
    }

    fn said(&self) -> String {
        self.log.try_iter().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // A task failed. What was captured is of no interest, but the hooks must go: only the agent takes them away.
            drop(shell::signal(&self.child, Signal::TERM));
            if !matches!(shell::ended(&mut self.child, STOP_TIME), Ok(Some(_))) {
                drop(self.child.kill());
                drop(self.child.wait());
            }
        }
    }
}

/// Reads lines in a thread of its own: a full pipe would stop the agent.
fn follow(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

const START_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(60);
