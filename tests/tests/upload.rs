//! Object storage: what is published arrives there, once, whatever becomes of server, network, credentials and agent, and
//! others read it from there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::agent::QUICK_ROTATION;
use tests::object_storage::{Kind, files};
use tests::wire::Wire;
use tests::{Agent, AgentOptions, FaultProxy, ObjectStorage, Server, deps, wait};

/// Two nodes, one table: engines read it from the storage, and a copy of it verifies.
#[test]
fn the_records_of_two_nodes_are_one_table_for_duckdb_and_spark() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let server = Server::start()?;
    let mut locals = Vec::new();
    for (node, rounds) in [("node-a", 2), ("node-b", 3)] {
        let data = tempfile::tempdir()?;
        let agent = options(&server, data.path(), &storage.config(), node).start()?;
        for round in 0..rounds {
            work(&server, &format!("select 'fleet {round}', generate_series(1, 100)"))?;
        }
        server.wait_idle()?;
        agent.stop()?.verify()?;
        locals.push(data);
    }
    let by_duckdb = storage.read_by_duckdb()?;
    ensure!(by_duckdb.nodes.len() == 2 && by_duckdb.joined == 5, "{by_duckdb:?}");
    ensure!(by_duckdb.nodes[0].0 == "node-a" && by_duckdb.nodes[1].0 == "node-b", "{by_duckdb:?}");
    let by_spark = storage.read_by_spark()?;
    ensure!(by_spark == by_duckdb, "Spark: {by_spark:?}, DuckDB: {by_duckdb:?}");
    arrived(&storage, &locals.iter().map(tempfile::TempDir::path).collect::<Vec<_>>())?;
    Ok(())
}

/// Errors of all kinds, in the middle of whatever is under way: nothing is lost, and nothing is there that is not whole.
#[test]
fn a_storm_of_failures_costs_nothing_but_time() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let proxy = FaultProxy::start(&storage, "storm")?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = options(&server, data.path(), &storage.config_through(proxy.port()), "node").start()?;
    for round in 0..4 {
        work(&server, &format!("select 'storm {round}'"))?;
        wait::pause(Duration::from_millis(1_200));
    }
    server.wait_idle()?;
    wait::until("failures of each kind", PATIENCE, || {
        let requests = proxy.requests()?;
        let met = |failure: &str| requests.iter().any(|request| request.failure == failure);
        let all = ["500", "503", "cut off", "answer lost", "half an answer"].into_iter().all(met);
        Ok(all.then_some(()))
    })?;
    proxy.set_mood("good")?;
    agent.stop()?.verify()?;
    arrived(&storage, &[data.path()])?;
    Ok(())
}

/// The server dies with what it was told, and comes back. Meanwhile sessions go on, and what waits is declared.
#[test]
fn a_server_that_is_killed_and_comes_back_gets_all_that_waited() -> anyhow::Result<()> {
    let mut storage = ObjectStorage::start(Kind::S3)?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let metrics = data.path().join("metrics.prom");
    // The rows of the second statement are more, the files of one small statement all together less.
    let config = storage.config() + "backlog_bytes = 30_000\ndrain_seconds = 60\n";
    let agent = options(&server, data.path(), &config, "node").metrics_file(&metrics).start()?;
    work(&server, "select 'before'")?;
    wait_confirmed(data.path())?;
    storage.kill()?;
    work(&server, "select md5(n::text) from generate_series(1, 2000) n")?;
    says(&agent, "the storage does not take files")?;
    says(&agent, "docs/errors.md#upload-failing")?;
    says(&agent, "more waits to be uploaded than `upload.backlog_bytes`")?;
    wait::until("the backlog in the metrics", PATIENCE, || {
        let backlog = metric(&metrics, "capture_upload_backlog_bytes")?;
        let errors = metric(&metrics, "capture_upload_errors_total")?;
        Ok((backlog > Some(30_000) && errors > Some(0)).then_some(()))
    })?;
    storage.start_again()?;
    says(&agent, "the storage takes files again")?;
    says(&agent, "less waits to be uploaded than the limit again")?;
    work(&server, "select 'after'")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    finished.verify()?;
    arrived(&storage, &[data.path()])?;
    let declared = finished.record.decisions_of("upload_backlog");
    let reasons: Vec<_> = declared.iter().filter_map(|row| row.reason.as_deref()).collect();
    ensure!(
        reasons == ["more waits than `upload.backlog_bytes`", "less waits again"],
        "what is declared is {reasons:?}"
    );
    let message = declared[0].message.as_deref().unwrap_or_default();
    ensure!(message.ends_with("bytes wait to be uploaded; 30000 bytes may"), "{message}");
    Ok(())
}

