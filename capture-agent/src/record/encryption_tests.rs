//! An encrypted record: its key opens it, and nothing else does.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;

use super::fixture::{MORNING, exchange, session, settings, with_params};
use super::merge_tests::die;
use super::tests::{noise, parquet_files};
use super::*;
use crate::seal::{Live, Request, verify};

#[test]
fn an_encrypted_record_is_read_with_its_key_and_with_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new(&key(1), &[]);
    let mut recorder = start(folder.path(), keys.clone()).unwrap().0;
    // Several row groups.
    send(&mut recorder, 0..60_000);
    recorder.finish().unwrap();
    let files = parquet_files(folder.path());
    let groups = |file: &Path| open(file, &keys).unwrap().metadata().num_row_groups();
    assert!(files.iter().any(|file| groups(file) > 1));
    for file in &files {
        let bytes = fs::read(file).unwrap();
        assert_eq!((&bytes[..4], &bytes[bytes.len() - 4..]), (&b"PARE"[..], &b"PARE"[..]));
        for canary in ["PLANTED", "node-1", "session_id", "alice", &noise(0)[..16]] {
            assert!(!bytes.windows(canary.len()).any(|part| part == canary.as_bytes()), "{canary}");
        }
        for wrong in [Keys::default(), Keys::new(&key(2), &[])] {
            let error = open(file, &wrong).err().unwrap();
            assert_eq!(KeyMissing::of(&error).unwrap().to_string(), missing(&key(1)));
        }
    }
    // Another key is used since, and what this one encrypted is read all the same.
    let newer = Keys::new(&key(2), &[key(1)]);
    let mut recorder = start(folder.path(), newer.clone()).unwrap().0;
    send(&mut recorder, 60_000..60_010);
    recorder.finish().unwrap();
    assert_eq!(seqs(folder.path(), &newer), (0..60_010).collect::<Vec<_>>());
    assert_eq!(verify(&request(folder.path()), |_, _| {}).unwrap().findings, []);
}

#[test]
fn a_record_that_was_plain_before_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    for (keys, seqs) in [(Keys::default(), 0..10), (Keys::new(&key(1), &[]), 10..20)] {
        let mut recorder = start(folder.path(), keys).unwrap().0;
        send(&mut recorder, seqs);
        recorder.finish().unwrap();
    }
    assert_eq!(seqs(folder.path(), &Keys::new(&key(1), &[])), (0..20).collect::<Vec<_>>());
}

/// Which rows of the journal a file has stands in its footer: who cannot read that would record them twice.
#[test]
fn an_agent_without_the_key_of_the_last_files_refuses_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new(&key(1), &[]);
    let mut recorder = start(folder.path(), keys.clone()).unwrap().0;
    send(&mut recorder, 0..100);
    for tick in 0.. {
        assert!(tick < 1_000, "no file is completed");
        recorder.tick(Micros(MORNING.0 + tick * 1_000_000));
        if !parquet_files(folder.path()).is_empty() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    send(&mut recorder, 100..200);
    // It dies here.
    let left = die(folder.path());
    recorder.finish().unwrap();
    for wrong in [Keys::default(), Keys::new(&key(2), &[])] {
        let error = start(left.path(), wrong).err().unwrap();
        assert!(matches!(error, RecordError::Key { .. }), "{error}");
        assert!(error.to_string().contains(&missing(&key(1))), "{error}");
    }
    let newer = Keys::new(&key(2), &[key(1)]);
    let (next, recovery) = start(left.path(), newer.clone()).unwrap();
    assert_eq!(recovery.rows, 100);
    next.finish().unwrap();
    assert_eq!(seqs(left.path(), &newer), (0..200).collect::<Vec<_>>());
}

#[test]
fn encrypted_files_are_merged_without_filters_that_would_tell_what_is_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new(&key(1), &[]);
    for n in 0..3 {
        let mut recorder = start(folder.path(), keys.clone()).unwrap().0;
        send(&mut recorder, n * 100..(n + 1) * 100);
        recorder.finish().unwrap();
    }
    let recorder = start(folder.path(), keys.clone()).unwrap().0;
    let archive = recorder.archive();
    let files: Vec<_> = archive.files().unwrap();
    assert_eq!(files.len(), 3);
    let mut live = Live::default();
    archive.follow(&mut live, &HashSet::new()).unwrap();
    let run: Vec<_> = files.iter().map(|file| (file, live.file(&file.name).unwrap())).collect();
    archive.merge(&run, &mut || true).unwrap().finish(archive).unwrap();
    let merged = parquet_files(folder.path());
    let [merged] = &merged[..] else { panic!("{merged:?}") };
    let bytes = fs::read(merged).unwrap();
    assert_eq!(&bytes[..4], b"PARE");
    let metadata = open(merged, &keys).unwrap().metadata().clone();
    let columns = metadata.row_groups().iter().flat_map(|group| group.columns());
    assert!(columns.clone().count() > 0);
    assert!(columns.clone().all(|column| column.bloom_filter_offset().is_none()));
    assert_eq!(seqs(folder.path(), &keys), (0..300).collect::<Vec<_>>());
    recorder.finish().unwrap();
    assert_eq!(verify(&request(folder.path()), |_, _| {}).unwrap().findings, []);
}

fn key(n: u8) -> RecordKey {
    RecordKey::parse(STANDARD.encode([n; 32]).as_bytes()).unwrap()
}

/// What is said of a file with this key.
fn missing(key: &RecordKey) -> String {
    format!(
        "it is encrypted with the key {}, which the configuration does not name in [encryption] (see \
         docs/errors.md#record-key)",
        key.name()
    )
}

fn start(data_dir: &Path, keys: Keys) -> Result<(Recorder, Recovery), RecordError> {
    Recorder::new(Settings { keys, rotate_age: Duration::from_secs(2), ..settings(data_dir) })
}

fn send(recorder: &mut Recorder, seqs: std::ops::Range<u64>) {
    let session = session(1, MORNING);
    for seq in seqs.clone() {
        let select = exchange(seq, MORNING, "SELECT $1 AS \"PLANTED\"");
        recorder.statement(&session, &with_params(select, &[(25, Some(noise(seq).as_bytes()))]));
    }
    recorder.commit(seqs.end);
}

fn open(file: &Path, keys: &Keys) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
    ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(file).unwrap(), keys.reader_options())
}

/// Which statements are recorded, in their order.
fn seqs(data_dir: &Path, keys: &Keys) -> Vec<i64> {
    let mut found = Vec::new();
    for file in parquet_files(&data_dir.join("statements")) {
        for rows in open(&file, keys).unwrap().build().unwrap().map(Result::unwrap) {
            let rows = rows.column_by_name("seq").unwrap().as_primitive::<Int64Type>().clone();
            found.extend(rows.values().iter().copied());
        }
    }
    found.sort_unstable();
    found
}

fn request(data_dir: &Path) -> Request {
    Request { data_dir: data_dir.to_owned(), ..Request::default() }
}
