//! How long it takes to find a session among ten million statements: `cargo bench -p capture-agent --bench find` records them as
//! an agent does, merges the files as its keeper does, and times the commands `sessions` and `show`, before and after.
//! `CAPTURE_BENCH_STATEMENTS` sets another number of them, `CAPTURE_BENCH_ROTATE_MS` how long the recorder adds to a file (it
//! records some hundred thousand statements a second).
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]
#![expect(clippy::disallowed_types, reason = "a benchmark looks at the clock")]

mod streams;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use capture_agent::keep::{self, Compaction, Keeper};
use capture_agent::record::{Recorder, Settings};
use capture_agent::session::{
    EndReason, Exchange, Micros, Origin, Param, Protocol, SessionEnd, SessionId, SessionInfo, Sink, Status,
    Tag,
};
use streams::MORNING;

const PROGRAM: &str = env!("CARGO_BIN_EXE_capture-agent");
/// How often each command is run; the median counts.
const ROUNDS: usize = 3;
/// Sessions that are open at once: connections of a pool, each of which ends after so many statements.
const OPEN: u64 = 50;
const STATEMENTS_OF_A_SESSION: u64 = 2_000;
/// Distinct shapes of statements.
const SHAPES: u64 = 200;

fn main() {
    let statements = setting("CAPTURE_BENCH_STATEMENTS", 10_000_000);
    let folder = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let sessions = record(folder.path(), statements);
    println!("{statements} statements of {sessions} sessions");
    tell("recorded", began.elapsed(), folder.path(), statements);
    ask(folder.path(), sessions, "as recorded");
    let began = Instant::now();
    merge(folder.path());
    tell("merged", began.elapsed(), folder.path(), statements);
    ask(folder.path(), sessions, "merged");
}

fn tell(what: &str, took: Duration, data_dir: &Path, statements: u64) {
    let (files, bytes) = sizes(data_dir);
    let each = bytes as f64 / statements as f64;
    println!("{what:<10} in {:.1} s: {files} files, {each:.1} bytes per statement", took.as_secs_f64());
}

/// Times the commands as a person runs them, for a session in the middle: from the start of the program to its end.
fn ask(data_dir: &Path, sessions: u64, how: &str) {
    let id = session(sessions / 2).origin.id.0.to_string();
    let all = STATEMENTS_OF_A_SESSION + 1;
    let mut slowest = Duration::ZERO;
    for (arguments, lines) in [
        (&["show", &id, "--json"][..], all),
        (&["show", &id[24..], "--json"], all),
        (&["sessions", "--json", "--limit", "1000"], sessions.min(1_000)),
        (&["sessions", "--json", "--user", "rare"], sessions.div_ceil(1_000).max(1)),
        (&["sessions", "--json", "--text", "table_only_once"], 1),
    ] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let output =
                Command::new(PROGRAM).args(arguments).arg("--data-dir").arg(data_dir).output().unwrap();
            times.push(began.elapsed());
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let found = output.stdout.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert!(found.abs_diff(lines) <= 1, "{arguments:?}: {found} lines, {lines} expected");
        }
        times.sort_unstable();
        let median = times[ROUNDS / 2];
        slowest = slowest.max(median);
        println!("{how:<11}  {:<64} {:>6.2} s", arguments.join(" "), median.as_secs_f64());
    }
    println!("{how:<11}  {:<64} {:>6.2} s", "the slowest of these", slowest.as_secs_f64());
}

/// Records statements of sessions that take turns. Yields how many sessions there were.
fn record(data_dir: &Path, statements: u64) -> u64 {
    let (mut recorder, _) = Recorder::new(rotating(data_dir)).unwrap();
    let mut open: Vec<(SessionInfo, u64)> = (0..OPEN).map(|n| (session(n), 0)).collect();
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
    let (recorder, _) = Recorder::new(rotating(data_dir)).unwrap();
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

fn rotating(data_dir: &Path) -> Settings {
    let rotate_age = Duration::from_millis(setting("CAPTURE_BENCH_ROTATE_MS", 1_000));
    Settings { rotate_age, ..streams::settings(data_dir) }
}

fn setting(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

fn session(n: u64) -> SessionInfo {
    let started_at = MORNING + i64::try_from(n * STATEMENTS_OF_A_SESSION * 14).unwrap() / 2;
    let milliseconds = u128::try_from(started_at / 1_000).unwrap();
    let random = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) & 0x3fff_ffff_ffff_ffff;
    let id = milliseconds << 80 | 0x7000 << 64 | 0x8000_0000_0000_0000 | random;
    let id = SessionId(uuid::Uuid::from_u128(id));
    SessionInfo {
        origin: Origin { id, started_at: Micros(started_at), ..streams::origin(n) },
        user: Some(if n % 1_000 == 500 { "rare" } else { "app" }.into()),
        application_name: Some("web".into()),
        ..streams::session(n)
    }
}

fn exchange(seq: u64, at: i64, shape: u64) -> Exchange {
    let value = (seq * 7_919 % 100_000).to_string().into_bytes();
    let params =
        vec![Param { type_oid: 23, format: 0, value: Some((0, u32::try_from(value.len()).unwrap())) }];
    Exchange {
        seq,
        started_at: Micros(at),
        duration_us: Some(80 + i64::try_from(seq % 40).unwrap()),
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
        masked: 0,
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