/// A storage that takes little in a second gets all, and keeps neither sessions nor the record waiting.
#[test]
fn a_storage_that_is_slow_gets_all_and_delays_nobody() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let proxy = FaultProxy::start(&storage, "slow")?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let config = storage.config_through(proxy.port()) + "drain_seconds = 60\n";
    let agent = options(&server, data.path(), &config, "node").start()?;
    work(&server, "select md5(random()::text) from generate_series(1, 40000)")?;
    wait::until("a large file to be on its way", PATIENCE, || {
        let requests = proxy.requests()?;
        Ok(requests.iter().any(|request| request.method == "PUT" && request.bytes > 500_000).then_some(()))
    })?;
    let (confirmed, published) = (confirmed(data.path()), files(data.path())?.len());
    work(&server, "select 'meanwhile'")?;
    wait::until("the next files to be published", Duration::from_secs(3), || {
        Ok((files(data.path())?.len() > published).then_some(()))
    })?;
    ensure!(self::confirmed(data.path()) == confirmed, "the large file was stored too soon to tell");
    server.wait_idle()?;
    agent.stop()?.verify()?;
    arrived(&storage, &[data.path()])?;
    Ok(())
}

/// It stops in the middle of a file, and later in the middle of giving one back, without a word or an end.
#[test]
fn a_storage_that_stops_in_the_middle_is_asked_again() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let proxy = FaultProxy::start(&storage, "stalls")?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let config = storage.config_through(proxy.port()) + "drain_seconds = 60\n";
    let agent = options(&server, data.path(), &config, "node").start()?;
    // A PUT, the answer that there is no such object, and the object itself, as it is read back.
    for failure in ["stalled PUT", "stalled GET 404", "stalled GET 200"] {
        work(&server, &format!("select '{failure}'"))?;
        wait::until(failure, 2 * PATIENCE, || {
            Ok(proxy.requests()?.iter().any(|request| request.failure == failure).then_some(()))
        })?;
    }
    says(&agent, "the storage does not take files")?;
    says(&agent, "the storage takes files again")?;
    server.wait_idle()?;
    agent.stop()?.verify()?;
    arrived(&storage, &[data.path()])?;
    Ok(())
}

/// A storage that takes requests and does not answer keeps nobody waiting, not even the end of the agent for longer than it is
/// configured to. The next agent sends what is left.
#[test]
fn a_storage_that_is_silent_delays_neither_sessions_nor_the_record() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let proxy = FaultProxy::start(&storage, "silent")?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let config = storage.config_through(proxy.port()) + "drain_seconds = 1\n";
    let agent = options(&server, data.path(), &config, "node").start()?;
    for round in 0..3 {
        work(&server, &format!("select 'silent {round}'"))?;
        wait::pause(Duration::from_millis(1_100));
    }
    wait::until("files to be published", wait::SOON, || Ok((files(data.path())?.len() >= 3).then_some(())))?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    finished.verify()?;
    ensure!(finished.stderr.contains("not all is uploaded"), "{}", finished.stderr);
    let agent = options(&server, data.path(), &storage.config(), "node").start()?;
    agent.stop()?;
    arrived(&storage, &[data.path()])?;
    Ok(())
}

