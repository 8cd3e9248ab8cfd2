//! Rows that no rule wants: the kernel side passes over them, and the record is as exact as if it had not.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::record::Statement;
use tests::wire::{Wire, frontend};
use tests::{Agent, AgentOptions, Record, Server, ServerOptions, capture_with, deps, wait};

tests::on_every_server!(long_results_and_copies_are_counted_to_the_byte);

const NOTHING: &str = "[[record]]\nresults = 'none'";
/// A host that is busy with other tests must not cost a byte.
const NOTHING_LOST: &str = "[[record]]\nresults = 'none'\nrequired = true\ntimeout = '60s'";
/// Rows of a hundred bytes, a few large ones, and one that is longer than many calls.
const RESULTS: [(&str, u64); 6] = [
    ("select i, repeat('x', 100) from generate_series(1, 300000) i", 300_000),
    ("copy (select i, repeat('c', 80) from generate_series(1, 300000) i) to stdout", 300_000),
    ("select i, repeat('y', 20000) from generate_series(1, 1500) i", 1_500),
    ("select repeat('z', 40000000)", 1),
    ("select i from generate_series(1, 500000) i", 500_000),
    ("copy (select repeat('binary', 20) from generate_series(1, 200000)) to stdout (format binary)", 200_000),
];

fn long_results_and_copies_are_counted_to_the_byte(options: ServerOptions) -> anyhow::Result<()> {
    counted_to_the_byte(options)
}

#[test]
fn encrypted_results_too() -> anyhow::Result<()> {
    counted_to_the_byte(ServerOptions::default().tls())
}

fn counted_to_the_byte(options: ServerOptions) -> anyhow::Result<()> {
    let (captured, passed) = captured(options, NOTHING_LOST, |server, _| {
        let script = server.socket_folder().join("long.sql");
        let between = |(at, (sql, _)): (usize, &(&str, u64))| format!("{sql};\nselect 'between {at}';\n");
        std::fs::write(&script, RESULTS.iter().enumerate().map(between).collect::<String>())?;
        deps::run(server.program("psql")?.args(["-X", "-q", "-o", "/dev/null", "-f"]).arg(&script))
            .map(|_| ())
    })?;
    let record = &captured;
    ensure!(record.gaps.is_empty(), "{:?}", record.gaps);
    for (at, (sql, rows)) in RESULTS.iter().enumerate() {
        is_whole(statement(record, sql)?, *rows)?;
        is_whole(statement(record, &format!("select 'between {at}'"))?, 1)?;
    }
    let sent: u64 = record.sessions.iter().map(|session| session.bytes_out).sum();
    ensure!(record.results.is_empty(), "{} rows are in the record", record.results.len());
    ensure!(passed * 2 > sent, "{passed} of {sent} bytes were passed over");
    Ok(())
}

/// Whatever comes between rows, and after them, is recorded.
#[test]
fn what_is_no_row_ends_it() -> anyhow::Result<()> {
    let mut counted = (0, 0);
    let (record, passed) = captured(ServerOptions::default(), NOTHING, |server, _| {
        server.psql(
            "create function noisy(i int) returns text language plpgsql as $$ begin \
             if i % 40000 = 0 then raise notice 'at %', i; end if; return repeat('n', 60); end $$",
        )?;
        let mut wire = Wire::login(server, "between")?;
        wire.query("select noisy(i) from generate_series(1, 200000) i")?;
        wire.query("select 1 / (150000 - i), repeat('e', 50) from generate_series(1, 200000) i")?;
        wire.query("select 'after the error'")?;
        // Several results of one query string, and rows of one in pieces.
        wire.query(
            "select i, repeat('a', 90) from generate_series(1, 100000) i; select 'short'; \
             select i, repeat('b', 90) from generate_series(1, 100000) i",
        )?;
        let pieces = [
            frontend::parse("", "select i, repeat('p', 90) from generate_series(1, 100000) i", &[]),
            frontend::bind("", "", &[], &[], &[]),
            frontend::execute("", 60_000),
            frontend::execute("", 0),
            frontend::message(b'S', &[]),
        ];
        wire.exchange(&pieces, true)?;
        wire.query("select 'the last'")?;
        wire.terminate()?;
        counted = (wire.sent, wire.received);
        Ok(())
    })?;
    let session = record.session_named("between")?;
    ensure!((session.bytes_in, session.bytes_out) == counted && session.gap_bytes == 0, "{session:?}");
    let rows = |part: &str| -> Vec<_> {
        let statements = record.statements_of(session);
        let with =
            statements.into_iter().filter(|row| row.sql.as_deref().is_some_and(|sql| sql.contains(part)));
        with.map(|row| (row.status.clone(), row.rows, row.complete)).collect()
    };
    let completed = |rows| ("completed".to_owned(), Some(rows), true);
    ensure!(rows("noisy(i) from") == [completed(200_000)], "{:?}", rows("noisy(i) from"));
    ensure!(rows("repeat('e'") == [("failed".to_owned(), Some(149_999), true)], "{:?}", rows("repeat('e'"));
    ensure!(rows("repeat('a'") == [completed(100_000)], "{:?}", rows("repeat('a'"));
    ensure!(rows("repeat('b'") == [completed(100_000)], "{:?}", rows("repeat('b'"));
    ensure!(
        rows("repeat('p'") == [("suspended".to_owned(), Some(60_000), true), completed(40_000)],
        "{:?}",
        rows("repeat('p'")
    );
    for short in ["'after the error'", "'short'", "'the last'"] {
        ensure!(rows(short) == [completed(1)], "{short}: {:?}", rows(short));
    }
    ensure!(passed > 10_000_000, "{passed} bytes were passed over");
    Ok(())
}

