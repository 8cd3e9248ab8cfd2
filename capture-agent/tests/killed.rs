//! A process that records is killed with SIGKILL again and again, each time at another moment, and the next one goes
//! on where the journal says. In the end every row stands in the files exactly once.
//!
//! The program starts itself: with `CAPTURE_TEST_RECORD` set it records into that folder until it is killed.
#![expect(clippy::print_stdout, reason = "a test without harness says itself what it did")]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_types, reason = "a test looks at the clock")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use capture_agent::record::{Decision, DecisionKind, Recorder, Settings, Table};
use capture_agent::session::value::Encoding;
use capture_agent::session::{
    Direction, EndReason, Exchange, Gap, GapReason, Micros, Origin, Param, Protocol, RowValues, SessionEnd,
    SessionId, SessionInfo, Sink, Status, Tag, Transport, Values,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How often the recording process is killed.
const KILLS: u32 = 50;
/// How long it lives at most.
const LONGEST_LIFE_MS: u64 = 400;
/// Events after the last kill.
const LAST: u64 = 500;
/// 2026-07-25T23:59:59Z: every 700 events the date changes, to and fro.
const EVENING: i64 = 1_785_023_999_000_000;
const STATE: [u8; 16] = *b"the only session";
const SIGKILL: i32 = 9;

fn main() {
    if let Some(data_dir) = std::env::var_os("CAPTURE_TEST_RECORD") {
        return record(Path::new(&data_dir), std::env::var("CAPTURE_TEST_UNTIL").ok());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    let mut killed = 0;
    while killed < KILLS {
        let mut child = Recording(start(folder.path(), None));
        // From before it has begun to after it has completed many files.
        std::thread::park_timeout(Duration::from_millis(random.below(LONGEST_LIFE_MS)));
        let _ = child.0.kill();
        let status = child.0.wait().unwrap();
        // It may have suspended itself just before.
        assert!(status.success() || status.signal() == Some(SIGKILL), "it ended by itself: {status}");
        killed += u32::from(!status.success());
    }
    let mut last = Recording(start(folder.path(), Some(LAST)));
    assert!(last.0.wait().unwrap().success(), "the last one failed");
    let events = check(folder.path());
    let left = fs::read_dir(folder.path().join(".journal-node-1")).unwrap().count();
    assert_eq!(left, 1, "a clean end leaves the lock alone");
    println!("test killed {KILLS} times, each of {events} events is recorded once ... ok");
}

/// Ends with the test, also if that fails.
struct Recording(Child);

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(data_dir: &Path, more: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("CAPTURE_TEST_RECORD", data_dir);
    if let Some(more) = more {
        command.env("CAPTURE_TEST_UNTIL", more.to_string());
    }
    command.spawn().unwrap()
}

/// Records events, which are numbered: the reader's position is the next one's number.
fn record(data_dir: &Path, more: Option<String>) {
    let (mut recorder, recovery) = Recorder::new(Settings {
        data_dir: data_dir.to_owned(),
        node: "node-1".to_owned(),
        rotate_age: Duration::from_millis(20),
        rotate_size: 64 << 20,
        journal_sync: Some(Duration::from_millis(50)),
        segment_bytes: 30_000,
        seal_key: None,
        anchor: None,
    })
    .unwrap();
    let mut event = recovery.position.unwrap_or(0);
    match &recovery.states[..] {
        [] => assert_eq!(event, 0, "the state is lost"),
        [(key, state)] => assert_eq!((*key, &state[..]), (STATE, &event.to_le_bytes()[..])),
        _ => panic!("one session has one state"),
    }
    let end = more.map(|more| event + more.parse::<u64>().unwrap());
    let session = session();
    let mut random = Random(event << 20 | u64::from(std::process::id()));
    let begun = Instant::now();
    while end.is_none_or(|end| event < end) {
        for _ in 0..=random.below(20) {
            tell(&mut recorder, &session, event);
            event += 1;
        }
        recorder.save_state(STATE, &event.to_le_bytes());
        recorder.commit(event);
        // Time runs twenty times as fast, so that batches do not wait longer than this process lives.
        let now = i64::try_from(begun.elapsed().as_micros()).unwrap() * 20;
        recorder.tick(Micros(EVENING + now));
        if end.is_none() && random.below(200) == 0 {
            recorder.suspend().unwrap();
            return;
        }
    }
    recorder.finish().unwrap();
}

/// One statement; up to two rows; now and then a gap, a decision and a session's end.
fn tell(recorder: &mut Recorder, session: &SessionInfo, event: u64) {
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

/// Compares the files with what was told. Returns how many events there were.
fn check(data_dir: &Path) -> u64 {
    let statements = numbers(data_dir, Table::Statements, "seq");
    let events = statements.len() as u64;
    let once = |found: &HashMap<i64, usize>, expected: &dyn Fn(u64) -> usize, what: &str| {
        for event in 0..events {
            let found = found.get(&(event as i64)).copied().unwrap_or(0);
            assert_eq!(found, expected(event), "{what} of event {event}, of {events}");
        }
        let total: usize = found.values().sum();
        assert_eq!(total, (0..events).map(expected).sum::<usize>(), "{what} of no event");
    };
    assert!(events >= LAST);
    once(&statements, &|_| 1, "statements");
    once(&numbers(data_dir, Table::Results, "seq"), &|event| (event % 3) as usize, "results");
    once(&numbers(data_dir, Table::Gaps, "offset"), &|event| usize::from(event % 10 == 0), "gaps");
    once(&numbers(data_dir, Table::Decisions, "seq"), &|event| usize::from(event % 4 == 0), "decisions");
    once(&numbers(data_dir, Table::Sessions, "statements"), &|event| usize::from(event % 7 == 0), "sessions");
    events
}

/// How often each number stands in a column.
fn numbers(data_dir: &Path, table: Table, column: &str) -> HashMap<i64, usize> {
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

fn files(folder: &Path) -> Vec<PathBuf> {
    let days = fs::read_dir(folder).unwrap().map(|day| day.unwrap().path());
    let files = days.flat_map(|day| fs::read_dir(day).unwrap().map(|file| file.unwrap().path()));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).collect()
}

fn session() -> SessionInfo {
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

fn exchange(event: u64) -> Exchange {
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
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
