//! What the agent takes while many sessions do nothing.

use super::Bench;
use super::figures::Idle;
use crate::agent::Agent;
use crate::postgres::Server;
use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Looks for some seconds.
pub(super) fn run(bench: &Bench, seconds: u64) -> Result<Idle> {
    let folder = tempfile::tempdir()?;
    let running = Agent::start(&bench.program, folder.path(), bench.server.port())?;
    thread::sleep(SETTLE);
    let without = running.usage()?;
    let sessions = Sessions::open(&bench.server, SESSIONS)?;
    thread::sleep(SETTLE);
    let before = running.usage()?;
    thread::sleep(Duration::from_secs(seconds));
    let used = running.usage()? - before;
    drop(sessions);
    // Asked to, it takes its hooks with it: what is measured next must not carry them.
    running.stop()?;
    Ok(Idle {
        sessions: SESSIONS,
        seconds,
        processor_percent: used.processor.as_secs_f64() * 100.0 / seconds as f64,
        peak_mib: used.peak_kib as f64 / 1_024.0,
        resident_mib: used.resident_kib as f64 / 1_024.0,
        without_mib: without.resident_kib as f64 / 1_024.0,
    })
}

/// Sessions that sleep, in one pgbench.
struct Sessions {
    pgbench: Child,
}

impl Sessions {
    fn open(server: &Server, count: u32) -> Result<Self> {
        let script = server.socket_dir().join("sleep");
        fs::write(&script, "\\sleep 3600 s\n")?;
        let pgbench = server.pgbench();
        // A descriptor for each, which the shell that started this may not have allowed.
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 4096 && exec \"$@\"", "sh"]).arg(pgbench.get_program());
        command.args(pgbench.get_args()).args([
            "-n",
            "-c",
            &count.to_string(),
            "-j",
            "1",
            "-T",
            "3600",
            "-f",
        ]);
        command.arg(script).arg("postgres").env("PGSSLMODE", "disable");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut sessions = Self { pgbench: child };
        let deadline = Instant::now() + START_TIME;
        while opened(server)? < count {
            if sessions.pgbench.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("pgbench does not open {count} sessions: {} are open", opened(server)?);
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(sessions)
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        drop(self.pgbench.kill());
        drop(self.pgbench.wait());
    }
}

fn opened(server: &Server) -> Result<u32> {
    let query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'";
    let text = shell::read(server.psql("postgres", "postgres").args(["-At", "-c", query]))?;
    text.trim().parse().with_context(|| format!("psql printed {text}"))
}

const SESSIONS: u32 = 1_000;
const START_TIME: Duration = Duration::from_secs(60);
/// Until what opening them left to do is done: files are written, states saved.
const SETTLE: Duration = Duration::from_secs(3);
