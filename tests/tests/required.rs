//! A required recording loses nothing: when the ring is full, the backend that outran the recorder waits.
#![expect(clippy::disallowed_types, reason = "how long a backend waits is what is tested")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tests::agent::{Finished, SMALL_RING};
use tests::record::Session;
use tests::wire::{Counted, Wire, frontend};
use tests::{Agent, AgentOptions, Server, ServerOptions, deps, shim, wait};

/// Eight sessions receive and send far more than the ring holds, while the agent is stalled again and again. Half of
/// them are required: they lose nothing. Of the others captured and declared bytes are what the kernel counted.
#[test]
fn required_sessions_lose_nothing_and_the_others_nothing_silently() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql("create role optional superuser login")?;
    let rule = "[[record]]\nmatch = 'session.user == \"postgres\"'\nrequired = true\ntimeout = '60s'";
    let agent = options(&server).config(rule).start()?;
    let over = AtomicBool::new(false);
    let passed = thread::scope(|scope| {
        let stalls = scope.spawn(|| stall_again_and_again(&agent, &over));
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let user = if client % 2 == 0 { "postgres" } else { "optional" };
                let server = &server;
                scope.spawn(move || outrun(server, user).map(|passed| (user, passed)))
            })
            .collect();
        let passed: anyhow::Result<Vec<_>> = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .collect();
        over.store(true, Ordering::Release);
        stalls.join().map_err(|_| anyhow::anyhow!("the stalls panicked"))??;
        passed
    })?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let record = &finished.record;
    record.check_totals()?;
    let mut overflowed = 0;
    for (user, (port, counted)) in passed {
        let session = record.session_from_port(port)?;
        closes(session, counted)?;
        if user == "optional" {
            overflowed += session.gap_bytes;
            continue;
        }
        lost_nothing(&finished, session)?;
        let statements = record.statements_of(session);
        ensure!(statements.len() == 2 * ROUNDS, "{} statements of {session:?}", statements.len());
        for statement in statements {
            ensure!(statement.complete && statement.status == "completed", "{statement}");
        }
    }
    ensure!(overflowed > 0, "the ring never overflowed: this proved nothing");
    Ok(())
}

/// The same over TLS and a Unix socket, on which the bytes lie elsewhere in the backend.
#[test]
fn encrypted_and_local_sessions_lose_nothing_either() -> anyhow::Result<()> {
    let server = ServerOptions::default().tls().start()?;
    let agent = options(&server).config(REQUIRED).start()?;
    let over = AtomicBool::new(false);
    let sql = "select repeat('x', 1000) from generate_series(1, 9000)";
    thread::scope(|scope| {
        let stalls = scope.spawn(|| stall_again_and_again(&agent, &over));
        let clients = ["require", "disable", "unix"].map(|way| {
            let server = &server;
            scope.spawn(move || {
                let mut psql = server.program("psql")?;
                psql.args(["-X", "-q", "-o", "/dev/null", "-v", "ON_ERROR_STOP=1"]).env("PGAPPNAME", way);
                match way {
                    "unix" => psql.arg("-h").arg(server.socket_folder()),
                    mode => psql.env("PGSSLMODE", mode),
                };
                deps::run(psql.args(["-c", sql].repeat(ROUNDS))).map(drop)
            })
        });
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        over.store(true, Ordering::Release);
        stalls.join().map_err(|_| anyhow::anyhow!("the stalls panicked"))?
    })?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    for way in ["require", "disable", "unix"] {
        let session = finished.record.session_named(way)?;
        lost_nothing(&finished, session)?;
        ensure!(session.tls == (way == "require"), "{session:?}");
        let statements = finished.record.statements_of(session);
        ensure!(statements.len() == ROUNDS, "{} statements of {session:?}", statements.len());
        for statement in statements {
            ensure!(statement.complete && statement.rows == Some(9_000), "{statement}");
        }
    }
    Ok(())
}

