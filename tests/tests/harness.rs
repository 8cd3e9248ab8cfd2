//! The harness itself: the judges must be right before they judge.

use tests::oracle::{Said, sessions};
use tests::wire::Wire;
use tests::{Server, ServerOptions, clients, deps, script};

#[test]
fn the_log_tells_every_statement_of_every_session() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql("select 1; select 'it''s'")?;
    assert!(server.psql("select 1/0").is_err());
    let out = clients::run(&server, "psycopg_workload.py", &[])?;
    assert!(out.contains("done"), "{out}");
    server.wait_idle()?;
    let sessions = sessions(&server.stop()?);
    assert_eq!(sessions[0].executed[0].said, Said::Query("select 1; select 'it''s'".into()));
    assert_eq!(sessions[1].executed[0].error, Some(("22012".into(), "division by zero".into())));
    assert!(sessions.iter().flat_map(|session| &session.executed).any(|executed| {
        matches!(executed.said, Said::Execute { .. })
            && executed.params.as_ref().is_some_and(|params| params.contains(&Some("it's, a 'test'".into())))
    }));
    Ok(())
}

#[test]
fn the_client_programs_run_without_the_agent() -> anyhow::Result<()> {
    let server = Server::start()?;
    for program in ["asyncpg_workload.py", "node_workload.js"] {
        assert!(clients::run(&server, program, &[])?.contains("done"));
    }
    let sql = std::fs::read_to_string(deps::client("every_type.sql")?)?;
    server.psql(&sql)?;
    for way in [
        "asyncpg",
        "psycopg-text",
        "psycopg-binary",
        "copy-text",
        "copy-csv",
        "copy-csv-options",
        "copy-binary",
    ] {
        clients::run(&server, "receive_rows.py", &[way])?;
    }
    Ok(())
}

/// The server logs a duration for each thing that it executed without an error: the oracle knows all of them.
#[test]
fn the_oracle_knows_every_statement_that_the_server_timed() -> anyhow::Result<()> {
    let server = Server::start()?;
    for program in ["psycopg_workload.py", "asyncpg_workload.py", "node_workload.js"] {
        clients::run(&server, program, &[])?;
    }
    deps::run(server.program("psql")?.args(["-X", "-q", "-f"]).arg(deps::client("objects.sql")?))?;
    deps::run(&mut server.program("pg_dump")?)?;
    for mode in ["simple", "extended", "prepared"] {
        deps::run(server.program("pgbench")?.args(["-i", "-q"]))?;
        deps::run(server.program("pgbench")?.args(["-n", "-M", mode, "-t", "20"]))?;
    }
    server.wait_idle()?;
    let log = server.stop()?;
    let timed = log
        .entries
        .iter()
        .filter(|entry| entry.message.starts_with("duration: ") && entry.message.ends_with(" ms"))
        .count();
    let sessions = sessions(&log);
    let executed = sessions.iter().flat_map(|session| &session.executed);
    assert_eq!(executed.filter(|executed| executed.error.is_none()).count(), timed);
    assert!(timed > 1_000, "the workload did less than it should: {timed}");
    Ok(())
}

#[test]
fn the_kernel_counts_what_the_raw_client_counts() -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut wire = Wire::login(&server, "counting")?;
    wire.query("select repeat('x', 100000)")?;
    let counted = wire.counted()?;
    assert_eq!((counted.sent, counted.received), (wire.sent, wire.received));
    wire.terminate()
}

#[test]
fn the_golden_scripts_say_what_the_server_says() -> anyhow::Result<()> {
    let server = golden_server()?;
    let mut wrong = Vec::new();
    for script in script::all(server.version())? {
        if let Err(error) = script::run(&script, &server) {
            wrong.push(format!("{error:#}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn golden_server() -> anyhow::Result<Server> {
    let server = ServerOptions::default().setting("wal_level", "logical").start()?;
    server.psql(script::ROLES)?;
    Ok(server)
}
