//! Files that are merged: each row once, whatever dies, and sorted.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::archive::{Archive, StoredFile};
use super::fixture::{MORNING, exchange, recorder, row, session, settings};
use super::tests::{column, parquet_files, read};
use super::*;
use crate::seal::{Live, Request, Sealed, Wrong, verify};
use crate::session::{Micros, SessionInfo};

const FILES: u64 = 5;
const STATEMENTS: u64 = 40;

/// An agent that has completed some files of statements and results, and whose journal still has all of it.
fn recorded(data_dir: &Path) -> Recorder {
    let settings = Settings { rotate_age: Duration::from_millis(1), ..settings(data_dir) };
    let (mut recorder, _) = Recorder::new(settings).unwrap();
    for file in 0..FILES {
        for n in 0..STATEMENTS {
            let seq = file * STATEMENTS + n;
            let (session, at) = (of(seq), Micros(MORNING.0 + i64::try_from(seq).unwrap()));
            let select = exchange(seq, at, &format!("select {}", seq % 7));
            row(&mut recorder, &session, &select, 0, &[Some("1"), None]);
            recorder.statement(&session, &select);
        }
        recorder.commit(file + 1);
        for tick in 0..1_000 {
            recorder.tick(Micros(MORNING.0 + i64::try_from(file).unwrap() * 10_000_000 + tick * 1_000_000));
            if recorder.archive().files().unwrap().len() as u64 == 2 * (file + 1) {
                break;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
    assert_eq!(recorder.archive().files().unwrap().len() as u64, 2 * FILES);
    recorder
}

/// Three sessions speak in turn.
fn of(seq: u64) -> SessionInfo {
    session(u128::from(seq * 7 % 3) + 1, MORNING)
}

/// Writes what shall replace all files of a table.
fn merge(archive: &Archive, table: Table) -> Result<Merging, MergeError> {
    let files: Vec<_> = archive.files().unwrap().into_iter().filter(|file| file.table == table).collect();
    let mut live = Live::default();
    archive.follow(&mut live, &HashSet::new()).unwrap();
    let run: Vec<(&StoredFile, &Sealed)> =
        files.iter().map(|file| (file, live.file(&file.name).unwrap())).collect();
    archive.merge(&run, &mut || true)
}

fn assert_whole(data_dir: &Path) {
    for table in [Table::Statements, Table::Results] {
        let rows = read(data_dir, table);
        let mut seqs = column(&rows, "seq").as_primitive::<Int64Type>().values().to_vec();
        seqs.sort_unstable();
        assert!(seqs.iter().copied().eq(0..(FILES * STATEMENTS) as i64), "{}: {seqs:?}", table.name());
    }
}

fn findings(data_dir: &Path) -> Vec<(String, Wrong)> {
    let request = Request { data_dir: data_dir.to_owned(), ..Request::default() };
    let report = verify(&request, |_, _| {}).unwrap();
    report.findings.into_iter().map(|finding| (finding.file, finding.wrong)).collect()
}

#[test]
fn merged_files_have_each_row_once_and_sorted_by_session() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorded(folder.path());
    let before = read(folder.path(), Table::Statements);
    for table in [Table::Statements, Table::Results] {
        let mut merging = merge(recorder.archive(), table).unwrap();
        assert_eq!(merging.replaced(), FILES);
        merging.finish(recorder.archive()).unwrap();
        assert_eq!(parquet_files(&folder.path().join(table.name())).len(), 1);
    }
    assert_eq!(findings(folder.path()), []);
    assert_whole(folder.path());
    let rows = read(folder.path(), Table::Statements);
    assert_eq!(rows.schema(), before.schema());
    let ids = column(&rows, "session_id").as_string::<i32>();
    let seqs = column(&rows, "seq").as_primitive::<Int64Type>();
    let order: Vec<_> = (0..rows.num_rows()).map(|at| (ids.value(at), seqs.value(at))).collect();
    assert!(order.is_sorted());
    // All columns of a statement are still its own.
    let texts = column(&rows, "sql").as_string::<i32>();
    for at in 0..rows.num_rows() {
        let seq = seqs.value(at) as u64;
        assert_eq!(texts.value(at), format!("select {}", seq % 7));
        assert_eq!(ids.value(at), of(seq).origin.id.0.to_string());
    }
    // The journal has all of it, and the next agent records none of it again.
    let copy = die(folder.path());
    let (next, recovery) = Recorder::new(settings(copy.path())).unwrap();
    assert_eq!(recovery.rows, 0);
    next.finish().unwrap();
    assert_whole(copy.path());
    assert_eq!(findings(copy.path()), []);
    assert_eq!(recorder.finish().unwrap().lost_rows, 0);
}

/// Whatever step is the last before the agent dies, `verify` accepts what it left, and the next one completes it.
#[test]
fn wherever_merging_is_interrupted_the_next_agent_has_each_row_once() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorded(folder.path());
    let archive = recorder.archive();
    let old: Vec<_> = parquet_files(&folder.path().join("statements"));
    let old: Vec<_> = old.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let mut merging = merge(archive, Table::Statements).unwrap();
    let hidden = hidden(&folder.path().join("statements"));
    let [hidden] = &hidden[..] else { panic!("{hidden:?}") };
    let in_copy = |copy: &Path, path: &Path| copy.join(path.strip_prefix(folder.path()).unwrap());
    let mut deaths = vec![(die(folder.path()), "before its seal")];
    merging.finish(archive).unwrap();
    let new = parquet_files(&folder.path().join("statements")).remove(0);

    let sealed = die(folder.path());
    fs::rename(in_copy(sealed.path(), &new), in_copy(sealed.path(), hidden)).unwrap();
    restore(&old, |path| in_copy(sealed.path(), path));
    deaths.push((sealed, "before its name"));
    for removed in 0..=old.len() {
        let copy = die(folder.path());
        restore(&old[removed..], |path| in_copy(copy.path(), path));
        deaths.push((copy, "while the others are removed"));
    }
    for (copy, when) in deaths {
        assert_eq!(findings(copy.path()), [], "{when}");
        let (next, recovery) = Recorder::new(settings(copy.path())).unwrap();
        assert_eq!(recovery.rows, 0, "{when}");
        assert_eq!(findings(copy.path()), [], "{when}");
        next.finish().unwrap();
        assert_whole(copy.path());
        assert_eq!(findings(copy.path()), [], "{when}");
        assert!(merge_tests::hidden(&copy.path().join("statements")).is_empty(), "{when}");
    }
    recorder.finish().unwrap();
}

/// A disk failed between seal and name, others sealed more since, and then the agent died.
#[test]
fn what_was_sealed_and_left_unfinished_long_ago_is_finished_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = recorded(folder.path());
    let old: Vec<_> = parquet_files(&folder.path().join("statements"));
    let old: Vec<_> = old.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect();
    let mut merging = merge(recorder.archive(), Table::Statements).unwrap();
    let hidden = hidden(&folder.path().join("statements")).remove(0);
    merging.finish(recorder.archive()).unwrap();
    let new = parquet_files(&folder.path().join("statements")).remove(0);
    let last = FILES * STATEMENTS;
    recorder.statement(&of(last), &exchange(last, MORNING, "select 'later'"));
    recorder.finish().unwrap();
    // It holds the file's lock.
    drop(merging);
    fs::rename(&new, &hidden).unwrap();
    restore(&old, Path::to_owned);
    recorder_ends(folder.path());
    assert_eq!(read(folder.path(), Table::Statements).num_rows() as u64, last + 1);
    assert_eq!(findings(folder.path()), []);
}

