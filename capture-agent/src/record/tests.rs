//! The recorder against real files.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::fixture::{MORNING, columns, end, exchange, recorder, row, session, with_params};
use super::*;
use crate::policy::Action;
use crate::session::{Direction, GapReason, Judged, Micros, Sink, SqlState, Status, Verdict};

#[test]
fn what_was_said_is_in_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let session = session(1, MORNING);
    let mut select = with_params(
        exchange(0, MORNING, "SELECT * FROM customers WHERE id = $1 AND ssn = $2"),
        &[(23, Some(b"42")), (25, None)],
    );
    select.columns = Some(columns(&["id", "ssn"]));
    row(&mut recorder, &session, &select, 0, &[Some("42"), None]);
    row(&mut recorder, &session, &select, 1, &[Some(""), Some("123-45-6789")]);
    recorder.statement(&session, &select);
    let mut failed = exchange(1, Micros(MORNING.0 + 5), "SELEC");
    failed.status = Status::Failed;
    failed.sqlstate = SqlState::new(b"42601");
    failed.error_message = Some("syntax error at or near \"SELEC\"".to_owned());
    failed.sql = None;
    failed.duration_us = None;
    recorder.statement(&session, &failed);
    recorder.gap(
        &session,
        &Gap {
            direction: Direction::Backend,
            offset: 10,
            length: 5,
            at: MORNING,
            reason: GapReason::RingFull,
        },
    );
    recorder.end(&session, &end(&session, 2));
    let summary = recorder.finish().unwrap();
    assert_eq!(summary, Summary { rows: 6, files: 4, lost_rows: 0 });

    let statements = read(folder.path(), Table::Statements);
    assert_eq!(texts(&statements, "session_id"), vec![Some(session.origin.id.0.to_string()); 2]);
    assert_eq!(texts(&statements, "sql"), [select.sql.as_deref().map(str::to_owned), None]);
    assert_eq!(texts(&statements, "status"), owned(&["completed", "failed"]));
    assert_eq!(texts(&statements, "verdict"), owned(&["none", "none"]));
    assert_eq!(texts(&statements, "client_addr"), owned(&["10.1.2.3", "10.1.2.3"]));
    assert_eq!(texts(&statements, "sqlstate"), [None, Some("42601".to_owned())]);
    let started = column(&statements, "started_at").as_primitive::<TimestampMicrosecondType>();
    assert_eq!(started.values(), &[MORNING.0, MORNING.0 + 5]);
    assert_eq!(started.timezone(), Some("UTC"));
    assert!(column(&statements, "duration_us").is_null(1));
    let params = column(&statements, "params").as_list::<i32>();
    let first = params.value(0);
    let first = first.as_struct();
    assert_eq!(first.column(0).as_primitive::<UInt32Type>().values(), &[23, 25]);
    assert_eq!(first.column(2).as_string::<i32>().value(0), "42");
    assert!(first.column(2).is_null(1));
    assert!(params.value(1).is_empty() && params.is_valid(1));
    let described = column(&statements, "columns").as_list::<i32>();
    assert_eq!(described.value(0).as_struct().column(0).as_string::<i32>().value(1), "ssn");
    assert!(described.is_null(1));

    let results = read(folder.path(), Table::Results);
    assert_eq!(column(&results, "row").as_primitive::<Int64Type>().values(), &[0, 1]);
    let values = column(&results, "values").as_list::<i32>();
    let second = values.value(1);
    assert_eq!(second.as_string::<i32>().iter().collect::<Vec<_>>(), [Some(""), Some("123-45-6789")]);
    assert!(values.value(0).is_null(1));

    let sessions = read(folder.path(), Table::Sessions);
    assert_eq!(texts(&sessions, "end_reason"), owned(&["terminate"]));
    assert_eq!(texts(&sessions, "server_version"), owned(&["15.18"]));
    assert_eq!(texts(&sessions, "container_id"), owned(&["0a".repeat(32).as_str()]));
    assert_eq!(texts(&sessions, "pod"), owned(&["orders-db-0"]));
    assert_eq!(texts(&sessions, "namespace"), owned(&["payments"]));
    assert_eq!(texts(&sessions, "pod_uid"), owned(&["8dbc1f4e-7b1a-4f0e-9d1c-2f6f3c9f3a11"]));
    for (name, number) in
        [("backend_pid", 4242), ("host_pid", 4343), ("server_pid", 977), ("server_port", 5432)]
    {
        assert_eq!(column(&sessions, name).as_primitive::<Int32Type>().values(), &[number], "{name}");
    }
    let gaps = read(folder.path(), Table::Gaps);
    assert_eq!(texts(&gaps, "reason"), owned(&["ring_full"]));
    assert_eq!(texts(&gaps, "direction"), owned(&["backend"]));
}

