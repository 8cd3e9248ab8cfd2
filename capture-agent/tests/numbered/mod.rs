//! Events that are numbered, told to a recorder and counted in its files.
#![allow(dead_code, reason = "each program uses its own part of it")]
#![allow(unreachable_pub, reason = "a module of test programs")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use capture_agent::keep::{self, Compaction, Keeper};
use capture_agent::record::{Decision, DecisionKind, Keys, Recorder, Settings, Table};
use capture_agent::session::value::Encoding;
use capture_agent::session::{
    Direction, EndReason, Exchange, Gap, GapReason, Micros, Origin, Param, Protocol, RowValues, SessionEnd,
    SessionId, SessionInfo, Sink, Status, Tag, Transport, Values,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// 2026-07-25T23:59:59Z: every 700 events the date changes, to and fro.
pub const EVENING: i64 = 1_785_023_999_000_000;

/// Settings with which files are completed and segments turn all the time.
pub fn settings(data_dir: &Path, journal_sync: Duration) -> Settings {
    Settings {
        data_dir: data_dir.to_owned(),
        node: "node-1".to_owned(),
        rotate_age: Duration::from_millis(20),
        rotate_size: 64 << 20,
        journal_sync: Some(journal_sync),
        segment_bytes: 30_000,
        seal_key: None,
        anchor: None,
        keys: Keys::default(),
    }
}

/// Merges what a recorder completes, all the time.
pub fn keeper(recorder: &Recorder) -> Keeper {
    let settings = keep::Settings {
        compaction: Some(Compaction { files: 4, bytes: 1 << 20 }),
        every: Duration::from_millis(15),
        ..keep::Settings::default()
    };
    Keeper::start(recorder.archive().clone(), settings).unwrap()
}

/// One statement; up to two rows; now and then a gap, a decision and a session's end.
pub fn tell(recorder: &mut Recorder, session: &SessionInfo, event: u64) {
    let mut exchange = exchange(event);
    for row in 0..event % 3 {
        let values = [Some(&b"value"[..]), None];
        let values = Values::Fields { fields: &values, binary: false };
        let started_at = exchange.started_at;
        recorder.row(session, RowValues { seq: event, row, sql: None, started_at, columns: &[], values });
    }
    if event % 1_000 == 999 {
        // Large enough to be written from where it is.
        exchange.params_body = vec![b'x'; 100_000];
        exchange.params = vec![Param { type_oid: 25, format: 0, value: Some((0, 100_000)) }];
    }
    recorder.statement(session, &exchange);
    if event.is_multiple_of(10) {
        let (at, reason) = (exchange.started_at, GapReason::RingFull);
        recorder.gap(session, &Gap { direction: Direction::Backend, offset: event, length: 1, at, reason });
    }
    if event.is_multiple_of(4) {
        let decision = Decision::new(DecisionKind::Verdict, exchange.started_at);
        recorder.decision(Some(session), &Decision { seq: Some(event), ..decision });
    }
    if event.is_multiple_of(7) {
        let end = SessionEnd {
            ended_at: None,
            reason: EndReason::Terminate,
            statements: event,
            errors: 0,
            bytes_in: 0,
            bytes_out: 0,
            gap_bytes: 0,
            socket_bytes_in: 0,
            socket_bytes_out: 0,
            protocol_error: None,
        };
        recorder.end(session, &end);
    }
}

/// How often each number stands in a column.
pub fn numbers(data_dir: &Path, table: Table, column: &str) -> HashMap<i64, usize> {
    let mut found = HashMap::new();
    for path in files(&data_dir.join(table.name())) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        for rows in reader.build().unwrap().map(Result::unwrap) {
            let column = rows.column_by_name(column).unwrap().as_primitive::<Int64Type>();
            for number in column.iter().flatten() {
                *found.entry(number).or_default() += 1;
            }
        }
    }
    found
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let days = fs::read_dir(folder).unwrap().map(|day| day.unwrap().path());
    let files = days.flat_map(|day| fs::read_dir(day).unwrap().map(|file| file.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}

pub fn session() -> SessionInfo {
    SessionInfo {
        origin: Origin {
            id: SessionId(uuid::Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001)),
            started_at: Micros(EVENING),
            transport: Transport::Unix,
            client_addr: None,
            client_port: None,
            backend_pid: 1,
            peer_pid: None,
            peer_exe: None,
            host_pid: 1,
            server: Default::default(),
            user: None,
            database: None,
            partial: false,
            idle: false,
        },
        user: Some("alice".into()),
        database: None,
        application_name: None,
        auth_method: None,
        server_version: None,
        client_encoding: Encoding::default(),
        standard_conforming_strings: true,
        tls: false,
        gss_encrypted: false,
        tls_version: None,
        tls_cipher: None,
    }
}

pub fn exchange(event: u64) -> Exchange {
    let day = event / 700 % 2;
    Exchange {
        seq: event,
        started_at: Micros(EVENING + i64::try_from(day).unwrap() * 2_000_000),
        duration_us: Some(5),
        first_row_us: None,
        protocol: Protocol::Extended,
        sql: Some("select value from numbered where number = $1".into()),
        statement_name: Some("".into()),
        params: Vec::new(),
        params_body: Vec::new(),
        columns: None,
        rows: Some(event % 3),
        command_tag: Some(Tag::from("SELECT 1")),
        status: Status::Completed,
        sqlstate: None,
        error_message: None,
        bytes_in: 10,
        bytes_out: 20,
        frontend_range: (event * 10, event * 10 + 10),
        complete: true,
        results_truncated: false,
        params_truncated: false,
        masked: 0,
        judged: None,
    }
}

/// A xorshift generator.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
