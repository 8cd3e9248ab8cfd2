//! Retention: files go when their time is over, what is held stays, and the record verifies all the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tests::agent::{Agent, AgentOptions, QUICK_ROTATION};
use tests::server::Server;
use tests::wire::Wire;
use tests::{Record, deps, wait};

#[test]
fn a_file_whose_time_is_over_is_removed_and_the_record_verifies() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = start(&server, data.path(), "[[retention]]\ntables = ['results']\nage = '4s'")?;
    session(&server, "postgres", "select 'old', 42")?;
    let gone = wait_gone(data.path(), "results")?;
    ensure!(lines(data.path())?.iter().any(|line| line.contains("\"expired\"") && line.contains("age 4s")));
    // What the rule does not name is still there.
    ensure!(
        Record::read(data.path())?
            .statements
            .iter()
            .any(|row| row.sql.as_deref() == Some("select 'old', 42"))
    );
    // While the agent runs, too.
    let (code, words) = verify(data.path())?;
    ensure!(code == 0, "{words}");
    // What is sealed last may be unfinished; so something else has to be.
    session(&server, "postgres", "select 'new'")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let said = finished.verify()?;
    ensure!(said.contains("nothing was changed"), "{said}");

    // A removal that nobody sealed is found, and so is a file that comes back.
    let statements = parquet_files(&data.path().join("statements"))?;
    let stolen = statements.first().context("no file of statements")?;
    fs::write(data.path().join(&gone), fs::read(stolen)?)?;
    fs::remove_file(stolen)?;
    let (code, words) = verify(data.path())?;
    ensure!(code == 1 && words.contains("removed  "), "{words}");
    ensure!(words.lines().any(|line| line.starts_with("back") && line.contains(&gone)), "{words}");
    Ok(())
}

#[test]
fn the_oldest_files_go_when_all_take_too_much_space() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = start(&server, data.path(), "[[retention]]\ntables = ['results']\nbytes = 20_000")?;
    let size = || -> anyhow::Result<u64> {
        let files = parquet_files(&data.path().join("results"))?;
        files.iter().map(|path| Ok(fs::metadata(path).map_or(0, |file| file.len()))).sum()
    };
    for _ in 0..6 {
        session(&server, "postgres", "select md5(random()::text) from generate_series(1, 400)")?;
        wait::pause(Duration::from_millis(1_300));
    }
    wait::until("the oldest files to go", PATIENCE, || {
        Ok((size()? <= 20_000 && expired(data.path())? > 0).then_some(()))
    })?;
    ensure!(size()? > 0, "everything went");
    // It is the newest rows that are left.
    let finished = agent.stop()?;
    finished.verify()?;
    Ok(())
}

#[test]
fn what_is_held_stays_until_the_hold_is_over() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql("create role held login superuser")?;
    let data = tempfile::tempdir()?;
    let holds = |arguments: &[&str]| {
        deps::run(
            Command::new(deps::agent()?).arg("holds").args(arguments).arg("--data-dir").arg(data.path()),
        )
    };
    // Before an agent ever ran.
    holds(&["add", "--user", "held", "--reason", "case 1"])?;
    let listed = holds(&["list"])?;
    ensure!(listed.contains("role held") && listed.contains("case 1"), "{listed}");
    let agent = start(&server, data.path(), "[[retention]]\nage = '4s'")?;
    session(&server, "postgres", "select 'of nobody'")?;
    wait::pause(Duration::from_millis(2_500));
    session(&server, "held", "select 'of the held'")?;
    wait::pause(Duration::from_millis(2_500));
    session(&server, "postgres", "select 'of nobody'")?;
    // A file may go while it is read.
    let texts = || -> Vec<String> {
        let record = Record::read(data.path()).unwrap_or_default();
        record.statements.iter().filter_map(|row| row.sql.clone()).collect()
    };
    let has = |texts: &[String], part: &str| texts.iter().any(|sql| sql.contains(part));
    wait::until("all else to go", PATIENCE, || {
        let texts = texts();
        let gone = has(&texts, "of the held") && !has(&texts, "of nobody");
        Ok((gone && expired(data.path())? >= 4).then_some(()))
    })?;
    let record = Record::read(data.path())?;
    ensure!(record.sessions.iter().any(|row| row.pg_user.as_deref() == Some("held")));
    // Its rows as well, which only its session's id tells.
    let statement = record.statement_with("of the held")?;
    ensure!(record.rows_of(statement) == [&[Some("of the held".to_owned())]]);
    holds(&["remove", "1", "--reason", "closed"])?;
    wait::until("what was held to go", PATIENCE, || {
        Ok((parquet_files(&data.path().join("statements"))?.is_empty()).then_some(()))
    })?;
    let finished = agent.stop()?;
    finished.verify()?;
    Ok(())
}

