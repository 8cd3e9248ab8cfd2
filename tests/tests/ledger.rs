//! The ledger closes: for every session, the bytes recorded and the bytes declared as lost are together the bytes
//! that the kernel counted on the client's own socket.

use std::collections::HashSet;

use tests::record::Session;
use tests::wire::{Counted, Wire, frontend};
use tests::{Agent, AgentOptions, Record, Server, ServerOptions, capture_on, capture_with, on_every_server};

on_every_server!(
    every_byte_of_a_session_is_accounted_for,
    one_call_of_many_megabytes_is_accounted_for,
    bytes_over_a_unix_socket_are_accounted_for,
    a_stalled_agent_loses_nothing_silently,
    sessions_that_pass_while_the_agent_is_stalled_are_declared,
);

fn every_byte_of_a_session_is_accounted_for(options: ServerOptions) -> anyhow::Result<()> {
    let mut counted = Vec::new();
    let captured = capture_on(options, |server, _| {
        for rounds in [0, 1, 40] {
            let mut wire = Wire::login(server, "ledger")?;
            for round in 0..rounds {
                work(&mut wire, round)?;
            }
            counted.push(leave(wire)?);
        }
        Ok(())
    })?;
    for (port, counted) in counted {
        let session = captured.record().session_from_port(port)?;
        closes(session, counted)?;
        assert_eq!(session.gap_bytes, 0, "{session:?}");
    }
    captured.compare()?;
    Ok(())
}

fn one_call_of_many_megabytes_is_accounted_for(options: ServerOptions) -> anyhow::Result<()> {
    let mut counted = Vec::new();
    let captured = capture_on(options, |server, _| {
        let mut wire = Wire::login(server, "large")?;
        wire.query("select repeat('x', 40000000)")?;
        wire.query(&format!("select length('{}')", "y".repeat(20_000_000)))?;
        counted.push(leave(wire)?);
        Ok(())
    })?;
    for (port, counted) in counted {
        closes(captured.record().session_from_port(port)?, counted)?;
    }
    captured.compare()?;
    Ok(())
}

fn bytes_over_a_unix_socket_are_accounted_for(options: ServerOptions) -> anyhow::Result<()> {
    let mut passed = (0, 0, 0);
    let captured = capture_on(options, |server, _| {
        let mut wire = Wire::unix(server)?;
        wire.start(&[("user", "postgres")])?;
        for round in 0..10 {
            work(&mut wire, round)?;
        }
        wire.terminate()?;
        passed = (wire.key.as_ref().map_or(0, |(pid, _)| *pid), wire.sent, wire.received);
        Ok(())
    })?;
    let (backend, sent, received) = passed;
    let session = captured.record().session_of_backend(backend)?;
    assert_eq!(session.transport, "unix");
    closes(session, Counted { sent, received })
}

fn a_stalled_agent_loses_nothing_silently(options: ServerOptions) -> anyhow::Result<()> {
    let mut sessions = Vec::new();
    let captured = capture_with(options, small_ring(), |server, agent| {
        sessions = overflow(server, agent)?;
        Ok(())
    })?;
    let record = captured.record();
    for stalled in &sessions {
        let session = record.session_from_port(stalled.port)?;
        closes(session, stalled.counted)?;
        assert!(session.gap_bytes > 0, "the ring did not overflow: {session:?}");
        no_false_statement(record, session, &stalled.sent)?;
        back_in_step(record, session)?;
    }
    record.check_totals()
}

/// Half of the sessions are lost whole: they begin and end while the agent is stalled.
fn sessions_that_pass_while_the_agent_is_stalled_are_declared(options: ServerOptions) -> anyhow::Result<()> {
    let mut passed = Vec::new();
    let captured = capture_with(options, small_ring(), |server, agent| {
        agent.stall()?;
        for _ in 0..8 {
            let mut wire = Wire::login(server, "passing")?;
            wire.query("select repeat('x', 400000)")?;
            passed.push(leave(wire)?);
        }
        server.wait_idle()?;
        agent.resume()
    })?;
    for (port, counted) in passed {
        closes(captured.record().session_from_port(port)?, counted)?;
    }
    captured.record().check_totals()
}

/// What a client did around a stall.
struct Stalled {
    port: u16,
    counted: Counted,
    sent: HashSet<String>,
}