/// Nobody reads for longer than the deadline: the session goes on, and what is missing is declared; or it ends.
#[test]
fn when_the_agent_is_dead_the_rule_decides_at_the_deadline() -> anyhow::Result<()> {
    for (on_failure, ends) in [("open", false), ("closed", true)] {
        let server = Server::start()?;
        let data = tempfile::tempdir()?;
        let rule = format!("[[record]]\nrequired = true\ntimeout = '2s'\non_failure = '{on_failure}'");
        let start = || options(&server).config(&rule).data(data.path()).start();
        let agent = start()?;
        let mut wire = Wire::login(&server, "outruns")?;
        wire.query("select 'before'")?;
        let left = agent.kill()?;
        let began = Instant::now();
        let outcome = fill(&mut wire);
        let took = began.elapsed();
        ensure!(took >= Duration::from_millis(1_800), "it did not wait: {took:?}");
        ensure!(took < Duration::from_secs(10), "it waited too long: {took:?}");
        ensure!(outcome.is_err() == ends, "{on_failure}: {outcome:?}");
        let (port, counted) = if ends { (wire.port()?, None) } else { (wire.port()?, Some(leave(wire)?.1)) };
        // The server is none the worse for it.
        let agent = start()?;
        left.adopted();
        ensure!(server.psql("select 'after'")?.trim() == "after", "the server is gone");
        server.wait_idle()?;
        let record = agent.stop()?.record;
        let session = record.session_from_port(port.context("no port")?)?;
        ensure!(session.gap_bytes > 0, "the ring did not overflow: {session:?}");
        if let Some(counted) = counted {
            closes(session, counted)?;
        }
        record.statement_with("'after'")?;
    }
    Ok(())
}

/// An agent that was starved past the deadline, while the shim let the session go on, declares what nobody read: while it
/// runs, or at the latest when it is stopped.
#[test]
fn an_agent_that_wakes_after_the_deadline_declares_what_it_missed() -> anyhow::Result<()> {
    for stopped_at_once in [false, true] {
        let server = Server::start()?;
        let rule = "[[record]]\nrequired = true\ntimeout = '2s'\non_failure = 'open'";
        let agent = options(&server).config(rule).start()?;
        let mut wire = Wire::login(&server, "outruns")?;
        wire.query("select 'before'")?;
        agent.stall()?;
        let began = Instant::now();
        fill(&mut wire)?;
        ensure!(began.elapsed() >= Duration::from_millis(1_800), "it did not wait: {:?}", began.elapsed());
        let finished = if stopped_at_once {
            let (port, counted) = (wire.port()?.unwrap_or_default(), wire.counted()?);
            agent.resume()?;
            (agent.stop()?, port, counted)
        } else {
            agent.resume()?;
            agent.wait_drained()?;
            wire.query("select 'after'")?;
            let (port, counted) = leave(wire)?;
            server.wait_idle()?;
            (agent.stop()?, port, counted)
        };
        let (Finished { record, .. }, port, counted) = &finished;
        let session = record.session_from_port(*port)?;
        ensure!(session.gap_bytes > 0, "nothing was lost: this proved nothing");
        closes(session, *counted)?;
        let declared: u64 = record.gaps_of(session).iter().filter_map(|gap| gap.length).sum();
        ensure!(declared == session.gap_bytes, "{declared} bytes in `gaps`: {session:?}");
        ensure!(stopped_at_once || record.statement_with("'after'")?.complete);
    }
    Ok(())
}

/// The next agent comes before the deadline: it reads from the stopped backend what the ring had no room for.
#[test]
fn the_next_agent_reads_what_waits() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || options(&server).config(REQUIRED).data(data.path()).start();
    let agent = start()?;
    let mut wire = Wire::login(&server, "outruns")?;
    wire.query("select 'before'")?;
    let left = agent.kill()?;
    let (wire, agent) = thread::scope(|scope| {
        let client = scope.spawn(move || fill(&mut wire).map(|()| wire));
        wait::pause(Duration::from_millis(700));
        ensure!(!client.is_finished(), "nothing was held");
        let agent = start()?;
        left.adopted();
        Ok((client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??, agent))
    })?;
    let (port, counted) = leave(wire)?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let session = finished.record.session_from_port(port)?;
    closes(session, counted)?;
    lost_nothing(&finished, session)?;
    Ok(())
}

/// With neither agent nor shim nobody would continue a backend: none is stopped.
#[test]
fn without_anybody_alive_nothing_is_stopped() -> anyhow::Result<()> {
    for (on_failure, ends) in [("open", false), ("closed", true)] {
        let server = Server::start()?;
        let data = tempfile::tempdir()?;
        let rule = format!("[[record]]\nrequired = true\ntimeout = '60s'\non_failure = '{on_failure}'");
        let agent = options(&server).config(&rule).data(data.path()).start()?;
        let mut wire = Wire::login(&server, "alone")?;
        let shim = shim::of(data.path())?;
        let left = agent.kill()?;
        shim.kill()?;
        wait::pause(Duration::from_nanos(capture_common::STALE_NS) + Duration::from_millis(100));
        let began = Instant::now();
        let outcome = fill(&mut wire);
        ensure!(began.elapsed() < Duration::from_secs(5), "it waited for nobody: {:?}", began.elapsed());
        ensure!(outcome.is_err() == ends, "{on_failure}: {outcome:?}");
        ensure!(server.psql("select 'after'")?.trim() == "after", "the server is gone");
        drop(left);
    }
    Ok(())
}