#[test]
fn what_was_decided_stands_with_the_statement_and_as_a_decision() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let session = session(1, MORNING);
    let judged = |verdict, guardrail: Option<&str>| {
        let guardrail = guardrail.map(Arc::from);
        Some(Arc::new(Judged { verdict, guardrail, decided_by: Some("policy".into()), held_us: 53 }))
    };
    let mut allowed = exchange(0, MORNING, "select 1");
    allowed.judged = judged(Verdict::Allowed, None);
    // The client got an error in its place.
    let mut blocked = exchange(1, MORNING, "drop table t");
    (blocked.status, blocked.judged) = (Status::Failed, judged(Verdict::Blocked, Some("no-drop")));
    let mut denied = exchange(2, MORNING, "truncate t");
    (denied.status, denied.judged) = (Status::InFlight, judged(Verdict::Denied, Some("ask")));
    for exchange in [&allowed, &blocked, &denied] {
        recorder.statement(&session, exchange);
    }
    recorder.decision(
        Some(&session),
        &Decision {
            seq: Some(1),
            guardrail: Some("no-drop".into()),
            action: Some(Action::Block),
            verdict: Some(Outcome::Blocked),
            reason: Some("condition true".to_owned()),
            decided_by: Some("policy".into()),
            held_us: Some(53),
            sql: Some("drop table t".into()),
            message: Some("schema changes go through migrations".to_owned()),
            ..Decision::new(DecisionKind::Verdict, MORNING)
        },
    );
    recorder.decision(None, &Decision::new(DecisionKind::PolicyLoaded, MORNING));
    assert_eq!(recorder.finish().unwrap(), Summary { rows: 5, files: 2, lost_rows: 0 });

    let statements = read(folder.path(), Table::Statements);
    assert_eq!(texts(&statements, "verdict"), owned(&["allowed", "blocked", "denied"]));
    assert_eq!(texts(&statements, "status"), owned(&["completed", "blocked", "blocked"]));
    assert_eq!(texts(&statements, "guardrail")[1..], owned(&["no-drop", "ask"]));
    assert_eq!(texts(&statements, "decided_by"), owned(&["policy"; 3]));
    assert_eq!(column(&statements, "held_us").as_primitive::<Int64Type>().values(), &[53; 3]);
    let decisions = read(folder.path(), Table::Decisions);
    assert_eq!(texts(&decisions, "kind"), owned(&["verdict", "policy_loaded"]));
    let of_session = [
        ("session_id", session.origin.id.0.to_string()),
        ("pg_user", "alice".to_owned()),
        ("client_addr", "10.1.2.3".to_owned()),
        ("action", "block".to_owned()),
        ("verdict", "blocked".to_owned()),
        ("sql", "drop table t".to_owned()),
    ];
    for (name, expected) in of_session {
        assert_eq!(texts(&decisions, name), [Some(expected), None], "{name}");
    }
    assert!(column(&decisions, "seq").is_null(1) && column(&decisions, "held_us").is_null(1));
}

#[test]
fn every_row_stands_in_the_folder_of_its_statements_day() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let session = session(1, MORNING);
    let midnight = 1_785_024_000_000_000;
    for (seq, at) in [(0, midnight - 1), (1, midnight), (2, midnight - 1), (3, midnight)] {
        let select = exchange(seq, Micros(at), "SELECT 1");
        row(&mut recorder, &session, &select, 0, &[Some("1")]);
        recorder.statement(&session, &select);
    }
    assert_eq!(recorder.finish().unwrap().rows, 8);
    for table in [Table::Statements, Table::Results] {
        for (day, expected) in [("2026-07-25", [0, 2]), ("2026-07-26", [1, 3])] {
            let path = folder.path().join(table.name()).join(format!("date={day}"));
            let rows = read_files(&parquet_files(&path), table);
            assert_eq!(column(&rows, "seq").as_primitive::<Int64Type>().values(), &expected);
        }
    }
}

