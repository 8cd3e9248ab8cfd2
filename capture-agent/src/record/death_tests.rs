//! The agent dies: whatever the moment, the next one completes what was committed, and nothing twice.
//!
//! A death is a copy of the data directory: the journal first and the tables then, since the writer thread goes on
//! meanwhile. So the copy has files that the copied journal does not know of yet, as after a rename.

use std::fs;
use std::path::Path;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use proptest::prelude::*;

use super::fixture::calls::{Call, calls, play};
use super::fixture::{MORNING, end, exchange, recorder, row, session, settings};
use super::tests::{column, parquet_files, read};
use super::*;

const KEY: StateKey = [7; 16];

#[test]
fn whenever_the_agent_dies_every_committed_row_is_recorded_once() {
    let folder = tempfile::tempdir().unwrap();
    // Files are completed and segments turn all the time.
    let settings =
        Settings { rotate_age: Duration::from_millis(1), segment_bytes: 4_000, ..settings(folder.path()) };
    let (mut recorder, _) = Recorder::new(settings).unwrap();
    let session = session(1, MORNING);
    let mut recorded = 0;
    let mut published = 0;
    for round in 0..20 {
        let committed = recorded;
        for _ in 0..10 {
            let select = exchange(recorded, Micros(MORNING.0 + round), "select 1");
            row(&mut recorder, &session, &select, 0, &[Some("1")]);
            recorder.statement(&session, &select);
            recorded += 1;
        }
        if round % 4 == 0 {
            check(folder.path(), committed);
        }
        recorder.save_state(KEY, &recorded.to_le_bytes());
        recorder.commit(recorded);
        recorder.tick(Micros(MORNING.0 + round * 1_000_000));
        published += u64::from(check(folder.path(), recorded));
    }
    assert!(published > 3, "the writer completed files at {published} deaths only");
    assert_eq!(recorder.finish().unwrap().rows, 2 * recorded);
    assert!(segments(folder.path()).is_empty());
}

/// Lets the agent die now: `committed` statements and their rows must be recorded by the next. Returns whether some
/// were in complete files already.
fn check(data_dir: &Path, committed: u64) -> bool {
    let copy = die(data_dir);
    let complete = parquet_files(copy.path()).len();
    let (recorder, recovery) = Recorder::new(settings(copy.path())).unwrap();
    if committed > 0 {
        assert_eq!(recovery.position, Some(committed));
        assert_eq!(recovery.states, [(KEY, committed.to_le_bytes().to_vec())]);
    }
    // The next one dies too, before it has done anything.
    let second = die(copy.path());
    recorder.finish().unwrap();
    assert_once(copy.path(), committed);
    let (recorder, again) = Recorder::new(settings(second.path())).unwrap();
    assert_eq!((again.position, again.states), (recovery.position, recovery.states));
    recorder.finish().unwrap();
    assert_once(second.path(), committed);
    complete > 0
}

fn assert_once(data_dir: &Path, committed: u64) {
    for table in [Table::Statements, Table::Results] {
        let mut seqs = seqs(&read(data_dir, table));
        seqs.sort_unstable();
        assert!(seqs.iter().copied().eq(0..committed as i64), "{}: {seqs:?}", table.name());
    }
}

fn seqs(rows: &RecordBatch) -> Vec<i64> {
    column(rows, "seq").as_primitive::<Int64Type>().values().to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_replayed_becomes_the_same_rows(calls in calls()) {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let [mut alive, mut dead] = folders.each_ref().map(|folder| recorder(folder.path()));
        play(&calls, &mut alive);
        play(&calls, &mut dead);
        dead.commit(1);
        let copy = die(folders[1].path());
        let (next, recovery) = Recorder::new(settings(copy.path())).unwrap();
        prop_assert_eq!(recovery.rows, calls.iter().map(Call::rows).sum::<u64>());
        let summary = next.finish().unwrap();
        prop_assert_eq!(summary.rows, alive.finish().unwrap().rows);
        for table in Table::ALL {
            prop_assert_eq!(read(copy.path(), table), read(folders[0].path(), table));
        }
    }
}

#[test]
fn a_file_whose_completion_the_journal_does_not_know_of_is_not_recorded_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut recorder, session) = (recorder(folder.path()), session(1, MORNING));
    for seq in 0..5 {
        recorder.statement(&session, &exchange(seq, MORNING, "select 1"));
    }
    recorder.commit(5);
    let copy = die(folder.path());
    recorder.finish().unwrap();
    // Dead right after the rename.
    copy_tables(folder.path(), copy.path());
    let (recorder, recovery) = Recorder::new(settings(copy.path())).unwrap();
    assert_eq!(recovery.rows, 0);
    assert_eq!(recorder.finish().unwrap().rows, 0);
    assert_eq!(read(copy.path(), Table::Statements).num_rows(), 5);
}