/// Up to a rule's limit rows are recorded, and what it wants is never passed over.
#[test]
fn rows_up_to_the_limit_are_recorded_first() -> anyhow::Result<()> {
    let sql = "select i, repeat('l', 100) from generate_series(1, 300000) i";
    let (record, passed) = captured(ServerOptions::default(), "", |server, _| server.psql(sql).map(|_| ()))?;
    is_whole(statement(&record, sql)?, 300_000)?;
    let rows = record.rows_of(statement(&record, sql)?);
    ensure!(rows.len() == 10_000, "{} rows", rows.len());
    for (number, row) in (1..).zip(&rows) {
        ensure!(row[0] == Some(format!("{number}")) && row[1] == Some("l".repeat(100)), "{row:?}");
    }
    ensure!(passed > 10_000_000, "{passed} bytes were passed over");

    let full = "[[record]]\nresults = 'full'\nrequired = true\ntimeout = '60s'";
    let (record, passed) =
        captured(ServerOptions::default(), full, |server, _| server.psql(sql).map(|_| ()))?;
    ensure!(passed == 0, "{passed} bytes were passed over");
    ensure!(record.rows_of(statement(&record, sql)?).len() == 300_000);
    Ok(())
}

/// A session that ends within a long result, by whoever's will.
#[test]
fn a_session_that_ends_meanwhile_is_accounted_for() -> anyhow::Result<()> {
    let (record, passed) = captured(ServerOptions::default(), NOTHING, |server, agent| {
        for name in ["leaves", "is ended"] {
            let mut wire = Wire::login(server, name)?;
            let backend = wire.key.as_ref().map_or(0, |(pid, _)| *pid);
            wire.send(&frontend::query("select repeat('s', 100) from generate_series(1, 100000000)"))?;
            wire.discard(20_000_000)?;
            if name == "is ended" {
                server.psql(&format!("select pg_terminate_backend({backend})"))?;
                while wire.receive().is_ok_and(|message| message.is_some()) {}
            } else {
                drop(wire);
            }
            server.wait_idle()?;
        }
        agent.wait_drained()
    })?;
    for name in ["leaves", "is ended"] {
        let session = record.session_named(name)?;
        ensure!(session.gap_bytes == 0, "{session:?} {:?}", record.gaps);
        ensure!(
            session.bytes_out == session.socket_bytes_out && session.bytes_out > 20_000_000,
            "{session:?}"
        );
    }
    ensure!(passed > 20_000_000, "{passed} bytes were passed over");
    Ok(())
}

/// Agents die while rows are passed over, one after the other; the kernel side goes on.
#[test]
fn agents_that_die_meanwhile_lose_no_count() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || AgentOptions::default().server(&server).config(NOTHING_LOST).data(data.path()).start();
    let mut agent = start()?;
    let sql = "select i, repeat('d', 100) from generate_series(1, 1500000) i";
    let statements = 4;
    let load = {
        let mut psql = server.program("psql")?;
        psql.args(["-X", "-q", "-o", "/dev/null"]);
        for _ in 0..statements {
            psql.args(["-c", sql, "-c", "select 'between'"]);
        }
        std::thread::spawn(move || deps::run(&mut psql))
    };
    let mut kills = 0;
    while !load.is_finished() {
        // From soon after the start, when nothing is asked yet, to when rows have been passed over for long.
        wait::pause(Duration::from_millis(10 + 37 * (kills % 17)));
        let left = agent.kill()?;
        agent = start()?;
        left.adopted();
        kills += 1;
    }
    load.join().ok().context("the load panicked")??;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    ensure!(record.gaps.is_empty(), "{:?}", record.gaps);
    let counted: Vec<_> =
        record.statements.iter().map(|row| (row.status.as_str(), row.rows, row.complete)).collect();
    let expected = [("completed", Some(1_500_000), true), ("completed", Some(1), true)].repeat(statements);
    ensure!(counted == expected, "{kills} kills: {counted:?} {:?}", record.sessions);
    println!("{kills} kills");
    Ok(())
}

/// Captures what `workload` does. Returns the record, and how many bytes were passed over.
fn captured(
    options: ServerOptions,
    config: &str,
    workload: impl FnOnce(&Server, &Agent) -> anyhow::Result<()>,
) -> anyhow::Result<(Record, u64)> {
    let folder = tempfile::tempdir()?;
    let metrics = folder.path().join("metrics");
    let agent = AgentOptions::default().config(config).metrics_file(&metrics);
    let captured = capture_with(options, agent, workload)?;
    Ok((Record::read(&captured.finished.data)?, passed_bytes(&metrics)?))
}

fn passed_bytes(metrics: &Path) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(metrics)?;
    let line = text.lines().find_map(|line| line.strip_prefix("capture_kernel_passed_bytes_total "));
    Ok(line.context("no such metric")?.trim().parse()?)
}

fn statement<'a>(record: &'a Record, sql: &str) -> anyhow::Result<&'a Statement> {
    record.statement_with(sql)
}

fn is_whole(statement: &Statement, rows: u64) -> anyhow::Result<()> {
    ensure!(statement.status == "completed" && statement.complete, "{statement}");
    ensure!(statement.rows == Some(rows), "{statement}: {:?} rows of {rows}", statement.rows);
    Ok(())
}