#[test]
fn many_rows_become_several_row_groups_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let session = session(1, MORNING);
    let rows = 100_000;
    for seq in 0..rows {
        let select = with_params(exchange(seq, MORNING, "SELECT $1"), &[(25, Some(noise(seq).as_bytes()))]);
        recorder.statement(&session, &select);
    }
    assert_eq!(recorder.finish().unwrap().rows, rows);
    let files = parquet_files(folder.path());
    let file = ParquetRecordBatchReaderBuilder::try_new(File::open(&files[0]).unwrap()).unwrap();
    assert!(file.metadata().num_row_groups() > 1);
    let statements = read(folder.path(), Table::Statements);
    let seqs = column(&statements, "seq").as_primitive::<Int64Type>();
    assert!(seqs.values().iter().copied().eq(0..rows as i64));
}

#[test]
fn batches_share_row_groups_and_none_is_too_large_to_be_merged() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorder(folder.path());
    let session = session(1, MORNING);
    // They compress to almost nothing, so that the memory of what is encoded would never be enough for a row group.
    let value = "x".repeat(200);
    let rows = 120_000;
    for seq in 0..rows {
        let select = with_params(exchange(seq, MORNING, "SELECT $1"), &[(25, Some(value.as_bytes()))]);
        recorder.statement(&session, &select);
    }
    assert_eq!(recorder.finish().unwrap().rows, rows);
    let files = parquet_files(folder.path());
    let file = ParquetRecordBatchReaderBuilder::try_new(File::open(&files[0]).unwrap()).unwrap();
    let row_groups = file.metadata().row_groups();
    assert!((2..=6).contains(&row_groups.len()), "{} row groups", row_groups.len());
    let columns = row_groups.iter().flat_map(|row_group| row_group.columns());
    let largest = columns.map(|column| column.uncompressed_size()).max();
    assert!(largest < Some(16 << 20), "{largest:?}");
}

#[test]
fn what_a_dead_agent_left_is_removed_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let day = folder.path().join("statements/date=2026-07-25");
    fs::create_dir_all(&day).unwrap();
    let id = ulid::Ulid::generate();
    let own = day.join(format!(".node-1-{id}.tmp"));
    let other_node = day.join(format!(".node-1-b-{id}.tmp"));
    let complete = day.join(format!("node-1-{id}.parquet"));
    let busy = day.join(format!(".node-1-{}.tmp", ulid::Ulid::generate()));
    for path in [&own, &other_node, &complete, &busy] {
        fs::write(path, "").unwrap();
    }
    let lock = File::open(&busy).unwrap();
    lock.lock().unwrap();
    drop(recorder(folder.path()));
    assert_eq!([&own, &other_node, &complete, &busy].map(|path| path.exists()), [false, true, true, true]);
}

/// All rows of a table.
pub(super) fn read(data_dir: &Path, table: Table) -> RecordBatch {
    read_files(&parquet_files(&data_dir.join(table.name())), table)
}

fn read_files(files: &[PathBuf], table: Table) -> RecordBatch {
    let mut batches = Vec::new();
    for path in files {
        let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
        batches.extend(reader.build().unwrap().map(Result::unwrap));
    }
    match batches.first() {
        Some(first) => concat_batches(&first.schema(), &batches).unwrap(),
        None => RecordBatch::new_empty(table.schema()),
    }
}

/// The complete files below a folder, by name.
pub(super) fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    files
}

pub(super) fn column<'a>(rows: &'a RecordBatch, name: &str) -> &'a dyn Array {
    rows.column_by_name(name).unwrap()
}

fn texts(rows: &RecordBatch, name: &str) -> Vec<Option<String>> {
    column(rows, name).as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
}

fn owned(texts: &[&str]) -> Vec<Option<String>> {
    texts.iter().map(|text| Some((*text).to_owned())).collect()
}

/// Text that does not compress.
pub(super) fn noise(n: u64) -> String {
    let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    for _ in 0..16 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!("{state:016x}"));
    }
    text
}