#[test]
fn no_file_is_completed_before_its_rows_are_committed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { rotate_age: Duration::from_millis(1), ..settings(folder.path()) };
    let (mut recorder, session) = (Recorder::new(settings).unwrap().0, session(1, MORNING));
    let files = |table: Table| parquet_files(&folder.path().join(table.name())).len();
    recorder.end(&session, &end(&session, 1));
    recorder.commit(1);
    recorder.statement(&session, &exchange(0, MORNING, "select 1"));
    recorder.tick(Micros(MORNING.0 + 1_000_000));
    recorder.tick(Micros(MORNING.0 + 2_000_000));
    // The writer completes what is committed, and so has looked at what is not.
    wait_until(|| files(Table::Sessions) == 1 && recorder.queue.progress().1.is_some());
    std::thread::park_timeout(Duration::from_millis(600));
    assert_eq!(files(Table::Statements), 0);
    let copy = die(folder.path());
    recorder.commit(2);
    wait_until(|| files(Table::Statements) == 1);
    let (next, recovery) = Recorder::new(fixture::settings(copy.path())).unwrap();
    assert_eq!((recovery.rows, recovery.position), (0, Some(1)));
    next.finish().unwrap();
    assert_eq!(read(copy.path(), Table::Statements).num_rows(), 0);
}

#[test]
fn a_file_that_was_moved_away_is_not_recorded_again() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { rotate_age: Duration::from_millis(1), ..settings(folder.path()) };
    let (mut recorder, session) = (Recorder::new(settings.clone()).unwrap().0, session(1, MORNING));
    recorder.statement(&session, &exchange(0, MORNING, "select 1"));
    recorder.commit(1);
    wait_until(|| {
        recorder.tick(Micros(MORNING.0 + 1_000_000));
        !parquet_files(folder.path()).is_empty()
    });
    // The journal learns of it.
    wait_until(|| {
        recorder.tick(Micros(MORNING.0 + 2_000_000));
        recorder.commit(2);
        recorder.journal.as_ref().unwrap().shelf().is_settled()
    });
    let copy = die(folder.path());
    fs::remove_dir_all(copy.path().join("statements")).unwrap();
    let (_, recovery) = Recorder::new(Settings { data_dir: copy.path().to_owned(), ..settings }).unwrap();
    assert_eq!((recovery.rows, recovery.position), (0, Some(2)));
}

#[test]
fn rows_that_are_declared_lost_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut recorder, session) = (recorder(folder.path()), session(1, MORNING));
    fs::remove_dir(folder.path().join("statements")).unwrap();
    fs::write(folder.path().join("statements"), "in the way").unwrap();
    let spans = |recorder: &Recorder| recorder.queue.progress().1;
    recorder.statement(&session, &exchange(0, MORNING, "select 1"));
    recorder.commit(1);
    // The writer gave up on a row, and the recorder declares it.
    let lost = loss::Loss {
        session: Some(session.origin.id),
        table: Table::Statements,
        direction: crate::session::Direction::Frontend,
        range: None,
        statements: Some((0, 0)),
        rows: 1,
        at: MORNING,
    };
    let first = recorder.builders.first().unwrap();
    let mut rows = lsn::Spans::default();
    rows.push(lsn::Piece { span: lsn::Span::of(first), after: None });
    recorder.queue.lose(Table::Statements, batch::Day::of(MORNING), &[lost], &rows);
    assert_eq!(spans(&recorder), Some(first));
    let undeclared = die(folder.path());
    recorder.tick(MORNING);
    recorder.commit(2);
    let declared = die(folder.path());
    for (copy, expected) in [(undeclared, (1, 0)), (declared, (0, 1))] {
        let _ = fs::remove_file(copy.path().join("statements"));
        let (next, _) = Recorder::new(settings(copy.path())).unwrap();
        next.finish().unwrap();
        let rows = |table| read(copy.path(), table).num_rows();
        assert_eq!((rows(Table::Statements), rows(Table::Gaps)), expected);
    }
}