/// The key is replaced on the server, and later in the file: the error says what to do, and nothing has to be restarted.
#[test]
fn credentials_that_expire_are_asked_for_and_read_again() -> anyhow::Result<()> {
    let mut storage = ObjectStorage::start(Kind::S3)?;
    let proxy = FaultProxy::start(&storage, "good")?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let config = storage.config_through(proxy.port()) + "drain_seconds = 60\n";
    let agent = options(&server, data.path(), &config, "node").start()?;
    work(&server, "select 'valid'")?;
    wait_confirmed(data.path())?;
    let old = storage.secret().to_owned();
    proxy.set_mood("expired")?;
    work(&server, "select 'expired'")?;
    says(&agent, "the storage refuses the credentials")?;
    says(&agent, "docs/errors.md#upload-credentials")?;
    storage.expire_credentials()?;
    proxy.set_mood("good")?;
    let before = proxy.requests()?.len();
    wait::until("an attempt with the old key", PATIENCE, || {
        Ok((proxy.requests()?.len() > before).then_some(()))
    })?;
    storage.renew_credentials()?;
    says(&agent, "the storage takes files again")?;
    work(&server, "select 'renewed'")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    for secret in [&old, storage.secret()] {
        ensure!(!finished.stderr.contains(secret), "a secret is in the log:\n{}", finished.stderr);
        let mut search = Command::new("grep");
        let found = search.args(["-r", "-l", "-a", "-F", secret]).arg(data.path()).output()?;
        ensure!(found.stdout.is_empty(), "a secret is in {}", String::from_utf8_lossy(&found.stdout));
    }
    arrived(&storage, &[data.path()])?;
    Ok(())
}

/// Agents are killed while large files are on their way over a slow network.
#[test]
fn agents_that_are_killed_in_the_middle_leave_neither_halves_nor_doubles() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let proxy = FaultProxy::start(&storage, "good")?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || {
        let config =
            storage.config_through(proxy.port()) + "drain_seconds = 60\nbytes_per_second = 6_000_000\n";
        with_large_files(&server, data.path(), &config).start()
    };
    let mut agent = start()?;
    work(&server, LARGE)?;
    let mut in_parts = 0;
    for turn in 0..5 {
        let before = proxy.requests()?.len();
        wait::until("an upload to be under way", PATIENCE, || {
            let requests = proxy.requests()?;
            let new = requests.iter().skip(before).filter(|request| request.method == "PUT");
            let large = new.filter(|request| request.bytes > 1 << 20).count();
            Ok((large > 0 || requests.len() > before + 20).then_some(()))
        })?;
        in_parts += usize::from(data.path().join(".uploading-node.json").exists());
        agent.kill()?.adopted();
        agent = start()?;
        work(&server, &format!("select 'turn {turn}'"))?;
    }
    server.wait_idle()?;
    agent.stop()?.verify()?;
    let count = arrived(&storage, &[data.path()])?;
    let left = storage.unfinished_uploads()?;
    println!(
        "{count} files, 5 kills, {in_parts} of them within an upload in parts, {left} such uploads left"
    );
    ensure!(in_parts > 0, "no kill met an upload in parts");
    ensure!(left == 0, "{left} uploads in parts were never ended");
    Ok(())
}

#[test]
fn bandwidth_is_kept_to() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::S3)?;
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let config = storage.config() + "bytes_per_second = 200_000\ndrain_seconds = 60\n";
    let agent = options(&server, data.path(), &config, "node").start()?;
    work(&server, "select md5(random()::text) from generate_series(1, 40000)")?;
    server.wait_idle()?;
    let began = fs::metadata(data.path().join("seals/node.jsonl"))?.modified()?;
    agent.stop()?;
    let ended = fs::metadata(data.path().join(".uploaded-node.jsonl"))?.modified()?;
    arrived(&storage, &[data.path()])?;
    let bytes: u64 = deps::run(Command::new("du").arg("-sb").arg(data.path().join("results")))?
        .split_whitespace()
        .next()
        .context("du says nothing")?
        .parse()?;
    let seconds = ended.duration_since(began)?.as_secs_f64();
    println!("{bytes} bytes went out and came back in {seconds:.1} s");
    ensure!(bytes > 500_000, "{bytes} bytes are too few to tell");
    ensure!(2.0 * bytes as f64 / seconds < 260_000.0, "{bytes} bytes each way in {seconds} s");
    Ok(())
}

/// A large file goes in parts, which no abort ends at Azure.
#[test]
fn azures_storage_holds_a_record_that_verifies() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::Azure)?;
    holds_a_record(&storage, &storage.config(), LARGE)
}

