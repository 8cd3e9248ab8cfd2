//! Who waits for locks, of a real server.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use capture_agent::probes::{LockWaits, waiting_for_locks};

#[test]
fn a_session_that_waits_for_a_lock_is_seen_until_it_has_it() {
    let server = Server::start();
    let (mut holder, mut early, mut late) = (server.session(), server.session(), server.session());
    holder.run("create table t (n int); begin; lock table t;");
    early.send("select count(*) from t;");
    wait_until("the first wait", || waiting_for_locks(server.postmaster).len() == 1);
    // From here on the holder is what a guardrail holds.
    let mut waits = LockWaits::since_now(server.postmaster);
    assert!(waits.look().is_empty());
    late.send("insert into t values (1);");
    wait_until("the second wait", || waits.look().len() == 1);
    assert_eq!(waiting_for_locks(server.postmaster).len(), 2);
    holder.run("commit;");
    early.answer();
    late.answer();
    wait_until("the end of all waits", || waits.look().is_empty());
    // Who waited before and waits again is counted.
    holder.run("begin; lock table t;");
    early.send("select count(*) from t;");
    wait_until("the first one's next wait", || waits.look().len() == 1);
    holder.run("commit;");
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if is() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("{what} never came");
}

/// A server of its own, on a Unix socket only.
struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    process: Child,
    postmaster: u32,
}

impl Server {
    fn start() -> Self {
        let versions = std::fs::read_dir("/usr/lib/postgresql").expect("this test needs a PostgreSQL server");
        let programs = versions.map(|version| version.unwrap().path().join("bin")).max().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        if let Some((uid, gid)) = server_user() {
            chown(&data, Some(uid), Some(gid)).unwrap();
        }
        let made = as_server(&programs.join("initdb"), folder.path())
            .args(["--auth=trust", "--username=postgres", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let process = as_server(&programs.join("postgres"), folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(&data)
            .arg("-D")
            .arg(&data)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { folder, programs, process, postmaster: 0 };
        let ready = || {
            let mut psql = server.psql();
            psql.args(["-c", "select 1"]).stdout(Stdio::null()).stderr(Stdio::null());
            psql.status().unwrap().success()
        };
        wait_until("the server", ready);
        let pid_file = std::fs::read_to_string(server.folder.path().join("data/postmaster.pid")).unwrap();
        server.postmaster = pid_file.lines().next().unwrap().parse().unwrap();
        server
    }

    fn psql(&self) -> Command {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["-XqAt", "-U", "postgres", "-d", "postgres", "-h"]).arg(self.folder.path().join("data"));
        psql
    }

    fn session(&self) -> Session {
        let mut psql = self.psql().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(psql.stdout.take().unwrap());
        Session { psql, answers }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stop = as_server(&self.programs.join("pg_ctl"), self.folder.path())
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.folder.path().join("data"))
            .stdout(Stdio::null())
            .status();
        if !stop.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// A psql that answers each line.
struct Session {
    psql: Child,
    answers: BufReader<ChildStdout>,
}

impl Session {
    fn send(&mut self, sql: &str) {
        writeln!(self.psql.stdin.as_mut().unwrap(), "{sql}\n\\echo done").unwrap();
    }

    fn answer(&mut self) {
        let mut line = String::new();
        while line.trim() != "done" {
            line.clear();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "psql ended");
        }
    }

    fn run(&mut self, sql: &str) {
        self.send(sql);
        self.answer();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// A server does not run as root.
fn as_server(program: &Path, folder: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;

    let mut command = Command::new(program);
    command.current_dir(folder);
    if let Some((uid, gid)) = server_user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// The user that Debian makes for servers, if this process may become it.
fn server_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line =
        users.lines().find(|line| line.starts_with("postgres:")).expect("this test needs the user postgres");
    let fields: Vec<_> = line.split(':').collect();
    Some((fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}
