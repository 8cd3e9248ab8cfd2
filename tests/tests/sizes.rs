//! Messages of any size go through whole, and the agent's memory stays bounded.

use tests::record::Statement;
use tests::wire::{Wire, frontend};
use tests::{Agent, AgentOptions, Record, Server, ServerOptions, capture, capture_with};

/// The bound of docs/defaults.md.
const PEAK_MEMORY: u64 = 256 << 20;
const GIB: u64 = 1 << 30;
/// Held by the test whose turn it is.
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn a_statement_of_one_megabyte_is_recorded_whole() -> anyhow::Result<()> {
    let sql = format!("select length('{}')", "é, ".repeat(350_000));
    let captured = capture(|server, _| {
        let mut wire = Wire::login(server, "size")?;
        wire.query(&sql)?;
        wire.send(&extended(&sql, &[]))?;
        wire.until_ready()?;
        wire.terminate()
    })?;
    let statements: Vec<_> =
        captured.record().statements.iter().filter(|row| row.sql.as_deref() == Some(sql.as_str())).collect();
    assert_eq!(statements.len(), 2, "recorded {:?}", lengths(captured.record()));
    captured.compare()?;
    Ok(())
}

#[test]
fn a_parameter_of_64_megabytes_is_accounted_for() -> anyhow::Result<()> {
    let value = vec![b'v'; 64 << 20];
    let (statement, peak) = measured("select length($1), 'size'", |wire| {
        wire.send(&extended("select length($1), 'size'", &[Some(value.clone())]))?;
        let replies = wire.until_ready()?;
        anyhow::ensure!(
            replies
                .iter()
                .any(|message| message.values() == [Some(b"67108864".to_vec()), Some(b"size".to_vec())])
        );
        Ok(())
    })?;
    assert_eq!((statement.status.as_str(), statement.complete), ("completed", true));
    assert!(statement.bytes_in > 64 << 20);
    assert!(peak <= PEAK_MEMORY, "the agent held {} MiB", peak >> 20);
    Ok(())
}

#[test]
fn a_result_of_one_gigabyte_is_counted_exactly() -> anyhow::Result<()> {
    let sql = "select repeat('x', 1000), 'size' from generate_series(1, 1080000)";
    let mut received = 0;
    let (statement, peak) = measured(sql, |wire| {
        wire.send(&frontend::query(sql))?;
        received = discard_reply(wire)?;
        Ok(())
    })?;
    assert!(received > GIB);
    assert_eq!(
        (statement.rows, statement.status.as_str(), statement.complete),
        (Some(1_080_000), "completed", true)
    );
    // All of the reply but ReadyForQuery, which belongs to no statement alone.
    assert!(received - statement.bytes_out <= 6, "{received} came, {} recorded", statement.bytes_out);
    assert!(statement.results_truncated);
    assert!(peak <= PEAK_MEMORY, "the agent held {} MiB", peak >> 20);
    Ok(())
}

#[test]
fn a_copy_of_one_gigabyte_to_the_client_is_counted_exactly() -> anyhow::Result<()> {
    let sql = "copy (select repeat('x', 1000), 'size' from generate_series(1, 1080000)) to stdout";
    let (statement, peak) = measured(sql, |wire| {
        wire.send(&frontend::query(sql))?;
        anyhow::ensure!(discard_reply(wire)? > GIB);
        Ok(())
    })?;
    assert_eq!(
        (statement.rows, statement.status.as_str(), statement.complete),
        (Some(1_080_000), "completed", true)
    );
    assert_eq!(statement.protocol, "copy");
    assert!(statement.bytes_out > GIB && statement.results_truncated);
    assert!(peak <= PEAK_MEMORY, "the agent held {} MiB", peak >> 20);
    Ok(())
}

#[test]
fn a_copy_of_one_gigabyte_from_the_client_is_counted_exactly() -> anyhow::Result<()> {
    // The server reads and parses every row, and stores none.
    let sql = "copy size from stdin where a = 'never'";
    let rows = 65;
    let row = format!("{}\tsize\n", "x".repeat(1000));
    let block = frontend::message(b'd', row.repeat(rows).as_bytes());
    let blocks = GIB / block.len() as u64 + 1;
    let (statement, peak) = measured(sql, |wire| {
        wire.query("create temp table size (a text, b text)")?;
        wire.send(&frontend::query(sql))?;
        wire.expect()?;
        for _ in 0..blocks {
            wire.send(&block)?;
        }
        wire.send(&frontend::message(b'c', &[]))?;
        wire.until_ready()?;
        Ok(())
    })?;
    assert_eq!((statement.status.as_str(), statement.protocol.as_str()), ("completed", "copy"));
    assert!(statement.complete && statement.results_truncated);
    let query = frontend::query(sql).len() as u64;
    assert_eq!(statement.bytes_in, query + blocks * block.len() as u64 + 5);
    assert!(peak <= PEAK_MEMORY, "the agent held {} MiB", peak >> 20);
    Ok(())
}

/// Runs one large thing in a session of its own; yields its statement and the agent's peak memory.
fn measured(
    sql: &str,
    work: impl FnOnce(&mut Wire) -> anyhow::Result<()>,
) -> anyhow::Result<(Statement, u64)> {
    // Two of these at once would measure the scheduler: each keeps client, server and agent busy for seconds.
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut peak = 0;
    let mut passed = 0;
    let mut port = 0;
    // A client on the same host sends faster than a disk that is busy takes the journal: the backend waits for it then.
    let agent = AgentOptions::default().config("[[record]]\nrequired = true\ntimeout = '60s'");
    let captured = capture_with(ServerOptions::default(), agent, |server: &Server, agent: &Agent| {
        let mut wire = Wire::login(server, "size")?;
        port = wire.port()?.unwrap_or_default();
        work(&mut wire)?;
        wire.terminate()?;
        passed = wire.sent + wire.received;
        agent.wait_drained()?;
        peak = agent.peak_memory()?;
        Ok(())
    })?;
    let record = captured.record();
    let session = record.session_from_port(port)?;
    assert_eq!(session.bytes_in + session.bytes_out + session.gap_bytes, passed, "{session:?}");
    assert_eq!(session.gap_bytes, 0, "{:?}", record.gaps);
    Ok((record.statement_with(sql)?.clone(), peak))
}

fn extended(sql: &str, values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut bytes = frontend::parse("", sql, &[]);
    bytes.extend(frontend::bind("", "", &[], values, &[]));
    bytes.extend(frontend::execute("", 0));
    bytes.extend(frontend::message(b'S', &[]));
    bytes
}

/// Reads a reply to its ReadyForQuery, message by message, and yields its length.
fn discard_reply(wire: &mut Wire) -> anyhow::Result<u64> {
    let mut length = 0;
    loop {
        let message = wire.expect()?;
        length += message.body.len() as u64 + 5;
        anyhow::ensure!(message.tag != b'E', "the server refused: {message:?}");
        if message.tag == b'Z' {
            return Ok(length);
        }
    }
}

fn lengths(record: &Record) -> Vec<Option<usize>> {
    record.statements.iter().map(|row| row.sql.as_deref().map(str::len)).collect()
}