#[test]
fn a_clean_end_leaves_nothing_and_a_suspension_leaves_the_states() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(1, MORNING);
    for (seq, keep) in [(0, true), (1, false), (2, false)] {
        let (mut recorder, recovery) = Recorder::new(settings(folder.path())).unwrap();
        assert_eq!(recovery.rows, 0);
        let expected = if seq == 1 { (Some(9), vec![(KEY, b"state".to_vec())]) } else { (None, Vec::new()) };
        assert_eq!((recovery.position, recovery.states), expected);
        recorder.save_state(KEY, b"state");
        recorder.statement(&session, &exchange(seq, MORNING, "select 1"));
        recorder.end(&session, &end(&session, 1));
        recorder.commit(9);
        let ended = if keep { recorder.suspend() } else { recorder.finish() };
        assert_eq!(ended.unwrap().rows, 2);
        assert_eq!(segments(folder.path()).len(), usize::from(keep));
    }
    assert_eq!(read(folder.path(), Table::Statements).num_rows(), 3);
}

#[test]
fn a_second_agent_of_the_same_node_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = recorder(folder.path());
    let error = Recorder::new(settings(folder.path())).unwrap_err().to_string();
    let holder = format!("process {}", std::process::id());
    assert!(error.contains(&holder) && error.contains("#data-dir-in-use"), "{error}");
    let other = Settings { node: "node-2".to_owned(), ..settings(folder.path()) };
    Recorder::new(other).unwrap().0.finish().unwrap();
    first.finish().unwrap();
    Recorder::new(settings(folder.path())).unwrap().0.finish().unwrap();
}

#[test]
fn positions_are_not_used_again_when_the_journal_lost_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { rotate_age: Duration::from_millis(1), ..settings(folder.path()) };
    let (mut recorder, session) = (Recorder::new(settings.clone()).unwrap().0, session(1, MORNING));
    let before = die(folder.path());
    recorder.statement(&session, &exchange(0, MORNING, "select 1"));
    recorder.commit(1);
    wait_until(|| {
        recorder.tick(Micros(MORNING.0 + 1_000_000));
        !parquet_files(folder.path()).is_empty()
    });
    // The power fails: the file is on the disk, the journal's last transaction is not.
    copy_tables(folder.path(), before.path());
    let (mut next, _) =
        Recorder::new(Settings { data_dir: before.path().to_owned(), ..settings.clone() }).unwrap();
    next.statement(&session, &exchange(1, MORNING, "select 2"));
    next.commit(1);
    let copy = die(before.path());
    let (last, _) = Recorder::new(Settings { data_dir: copy.path().to_owned(), ..settings }).unwrap();
    last.finish().unwrap();
    assert_eq!(seqs(&read(copy.path(), Table::Statements)), [0, 1]);
}

/// What is left when the agent dies now.
fn die(data_dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&journal_of(data_dir), &journal_of(copy.path()));
    copy_tables(data_dir, copy.path());
    copy
}

fn copy_tables(from: &Path, to: &Path) {
    for table in Table::ALL {
        copy_folder(&from.join(table.name()), &to.join(table.name()));
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let Ok(entries) = fs::read_dir(from) else { return };
    fs::create_dir_all(to).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            // Renamed or removed meanwhile.
            let _ = fs::copy(entry.path(), target);
        }
    }
}

fn journal_of(data_dir: &Path) -> PathBuf {
    data_dir.join(".journal-node-1")
}

fn segments(data_dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(journal_of(data_dir)).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "seg")).collect()
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if condition() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("nothing happened in 30 seconds");
}

/// The record is older than its seals, and an agent dies while it seals what it finds: the next one goes on.
#[test]
fn what_was_found_is_sealed_however_often_the_agent_dies() {
    let folder = tempfile::tempdir().unwrap();
    for seq in 0..3 {
        let (mut recorder, session) = (recorder(folder.path()), session(1, MORNING));
        recorder.statement(&session, &exchange(seq, MORNING, "select 1"));
        recorder.finish().unwrap();
    }
    let chain = folder.path().join("seals/node-1.jsonl");
    fs::remove_file(&chain).unwrap();
    let findings = || {
        let request = crate::seal::Request { data_dir: folder.path().to_owned(), ..Default::default() };
        crate::seal::verify(&request, |_, _| {}).unwrap().findings
    };
    for lines in [0, 1, 2] {
        recorder(folder.path()).finish().unwrap();
        assert_eq!(findings(), []);
        let text = fs::read_to_string(&chain).unwrap();
        assert_eq!(text.matches("\"kind\":\"found\"").count(), 3);
        let kept: String = text.split_inclusive('\n').take(lines).collect();
        fs::write(&chain, kept).unwrap();
    }
    recorder(folder.path()).finish().unwrap();
    assert_eq!(findings(), []);
}
