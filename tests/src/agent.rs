//! The real agent, stopped when it goes out of scope.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use capture_common::counter;
use rustix::process::{Pid, Signal, kill_process};

use crate::kernel::KernelSide;
use crate::record::Record;
use crate::rights::{self, Rights};
use crate::server::Server;
use crate::shim::Beside;
use crate::{deps, wait};

/// How the agent is to be started.
#[derive(Clone, Debug, Default)]
pub struct AgentOptions {
    program: Option<PathBuf>,
    servers: Vec<String>,
    config: String,
    data: Option<PathBuf>,
    expected: Option<usize>,
    saying: Option<String>,
    hooks: Option<String>,
    tls: Option<String>,
    metrics_file: Option<PathBuf>,
    rights: Option<Rights>,
}

/// A running agent with a data folder of its own.
#[derive(Debug)]
pub struct Agent {
    process: Option<Child>,
    folder: tempfile::TempDir,
    data: PathBuf,
    /// Sees to a shim beside it.
    beside: Option<Beside>,
}

/// The record of an agent that has ended, and the folder that holds it for as long as this lives.
#[derive(Debug)]
pub struct Finished {
    /// Every row.
    pub record: Record,
    /// The data folder.
    pub data: PathBuf,
    /// What the agent said.
    pub stderr: String,
    _folder: tempfile::TempDir,
}

/// What a killed agent left: its data folder, and its hooks in the kernel. Detaches them when it goes out of
/// scope, unless a later agent uses them.
#[derive(Debug)]
pub struct Killed {
    /// The data folder.
    pub data: PathBuf,
    /// What the agent said.
    pub stderr: String,
    _folder: tempfile::TempDir,
}

impl Finished {
    /// Compares the record with its seals, with the agent's own command; returns what it said.
    ///
    /// # Errors
    /// They differ: then with its words.
    pub fn verify(&self) -> anyhow::Result<String> {
        deps::run(Command::new(deps::agent()?).arg("verify").arg("--data-dir").arg(&self.data))
    }
}

impl Killed {
    /// A later agent runs and sees to what is left.
    pub fn adopted(mut self) {
        self.data = PathBuf::new();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if !self.data.as_os_str().is_empty() {
            let _ = detach(&self.data);
        }
    }
}

/// Removes what an agent of this data folder left in the kernel, with the agent's own command; returns what it said.
///
/// # Errors
/// The command fails: then with its words.
pub fn detach(data: &Path) -> anyhow::Result<String> {
    deps::run(Command::new(deps::agent()?).arg("detach").arg("--data-dir").arg(data))
}

impl AgentOptions {
    /// Captures this server, which runs.
    #[must_use]
    pub fn server(self, server: &Server) -> Self {
        let port = server.port();
        self.port(port)
    }