fn recorder_ends(data_dir: &Path) {
    recorder(data_dir).finish().unwrap();
}

#[test]
fn a_file_that_was_changed_is_not_laundered() {
    let folder = tempfile::tempdir().unwrap();
    let recorder = recorded(folder.path());
    let path = parquet_files(&folder.path().join("results")).remove(2);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    let Err(MergeError::Unsuitable { file, .. }) = merge(recorder.archive(), Table::Results) else {
        panic!("it was merged")
    };
    assert!(path.ends_with(Path::new(&file).file_name().unwrap()));
    assert!(hidden(&folder.path().join("results")).is_empty());
    assert_eq!(findings(folder.path()), [(file, Wrong::Changed)]);
    recorder.finish().unwrap();
}

/// All of it, as it is now: the recorder has nothing to do meanwhile.
pub(super) fn die(data_dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(data_dir, copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, to).unwrap();
        }
    }
}

fn restore(old: &[(Vec<u8>, PathBuf)], to: impl Fn(&Path) -> PathBuf) {
    for (bytes, path) in old {
        fs::write(to(path), bytes).unwrap();
    }
}

/// Hidden files in the folders of a table's days.
fn hidden(table: &Path) -> Vec<PathBuf> {
    let days = fs::read_dir(table).unwrap().map(|day| day.unwrap().path());
    let files = days.flat_map(|day| fs::read_dir(day).unwrap().map(|file| file.unwrap().path()));
    files.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with('.')).collect()
}
