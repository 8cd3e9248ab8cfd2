//! Files that are removed: sealed before, and whatever dies in between.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::fixture::{MORNING, exchange, recorder, session};
use super::tests::{parquet_files, read};
use super::*;
use crate::seal::{Live, Request, Wrong, verify};

/// A record with one file of a statement; yields the recorder, so that its archive can be used.
fn recorded(data_dir: &Path) -> Recorder {
    let mut first = recorder(data_dir);
    first.statement(&session(1, MORNING), &exchange(0, MORNING, "select 1"));
    first.finish().unwrap();
    recorder(data_dir)
}

#[test]
fn a_file_that_expires_is_gone_and_not_missed() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorded(folder.path());
    let archive = recorder.archive();
    let [file] = &archive.files().unwrap()[..] else { panic!("one file") };
    archive.expire(file, "age 1d").unwrap();
    assert!(parquet_files(folder.path()).is_empty());
    assert_eq!(findings(folder.path()), []);
    recorder.finish().unwrap();
    let chain = fs::read_to_string(folder.path().join("seals/node-1.jsonl")).unwrap();
    assert!(chain.lines().last().unwrap().contains("\"kind\":\"expired\",\"file\":\"statements/"), "{chain}");
}

#[test]
fn an_agent_that_died_before_the_removal_is_followed_by_one_that_removes() {
    let folder = tempfile::tempdir().unwrap();
    let first = recorded(folder.path());
    let file = first.archive().files().unwrap().remove(0);
    let bytes = fs::read(&file.path).unwrap();
    first.archive().expire(&file, "age 1d").unwrap();
    first.finish().unwrap();
    fs::write(&file.path, &bytes).unwrap();
    // It may wait for that: it is what was sealed last.
    assert_eq!(findings(folder.path()), []);
    recorder(folder.path()).finish().unwrap();
    assert!(!file.path.exists());
    // Later, its chain tells the keeper so; for `verify` it is back.
    let mut next = recorder(folder.path());
    next.statement(&session(2, MORNING), &exchange(0, MORNING, "select 2"));
    next.finish().unwrap();
    let next = recorder(folder.path());
    fs::write(&file.path, &bytes).unwrap();
    assert_eq!(findings(folder.path()), [(file.name.clone(), Wrong::Back)]);
    let there: HashSet<_> = next.archive().files().unwrap().into_iter().map(|file| file.name).collect();
    let mut live = Live::default();
    assert_eq!(next.archive().follow(&mut live, &there).unwrap(), std::slice::from_ref(&file.name));
    assert!(live.file(&file.name).is_none());
    next.archive().remove_left(&file.name).unwrap();
    assert_eq!(findings(folder.path()), []);
    next.finish().unwrap();
    assert_eq!(read(folder.path(), Table::Statements).num_rows(), 1);
}

#[test]
fn a_file_that_somebody_removes_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    recorded(folder.path()).finish().unwrap();
    let path = parquet_files(folder.path()).remove(0);
    fs::remove_file(&path).unwrap();
    assert_eq!(findings(folder.path()).len(), 1);
}

fn findings(data_dir: &Path) -> Vec<(String, Wrong)> {
    let request = Request { data_dir: data_dir.to_owned(), ..Request::default() };
    let report = verify(&request, |_, _| {}).unwrap();
    report.findings.into_iter().map(|finding| (finding.file, finding.wrong)).collect()
}