    /// Captures the server on this port, whether it runs already or starts later.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.servers.push(port.to_string());
        self
    }

    /// `--server` as written: `auto`, a port or a process id.
    #[must_use]
    pub fn selector(mut self, selector: &str) -> Self {
        self.servers.push(selector.to_owned());
        self
    }

    /// Starts this build of the agent.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// A line of the configuration file.
    #[must_use]
    pub fn config(mut self, line: &str) -> Self {
        self.config.push_str(line);
        self.config.push('\n');
        self
    }

    /// A data folder other than a fresh one of the agent's own.
    #[must_use]
    pub fn data(mut self, folder: &Path) -> Self {
        self.data = Some(folder.to_owned());
        self
    }

    /// How many servers the agent must find before it says that it captures.
    #[must_use]
    pub fn expecting(mut self, servers: usize) -> Self {
        self.expected = Some(servers);
        self
    }

    /// These hooks instead of those that `CAPTURE_HOOKS` names, or the cheapest that load.
    #[must_use]
    pub fn hooks(mut self, hooks: &str) -> Self {
        self.hooks = Some(hooks.to_owned());
        self
    }

    /// Reads encrypted sessions here instead of where it costs least.
    #[must_use]
    pub fn tls(mut self, source: &str) -> Self {
        self.tls = Some(source.to_owned());
        self
    }

    /// Writes its metrics to this file.
    #[must_use]
    pub fn metrics_file(mut self, path: &Path) -> Self {
        self.metrics_file = Some(path.to_owned());
        self
    }

    /// These rights instead of those that [`Rights::usual`] names.
    #[must_use]
    pub fn rights(mut self, rights: Rights) -> Self {
        self.rights = Some(rights);
        self
    }

    /// What the agent must say once it captures, if not how many servers.
    #[must_use]
    pub fn saying(mut self, words: &str) -> Self {
        self.saying = Some(words.to_owned());
        self
    }

    /// Starts the agent and waits until every hook is attached.
    ///
    /// # Errors
    /// It is not built, or it ends; then with its words.
    pub fn start(mut self) -> anyhow::Result<Agent> {
        deps::require_root()?;
        let folder = tempfile::Builder::new().prefix("capture-data-").tempdir()?;
        let data = self.data.clone().unwrap_or_else(|| folder.path().join("data"));
        let program = self.program.clone().map_or_else(deps::agent, Ok)?;
        let rights = self.rights.unwrap_or_else(Rights::usual);
        let beside = rights != Rights::Own && !self.config.contains(UNPINNED);
        if beside {
            self.config.push_str("[shim]\nstart = false\n");
        }
        let path = folder.path().join("capture.toml");
        if !self.config.is_empty() {
            fs::write(&path, &self.config)?;
        }
        let beside = beside.then(|| Beside::start(&program, &data, &path)).transpose()?;
        let mut command = match rights {
            Rights::Withheld if beside.is_some() => rights::as_unit(rights::AGENT, &program)?,
            _ => Command::new(program),
        };
        command.arg("run").arg("--data-dir").arg(&data);
        for server in &self.servers {
            command.args(["--server", server]);
        }
        if let Some(hooks) = self.hooks.clone().or_else(|| std::env::var("CAPTURE_HOOKS").ok()) {
            command.args(["--hooks", &hooks]);
        }
        if let Some(tls) = &self.tls {
            command.args(["--tls", tls]);
        }
        if let Some(path) = &self.metrics_file {
            command.arg("--metrics-file").arg(path);
        }
        if !self.config.is_empty() {
            command.arg("--config").arg(path);
        }
        let process = command
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.path().join("stdout"))?)
            .stderr(fs::File::create(folder.path().join("stderr"))?)
            .spawn()
            .context("cannot start the agent")?;
        let mut agent = Agent { process: Some(process), folder, data, beside };
        let expected = self.expected.unwrap_or(self.servers.len());
        agent.wait_for(&self.saying.unwrap_or_else(|| format!("capturing {expected} server")))?;
        Ok(agent)
    }
}

impl Agent {
    /// Starts an agent for one server.
    ///
    /// # Errors
    /// As [`AgentOptions::start`].
    pub fn start(server: &Server) -> anyhow::Result<Self> {
        AgentOptions::default().server(server).start()
    }

