//! How long it takes to find a session among ten million statements: `cargo bench -p capture-agent --bench find` records them as
//! an agent does, merges the files as its keeper does, and asks what `sessions` and `show` ask. `CAPTURE_BENCH_STATEMENTS` sets
//! another number.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::disallowed_types, reason = "a benchmark looks at the clock")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use capture_agent::keep::{self, Compaction, Keeper};
use capture_agent::read::{self, Filter, Found, StatementFilter};
use capture_agent::record::journal::SEGMENT_BYTES;
use capture_agent::record::{Recorder, Settings};
use capture_agent::session::value::Encoding;
use capture_agent::session::{
    EndReason, Exchange, Micros, Origin, Param, Protocol, SessionEnd, SessionId, SessionInfo, Sink, Status,
    Tag, Transport,
};

/// Sessions that are open at once: connections of a pool, each of which ends after so many statements.
const OPEN: u64 = 50;
const STATEMENTS_OF_A_SESSION: u64 = 2_000;
/// Distinct shapes of statements.
const SHAPES: u64 = 200;
/// 2026-07-25T10:00:00Z.
const MORNING: i64 = 1_784_973_600_000_000;

fn main() {
    let statements =
        std::env::var("CAPTURE_BENCH_STATEMENTS").map_or(10_000_000, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let sessions = record(folder.path(), statements);
    let (files, bytes) = sizes(folder.path());
    println!(
        "recorded   {statements} statements of {sessions} sessions in {:.1} s: {files} files, {:.1} bytes per statement",
        began.elapsed().as_secs_f64(),
        bytes as f64 / statements as f64
    );
    ask(folder.path(), sessions, "as recorded");
    let began = Instant::now();
    merge(folder.path());
    let (files, bytes) = sizes(folder.path());
    println!(
        "merged     in {:.1} s: {files} files, {:.1} bytes per statement",
        began.elapsed().as_secs_f64(),
        bytes as f64 / statements as f64
    );
    ask(folder.path(), sessions, "merged");
}

/// What `sessions` and `show` do, for a session in the middle.
fn ask(data_dir: &Path, sessions: u64, how: &str) {
    let wanted = session(sessions / 2);
    let id = wanted.origin.id.0.to_string();
    let mut slowest = Duration::ZERO;
    let mut time = |what: &str, work: &mut dyn FnMut()| {
        let mut times: Vec<_> = (0..5)
            .map(|_| {
                let began = Instant::now();
                work();
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        slowest = slowest.max(times[2]);
        println!("{how:<11}  {what:<44} {:>7.0} ms", times[2].as_secs_f64() * 1_000.0);
    };
    time("show SESSION", &mut || {
        let Found::One(row) = read::find(data_dir, &id).unwrap() else { panic!("it is not found") };
        let shown = read::show(data_dir, &row, true).unwrap();
        assert_eq!(shown.map(Result::unwrap).count() as u64, STATEMENTS_OF_A_SESSION);
    });
    time("show, by the end of its id", &mut || {
        assert!(matches!(read::find(data_dir, &id[24..]).unwrap(), Found::One(_)));
    });
    time("sessions", &mut || {
        let filter = Filter { limit: Some(1_000), ..Filter::default() };
        assert!(!read::sessions(data_dir, &filter).unwrap().0.is_empty());
    });
    time("sessions --user, of one in a thousand", &mut || {
        let filter = Filter { user: Some("rare".to_owned()), ..Filter::default() };
        assert!(!read::sessions(data_dir, &filter).unwrap().0.is_empty());
    });
    time("sessions --text, of one statement", &mut || {
        let text = Some("table_only_once".to_owned());
        let filter = Filter { statement: StatementFilter { text, status: None }, ..Filter::default() };
        assert_eq!(read::sessions(data_dir, &filter).unwrap().0.len(), 1);
    });
    println!("{how:<11}  slowest of these {:>39.2} s", slowest.as_secs_f64());
}

/// Records statements of sessions that take turns. Yields how many sessions there were.
fn record(data_dir: &Path, statements: u64) -> u64 {
    let (mut recorder, _) = Recorder::new(settings(data_dir)).unwrap();
    let mut open: Vec<(SessionInfo, u64)> =
        (0..OPEN).map(|n| (session(n), n * STATEMENTS_OF_A_SESSION / OPEN)).collect();
    for (_, seq) in &mut open {
        *seq = 0;
    }
    let mut sessions = OPEN;
    for n in 0..statements {
        let at = usize::try_from(n % OPEN).unwrap();
        let (session_info, seq) = &mut open[at];
        let now = MORNING + i64::try_from(n * 14).unwrap();
        let mut exchange = exchange(*seq, now, n % SHAPES);
        if n == statements / 2 {
            exchange.sql = Some("select * from table_only_once".into());
        }
        recorder.statement(session_info, &exchange);
        *seq += 1;
        if *seq == STATEMENTS_OF_A_SESSION {
            recorder.end(session_info, &end(now, *seq));
            open[at] = (session(sessions), 0);
            sessions += 1;
        }
        if n % 1_000 == 999 {
            recorder.commit(n);
            recorder.tick(Micros(now));
        }
    }
    recorder.finish().unwrap();
    sessions - OPEN
}

/// Lets a keeper merge until nothing is left to merge.
fn merge(data_dir: &Path) {
    let (recorder, _) = Recorder::new(settings(data_dir)).unwrap();
    let settings = keep::Settings {
        // The day is over.
        compaction: Some(Compaction { files: 4, bytes: 64 << 20 }),
        every: Duration::from_millis(50),
        ..keep::Settings::default()
    };
    let keeper = Keeper::start(recorder.archive().clone(), settings).unwrap();
    let mut before = (0, 0);
    loop {
        std::thread::park_timeout(Duration::from_secs(5));
        let now = sizes(data_dir);
        if now == before {
            break;
        }
        before = now;
    }
    drop(keeper);
    recorder.finish().unwrap();
}

/// Complete files, and their bytes.
fn sizes(folder: &Path) -> (usize, u64) {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let (mut files, mut bytes) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "parquet") {
                files += 1;
                bytes += std::fs::metadata(&path).map_or(0, |file| file.len());
            }
        }
    }
    (files, bytes)
}

