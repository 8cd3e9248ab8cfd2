//! The recorder while the disk fails: what is stored and what is declared lost always add up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};

use super::fixture::{MORNING, end, exchange, recorder, session, settings, with_params};
use super::tests::{column, noise, parquet_files, read};
use super::*;
use crate::session::SessionInfo;

#[test]
fn a_full_disk_costs_rows_that_are_declared_and_recording_resumes() {
    let disk = Disk::mount("1m");
    let session = session(1, MORNING);
    let mut recorder = recorder(&disk.folder);
    let mut sent = 0;
    while recorder.queue.losses(|losses| losses.is_empty()) {
        assert!(sent < 1_000_000, "nothing is ever lost");
        send(&mut recorder, &session, sent..sent + 1_000);
        sent += 1_000;
    }
    disk.remount("size=256m");
    // Declared as soon as the disk takes data again, not only at the end.
    wait_until(|| {
        recorder.tick(MORNING);
        recorder.queue.losses(|losses| losses.is_empty())
    });
    send(&mut recorder, &session, sent..sent + 1);
    sent += 1;
    recorder.end(&session, &end(&session, sent));
    let summary = recorder.finish().unwrap();

    let statements = read(&disk.folder, Table::Statements);
    let (lost, first, last) = declared(&disk.folder, Table::Statements);
    assert_eq!(statements.num_rows() as u64 + lost, sent);
    assert_eq!(summary.lost_rows, lost);
    let seqs = column(&statements, "seq").as_primitive::<Int64Type>();
    assert_eq!(seqs.values().last().copied(), Some(sent as i64 - 1));
    // Whatever is missing lies within what is declared.
    let stored: std::collections::HashSet<_> = seqs.values().iter().copied().collect();
    assert!((0..sent as i64).filter(|seq| !stored.contains(seq)).all(|seq| first <= seq && seq <= last));
    assert!(leftovers(&disk.folder).is_empty());
}

#[test]
fn a_disk_that_stays_full_keeps_what_fitted_and_declares_what_did_not() {
    let disk = Disk::mount("1m");
    let session = session(1, MORNING);
    let mut recorder = recorder(&disk.folder);
    send(&mut recorder, &session, 0..60_000);
    let summary = recorder.finish().unwrap();
    let stored = read(&disk.folder, Table::Statements).num_rows() as u64;
    let (lost, ..) = declared(&disk.folder, Table::Statements);
    assert_eq!((stored + lost, summary.lost_rows), (60_000, lost));
    assert!(leftovers(&disk.folder).is_empty());
}

#[test]
fn a_loss_that_cannot_be_declared_is_an_error() {
    let disk = Disk::mount("64k");
    let session = session(1, MORNING);
    let mut recorder = recorder(&disk.folder);
    let _ = fs::write(disk.folder.join("filler.parquet"), vec![0; 1 << 20]);
    send(&mut recorder, &session, 0..10);
    let error = recorder.finish().unwrap_err();
    assert!(matches!(error, RecordError::Undeclared { rows: 10, .. }), "{error}");
    fs::remove_file(disk.folder.join("filler.parquet")).unwrap();
    assert!(parquet_files(&disk.folder).is_empty() && leftovers(&disk.folder).is_empty());
}

#[test]
fn a_read_only_disk_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    // The journal's files are open all the time, and so the disk below them cannot be made read-only.
    let disk = Disk::mount_at(folder.path().join("statements"), "64m");
    let session = session(1, MORNING);
    let mut recorder = recorder(folder.path());
    disk.set_read_only(true);
    send(&mut recorder, &session, 0..45_000);
    wait_until(|| recorder.queue.is_failing());
    disk.set_read_only(false);
    wait_until(|| !recorder.queue.is_failing());
    assert_eq!(recorder.finish().unwrap().lost_rows, 0);
    assert_eq!(read(folder.path(), Table::Statements).num_rows(), 45_000);
}

#[test]
fn a_removed_folder_is_made_again_with_what_the_growing_file_held() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let session = session(1, MORNING);
    let mut recorder = recorder(&data);
    send(&mut recorder, &session, 0..60_000);
    wait_until(|| !leftovers(&data).is_empty());
    fs::remove_dir_all(&data).unwrap();
    send(&mut recorder, &session, 60_000..60_010);
    assert_eq!(recorder.finish().unwrap().lost_rows, 0);
    assert_eq!(read(&data, Table::Statements).num_rows(), 60_010);
    assert!(leftovers(&data).is_empty());
}