/// The server knows nothing of uploads in parts by Google's XML protocol, so no file is large.
#[test]
fn googles_storage_holds_a_record_that_verifies() -> anyhow::Result<()> {
    let storage = ObjectStorage::start(Kind::Google)?;
    let proxy = FaultProxy::start(&storage, "google")?;
    holds_a_record(&storage, &storage.config_through(proxy.port()), "select 'first agent'")
}

fn holds_a_record(storage: &ObjectStorage, config: &str, sql: &str) -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let config = format!("{config}drain_seconds = 60\n");
    let agent = with_large_files(&server, data.path(), &config).start()?;
    work(&server, sql)?;
    wait_confirmed(data.path())?;
    agent.stop()?;
    // The next agent goes on.
    let agent = with_large_files(&server, data.path(), &config).start()?;
    work(&server, "select 'second agent'")?;
    server.wait_idle()?;
    agent.stop()?.verify()?;
    arrived(storage, &[data.path()])?;
    Ok(())
}

fn options(server: &Server, data: &Path, upload: &str, node: &str) -> AgentOptions {
    rotating(QUICK_ROTATION, server, data, upload, node)
}

/// Files are finished less often, so that a result is one large file.
fn with_large_files(server: &Server, data: &Path, upload: &str) -> AgentOptions {
    rotating("rotate = { seconds = 5 }", server, data, upload, "node")
}

fn rotating(rotation: &str, server: &Server, data: &Path, upload: &str, node: &str) -> AgentOptions {
    let config = format!("node = '{node}'\n{rotation}\n{ALL_ROWS}\n{upload}");
    AgentOptions::default().server(server).data(data).config(&config)
}

/// A session with one statement.
fn work(server: &Server, sql: &str) -> anyhow::Result<()> {
    let mut wire = Wire::login(server, "fleet")?;
    wire.query(sql)?;
    wire.terminate()
}

/// What lies in the storage is what lies in these data folders, name by name and hash by hash, and its chains say so. Returns the
/// number of files.
fn arrived(storage: &ObjectStorage, locals: &[&Path]) -> anyhow::Result<usize> {
    let folder = tempfile::tempdir()?;
    let copy = storage.download(folder.path())?;
    let mut expected = files(locals.first().context("no node")?)?;
    for local in locals.iter().skip(1) {
        expected.extend(files(local)?);
    }
    let found = files(&copy)?;
    ensure!(!expected.is_empty() && found == expected, "expected {expected:#?}, found {found:#?}");
    let mut verify = Command::new(deps::agent()?);
    let said = deps::run(verify.arg("verify").arg("--data-dir").arg(&copy))?;
    ensure!(said.contains("nothing was changed"), "{said}");
    for local in locals {
        let confirmed = confirmed(local);
        let own = files(local)?.len();
        ensure!(confirmed == own, "{confirmed} of {own} files are confirmed");
    }
    Ok(found.len())
}

/// Waits until the agent says this. It may have to wait itself: pauses grow to a minute.
fn says(agent: &Agent, words: &str) -> anyhow::Result<()> {
    wait::until(words, 2 * PATIENCE, || Ok(agent.stderr().contains(words).then_some(())))
        .with_context(|| agent.stderr())
}

fn confirmed(data: &Path) -> usize {
    fs::read_to_string(data.join(".uploaded-node.jsonl"))
        .or_else(|_| fs::read_to_string(data.join(".uploaded-node-a.jsonl")))
        .or_else(|_| fs::read_to_string(data.join(".uploaded-node-b.jsonl")))
        .map_or(0, |text| text.lines().count())
}

fn wait_confirmed(data: &Path) -> anyhow::Result<()> {
    wait::until("a file to be stored", PATIENCE, || Ok((confirmed(data) > 0).then_some(())))
}

fn metric(file: &Path, name: &str) -> anyhow::Result<Option<u64>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.map(str::parse).transpose()?)
}

/// The configuration that records the rows of all of these.
const ALL_ROWS: &str = "results = { rows = 100_000, bytes = 67_108_864 }";

/// Digests do not compress to less than a half: a file of them needs more than one part.
const LARGE: &str = "select (select string_agg(md5(n::text || m::text), '') from generate_series(1, 1000) n) \
                     from generate_series(1, 1000) m";

/// How long a storage may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
