//! Metrics and health over HTTP, of a real agent: when all is well, when the disk is full, and when clients misbehave.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tests::server::free_port;
use tests::wire::Wire;
use tests::{AgentOptions, Server, wait};

fn ask(port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP")?;
    let code = head.split(' ').nth(1).context("no code")?.parse()?;
    Ok((code, body.to_owned()))
}

fn metrics(port: u16) -> anyhow::Result<BTreeMap<String, f64>> {
    let (code, text) = ask(port, "/metrics")?;
    ensure!(code == 200, "{text}");
    let values = text.lines().filter(|line| !line.starts_with('#'));
    values
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("no value")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

fn listening(port: u16) -> String {
    format!("[metrics]\nlisten = '127.0.0.1:{port}'\n")
}

#[test]
fn an_agent_that_captures_says_so_and_counts_what_it_does() -> anyhow::Result<()> {
    let port = free_port()?;
    let server = Server::start()?;
    let agent = AgentOptions::default().server(&server).config(&listening(port)).start()?;
    let ready = wait::until("the agent to be ready", Duration::from_secs(20), || {
        Ok(ask(port, "/readyz").ok().filter(|(code, _)| *code == 200))
    })?;
    ensure!(ready.1.contains(r#""status":"ready""#), "{}", ready.1);
    ensure!(ask(port, "/healthz")?.0 == 200);
    let before = metrics(port)?;
    let mut wire = Wire::login(&server, "counted")?;
    for _ in 0..10 {
        wire.query("select 1")?;
    }
    wire.query("selec")?;
    let grown = wait::until("the statements to be counted", Duration::from_secs(20), || {
        let now = metrics(port)?;
        let grown =
            |name: &str| now.get(name).copied().unwrap_or(-1.0) - before.get(name).copied().unwrap_or(0.0);
        let counted = grown("capture_recorded_statements_total{status=\"completed\"}") >= 10.0
            && grown("capture_recorded_statements_total{status=\"failed\"}") >= 1.0;
        Ok(counted.then_some(now))
    })?;
    for (name, least) in [
        ("capture_open_sessions", 1.0),
        ("capture_followed_servers", 1.0),
        ("capture_kernel_bytes_total", 100.0),
        ("capture_ring_size_bytes", 1_048_576.0),
        ("process_resident_memory_bytes", 1_048_576.0),
        ("process_cpu_seconds_total", 0.001),
    ] {
        ensure!(grown.get(name).is_some_and(|value| *value >= least), "{name}: {:?}", grown.get(name));
    }
    ensure!(grown["capture_commit_age_seconds"] < 5.0 && grown["capture_journal_off_ratio"] == 0.0);
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

/// Whoever talks to the agent slowly, much or in many connections delays neither capture nor others for long.
#[test]
fn clients_that_misbehave_do_no_harm() -> anyhow::Result<()> {
    let port = free_port()?;
    let server = Server::start()?;
    let agent = AgentOptions::default().server(&server).config(&listening(port)).start()?;
    let mut wire = Wire::login(&server, "undisturbed")?;
    wait::until("the agent to listen", Duration::from_secs(20), || Ok(ask(port, "/healthz").ok()))?;
    let mut silent = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        if n % 2 == 0 {
            // A head that never ends.
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
        }
        silent.push(stream);
    }
    for stream in &mut silent {
        stream.set_nonblocking(true)?;
        let _ = stream.write(&vec![b'x'; 1 << 16]);
    }
    for n in 0..100 {
        wire.query(&format!("select {n}"))?;
    }
    drop(silent);
    wait::until("an answer", Duration::from_secs(60), || Ok(ask(port, "/healthz").ok()))?;
    wire.terminate()?;
    server.wait_idle()?;
    let memory = agent.peak_memory()?;
    let record = agent.stop()?.record;
    let session = record.session_named("undisturbed")?;
    ensure!(record.statements_of(session).len() == 100 && record.gaps.is_empty(), "{:?}", record.gaps);
    ensure!(memory < 256 << 20, "{memory} bytes");
    record.check_totals()
}

#[test]
fn an_agent_whose_disk_is_full_is_alive_and_not_ready_until_there_is_room() -> anyhow::Result<()> {
    let port = free_port()?;
    let parent = tempfile::tempdir()?;
    let disk = Disk::mount(parent.path().join("disk"))?;
    let server = Server::start()?;
    let options = AgentOptions::default().config(tests::agent::QUICK_ROTATION).config(&listening(port));
    let mut agent = options.server(&server).data(&disk.0).start()?;
    let mut wire = Wire::login(&server, "full disk")?;
    for _ in 0..20 {
        wire.query("select md5(n::text) from generate_series(1, 1000) n")?;
        wait::pause(Duration::from_millis(50));
    }
    agent.wait_for("No space left on device")?;
    let refused = wait::until("the agent to be not ready", Duration::from_secs(20), || {
        Ok(Some(ask(port, "/readyz")?).filter(|(code, _)| *code == 503))
    })?;
    ensure!(
        refused.1.contains("docs/errors.md#") && refused.1.contains("cannot be written"),
        "{}",
        refused.1
    );
    ensure!(ask(port, "/healthz")?.0 == 200, "a supervisor must not restart it for that");
    disk.grow()?;
    wait::until("the agent to be ready again", Duration::from_secs(60), || {
        wire.query("select 1")?;
        Ok(Some(ask(port, "/readyz")?).filter(|(code, _)| *code == 200))
    })?;
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

#[test]
fn a_second_agent_captures_although_the_address_is_taken_and_gets_it_once_it_is_free() -> anyhow::Result<()> {
    let port = free_port()?;
    let server = Server::start()?;
    let start = || AgentOptions::default().server(&server).config(&listening(port)).start();
    let first = start()?;
    wait::until("the first to listen", Duration::from_secs(20), || Ok(ask(port, "/healthz").ok()))?;
    let mut second = start()?;
    second.wait_for("metrics and health are not served")?;
    server.psql("select 1")?;
    first.stop()?;
    second.wait_for("metrics and health are at")?;
    ensure!(ask(port, "/metrics")?.0 == 200);
    server.wait_idle()?;
    second.stop()?.record.check_totals()
}

/// A file system of half a mebibyte in memory.
struct Disk(std::path::PathBuf);

impl Disk {
    fn mount(folder: std::path::PathBuf) -> anyhow::Result<Self> {
        fs::create_dir(&folder)?;
        let size = CString::new("size=512k")?;
        mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))?;
        Ok(Self(folder))
    }

    fn grow(&self) -> anyhow::Result<()> {
        Ok(mount_remount(&self.0, MountFlags::empty(), c"size=256m")?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}
