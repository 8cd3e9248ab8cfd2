//! The agent comes to a server at work: sessions that are open, and in the middle of whatever they do.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tests::{AgentOptions, Server, ServerOptions, Transport, clients, deps, oracle, wait};

tests::on_every_server!(fifty_open_sessions_that_are_at_work);

/// Every Execute after the attach is a row, none with a wrong text: over TCP, over the Unix socket and over TLS.
fn fifty_open_sessions_that_are_at_work(options: ServerOptions) -> anyhow::Result<()> {
    let transports = Transport::ALL;
    let server = options.tls().setting("max_connections", "100").start()?;
    deps::run(server.program("pgbench")?.args(["-i", "-q"]))?;
    server.psql("create table lines (line text)")?;
    server.wait_idle()?;
    let benches = transports.map(|transport| Bench::start(&server, transport));
    let mut drivers = Drivers::start(&server, transports)?;
    let opened = BENCH_CLIENTS * benches.len() + drivers.sessions;
    assert!(opened >= 50, "only {opened} sessions");
    let history = "select count(*) from pgbench_history";
    wait::until("pgbench to be at work", wait::SOON, || {
        let done: usize = server.psql(history)?.trim().parse()?;
        Ok((server.sessions()?.len() >= opened && done > opened).then_some(()))
    })?;

    // Room for the rest of the COPYs, which the server sends as fast as it can.
    let agent = AgentOptions::default().server(&server).config("ring_size = 134217728").start()?;
    server.psql("select 'the agent captures'")?;
    let done: usize = server.psql(history)?.trim().parse()?;
    drivers.attached()?;
    wait::until("pgbench to go on", wait::SOON, || {
        Ok((server.psql(history)?.trim().parse::<usize>()? > done + 50).then_some(()))
    })?;
    drivers.end()?;
    benches.into_iter().try_for_each(|bench| bench?.end())?;
    server.wait_idle()?;

    let record = agent.stop()?.record;
    record.check_totals()?;
    let log = server.stop()?;
    let tail = oracle::compare_tail(&log, &record, "the agent captures")?;
    // A client of pgbench may have had no turn since.
    assert!(tail.open >= 50, "{tail:?}");
    assert!(tail.executed > 1_000 && tail.unknown > 300, "the workload did less than it should: {tail:?}");
    let late =
        record.statements.iter().filter(|row| row.sql.as_deref() == Some("select $1::text, 'prepared late'"));
    assert_eq!(late.count(), transports.len() * (5 * 20 + 3 * 5));
    Ok(())
}

/// pgbench at work: TPC-B, prepared, some transactions a second.
struct Bench {
    process: Child,
}

impl Bench {
    fn start(server: &Server, transport: Transport) -> anyhow::Result<Self> {
        let mut pgbench = transport.program(server, "pgbench")?;
        let clients = BENCH_CLIENTS.to_string();
        pgbench.args(["-n", "-M", "prepared", "-R", "40", "-T", "600", "-c", &clients]);
        let process = pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { process })
    }

    /// SIGALRM is how pgbench itself learns that the time of `-T` is over: each client finishes what it does.
    fn end(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.process), Signal::ALARM)?;
        let status = wait::until("pgbench to end", wait::SOON, || Ok(self.process.try_wait()?))?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The sessions of `clients/open_sessions.py`.
struct Drivers {
    process: Child,
    stdin: Option<ChildStdin>,
    sessions: usize,
}

impl Drivers {
    fn start(server: &Server, transports: [Transport; 3]) -> anyhow::Result<Self> {
        let mut command = clients::command("open_sessions.py")?;
        server.point(&mut command);
        for transport in transports {
            let host = match transport {
                Transport::Unix => server.socket_folder().display().to_string(),
                Transport::Tcp | Transport::Tls => "127.0.0.1".to_owned(),
            };
            let sslmode = if transport == Transport::Tls { "require" } else { "disable" };
            command.arg(format!("host={host} sslmode={sslmode}"));
        }
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut said = String::new();
        BufReader::new(process.stdout.take().context("no stdout")?).read_line(&mut said)?;
        let stdin = process.stdin.take();
        let sessions = said.trim().parse().with_context(|| format!("open_sessions.py said {said:?}"))?;
        Ok(Self { process, stdin, sessions })
    }

    fn attached(&mut self) -> anyhow::Result<()> {
        let mut stdin = self.stdin.take().context("told already")?;
        Ok(stdin.write_all(b"attached\n")?)
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let status = wait::until("the drivers to end", wait::SOON, || Ok(self.process.try_wait()?))?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    }
}

impl Drop for Drivers {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Over each transport.
const BENCH_CLIENTS: usize = 6;
