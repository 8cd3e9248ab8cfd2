//! What the journal costs the capture thread: `cargo bench -p capture-agent --bench journal` prints nanoseconds of
//! processor time and journal bytes per prepared pgbench statement with its row, with and without a journal, in
//! alternating rounds.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]

mod streams;

use std::sync::Arc;

use capture_agent::record::journal::SEGMENT_BYTES;
use capture_agent::record::{Recorder, Settings};
use capture_agent::session::{
    Column, Exchange, Micros, Param, Protocol, RowValues, Sink, Status, Tag, Values,
};
use capture_agent::telemetry::metrics::JOURNAL_BYTES;
use streams::{MORNING, processor_time, session, settings};

const ROUNDS: usize = 5;
const STATEMENTS: u64 = 200_000;
/// Statements of one transaction: what a reader drains at a time on a busy server.
const TRANSACTION: u64 = 100;
const SQL: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1;";

fn main() {
    let mut with = Vec::new();
    let mut without = Vec::new();
    for _ in 0..ROUNDS {
        with.push(round(SEGMENT_BYTES));
        // No disk has this much to reserve, so the journal stays off.
        without.push(round(1 << 60));
    }
    let (with, bytes) = median(with);
    let (without, none) = median(without);
    assert_eq!(none, 0, "the journal was on");
    let bytes = bytes as f64 / STATEMENTS as f64;
    println!("with a journal     {with:>6} ns per statement, {bytes:.0} bytes of journal");
    println!("without a journal  {without:>6} ns per statement");
    println!("the journal        {:>6} ns per statement", with.saturating_sub(without));
}

fn median(mut rounds: Vec<(u64, u64)>) -> (u64, u64) {
    rounds.sort_unstable();
    rounds[rounds.len() / 2]
}

/// Nanoseconds of this thread per statement, and bytes of the journal.
fn round(segment_bytes: u64) -> (u64, u64) {
    let folder = tempfile::tempdir().unwrap();
    let (mut recorder, _) = Recorder::new(Settings { segment_bytes, ..settings(folder.path()) }).unwrap();
    let sessions: Vec<_> = (0..8).map(session).collect();
    let texts: Vec<Arc<str>> = sessions.iter().map(|_| SQL.into()).collect();
    let columns: Vec<Arc<[Column]>> = sessions.iter().map(|_| columns()).collect();
    let (from, bytes) = (processor_time(), JOURNAL_BYTES.value());
    for n in 0..STATEMENTS {
        let at = (n % 8) as usize;
        let mut exchange = exchange(n, &texts[at]);
        exchange.columns = Some(Arc::clone(&columns[at]));
        let row = RowValues {
            seq: exchange.seq,
            row: 0,
            sql: None,
            started_at: exchange.started_at,
            columns: &columns[at],
            values: Values::DataRow(b"\0\x01\0\0\0\x04\0\0\0\0"),
        };
        recorder.row(&sessions[at], row);
        recorder.statement(&sessions[at], &exchange);
        if n % TRANSACTION == 0 {
            recorder.commit(n);
        }
        if n % 4_096 == 0 {
            recorder.tick(exchange.started_at);
        }
    }
    let (to, written) = (processor_time(), JOURNAL_BYTES.value() - bytes);
    recorder.finish().unwrap();
    ((to - from) / STATEMENTS, written)
}

fn columns() -> Arc<[Column]> {
    Arc::from([Column { name: "abalance".into(), type_oid: 23, table_oid: 16_396, attnum: 3, format: 1 }])
}

fn exchange(n: u64, sql: &Arc<str>) -> Exchange {
    Exchange {
        seq: n / 8,
        started_at: Micros(MORNING + n as i64 * 14),
        duration_us: Some(80),
        first_row_us: Some(70),
        protocol: Protocol::Extended,
        sql: Some(Arc::clone(sql)),
        statement_name: Some("P_0".into()),
        params: vec![Param { type_oid: 23, format: 0, value: Some((15, 20)) }],
        params_body: b"\0P_0\0\0\x01\0\0\0\x01\0\0\0\x0512345\0\x01\0\x01".to_vec(),
        columns: None,
        rows: Some(1),
        command_tag: Some(Tag::from("SELECT 1")),
        status: Status::Completed,
        sqlstate: None,
        error_message: None,
        bytes_in: 46,
        bytes_out: 66,
        frontend_range: (n * 46, n * 46 + 46),
        complete: true,
        results_truncated: false,
        params_truncated: false,
        masked: 0,
        judged: None,
    }
}
