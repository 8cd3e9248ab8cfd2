//! An agent without CAP_SYS_PTRACE, and the shim that looks at servers in its place: as much is recorded, and nothing is handed
//! out that is not meant to be.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use tests::record::Session;
use tests::tls::TlsClient;
use tests::wire::Wire;
use tests::{AgentOptions, Rights, Server, ServerOptions, deps, rights, shim, wait};

#[test]
fn no_thread_of_an_agent_beside_a_shim_may_trace() -> anyhow::Result<()> {
    let server = Server::start()?;
    for rights in [Rights::Own, Rights::Withheld, Rights::GivenUp] {
        let agent = AgentOptions::default().server(&server).rights(rights).start()?;
        let has = rights == Rights::Own;
        for task in fs::read_dir(format!("/proc/{}/task", agent.pid()?))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
                ensure!(may_trace(&status, set)? == has, "{rights:?}, {set}\n{status}");
            }
            ensure!(!may_trace(&status, "CapInh:")?, "{rights:?}\n{status}");
        }
        if !has {
            let shim = shim::of(agent.data())?;
            let status = fs::read_to_string(format!("/proc/{}/status", shim.pid()))?;
            ensure!(may_trace(&status, "CapEff:")?, "the shim has it");
        }
        server.psql("select 1")?;
        server.wait_idle()?;
        ensure!(agent.stop()?.record.statement_with("select 1").is_ok(), "{rights:?}: nothing is recorded");
    }
    Ok(())
}

/// Everything that takes the right to look: sessions that were open, their peers, and TLS by way of the server's code and of
/// its library.
#[test]
fn as_much_is_found_through_the_shim_as_by_the_agents_own_rights() -> anyhow::Result<()> {
    for tls in ["server", "library"] {
        let mut found = Vec::new();
        for rights in [Rights::Own, Rights::Withheld] {
            let server = ServerOptions::default().tls().start()?;
            let mut open = [("tcp", Wire::tcp(&server)?), ("unix", Wire::unix(&server)?)];
            for (name, wire) in &mut open {
                wire.start(&[("user", "postgres"), ("application_name", name)])?;
                wire.query("select 'before'")?;
            }
            let agent = AgentOptions::default().server(&server).tls(tls).rights(rights).start()?;
            ensure!(agent.stderr().contains("capturing 1 server"), "{}", agent.stderr());
            for (name, wire) in &mut open {
                wire.query(&format!("select '{name}'"))?;
            }
            let mut encrypted = TlsClient::connect(&server, &[])?;
            encrypted.query("select 'encrypted'")?;
            drop((open, encrypted));
            server.wait_idle()?;
            let finished = agent.stop()?;
            let record = &finished.record;
            let mut sessions = Vec::new();
            for text in ["select 'tcp'", "select 'unix'", "select 'encrypted'"] {
                let said = || format!("{rights:?}, {tls}: {}", finished.stderr);
                let statement = record.statement_with(text).with_context(said)?;
                ensure!(statement.complete, "{statement}\n{}", said());
                let session = record
                    .sessions
                    .iter()
                    .find(|session| session.session_id == statement.session_id)
                    .context("no session")?;
                sessions.push(facts(session));
            }
            found.push(sessions);
        }
        ensure!(found[0] == found[1], "{tls}: {found:#?}");
        let own = std::env::current_exe()?.canonicalize()?.display().to_string();
        ensure!(found[0][1].contains(&own), "the local client has a name: {found:#?}");
    }
    Ok(())
}

/// The shim dies, a server starts, and the next shim comes: nothing of the server's sessions is missing.
#[test]
fn a_server_that_starts_while_no_shim_runs_is_followed_as_soon_as_one_does() -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut agent =
        AgentOptions::default().selector("auto").saying("capturing").rights(Rights::Withheld).start()?;
    shim::of(agent.data())?.kill()?;
    let later = Server::start()?;
    agent.wait_for(&format!("pid={}", later.pid()?))?;
    later.psql("select 'after the shim'")?;
    server.psql("select 'of the other'")?;
    later.wait_idle()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    ensure!(record.statement_with("'after the shim'")?.complete);
    ensure!(record.statement_with("'of the other'")?.complete);
    Ok(())
}

#[test]
fn without_a_shim_an_agent_that_may_not_look_says_so() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("capture.toml");
    fs::write(&config, format!("[shim]\nstart = false\nruntime_dir = '{}'\n", folder.path().display()))?;
    let output = Command::new(deps::agent()?)
        .args(["run", "--data-dir"])
        .arg(folder.path().join("data"))
        .arg("--config")
        .arg(&config)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("CAP_SYS_PTRACE") && said.contains("docs/errors.md#no-eyes"), "{said}");
    Ok(())
}

#[test]
fn doctor_says_who_looks() -> anyhow::Result<()> {
    let server = Server::start()?;
    let lone = Lone::start()?;
    let doctor = |config: &Path| {
        let mut doctor = rights::as_unit(rights::AGENT, &deps::agent()?)?;
        doctor.arg("doctor").arg("--config").arg(config).arg("--data-dir").arg(&lone.data);
        anyhow::Ok(String::from_utf8(doctor.args(["--server", &server.port().to_string()]).output()?.stdout)?)
    };
    let said = doctor(&lone.config)?;
    ensure!(said.contains("the shim looks at servers") && said.contains("is ready"), "{said}");
    ensure!(said.contains(&format!("pid {}", server.pid()?)), "{said}");
    let other = lone.folder.path().join("other.toml");
    fs::write(&other, "shim.runtime_dir = '/nowhere'\n")?;
    let said = doctor(&other)?;
    ensure!(
        said.contains("CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH missing") && said.contains("is not ready"),
        "{said}"
    );
    Ok(())
}

