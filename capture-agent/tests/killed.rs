//! A process that records is killed with SIGKILL again and again, each time at another moment, and the next one goes
//! on where the journal says. In the end every row stands in the files exactly once.
//!
//! The program starts itself: with `CAPTURE_TEST_RECORD` set it records into that folder until it is killed.
#![expect(clippy::print_stdout, reason = "a test without harness says itself what it did")]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_types, reason = "a test looks at the clock")]

mod numbered;

use std::collections::HashMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use capture_agent::record::{Recorder, Table};
use capture_agent::seal::{self, Request};
use capture_agent::session::Micros;
use numbered::{EVENING, Random, numbers, tell};

/// How often the recording process is killed.
const KILLS: u32 = 50;
/// How long it lives at most.
const LONGEST_LIFE_MS: u64 = 400;
/// Events after the last kill.
const LAST: u64 = 500;
/// How long the last one waits for files to be merged.
const PATIENCE: Duration = Duration::from_secs(30);
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
    let report =
        seal::verify(&Request { data_dir: folder.path().to_owned(), ..Request::default() }, |_, _| {});
    assert_eq!(report.unwrap().findings, []);
    let merged = merges(folder.path());
    assert!(merged > 0, "nothing was merged");
    let left = fs::read_dir(folder.path().join(".journal-node-1")).unwrap().count();
    assert_eq!(left, 1, "a clean end leaves the lock alone");
    println!("test killed {KILLS} times, {merged} merges, each of {events} events is recorded once ... ok");
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
    let (mut recorder, recovery) =
        Recorder::new(numbered::settings(data_dir, Duration::from_millis(50))).unwrap();
    let keeper = numbered::keeper(&recorder);
    let mut event = recovery.position.unwrap_or(0);
    match &recovery.states[..] {
        [] => assert_eq!(event, 0, "the state is lost"),
        [(key, state)] => assert_eq!((*key, &state[..]), (STATE, &event.to_le_bytes()[..])),
        _ => panic!("one session has one state"),
    }
    let end = more.map(|more| event + more.parse::<u64>().unwrap());
    let session = numbered::session();
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
            drop(keeper);
            recorder.suspend().unwrap();
            return;
        }
    }
    // What a life as short as the others leaves no time for.
    let merged_by = Instant::now() + PATIENCE;
    while merges(data_dir) == 0 && Instant::now() < merged_by {
        std::thread::park_timeout(Duration::from_millis(20));
    }
    drop(keeper);
    recorder.finish().unwrap();
}

/// Merges that the chain tells of.
fn merges(data_dir: &Path) -> usize {
    let chain = fs::read_to_string(data_dir.join("seals/node-1.jsonl")).unwrap_or_default();
    chain.lines().filter(|line| line.contains("\"kind\":\"merged\"")).count()
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
