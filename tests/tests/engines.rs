//! Open data: two engines that share no code read every table alike, and every query of the documentation runs.

use std::process::Command;

use tests::{AgentOptions, ServerOptions, capture_with, clients, deps};

#[test]
fn duckdb_and_pyarrow_read_every_table_alike_and_the_documented_queries_run() -> anyhow::Result<()> {
    // A small ring and a stall, so that there are gaps to read.
    let agent = AgentOptions::default().config(tests::agent::SMALL_RING);
    let captured = capture_with(ServerOptions::default(), agent, |server, agent| {
        clients::run(server, "psycopg_workload.py", &[])?;
        server.psql(&std::fs::read_to_string(deps::client("every_type.sql")?)?)?;
        clients::run(server, "receive_rows.py", &["asyncpg"])?;
        agent.stall()?;
        server.psql("select repeat('x', 10000) from generate_series(1, 1000)")?;
        agent.resume()
    })?;
    let schema = deps::crate_dir().join("../docs/schema.md");
    let mut engines: Command = clients::command("engines.py")?;
    let said = deps::run(engines.arg(&captured.finished.data).arg(schema))?;
    for table in ["sessions", "statements", "results", "gaps", "decisions"] {
        assert!(!said.contains(&format!("{table}: empty")), "nothing was read: {said}");
    }
    Ok(())
}
