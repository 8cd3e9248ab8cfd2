//! A process that records and tells receivers of it is killed with SIGKILL again and again, while one receiver is down, refuses
//! or breaks off half of the time. In the end each statement of the record has exactly one number in each log, and the
//! receivers have all of them: in order, without a hole, and twice only with the same number.
//!
//! The program starts itself: with `CAPTURE_TEST_RECORD` set it records into that folder until it is killed.
#![expect(clippy::print_stdout, reason = "a test without harness says itself what it did")]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_types, reason = "a test looks at the clock")]

mod numbered;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use capture_agent::events::{self, Feed, To, What};
use capture_agent::record::{Decision, DecisionKind, Keys, Outcome, Recorder, Settings, Table};
use capture_agent::session::{Exchange, Micros, SessionInfo, Sink as _};
use numbered::{Random, files};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

/// How often the recording process is killed.
const KILLS: u32 = 40;
/// How long it lives at most.
const LONGEST_LIFE_MS: u64 = 500;
/// Statements after the last kill.
const LAST: u64 = 500;
/// 2026-07-25T10:00:00Z.
const MORNING: i64 = 1_784_973_600_000_000;
const STATE: [u8; 16] = *b"the only session";
const SIGKILL: i32 = 9;

fn main() {
    if let Some(data_dir) = std::env::var_os("CAPTURE_TEST_RECORD") {
        let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
        let (from, more) = (number("CAPTURE_TEST_FROM").unwrap_or(0), number("CAPTURE_TEST_UNTIL"));
        return record(Path::new(&data_dir), &std::env::var("CAPTURE_TEST_URL").unwrap(), from, more);
    }
    let folder = tempfile::tempdir().unwrap();
    let webhook = Webhook::start();
    fs::write(folder.path().join("secret"), "s3cret").unwrap();
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    let mut killed = 0;
    while killed < KILLS {
        webhook.set_mood(random.below(4));
        let mut child = Recording(start(folder.path(), webhook.port, 0, None));
        std::thread::park_timeout(Duration::from_millis(random.below(LONGEST_LIFE_MS)));
        let _ = child.0.kill();
        let status = child.0.wait().unwrap();
        assert!(status.success() || status.signal() == Some(SIGKILL), "it ended by itself: {status}");
        killed += u32::from(!status.success());
    }
    webhook.set_mood(0);
    // The last one has two seconds at its end to hand over what waits; if that is too much, the next one goes on.
    let (mut rounds, mut from) = (0, 0);
    let total = loop {
        rounds += 1;
        assert!(rounds < 20, "the receivers never get all");
        let mut last = Recording(start(folder.path(), webhook.port, from, Some(LAST)));
        assert!(last.0.wait().unwrap().success(), "the last one failed");
        let recorded = recorded(folder.path());
        // A clean end leaves no position.
        from = recorded.0.last().map_or(0, |last| last.unsigned_abs() + 1);
        let waiting = |log: &BTreeMap<u64, Value>| log.len() < recorded.0.len() + recorded.1;
        if !waiting(&webhook.got()) && !waiting(&in_file(&folder.path().join("events.jsonl"))) {
            break recorded;
        }
    };
    let (statements, decisions) = total;
    let sent = webhook.got();
    for (log, name) in [(&sent, "webhook"), (&in_file(&folder.path().join("events.jsonl")), "file")] {
        check(log, &statements, decisions, name);
    }
    let twice = webhook.state.lock().unwrap().twice;
    let left = fs::read_dir(folder.path().join(".journal-node-1")).unwrap().count();
    assert_eq!(left, 1, "a clean end leaves the lock alone");
    println!(
        "test killed {KILLS} times, {} statements and {decisions} verdicts told without a hole, {twice} of them twice ... ok",
        statements.len()
    );
}

/// Each number once, in each log all of what is recorded, and nothing that is not.
fn check(log: &BTreeMap<u64, Value>, statements: &BTreeSet<i64>, decisions: usize, name: &str) {
    for (expected, number) in (0..).zip(log.keys()) {
        assert_eq!(*number, expected, "{name}: a number is missing");
    }
    let mut told = BTreeSet::new();
    let mut findings = 0;
    for event in log.values() {
        match event["class_uid"].as_u64() {
            Some(6005) => {
                let seq = event["unmapped"]["seq"].as_i64().unwrap();
                assert!(told.insert(seq), "{name}: statement {seq} has two numbers");
            }
            Some(2004) => findings += 1,
            _ => panic!("{name}: {event}"),
        }
    }
    let missing: Vec<_> = statements.difference(&told).collect();
    let invented: Vec<_> = told.difference(statements).collect();
    assert!(missing.is_empty() && invented.is_empty(), "{name}: missing {missing:?}, invented {invented:?}");
    assert_eq!(findings, decisions, "{name}: verdicts");
}

/// Ends with the test, also if that fails.
struct Recording(Child);

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(data_dir: &Path, port: u16, from: u64, more: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env("CAPTURE_TEST_RECORD", data_dir);
    command.env("CAPTURE_TEST_URL", format!("http://127.0.0.1:{port}/events"));
    command.env("CAPTURE_TEST_FROM", from.to_string());
    if let Some(more) = more {
        command.env("CAPTURE_TEST_UNTIL", more.to_string());
    }
    command.spawn().unwrap()
}