/// What whoever has taken the agent over could ask of the shim, and does not get.
#[test]
fn the_shim_opens_files_of_servers_only_and_none_that_is_memory() -> anyhow::Result<()> {
    let server = Server::start()?;
    let lone = Lone::start()?;
    let postmaster = server.pid()?;
    let maps = fs::read_to_string(format!("/proc/{postmaster}/maps"))?;
    for (code, meaning) in (17..=26).zip(0..) {
        let (error, _) = lone.ask(code, postmaster, range(&maps, "/bin/postgres")?)?.context("closed")?;
        let about_sockets = matches!(code, 19..=21);
        ensure!(error == 0 || about_sockets, "question {code} of a server: error {error} ({meaning})");
    }
    // A stranger: this very process. Its executable's name is all that is told.
    let stranger = std::process::id();
    let own = fs::read_to_string("/proc/self/maps")?;
    let this = std::env::current_exe()?.canonicalize()?.display().to_string();
    for code in 18..=26 {
        let (error, bytes) = lone.ask(code, stranger, range(&own, &this)?)?.context("closed")?;
        ensure!(error != 0 && bytes.is_empty(), "question {code} of a stranger is answered");
    }
    let (error, name) = lone.ask(17, stranger, (0, 0))?.context("closed")?;
    ensure!(error == 0 && name == this.as_bytes(), "{name:?}");
    let (_, servers) = lone.ask(16, 0, (0, 0))?.context("closed")?;
    let servers: Vec<u64> =
        servers.chunks_exact(8).map(|pid| u64::from_le_bytes(pid.try_into().unwrap())).collect();
    ensure!(servers.contains(&postmaster.into()) && !servers.contains(&stranger.into()), "{servers:?}");
    // Shared buffers are mapped from a file too.
    let shared =
        maps.lines().find(|line| line.contains("/dev/zero") && line.contains("rw-s")).context("none")?;
    let (error, _) = lone.ask(26, postmaster, parse_range(shared)?)?.context("closed")?;
    ensure!(error != 0, "shared memory was handed out");
    // No other question, and none with anything beside it.
    for code in [0, 6, 15, 27, u32::MAX] {
        ensure!(lone.ask(code, postmaster, (0, 0))?.is_none(), "question {code} is answered");
    }
    ensure!(lone.ask(23, postmaster, (1, 0))?.is_none(), "a number too many");
    Ok(())
}

/// A shim without an agent.
struct Lone {
    folder: tempfile::TempDir,
    config: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    process: Child,
}

impl Lone {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (config, data) = (folder.path().join("capture.toml"), folder.path().join("data"));
        let sockets = folder.path().join("sockets");
        fs::write(&config, format!("shim = {{ start = false, runtime_dir = '{}' }}\n", sockets.display()))?;
        let mut command = Command::new(deps::agent()?);
        command.arg("shim").arg("--config").arg(&config).arg("--data-dir").arg(&data);
        let process = command.stderr(Stdio::null()).spawn()?;
        let mut lone = Self { folder, config, data, socket: PathBuf::new(), process };
        lone.socket = wait::until("the shim to listen", wait::SOON, || {
            let folders = fs::read_dir(&sockets).into_iter().flatten().flatten();
            Ok(folders
                .map(|folder| folder.path().join("shim"))
                .find(|path| UnixStream::connect(path).is_ok()))
        })?;
        Ok(lone)
    }

    /// Error number and bytes of the answer; none if the shim has closed the connection.
    fn ask(
        &self,
        code: u32,
        pid: u32,
        (first, second): (u64, u64),
    ) -> anyhow::Result<Option<(i32, Vec<u8>)>> {
        let mut request = [code.to_le_bytes(), pid.to_le_bytes()].concat();
        let numbers = match code {
            26 => [first, second],
            // No descriptor has this number.
            19 | 20 => [1 << 20, 0],
            _ if first < 2 => [first, second],
            _ => [0, 0],
        };
        request.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        request.extend([0; 8]);
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(&request)?;
        let mut header = [0; 8];
        if stream.read_exact(&mut header).is_err() {
            return Ok(None);
        }
        let [a, b, c, d, e, f, g, h] = header;
        let mut bytes = vec![0; u32::from_le_bytes([e, f, g, h]) as usize];
        stream.read_exact(&mut bytes)?;
        Ok(Some((i32::from_le_bytes([a, b, c, d]), bytes)))
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn may_trace(status: &str, set: &str) -> anyhow::Result<bool> {
    const CAP_SYS_PTRACE: u32 = 19;
    let line = status.lines().find_map(|line| line.strip_prefix(set)).context("no such set")?;
    Ok(u64::from_str_radix(line.trim(), 16)? & (1 << CAP_SYS_PTRACE) != 0)
}

/// What is known of a session from outside, and is the same in both rounds.
fn facts(session: &Session) -> String {
    let Session { transport, tls, partial, pg_user, peer_exe, gap_bytes, .. } = session;
    format!("{transport:?} {tls:?} {partial:?} {pg_user:?} {peer_exe:?} {gap_bytes}")
}

fn range(maps: &str, name: &str) -> anyhow::Result<(u64, u64)> {
    parse_range(maps.lines().find(|line| line.ends_with(name)).context("no such mapping")?)
}

fn parse_range(line: &str) -> anyhow::Result<(u64, u64)> {
    let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).context("no range")?;
    Ok((u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?))
}