#[test]
fn a_file_that_takes_long_to_be_completed_keeps_nobody_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(1, MORNING);
    let mut recorder = recorder(folder.path());
    send(&mut recorder, &session, 0..1_000);
    recorder.builders.flush();
    // It waits to be sealed.
    let seals = recorder.archive.seals.clone();
    let held = seals.lock();
    recorder.queue.complete();
    // More than the queue holds.
    for seq in 1_000..41_000 {
        let value = noise(seq).repeat(6);
        let exchange = exchange(seq, MORNING, "SELECT $1");
        recorder.statement(&session, &with_params(exchange, &[(25, Some(value.as_bytes()))]));
    }
    recorder.commit(41_000);
    recorder.queue.wait_idle(Duration::from_secs(30));
    assert_eq!(recorder.queue.lost_rows(), 0);
    let (stored, unfinished) = recorder.queue.progress();
    assert!(stored.is_empty());
    // Nothing of it may be removed from the journal yet.
    assert!(unfinished.is_some_and(|first| first.0 < 1_000), "{unfinished:?}");
    assert!(parquet_files(folder.path()).is_empty());
    drop(held);
    wait_until(|| !parquet_files(folder.path()).is_empty());
    let summary = recorder.finish().unwrap();
    assert_eq!((summary.files, summary.lost_rows), (2, 0));
    assert_eq!(read(folder.path(), Table::Statements).num_rows(), 41_000);
}

#[test]
fn a_table_that_cannot_be_stored_is_declared_in_the_one_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let session = session(1, MORNING);
    let mut recorder = recorder(folder.path());
    fs::remove_dir(folder.path().join("statements")).unwrap();
    fs::write(folder.path().join("statements"), "in the way").unwrap();
    send(&mut recorder, &session, 5..15);
    let summary = recorder.finish().unwrap();
    assert_eq!(summary.lost_rows, 10);
    let gaps = read(folder.path(), Table::Gaps);
    assert_eq!(declared(folder.path(), Table::Statements), (10, 5, 14));
    let number = |name: &str| column(&gaps, name).as_primitive::<Int64Type>().value(0);
    assert_eq!((number("offset"), number("length")), (100, 200));
    assert_eq!(column(&gaps, "reason").as_string::<i32>().value(0), "storage");
    assert_eq!(column(&gaps, "session_id").as_string::<i32>().value(0), session.origin.id.0.to_string());
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Recorder::new(settings(&file)).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()) && error.contains("#data-dir-unwritable"), "{error}");
}

/// Statements that hardly compress.
fn send(recorder: &mut Recorder, session: &SessionInfo, seqs: std::ops::Range<u64>) {
    for seq in seqs.clone() {
        let value = noise(seq);
        recorder.statement(
            session,
            &with_params(exchange(seq, MORNING, "SELECT $1"), &[(25, Some(value.as_bytes()))]),
        );
        if seq % 256 == 255 {
            recorder.commit(seq);
        }
    }
    recorder.commit(seqs.end);
}

/// Rows of a table that `gaps` declares lost, and the first and last statement that it names.
fn declared(data_dir: &Path, table: Table) -> (u64, i64, i64) {
    let gaps = read(data_dir, Table::Gaps);
    let tables = column(&gaps, "lost_table").as_string::<i32>();
    let number = |name: &str, at| column(&gaps, name).as_primitive::<Int64Type>().value(at);
    let mine: Vec<_> =
        (0..gaps.num_rows()).filter(|at| tables.is_valid(*at) && tables.value(*at) == table.name()).collect();
    (
        mine.iter().map(|at| number("lost_rows", *at) as u64).sum(),
        mine.iter().map(|at| number("first_seq", *at)).min().unwrap(),
        mine.iter().map(|at| number("last_seq", *at)).max().unwrap(),
    )
}

/// Files that no reader looks at.
fn leftovers(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let own = [".journal-node-1", ".seal-node-1.key", "seals"];
        if path.file_name().is_some_and(|name| own.iter().any(|own| name == *own)) {
            // What they leave is tested on its own.
        } else if path.is_dir() {
            found.extend(leftovers(&path));
        } else if path.extension().is_none_or(|extension| extension != "parquet") {
            found.push(path);
        }
    }
    assert!(parquet_files(folder).iter().all(|path| !found.contains(path)));
    found
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

/// A file system of a given size in memory.
struct Disk {
    folder: PathBuf,
    _parent: Option<tempfile::TempDir>,
}

impl Disk {
    fn mount(size: &str) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let mut disk = Self::mount_at(parent.path().join("disk"), size);
        disk._parent = Some(parent);
        disk
    }

    fn mount_at(folder: PathBuf, size: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a file system: run it as root");
        fs::create_dir(&folder).unwrap();
        let options = std::ffi::CString::new(format!("size={size}")).unwrap();
        mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), Some(options.as_c_str())).unwrap();
        Self { folder, _parent: None }
    }

    fn remount(&self, options: &str) {
        let options = std::ffi::CString::new(options).unwrap();
        mount_remount(&self.folder, MountFlags::empty(), options.as_c_str()).unwrap();
    }

    fn set_read_only(&self, read_only: bool) {
        let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        mount_remount(&self.folder, flags, c"").unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
    }
}
