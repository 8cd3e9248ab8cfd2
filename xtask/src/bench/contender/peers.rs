//! Other ways to know what clients did.

use super::super::Bench;
use super::super::round::{Round, Via};
use super::super::work::Work;
use super::process::Process;
use super::{Kept, Running};
use crate::postgres::{self, Account};
use crate::usage::Usage;
use anyhow::{Context as _, Result};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The server itself, which may log.
pub(super) struct Server {
    via: Via,
    /// Its log, and how long that was before.
    log: Option<(PathBuf, u64)>,
}

impl Server {
    pub(super) fn direct(server: &postgres::Server) -> Self {
        Self { via: Via { port: server.port(), options: "" }, log: None }
    }

    pub(super) fn that_logs(server: &postgres::Server, options: &'static str) -> Result<Self> {
        let log = server.log();
        let length = fs::metadata(&log)?.len();
        Ok(Self { via: Via { port: server.port(), options }, log: Some((log, length)) })
    }
}

impl Running for Server {
    fn via(&self) -> Via {
        self.via.clone()
    }

    fn usage(&self) -> Result<Option<Usage>> {
        Ok(None)
    }

    fn end(self: Box<Self>, _work: &Work, _round: &Round) -> Result<Kept> {
        let grown = |(log, before): (PathBuf, u64)| -> Result<u64> { Ok(fs::metadata(log)?.len() - before) };
        Ok(Kept { bytes: self.log.map(grown).transpose()?, lost: None })
    }
}

/// A program beside the server.
pub(super) struct Beside {
    process: Process,
    folder: TempDir,
    via: Via,
    /// What it writes into its folder, and the words behind the number of what it lost.
    written: &'static str,
    lost: Option<&'static str>,
}

impl Beside {
    /// A pool that gives each client a session of its own.
    pub(super) fn pgbouncer(bench: &Bench) -> Result<Self> {
        let account = Account::find()?;
        let folder = account.folder("capture-bench-")?;
        let port = postgres::free_port()?;
        let users = folder.path().join("users");
        fs::write(&users, "\"postgres\" \"\"\n")?;
        let ini = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = session\ndefault_pool_size = 100\n\
             max_client_conn = 1000\nlog_connections = 0\nlog_disconnections = 0\n",
            bench.server.port(),
            users.display()
        );
        fs::write(&ini, settings)?;
        let mut command = account.command(Path::new("/usr/sbin/pgbouncer"));
        let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        let process = Process::start(command.arg(&ini), &folder.path().join("said"), ready)?;
        Ok(Self { process, folder, via: Via { port, options: "" }, written: "", lost: None })
    }

    pub(super) fn tcpdump(bench: &Bench) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-bench-").tempdir()?;
        let said = folder.path().join("said");
        let mut command = Command::new("tcpdump");
        command.args(["-i", "lo", "-s", "0", "-Z", "root", "-w"]).arg(folder.path().join("packets"));
        command.args(["tcp", "port", &bench.server.port().to_string()]);
        let process = Process::start(&mut command, &said, || holds(&said, "listening on"))?;
        let lost = Some("packets dropped by kernel");
        Ok(Self {
            process,
            folder,
            via: Via { port: bench.server.port(), options: "" },
            written: "packets",
            lost,
        })
    }

    pub(super) fn bpftrace(bench: &Bench) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-bench-").tempdir()?;
        let printed = folder.path().join("printed");
        let script = SCRIPT.replace("POSTMASTER", &bench.server.pid().to_string());
        let mut command = Command::new("bpftrace");
        // As much of each call as it can print.
        command.env("BPFTRACE_STRLEN", "200").arg("-o").arg(&printed).args(["-e", &script]);
        // It says nothing before its first buffer is full.
        let began = Instant::now();
        let attached = || began.elapsed() > ATTACH_TIME;
        let process = Process::start(&mut command, &folder.path().join("said"), attached)?;
        Ok(Self {
            process,
            folder,
            via: Via { port: bench.server.port(), options: "" },
            written: "printed",
            lost: Some("events"),
        })
    }
}

impl Running for Beside {
    fn via(&self) -> Via {
        self.via.clone()
    }

    fn usage(&self) -> Result<Option<Usage>> {
        self.process.usage().map(Some)
    }

    fn end(self: Box<Self>, _work: &Work, _round: &Round) -> Result<Kept> {
        let Self { process, folder, written, lost, .. } = *self;
        process.end()?;
        if written.is_empty() {
            return Ok(Kept::default());
        }
        let bytes = Some(fs::metadata(folder.path().join(written)).context("it wrote nothing")?.len());
        let said = fs::read_to_string(folder.path().join("said"))?;
        Ok(Kept { bytes, lost: lost.map(|what| lost_of(&said, what)) })
    }
}

/// The sum of the numbers before `what`, as in `Lost 12 events`.
fn lost_of(said: &str, what: &str) -> i64 {
    let before =
        |line: &str| line.split_once(&format!(" {what}"))?.0.split(' ').next_back()?.parse::<i64>().ok();
    said.lines().filter_map(before).sum()
}

fn holds(file: &Path, what: &str) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.contains(what))
}

const ATTACH_TIME: Duration = Duration::from_secs(3);

/// What the postmaster's children receive and send. Only they are looked at.
const SCRIPT: &str = r#"
tracepoint:syscalls:sys_enter_recvfrom /((struct task_struct *)curtask)->real_parent->tgid == POSTMASTER/ {
    @to[tid] = args->ubuf;
}
tracepoint:syscalls:sys_exit_recvfrom /@to[tid]/ {
    if (args->ret > 0) { printf("%llu %d < %r\n", nsecs, pid, buf(@to[tid], args->ret)); }
    delete(@to[tid]);
}
tracepoint:syscalls:sys_enter_sendto /((struct task_struct *)curtask)->real_parent->tgid == POSTMASTER/ {
    printf("%llu %d > %r\n", nsecs, pid, buf(args->buff, args->len));
}
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_lost_is_in_what_it_says() {
        assert_eq!(lost_of("Attaching\nLost 12 events\nLost 3 events\n", "events"), 15);
        assert_eq!(
            lost_of("4 packets captured\n7 packets dropped by kernel\n", "packets dropped by kernel"),
            7
        );
    }
}