/// Four sessions, each with small and large replies and pipelines, before, while and after the agent is stalled.
fn overflow(server: &Server, agent: &Agent) -> anyhow::Result<Vec<Stalled>> {
    let mut clients = Vec::new();
    for client in 0..4 {
        clients.push((Wire::login(server, &format!("stalled {client}"))?, HashSet::new()));
    }
    for phase in ["before", "during", "after"] {
        if phase == "during" {
            agent.stall()?;
        }
        for round in 0..30 {
            for (client, (wire, sent)) in clients.iter_mut().enumerate() {
                let length = if phase == "during" { 40_000 } else { 100 };
                let sql = format!("select '{phase} {client} {round}', repeat('select 1;', {length})");
                wire.query(&sql)?;
                sent.insert(sql);
                let sql = format!("select $1::text, 'pipelined {phase} {client} {round}'");
                pipeline(wire, &sql, 20)?;
                sent.insert(sql);
            }
        }
        if phase == "during" {
            agent.resume()?;
            // What comes after must find room again.
            agent.wait_drained()?;
        }
    }
    clients
        .into_iter()
        .map(|(wire, sent)| leave(wire).map(|(port, counted)| Stalled { port, counted, sent }))
        .collect()
}

fn pipeline(wire: &mut Wire, sql: &str, executes: usize) -> anyhow::Result<()> {
    let mut bytes = frontend::parse("p", sql, &[]);
    for number in 0..executes {
        bytes.extend(frontend::bind("", "p", &[], &[Some(format!("parameter {number}").into_bytes())], &[]));
        bytes.extend(frontend::execute("", 0));
    }
    bytes.extend(frontend::target(b'C', b'S', "p"));
    bytes.extend(frontend::message(b'S', &[]));
    wire.send(&bytes)?;
    wire.until_ready()?;
    Ok(())
}

fn work(wire: &mut Wire, round: usize) -> anyhow::Result<()> {
    wire.query("select 1")?;
    wire.query(&format!("select repeat('x', {})", 1 << (round % 20)))?;
    wire.query("select 1/0")?;
    wire.query("selec")?;
    pipeline(wire, "select $1::text", round)
}

/// Ends a session; yields its port and what the kernel counted, Terminate included.
fn leave(mut wire: Wire) -> anyhow::Result<(u16, Counted)> {
    let port = wire.port()?.unwrap_or_default();
    let counted = wire.counted()?;
    let before = wire.sent;
    wire.terminate()?;
    Ok((port, Counted { sent: counted.sent + wire.sent - before, ..counted }))
}

fn closes(session: &Session, counted: Counted) -> anyhow::Result<()> {
    let accounted = session.bytes_in + session.bytes_out + session.gap_bytes;
    let passed = counted.sent + counted.received;
    anyhow::ensure!(accounted == passed, "{accounted} bytes accounted for, {passed} passed: {session:?}");
    anyhow::ensure!(
        session.gap_bytes > 0 || session.bytes_in == counted.sent,
        "bytes_in: {session:?}, {counted:?}"
    );
    Ok(())
}

/// Whatever is recorded with a text was sent with that text, and what is called complete is.
fn no_false_statement(record: &Record, session: &Session, sent: &HashSet<String>) -> anyhow::Result<()> {
    for statement in record.statements_of(session) {
        if let Some(sql) = &statement.sql {
            anyhow::ensure!(sent.contains(sql), "never sent: {statement}");
        }
        for param in statement.params.iter().flatten() {
            let value = param.value.as_deref().unwrap_or_default();
            anyhow::ensure!(value.starts_with("parameter "), "never sent: {statement}");
        }
        if statement.complete {
            anyhow::ensure!(statement.status == "completed", "complete, but {statement}");
            anyhow::ensure!(statement.rows == Some(1), "complete, but {statement}");
        }
        for row in record.rows_of(statement) {
            anyhow::ensure!(row.len() == 2, "a row of another shape: {row:?} of {statement}");
        }
    }
    Ok(())
}

/// The last thirty rounds came after the ring had room again: every one of their statements is there, whole.
fn back_in_step(record: &Record, session: &Session) -> anyhow::Result<()> {
    let after = |part: &str| {
        record
            .statements_of(session)
            .into_iter()
            .filter(|statement| {
                statement.complete && statement.sql.as_deref().is_some_and(|sql| sql.contains(part))
            })
            .count()
    };
    let (simple, pipelined) = (after("select 'after "), after("'pipelined after "));
    // The first round may still be the one that the stream gets back in step with.
    anyhow::ensure!(
        simple >= 29 && pipelined >= 29 * 20,
        "{simple} and {pipelined} statements after the gap"
    );
    Ok(())
}

fn small_ring() -> AgentOptions {
    AgentOptions::default().config(tests::agent::SMALL_RING)
}