/// Agent and shim die while a backend is stopped. Whoever is started first sweeps the table.
#[test]
fn who_is_started_first_continues_what_both_left_stopped() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || options(&server).config(REQUIRED).data(data.path()).start();
    let agent = start()?;
    let mut wire = Wire::login(&server, "outruns")?;
    let shim = shim::of(data.path())?;
    agent.stall()?;
    let (wire, agent) = thread::scope(|scope| {
        let client = scope.spawn(move || fill(&mut wire).map(|()| wire));
        wait::pause(Duration::from_millis(700));
        ensure!(!client.is_finished(), "nothing was held");
        shim.kill()?;
        let left = agent.kill()?;
        let agent = start()?;
        left.adopted();
        Ok((client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??, agent))
    })?;
    let (port, counted) = leave(wire)?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_from_port(port)?;
    closes(session, counted)?;
    ensure!(session.gap_bytes == 0, "{session:?}");
    Ok(())
}

/// A stopped backend does not outlive the hooks: stopping the agent, or detaching what a dead one left, lets it go.
#[test]
fn nothing_stays_stopped_when_the_hooks_go() -> anyhow::Result<()> {
    for dead in [false, true] {
        let server = Server::start()?;
        let data = tempfile::tempdir()?;
        let rule = "[[record]]\nrequired = true\ntimeout = '30s'\non_failure = 'open'";
        let agent = options(&server).config(rule).data(data.path()).start()?;
        let mut wire = Wire::login(&server, "outruns")?;
        agent.stall()?;
        thread::scope(|scope| {
            let client = scope.spawn(move || fill(&mut wire).map(|()| wire));
            wait::pause(Duration::from_millis(700));
            ensure!(!client.is_finished(), "nothing was held");
            if dead {
                let left = agent.kill()?;
                let said = tests::agent::detach(data.path())?;
                ensure!(said.contains("detached"), "{said}");
                drop(left);
            } else {
                agent.resume()?;
                let record = agent.stop()?.record;
                let session = record.session_named("outruns")?;
                ensure!(session.gap_bytes == 0, "{session:?}");
            }
            client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
            Ok(())
        })?;
    }
    Ok(())
}

fn lost_nothing(finished: &Finished, session: &Session) -> anyhow::Result<()> {
    let gaps = finished.record.gaps_of(session);
    ensure!(
        gaps.is_empty() && session.gap_bytes == 0 && !session.partial,
        "lost: {gaps:?} of {session:?}\n{}",
        finished.stderr
    );
    Ok(())
}

/// A hundred megabytes of results, and statements that are longer than the ring.
fn outrun(server: &Server, user: &str) -> anyhow::Result<(u16, Counted)> {
    let mut wire = Wire::tcp(server)?;
    wire.start(&[("user", user), ("database", "postgres")])?;
    for round in 0..ROUNDS {
        wire.query(&format!("select repeat('{round}', 1000) from generate_series(1, 33000)"))?;
        wire.query(&format!("select length('{}')", "y".repeat(1_500_000)))?;
    }
    leave(wire)
}

/// More than the ring holds.
fn fill(wire: &mut Wire) -> anyhow::Result<()> {
    for _ in 0..4 {
        wire.query("select repeat('x', 500000)")?;
    }
    wire.query("select 'still here'")?;
    Ok(())
}

fn stall_again_and_again(agent: &Agent, over: &AtomicBool) -> anyhow::Result<()> {
    while !over.load(Ordering::Acquire) {
        agent.stall()?;
        wait::pause(Duration::from_millis(300));
        agent.resume()?;
        wait::pause(Duration::from_millis(200));
    }
    Ok(())
}

fn leave(mut wire: Wire) -> anyhow::Result<(u16, Counted)> {
    let port = wire.port()?.unwrap_or_default();
    let counted = wire.counted()?;
    let before = wire.sent;
    wire.send(&frontend::message(b'X', &[]))?;
    wire.close()?;
    Ok((port, Counted { sent: counted.sent + wire.sent - before, ..counted }))
}

fn closes(session: &Session, counted: Counted) -> anyhow::Result<()> {
    let accounted = session.bytes_in + session.bytes_out + session.gap_bytes;
    let passed = counted.sent + counted.received;
    ensure!(accounted == passed, "{accounted} bytes accounted for, {passed} passed: {session:?}");
    Ok(())
}

fn options(server: &Server) -> AgentOptions {
    AgentOptions::default().server(server).config(SMALL_RING)
}

const REQUIRED: &str = "[[record]]\nrequired = true\ntimeout = '30s'";
const ROUNDS: usize = 3;