fn settings(data_dir: &Path) -> Settings {
    Settings {
        data_dir: data_dir.to_owned(),
        node: "bench".to_owned(),
        // As many files as an agent makes in the time that the statements would take.
        rotate_age: Duration::from_secs(1),
        rotate_size: 64 << 20,
        journal_sync: Some(Duration::from_secs(1)),
        segment_bytes: SEGMENT_BYTES,
        seal_key: None,
        anchor: None,
    }
}

fn session(n: u64) -> SessionInfo {
    let started_at = MORNING + i64::try_from(n * STATEMENTS_OF_A_SESSION * 14).unwrap() / 2;
    let milliseconds = u128::try_from(started_at / 1_000).unwrap();
    let random = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & 0x3fff_ffff_ffff_ffff;
    let id = milliseconds << 80 | 0x7000 << 64 | 0x8000_0000_0000_0000 | random;
    SessionInfo {
        origin: Origin {
            id: SessionId(uuid::Uuid::from_u128(id)),
            started_at: Micros(started_at),
            transport: Transport::Tcp,
            client_addr: Some("10.0.0.7".parse().unwrap()),
            client_port: Some(40_000),
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
        user: Some(if n % 1_000 == 500 { "rare" } else { "app" }.into()),
        database: Some("shop".into()),
        application_name: Some("web".into()),
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

fn exchange(seq: u64, at: i64, shape: u64) -> Exchange {
    let value = (seq * 7_919 % 100_000).to_string().into_bytes();
    let params =
        vec![Param { type_oid: 23, format: 0, value: Some((0, u32::try_from(value.len()).unwrap())) }];
    Exchange {
        seq,
        started_at: Micros(at),
        duration_us: Some(80 + seq % 40),
        first_row_us: None,
        protocol: Protocol::Extended,
        sql: Some(format!("select column_{shape} from table_{} where id = $1", shape % 20).into()),
        statement_name: Some(format!("S_{shape}").into()),
        params,
        params_body: value,
        columns: None,
        rows: Some(1),
        command_tag: Some(Tag::from("SELECT 1")),
        status: Status::Completed,
        sqlstate: None,
        error_message: None,
        bytes_in: 31,
        bytes_out: 70,
        frontend_range: (seq * 31, seq * 31 + 31),
        complete: true,
        results_truncated: false,
        params_truncated: false,
        judged: None,
    }
}

fn end(at: i64, statements: u64) -> SessionEnd {
    SessionEnd {
        ended_at: Some(Micros(at)),
        reason: EndReason::Terminate,
        statements,
        errors: 0,
        bytes_in: statements * 31,
        bytes_out: statements * 70,
        gap_bytes: 0,
        socket_bytes_in: statements * 31,
        socket_bytes_out: statements * 70,
        protocol_error: None,
    }
}
