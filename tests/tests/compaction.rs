//! Compaction: many small files become few, each row stays once, and every engine and our own commands read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tests::agent::{AgentOptions, QUICK_ROTATION};
use tests::server::Server;
use tests::wire::Wire;
use tests::{Record, clients, deps, oracle, wait};

/// A file every second, and four of them become one.
const EAGER: &str = "[compaction]\nfiles = 4\n";

#[test]
fn small_files_are_merged_while_sessions_are_recorded_and_read() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent =
        AgentOptions::default().server(&server).config(&format!("{QUICK_ROTATION}\n{EAGER}")).start()?;
    // Engines read all the time: they must never meet a file that is not whole.
    let mut reader = clients::command("read_forever.py")?
        .arg(agent.data())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut wires =
        (0..3).map(|n| Wire::login(&server, &format!("merged {n}"))).collect::<Result<Vec<_>, _>>()?;
    for round in 0..14 {
        for wire in &mut wires {
            wire.query(&format!("select {round}, n from generate_series(1, 20) n"))?;
        }
        wait::pause(Duration::from_millis(1_100));
    }
    wait::until("files to be merged", PATIENCE, || Ok((merged(agent.data())? >= 3).then_some(())))?;
    wires.iter_mut().try_for_each(Wire::terminate)?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    drop(reader.stdin.take());
    let output = reader.wait_with_output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = parquet_files(&finished.data.join("results"))?.len();
    ensure!(files < 12, "{files} files of results are left");
    finished.verify()?;
    // Against the server's own log: each statement and each row, once.
    let session = finished.record.session_named("merged 1")?.session_id.clone();
    oracle::compare(&server.stop()?, &finished.record)?;

    // No gap was declared here, so no query that reads gaps.
    let text = fs::read_to_string(deps::crate_dir().join("../docs/schema.md"))?;
    let mut blocks = text.split("```sql\n");
    let mut queries = blocks.next().unwrap_or_default().to_owned();
    for block in blocks {
        let reads_gaps = block.split("```").next().is_some_and(|query| query.contains("DATA/gaps"));
        queries.push_str(if reads_gaps { "```\n" } else { "```sql\n" });
        queries.push_str(block);
    }
    let folder = tempfile::tempdir()?;
    let document = folder.path().join("schema.md");
    fs::write(&document, queries)?;
    clients::command("engines.py")
        .and_then(|mut engines| deps::run(engines.arg(&finished.data).arg(&document)))?;
    let mut shown = Command::new(deps::agent()?);
    let shown = deps::run(shown.args(["show", &session, "--json", "--data-dir"]).arg(&finished.data))?;
    let seqs: Vec<u64> = shown
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?["seq"].as_u64())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    ensure!(seqs == (0..14).collect::<Vec<_>>(), "{seqs:?}\n{shown}");
    Ok(())
}

#[test]
fn agents_that_are_killed_while_they_merge_leave_each_row_once() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || {
        let config = format!("{QUICK_ROTATION}\n{EAGER}");
        AgentOptions::default().server(&server).data(data.path()).config(&config).start()
    };
    let mut agent = start()?;
    let mut executed = 0;
    for round in 0..6 {
        let mut wire = Wire::login(&server, "killed")?;
        for n in 0..7 {
            wire.query(&format!("select 'round {round}', {n}, pg_sleep(0.9)"))?;
            executed += 1;
        }
        wire.terminate()?;
        agent.kill()?.adopted();
        agent = start()?;
    }
    wait::until("files to be merged", PATIENCE, || Ok((merged(data.path())? > 0).then_some(())))?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let found = finished
        .record
        .statements
        .iter()
        .filter(|row| row.sql.as_deref().is_some_and(|sql| sql.contains("'round")));
    let found = found.count();
    ensure!(found == executed, "{found} statements of {executed}");
    finished.verify()?;
    ensure!(Record::read(data.path())?.sessions.len() >= 6);
    Ok(())
}

#[test]
fn a_configuration_without_compaction_merges_nothing() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = AgentOptions::default().server(&server).config(QUICK_ROTATION).start()?;
    for round in 0..6 {
        let mut wire = Wire::login(&server, "apart")?;
        wire.query(&format!("select {round}"))?;
        wire.terminate()?;
        wait::pause(Duration::from_millis(1_200));
    }
    wait::pause(Duration::from_secs(6));
    ensure!(merged(agent.data())? == 0);
    agent.stop()?.verify()?;
    Ok(())
}

/// Merges that the chain tells of.
fn merged(data: &Path) -> anyhow::Result<usize> {
    let mut found = 0;
    for entry in fs::read_dir(data.join("seals"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            found += text.matches("\"kind\":\"merged\"").count();
        }
    }
    Ok(found)
}

fn parquet_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for day in fs::read_dir(folder)? {
        for file in fs::read_dir(day?.path())? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "parquet") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The record is looked at every five seconds, by a thread that runs when nobody else wants to: beside other tests that can take long.
const PATIENCE: Duration = Duration::from_secs(180);
