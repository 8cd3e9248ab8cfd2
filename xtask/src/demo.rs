//! `cargo xtask demo`: records a short workload on a throwaway server and shows what was recorded.

use crate::agent::Agent;
use crate::postgres::Server;
use crate::{build, setup, shell, test};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Options of `cargo xtask demo`.
#[derive(Args)]
pub(crate) struct Options {
    /// Where the record goes; what an earlier demo left there is removed [default: demo, in cargo's target folder]
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

/// Sets up, records, shows.
pub(crate) fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let interrupted = catch_interrupts()?;
    println!("Getting ready");
    setup::ensure(setup::For::Demo)?;
    test::machine()?;
    let program = build::unoptimized_agent()?;
    let data_dir = match &options.data_dir {
        Some(folder) => folder.clone(),
        None => shell::target_dir()?.join("demo"),
    };
    clear(&data_dir)?;

    let server = shell::stage("starting a throwaway PostgreSQL server", || Server::start(&[]))?;
    let agent = shell::stage("starting the agent", || Agent::start(&program, &data_dir, server.port()))?;
    println!("\nRecording, from inside the kernel, what clients say to {}", server.version()?);
    shell::stage("psql as ana: a schema, a COPY, a transaction, a typo", || psql(&server))?;
    shell::stage("psycopg as billing and mcp_agent: 200 executions ...", || drivers(&server))?;
    shell::stage("stopping the agent: it writes what it has", || agent.stop())?;
    drop(server);
    ensure!(!interrupted.load(Ordering::Relaxed), "interrupted");

    show(&program, &data_dir)?;
    println!("\nThe demo took {}.", shell::human(began.elapsed()));
    Ok(())
}

/// Ctrl-C ends the programs that the demo runs, and so the demo, but by way of its guards: nothing is left running.
fn catch_interrupts() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
    }
    Ok(flag)
}

/// Removes an earlier record, and nothing that is none.
fn clear(data_dir: &Path) -> Result<()> {
    for table in TABLES {
        let folder = data_dir.join(table);
        if folder.is_dir() {
            fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))
}

fn psql(server: &Server) -> Result<()> {
    let mut prepare = server.psql("postgres", "postgres");
    for statement in [
        "CREATE ROLE ana LOGIN",
        "CREATE ROLE billing LOGIN",
        "CREATE ROLE mcp_agent LOGIN",
        "CREATE DATABASE shop OWNER ana",
    ] {
        prepare.args(["-c", statement]);
    }
    shell::read(&mut prepare)?;
    let mut psql = server.psql("ana", "shop");
    psql.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = psql.spawn().with_context(|| format!("cannot run {}", shell::show(&psql)))?;
    child.stdin.take().context("no pipe")?.write_all(SHOP.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "{} failed ({status})", shell::show(&psql));
    Ok(())
}

fn drivers(server: &Server) -> Result<()> {
    shell::read(Command::new(setup::python()).args(["-c", CLIENTS, &server.port().to_string()]))?;
    Ok(())
}

fn show(program: &Path, data_dir: &Path) -> Result<()> {
    title("The sessions", &shell::show(&Agent::reader(program, &["sessions"], data_dir)));
    shell::run(&mut Agent::reader(program, &["sessions"], data_dir))?;

    let session = session_of(program, data_dir, "mcp_agent")?;
    let arguments = ["show", &session, "--results"];
    title(
        "What the AI agent did, and what it saw",
        &shell::show(&Agent::reader(program, &arguments, data_dir)),
    );
    shell::run(&mut Agent::reader(program, &arguments, data_dir))?;

    println!("\nThe record is plain Parquet:\n");
    for file in parquet_files(data_dir)? {
        println!("  {}", file.display());
    }
    let query = QUERY.replace("DATA", &data_dir.display().to_string());
    let script = format!("import duckdb; duckdb.sql(\"\"\"{query}\"\"\").show(max_width=120)");
    title("Any query engine reads it. Who read customers, and what came back? In DuckDB:", &query);
    shell::run(Command::new(setup::python()).args(["-c", &script]))?;
    println!("Ask your own:\n\n  {} -c '{}'", setup::python().display(), script.replace('\n', " "));
    Ok(())
}

fn title(words: &str, command: &str) {
    println!("\n{words}\n");
    for line in command.trim().lines() {
        println!("  {line}");
    }
    println!();
}

/// The session of `user`, by the agent's own reader.
fn session_of(program: &Path, data_dir: &Path, user: &str) -> Result<String> {
    let text = shell::read(&mut Agent::reader(program, &["sessions", "--json", "--user", user], data_dir))?;
    session_id(&text)
        .with_context(|| format!("no session of {user} was recorded; `sessions --json` printed:\n{text}"))
}

/// The last part of the first session id in a JSON array or in lines of JSON objects.
fn session_id(text: &str) -> Option<String> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
    let first = values.next()?.ok()?;
    let row = if first.is_array() { first.get(0)? } else { &first };
    let id = row.get("session_id")?.as_str()?;
    // The end of an id names a session as well, and reads better.
    id.rsplit('-').next().map(str::to_owned)
}

fn parquet_files(data_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for table in TABLES {
        for day in fs::read_dir(data_dir.join(table)).into_iter().flatten() {
            for file in fs::read_dir(day?.path())? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "parquet") {
                    files.push(path);
                }
            }
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "the agent wrote no Parquet file under {}", data_dir.display());
    Ok(files)
}

const TABLES: [&str; 5] = ["sessions", "statements", "results", "gaps", "decisions"];

const SHOP: &str = include_str!("demo/shop.sql");
const CLIENTS: &str = include_str!("demo/clients.py");

const QUERY: &str = "SELECT pg_user, sql, list(r.values) AS came_back
FROM read_parquet($$DATA/statements/*/*.parquet$$) AS s
JOIN read_parquet($$DATA/results/*/*.parquet$$) AS r USING (session_id, seq)
WHERE list_contains(tables_read, $$customers$$)
GROUP BY ALL ORDER BY ALL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_in_an_array_and_in_lines() {
        assert_eq!(session_id("[{\"session_id\": \"1-a\"}, {\"session_id\": \"b\"}]").as_deref(), Some("a"));
        assert_eq!(session_id("{\"session_id\": \"a\"}\n{\"session_id\": \"b\"}").as_deref(), Some("a"));
        assert_eq!(session_id("[]"), None);
        assert_eq!(session_id(""), None);
    }
}
