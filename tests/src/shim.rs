//! The shims of the tests: those that an agent has started, and those that run beside one as a unit of their own.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{rights, wait};

/// A running shim.
#[derive(Clone, Copy, Debug)]
pub struct Shim(Pid);

/// The shim that serves this data folder.
///
/// # Errors
/// There is none.
pub fn of(data: &Path) -> anyhow::Result<Shim> {
    let processes = fs::read_dir("/proc")?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| serves(*pid, data))
        .and_then(Pid::from_raw)
        .map(Shim)
        .with_context(|| format!("no shim serves {}", data.display()))
}

impl Shim {
    /// Kills it, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(self) -> anyhow::Result<()> {
        kill_process(self.0, Signal::KILL)?;
        self.wait_gone()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It does not, in time.
    pub fn wait_gone(self) -> anyhow::Result<()> {
        wait::until("the shim to end", Duration::from_secs(10), || Ok(self.is_gone().then_some(())))
    }
}

impl Shim {
    /// Its process id.
    pub fn pid(self) -> u32 {
        self.0.as_raw_pid().unsigned_abs()
    }

    fn is_gone(self) -> bool {
        test_kill_process(self.0).is_err() || is_zombie(self.0)
    }
}

/// A supervisor, as systemd is one: there is a shim for a data folder, and another one soon when it has ended, for as long
/// as this lives. The last one ends by itself, or with the test's process.
#[derive(Debug)]
pub struct Beside {
    over: Arc<AtomicBool>,
}

impl Beside {
    /// Starts the shim, unless an earlier agent's still runs.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(program: &Path, data: &Path, config: &Path) -> anyhow::Result<Self> {
        let setpriv = rights::as_unit(rights::SHIM, program)?;
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .args(setpriv.get_args())
            .arg("shim")
            .arg("--data-dir")
            .arg(data);
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null());
        // Its words go where the test's go.
        command.env("CAPTURE_LOG", "warn");
        let mut runs = match of(data) {
            Ok(shim) => Runs::Before(shim),
            // By the thread that goes on for as long as the process.
            Err(_) => Runs::No,
        };
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        thread::Builder::new().name("supervisor".into()).spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                if runs.has_ended() {
                    runs = command.spawn().map_or(Runs::No, Runs::Child);
                }
                wait::pause(RESTART);
            }
            runs.wait();
        })?;
        Ok(Self { over })
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
    }
}

enum Runs {
    No,
    Before(Shim),
    Child(Child),
}

impl Runs {
    fn has_ended(&mut self) -> bool {
        match self {
            Self::No => true,
            Self::Before(shim) => shim.is_gone(),
            Self::Child(child) => child.try_wait().is_ok_and(|status| status.is_some()),
        }
    }

    /// Its parent outlives it.
    fn wait(self) {
        if let Self::Child(mut child) = self {
            let _ = child.wait();
        }
    }
}

/// How soon a shim that has ended is started again.
const RESTART: Duration = Duration::from_millis(200);

/// Whether the process was started as the shim of this data folder, which no other process names.
fn serves(pid: i32, data: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<_> = arguments.split(|byte| *byte == 0).collect();
    let data = data.as_os_str().as_encoded_bytes();
    arguments.get(1).is_some_and(|verb| *verb == b"shim") && arguments.contains(&data)
}

/// Whether it has ended and its parent has not asked for its status yet.
fn is_zombie(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}
