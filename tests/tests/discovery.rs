//! Which servers and sessions are found, and when.

use tests::server::free_port;
use tests::wire::{Wire, frontend};
use tests::{Agent, AgentOptions, Server, ServerOptions, capture, oracle};

#[test]
fn a_server_that_starts_after_the_agent_is_recorded_from_its_first_session() -> anyhow::Result<()> {
    let port = free_port()?;
    let agent = AgentOptions::default().port(port).expecting(0).start()?;
    let server = ServerOptions::default().port(port).start()?;
    // At once, without waiting for anything.
    server.psql("select 'first'")?;
    server.psql("select 'second'")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    oracle::compare(&server.stop()?, &finished.record)?;
    assert!(finished.record.sessions.iter().all(|session| !session.partial));
    Ok(())
}

#[test]
fn clients_that_knock_before_the_server_is_up_are_recorded() -> anyhow::Result<()> {
    let port = free_port()?;
    let agent = AgentOptions::default().port(port).expecting(0).start()?;
    let knocking = std::thread::spawn(move || {
        tests::wait::until("the first connection", std::time::Duration::from_secs(20), || {
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok())
        })
    });
    let server = ServerOptions::default().port(port).start()?;
    let first = knocking.join().map_err(|_| anyhow::anyhow!("the knocking thread panicked"))??;
    let first_port = first.local_addr()?.port();
    drop(first);
    server.psql("select 1")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    finished.record.session_from_port(first_port)?;
    oracle::compare(&server.stop()?, &finished.record)?;
    Ok(())
}

#[test]
fn a_restarted_server_is_found_again() -> anyhow::Result<()> {
    let mut server = Server::start()?;
    let agent = Agent::start(&server)?;
    for round in 0..3 {
        server.psql(&format!("select 'round {round}'"))?;
        server.restart()?;
    }
    server.psql("select 'last'")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let compared = oracle::compare(&server.stop()?, &finished.record)?;
    assert_eq!(compared.executed, 4);
    Ok(())
}

#[test]
fn two_servers_are_recorded_at_once() -> anyhow::Result<()> {
    let (one, two) = (Server::start()?, Server::start()?);
    let agent = AgentOptions::default().server(&one).server(&two).start()?;
    one.psql("select 'one'")?;
    two.psql("select 'two'")?;
    one.wait_idle()?;
    two.wait_idle()?;
    let record = agent.stop()?.record;
    assert_eq!(record.sessions.len(), 2);
    record.statement_with("'one'")?;
    record.statement_with("'two'")?;
    Ok(())
}

#[test]
fn auto_finds_every_server() -> anyhow::Result<()> {
    let one = Server::start()?;
    // Other tests run servers as well: how many there are is not known.
    let agent = AgentOptions::default().selector("auto").saying("capturing ").start()?;
    let two = Server::start()?;
    one.psql("select 'auto one'")?;
    two.psql("select 'auto two'")?;
    one.wait_idle()?;
    two.wait_idle()?;
    let record = agent.stop()?.record;
    record.statement_with("'auto one'")?;
    record.statement_with("'auto two'")?;
    Ok(())
}

#[test]
fn a_server_is_named_by_its_process_id() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = AgentOptions::default().selector(&format!("pid:{}", server.pid()?)).start()?;
    server.psql("select 'by pid'")?;
    server.wait_idle()?;
    agent.stop()?.record.statement_with("'by pid'")?;
    Ok(())
}

#[test]
fn a_session_that_was_open_before_the_agent_is_partial_and_otherwise_right() -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut tcp = Wire::login(&server, "early")?;
    let mut unix = Wire::unix(&server)?;
    unix.start(&[("user", "postgres"), ("database", "template1"), ("application_name", "early unix")])?;
    for wire in [&mut tcp, &mut unix] {
        wire.query("select 'before the agent'")?;
        wire.send(&frontend::parse("early", "select $1::text, 'prepared early'", &[25]))?;
        wire.send(&frontend::message(b'S', &[]))?;
        wire.until_ready()?;
    }
    let agent = Agent::start(&server)?;
    for wire in [&mut tcp, &mut unix] {
        for number in 0..10 {
            wire.query(&format!("select 'later {number}'"))?;
            wire.send(&execute("early", &format!("value {number}")))?;
            wire.until_ready()?;
        }
    }
    let port = tcp.port()?.unwrap_or_default();
    let pids = [&tcp, &unix].map(|wire| wire.key.as_ref().map_or(0, |(pid, _)| *pid));
    tcp.terminate()?;
    unix.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    for (pid, database, transport) in [(pids[0], "postgres", "tcp"), (pids[1], "template1", "unix")] {
        let session = record.session_of_backend(pid)?;
        assert!(session.partial);
        assert_eq!(session.pg_user.as_deref(), Some("postgres"));
        assert_eq!(session.database.as_deref(), Some(database));
        assert_eq!(session.transport, transport);
        assert_eq!(session.end_reason.as_deref(), Some("terminate"));
        // Both sessions were idle when the agent came, so that also their first statement is there, whole.
        assert_eq!(session.gap_bytes, 0, "{session:?}");
        let statements = record.statements_of(session);
        assert_eq!(statements.len(), 20);
        for (number, pair) in statements.chunks_exact(2).enumerate() {
            assert_eq!(pair[0].sql.as_deref(), Some(format!("select 'later {number}'").as_str()));
            assert_eq!(record.rows_of(pair[0]), [[Some(format!("later {number}"))]]);
            // Its text was sent before the record begins: unknown, never some other text.
            assert_eq!(pair[1].sql, None, "{}", pair[1]);
            assert_eq!(pair[1].statement_name.as_deref(), Some("early"));
            let param = pair[1].params.iter().flatten().next().and_then(|param| param.value.clone());
            assert_eq!(param, Some(format!("value {number}")));
            assert_eq!(record.rows_of(pair[1]).len(), 1);
            for statement in pair {
                assert_eq!(
                    (statement.status.as_str(), statement.complete),
                    ("completed", true),
                    "{statement}"
                );
            }
        }
    }
    assert_eq!(record.session_of_backend(pids[0])?.client_port, Some(port));
    Ok(())
}