#[test]
fn what_is_not_confirmed_to_be_elsewhere_stays() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    // Somebody uploads, and has not begun.
    fs::write(data.path().join(".uploaded-db1.jsonl"), "")?;
    let agent = start(&server, data.path(), "node = 'db1'\n[[retention]]\ntables = ['results']\nage = '3s'")?;
    session(&server, "postgres", "select 'first'")?;
    wait::pause(Duration::from_millis(2_500));
    session(&server, "postgres", "select 'second'")?;
    wait::until("two files", PATIENCE, || {
        Ok((parquet_files(&data.path().join("results"))?.len() == 2).then_some(()))
    })?;
    wait::pause(Duration::from_secs(10));
    let files = parquet_files(&data.path().join("results"))?;
    ensure!(files.len() == 2, "{files:?}");
    let name = files[0].strip_prefix(data.path())?.display().to_string();
    let line = lines(data.path())?.into_iter().find(|line| line.contains(&name)).context("no seal")?;
    let seal: serde_json::Value = serde_json::from_str(&line)?;
    // Another version of it is none.
    confirm(data.path(), &name, &"0".repeat(64))?;
    wait::pause(Duration::from_secs(7));
    ensure!(files[0].exists());
    confirm(data.path(), &name, seal["seal"]["sha256"].as_str().context("no hash")?)?;
    wait::until("the confirmed file to go", PATIENCE, || Ok((!files[0].exists()).then_some(())))?;
    ensure!(files[1].exists());
    agent.stop()?.verify()?;
    Ok(())
}

/// Between its seal and its removal, an agent was killed: the next one goes on.
#[test]
fn a_file_that_was_sealed_as_removed_is_removed_at_the_next_start() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = start(&server, data.path(), "[[retention]]\ntables = ['results']\nage = '4s'")?;
    session(&server, "postgres", "select 'old'")?;
    let results = data.path().join("results");
    let kept = wait::until("a file", PATIENCE, || {
        Ok(parquet_files(&results)?.pop().and_then(|path| Some((fs::read(&path).ok()?, path))))
    })?;
    wait::until("it to go", PATIENCE, || Ok((!kept.1.exists()).then_some(())))?;
    agent.kill()?.adopted();
    fs::create_dir_all(kept.1.parent().context("no folder")?)?;
    fs::write(&kept.1, &kept.0)?;
    let agent = start(&server, data.path(), "")?;
    wait::until("it to go again", PATIENCE, || Ok((!kept.1.exists()).then_some(())))?;
    agent.stop()?.verify()?;
    Ok(())
}

fn start(server: &Server, data: &Path, config: &str) -> anyhow::Result<Agent> {
    AgentOptions::default().server(server).data(data).config(&format!("{QUICK_ROTATION}\n{config}")).start()
}

/// A session of its own.
fn session(server: &Server, user: &str, sql: &str) -> anyhow::Result<()> {
    let mut wire = Wire::tcp(server)?;
    wire.start(&[("user", user), ("database", "postgres"), ("application_name", "kept")])?;
    wire.query(sql)?;
    wire.terminate()
}

fn confirm(data: &Path, file: &str, sha256: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut uploaded = fs::OpenOptions::new().append(true).open(data.join(".uploaded-db1.jsonl"))?;
    Ok(writeln!(uploaded, "{{\"file\":{file:?},\"sha256\":{sha256:?},\"at\":\"2026-11-27T00:00:00Z\"}}")?)
}

/// Waits until a file of a table was removed, and yields its name.
fn wait_gone(data: &Path, table: &str) -> anyhow::Result<String> {
    wait::until("a file to go", PATIENCE, || {
        for line in lines(data)? {
            let line: serde_json::Value = serde_json::from_str(&line)?;
            let file = line["seal"]["file"].as_str().unwrap_or_default();
            if line["seal"]["kind"] == "expired" && file.starts_with(table) && !data.join(file).exists() {
                return Ok(Some(file.to_owned()));
            }
        }
        Ok(None)
    })
}

fn expired(data: &Path) -> anyhow::Result<usize> {
    Ok(lines(data)?.iter().filter(|line| line.contains("\"kind\":\"expired\"")).count())
}

/// The whole lines of all chains.
fn lines(data: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(data.join("seals"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let text = fs::read_to_string(path)?;
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            found.extend(whole.lines().map(str::to_owned));
        }
    }
    Ok(found)
}

fn verify(data: &Path) -> anyhow::Result<(i32, String)> {
    let output = Command::new(deps::agent()?).arg("verify").arg("--data-dir").arg(data).output()?;
    let words = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((output.status.code().context("it was killed")?, words))
}

fn parquet_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(days) = fs::read_dir(folder) else { return Ok(found) };
    for day in days {
        for file in fs::read_dir(day?.path())? {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.ends_with(".parquet") && !name.starts_with('.') {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The record is looked at every five seconds.
const PATIENCE: Duration = Duration::from_secs(60);