/// Records numbered statements, and a verdict for every fourth; the reader's position is the next one's number, and `from` is if
/// there is none.
fn record(data_dir: &Path, url: &str, from: u64, more: Option<u64>) {
    let receiver = |name: &str, to| events::Receiver {
        name: name.to_owned(),
        to,
        what: What { activity: true, findings: true },
        filter: None,
        sql_bytes: 4_096,
        spool_bytes: 256 << 20,
        batch_events: 50,
        retry: (Duration::from_millis(5), Duration::from_millis(50)),
    };
    let feed = Feed::new(events::Settings {
        data_dir: data_dir.to_owned(),
        node: "node-1".to_owned(),
        sync: Some(Duration::from_millis(50)),
        receivers: vec![
            receiver(
                "webhook",
                To::Webhook {
                    url: url.to_owned(),
                    secret_file: data_dir.join("secret"),
                    ca_file: "/nowhere".into(),
                },
            ),
            receiver("file", To::File(data_dir.join("events.jsonl"))),
        ],
    });
    let settings = Settings {
        data_dir: data_dir.to_owned(),
        node: "node-1".to_owned(),
        rotate_age: Duration::from_millis(20),
        rotate_size: 64 << 20,
        journal_sync: Some(Duration::from_millis(50)),
        segment_bytes: 30_000,
        seal_key: None,
        anchor: None,
        keys: Keys::default(),
    };
    let (mut recorder, recovery) = Recorder::with_tap(settings, Some(Box::new(feed))).unwrap();
    let mut event = recovery.position.unwrap_or(from);
    let end = more.map(|more| event + more);
    let session = session();
    let mut random = Random(event << 20 | u64::from(std::process::id()));
    let begun = Instant::now();
    while end.is_none_or(|end| event < end) {
        for _ in 0..=random.below(20) {
            let exchange = exchange(event);
            recorder.statement(&session, &exchange);
            if event.is_multiple_of(4) {
                let decision = Decision::new(DecisionKind::Verdict, exchange.started_at);
                let verdict = Some(Outcome::Blocked);
                let guardrail = Some("no-ddl".into());
                recorder
                    .decision(Some(&session), &Decision { seq: Some(event), verdict, guardrail, ..decision });
            }
            event += 1;
        }
        recorder.save_state(STATE, &event.to_le_bytes());
        recorder.commit(event);
        // Time runs twenty times as fast, so that batches do not wait longer than this process lives.
        let now = i64::try_from(begun.elapsed().as_micros()).unwrap() * 20;
        recorder.tick(Micros(MORNING + now));
        // As fast as a busy server, but no faster than an unoptimized build can tell.
        std::thread::park_timeout(Duration::from_millis(2));
        if end.is_none() && random.below(200) == 0 {
            recorder.suspend().unwrap();
            return;
        }
    }
    recorder.finish().unwrap();
}

/// The statements' numbers, each of which stands there once, and how many verdicts there are.
fn recorded(data_dir: &Path) -> (BTreeSet<i64>, usize) {
    let statements = numbers(data_dir, Table::Statements);
    let different: BTreeSet<i64> = statements.iter().copied().collect();
    assert_eq!(different.len(), statements.len(), "a statement is recorded twice");
    (different, numbers(data_dir, Table::Decisions).len())
}

fn numbers(data_dir: &Path, table: Table) -> Vec<i64> {
    let mut found = Vec::new();
    for path in files(&data_dir.join(table.name())) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        for rows in reader.build().unwrap().map(Result::unwrap) {
            found.extend(rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>().iter().flatten());
        }
    }
    found
}

/// Events by number. Those that are there twice are the same.
fn by_number(lines: impl Iterator<Item = String>, into: &mut BTreeMap<u64, Value>) -> u64 {
    let mut twice = 0;
    for line in lines {
        let event: Value = serde_json::from_str(&line).unwrap();
        let number = event["metadata"]["sequence"].as_u64().unwrap();
        if let Some(before) = into.insert(number, event.clone()) {
            twice += 1;
            assert_eq!(before, event, "number {number} was used twice");
        }
    }
    twice
}

fn in_file(path: &Path) -> BTreeMap<u64, Value> {
    let mut found = BTreeMap::new();
    // The agent was killed in some lines.
    let lines = BufReader::new(File::open(path).unwrap()).lines().map(Result::unwrap);
    by_number(lines.filter(|line| serde_json::from_str::<Value>(line).is_ok()), &mut found);
    found
}

/// Takes POSTs, if it is in the mood.
struct Webhook {
    port: u16,
    state: Arc<Mutex<Taken>>,
}

#[derive(Default)]
struct Taken {
    /// 0: takes all; 1: breaks off; 2: answers 503; 3: takes half of them, and answers as if it had not.
    mood: u64,
    events: BTreeMap<u64, Value>,
    twice: u64,
    requests: u64,
}

impl Webhook {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(Taken::default()));
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || listener.incoming().flatten().for_each(|stream| drop(serve(stream, &state)))
        });
        Self { port, state }
    }

    fn set_mood(&self, mood: u64) {
        self.state.lock().unwrap().mood = mood;
    }

    fn got(&self) -> BTreeMap<u64, Value> {
        self.state.lock().unwrap().events.clone()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<Taken>) -> std::io::Result<()> {
    let mood = state.lock().unwrap().mood;
    if mood == 1 {
        return Ok(());
    }
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    // The agent may be killed here: then nothing was taken.
    reader.read_exact(&mut body)?;
    let mut state = state.lock().unwrap();
    state.requests += 1;
    let takes = mood == 0 || (mood == 3 && state.requests.is_multiple_of(2));
    if takes {
        let Taken { events, twice, .. } = &mut *state;
        *twice += by_number(body.as_slice().lines().map(Result::unwrap), events);
    }
    let answer = if mood == 0 { "204 No Content" } else { "503 Service Unavailable" };
    stream
        .write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes())
}

fn session() -> SessionInfo {
    let mut session = numbered::session();
    session.origin.started_at = Micros(MORNING);
    session
}

fn exchange(event: u64) -> Exchange {
    let started_at = Micros(MORNING + i64::try_from(event).unwrap());
    Exchange { started_at, ..numbered::exchange(event) }
}