/// The agent arrives in the middle of a reply, at whatever byte: nothing false comes of it.
#[test]
fn an_agent_that_arrives_in_the_middle_of_a_reply_waits_for_firm_ground() -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut wire = Wire::login(&server, "midway")?;
    wire.send(&frontend::query("select repeat('Z', 1000) from generate_series(1, 200000)"))?;
    wire.discard(1 << 20)?;
    let agent = Agent::start(&server)?;
    wire.until_ready()?;
    wire.query("select 'on firm ground'")?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_of_backend(wire.key.as_ref().map_or(0, |(pid, _)| *pid))?;
    assert!(session.partial);
    for statement in record.statements_of(session) {
        let sql = statement.sql.as_deref();
        assert!(matches!(sql, None | Some("select 'on firm ground'")), "never sent: {statement}");
    }
    record.statement_with("on firm ground")?;
    Ok(())
}

#[test]
fn local_clients_are_named() -> anyhow::Result<()> {
    let captured = capture(|server, _| {
        let mut wire = Wire::unix(server)?;
        wire.start(&[("user", "postgres")])?;
        wire.terminate()
    })?;
    let session = captured.record().sessions.first().ok_or_else(|| anyhow::anyhow!("no session"))?;
    assert_eq!(session.peer_pid, Some(std::process::id()));
    let own = std::env::current_exe()?.canonicalize()?;
    assert_eq!(session.peer_exe.as_deref(), own.to_str());
    Ok(())
}

#[test]
fn many_short_sessions_are_all_found() -> anyhow::Result<()> {
    let captured = capture(|server, _| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4).map(|_| scope.spawn(|| short_sessions(server))).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("a client panicked"))
        })
    })?;
    let compared = captured.compare()?;
    assert_eq!((compared.sessions, compared.executed), (200, 200));
    Ok(())
}

/// The server accepts, cannot fork, and closes. Its next child is a worker of another session.
#[test]
fn a_connection_for_which_the_server_cannot_fork_is_no_session() -> anyhow::Result<()> {
    let captured = capture(|server, _| {
        let mut wire = Wire::login(server, "has workers")?;
        let usual = limit_processes(server, &["--output=SOFT", "--noheadings", "--nproc"])?;
        limit_processes(server, &["--nproc=1:"])?;
        let refused = server.psql("select 'no process for this'");
        limit_processes(server, &[&format!("--nproc={}:", usual.trim())])?;
        anyhow::ensure!(refused.is_err(), "the server forked beyond its limit");
        wire.query("set force_parallel_mode = on")?;
        wire.query("explain analyze select count(*) from pg_class")?;
        wire.terminate()
    })?;
    let logged = |part: &str| captured.log.entries.iter().any(|entry| entry.message.contains(part));
    assert!(logged("could not fork new process for connection"), "the server did not try");
    let record = captured.record();
    let plan = record.rows_of(record.statement_with("explain analyze")?);
    let mut lines = plan.iter().flat_map(|row| row.iter().flatten());
    assert!(lines.any(|line| line.contains("Workers Launched: 1")), "{plan:?}");
    assert_eq!(record.sessions.len(), 1, "{:?}", record.sessions);
    captured.compare()?;
    Ok(())
}

/// Reads or sets how many processes the server's account may have before its postmaster can fork no more. As that account:
/// a container's root may not do it for others.
fn limit_processes(server: &Server, arguments: &[&str]) -> anyhow::Result<String> {
    let mut prlimit = std::process::Command::new("setpriv");
    prlimit.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "prlimit"]);
    tests::deps::run(prlimit.args(["--pid", &server.pid()?.to_string()]).args(arguments))
}

fn short_sessions(server: &Server) -> anyhow::Result<()> {
    for _ in 0..50 {
        let mut wire = Wire::login(server, "short")?;
        wire.query("select 1")?;
        wire.terminate()?;
    }
    Ok(())
}

fn execute(statement: &str, value: &str) -> Vec<u8> {
    let mut bytes = frontend::bind("", statement, &[], &[Some(value.as_bytes().to_vec())], &[]);
    bytes.extend(frontend::execute("", 0));
    bytes.extend(frontend::message(b'S', &[]));
    bytes
}