    /// Its data folder.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Its process id.
    ///
    /// # Errors
    /// It has ended.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.as_ref().map(Child::id).context("the agent has ended")
    }

    /// What it said on stderr so far.
    pub fn stderr(&self) -> String {
        let path = self.folder.path().join("stderr");
        fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Waits until the agent says `words` on stderr.
    ///
    /// # Errors
    /// It ends, or does not say so in time.
    pub fn wait_for(&mut self, words: &str) -> anyhow::Result<()> {
        let stderr = self.folder.path().join("stderr");
        let process = self.process.as_mut().context("the agent has ended")?;
        let said = wait::until(&format!("the agent to say {words:?}"), SPEECH, || {
            let text = fs::read_to_string(&stderr).unwrap_or_default();
            if text.contains(words) {
                return Ok(Some(()));
            }
            match process.try_wait()? {
                Some(status) => bail!("the agent ended ({status}):\n{text}"),
                None => Ok(None),
            }
        });
        said.with_context(|| self.stderr())
    }

    /// Gives it another configuration file, in one step as an editor or a package does.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn configure(&self, text: &str) -> anyhow::Result<()> {
        let new = self.folder.path().join("capture.toml.new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.folder.path().join("capture.toml"))?)
    }

    /// The most memory that it has held so far, in bytes (`VmHWM`).
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_memory(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()?))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1024)
    }

    /// Its programs and maps in the kernel.
    ///
    /// # Errors
    /// It has ended.
    pub fn kernel_side(&self) -> anyhow::Result<KernelSide> {
        KernelSide::of(self.pid()?)
    }

    /// Events that the kernel side has handed to user space so far.
    ///
    /// # Errors
    /// It has ended.
    pub fn kernel_events(&self) -> anyhow::Result<u64> {
        self.kernel_side()?.counter(counter::EVENTS)
    }

    /// Waits until the agent has found the ring empty for a while.
    ///
    /// # Errors
    /// That does not happen in time.
    pub fn wait_drained(&self) -> anyhow::Result<()> {
        let kernel = self.kernel_side()?;
        let mut looks = 0;
        wait::until("the agent to empty the ring", DRAIN, || {
            looks = if kernel.reader_sleeps()? { looks + 1 } else { 0 };
            Ok((looks == CALM).then_some(()))
        })
    }

    /// Stops it from running, as if it were starved of time (SIGSTOP), until [`Agent::resume`].
    ///
    /// # Errors
    /// It has ended.
    pub fn stall(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        let tasks = format!("/proc/{}/task", self.pid()?);
        // Each thread stops for itself, and one that writes to the disk may take long: the one that reads the ring counts,
        // if it has its name already.
        wait::until("the agent to stop", Duration::from_secs(5), || {
            let mut all = true;
            for task in fs::read_dir(&tasks)? {
                let stat = fs::read_to_string(task?.path().join("stat"))?;
                let stopped = stat.contains(") T ");
                if stopped && stat.contains("(capture)") {
                    return Ok(Some(()));
                }
                all &= stopped;
            }
            Ok(all.then_some(()))
        })
    }

    /// Lets it run again.
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Stops it by SIGTERM, expects exit code 0, and reads what it recorded.
    ///
    /// # Errors
    /// It exits otherwise or not at all, or the record cannot be read.
    pub fn stop(self) -> anyhow::Result<Finished> {
        self.signal(Signal::TERM)?;
        self.stopped()
    }

    /// Stops it like [`Agent::stop`], but leaves the record, which may be a large one, unread.
    ///
    /// # Errors
    /// It exits otherwise or not at all.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        self.expect_exit().map(drop)
    }

    /// Expects that it drains and exits with 0 by itself, and reads what it recorded.
    ///
    /// # Errors
    /// As [`Agent::stop`].
    pub fn stopped(mut self) -> anyhow::Result<Finished> {
        let stderr = self.expect_exit()?;
        let record = Record::read(&self.data).with_context(|| stderr.clone())?;
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        Ok(Finished { record, data: self.data.clone(), stderr, _folder: folder })
    }

    fn expect_exit(&mut self) -> anyhow::Result<String> {
        self.beside = None;
        let process = self.process.as_mut().context("the agent has ended")?;
        let status = wait::until("the agent to drain and exit", DRAIN, || Ok(process.try_wait()?));
        let stderr = self.stderr();
        let status = status.with_context(|| stderr.clone())?;
        self.process = None;
        ensure!(
            status.success(),
            "the agent exited with {:?} (signal {:?}) instead of 0:\n{stderr}",
            status.code(),
            status.signal()
        );
        Ok(stderr)
    }

    /// Kills it, as a crash would (SIGKILL). What it leaves in the kernel stays as long as what this returns.
    ///
    /// # Errors
    /// It has ended.
    pub fn kill(mut self) -> anyhow::Result<Killed> {
        self.beside = None;
        let mut process = self.process.take().context("the agent has ended")?;
        process.kill()?;
        process.wait()?;
        let stderr = self.stderr();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir()?);
        Ok(Killed { data: self.data.clone(), stderr, _folder: folder })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let process = self.process.as_ref().context("the agent has ended")?;
        Ok(kill_process(Pid::from_child(process), signal)?)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.beside = None;
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
            let _ = detach(&self.data);
        }
    }
}

/// Looks in a row that must find the reader asleep: just after a stall it may only not have woken yet.
const CALM: usize = 30;
const SPEECH: Duration = Duration::from_secs(30);
const DRAIN: Duration = Duration::from_secs(120);

/// A configuration line that makes the ring overflow soon.
pub const SMALL_RING: &str = "ring_size = 1048576";

/// A configuration line with which nothing is pinned; then no shim can serve the agent.
pub const UNPINNED: &str = "kernel = { pin_dir = '' }";

/// A configuration that finishes files every second.
pub const QUICK_ROTATION: &str = "rotate = { seconds = 1 }";
