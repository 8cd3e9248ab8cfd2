//! The recorder on a file system that stalls or fails for good, and under a clock that jumps.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::fixture::{MORNING, exchange, session, settings, with_params};
use super::tests::{column, noise, parquet_files, read};
use super::*;
use crate::session::{Micros, SessionInfo};

/// As a disk does that is too slow for its host, or a network file system whose server is away.
#[test]
fn a_disk_that_stalls_is_waited_for_and_costs_nothing() {
    let disk = Disk::make();
    let data = disk.folder.join("data");
    let session = session(1, MORNING);
    let settings = Settings {
        rotate_age: Duration::from_millis(1),
        journal_sync: Some(Duration::from_millis(50)),
        ..settings(&data)
    };
    let mut recorder = Recorder::new(settings).unwrap().0;
    send(&mut recorder, &session, 0..2_000);
    run(Command::new("fsfreeze").arg("-f").arg(&disk.folder));
    // Whoever writes stands still meanwhile, so somebody else has to let it go on.
    let thaw = format!("sleep 2; fsfreeze -u '{}'", disk.folder.display());
    let mut thaw = Command::new("sh").args(["-c", &thaw]).stdin(Stdio::null()).spawn().unwrap();
    send(&mut recorder, &session, 2_000..30_000);
    assert!(thaw.wait().unwrap().success());
    let summary = recorder.finish().unwrap();
    assert_eq!(summary.lost_rows, 0);
    assert_eq!(read(&data, Table::Statements).num_rows(), 30_000);
}

/// As ext4 does when it meets an error that it cannot live with.
#[test]
fn a_file_system_that_turned_read_only_is_named_and_the_next_agent_goes_on_where_it_could_write() {
    let disk = Disk::make();
    let data = disk.folder.join("data");
    let session = session(1, MORNING);
    let mut recorder = Recorder::new(settings(&data)).unwrap().0;
    send(&mut recorder, &session, 0..1_000);
    recorder.journal.as_ref().unwrap().shelf().sync().unwrap();
    run(Command::new("mount").args(["-o", "remount,abort"]).arg(&disk.folder));
    send(&mut recorder, &session, 1_000..1_100);
    let error = recorder.finish().unwrap_err();
    let RecordError::Undeclared { rows: 1_100, source } = &error else { panic!("{error}") };
    assert!(
        ["Read-only file system", "Input/output error"].iter().any(|why| source.to_string().contains(why)),
        "{source}"
    );
    // Whoever repairs it mounts it again.
    disk.mount_again();
    let (recorder, recovery) = Recorder::new(settings(&data)).unwrap();
    assert_eq!(recovery.rows, 1_000);
    recorder.finish().unwrap();
    let rows = read(&data, Table::Statements);
    let mut seqs = column(&rows, "seq").as_primitive::<Int64Type>().values().to_vec();
    seqs.sort_unstable();
    assert!(seqs.iter().copied().eq(0..1_000));
}

#[test]
fn a_clock_that_jumps_neither_loses_rows_nor_keeps_them_waiting() {
    const YEAR: i64 = 366 * 86_400_000_000;
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { rotate_age: Duration::from_millis(1), ..settings(folder.path()) };
    let mut recorder = Recorder::new(settings).unwrap().0;
    let mut sent = 0;
    for jump in [0, YEAR, 0, -YEAR, 0, -2 * YEAR, YEAR] {
        let now = MORNING.0 + jump;
        let files = parquet_files(folder.path()).len();
        recorder.tick(Micros(now));
        recorder.statement(&session(1, MORNING), &exchange(sent, Micros(now), "select 1"));
        sent += 1;
        recorder.commit(sent);
        // A second of ticks is enough, whatever the clock said before.
        for tick in 1..=10 {
            recorder.tick(Micros(now + tick * 100_000));
        }
        wait_until(|| parquet_files(folder.path()).len() > files);
    }
    assert_eq!(recorder.finish().unwrap().lost_rows, 0);
    assert_eq!(read(folder.path(), Table::Statements).num_rows() as u64, sent);
    // Names of files tell their order all the same.
    let (next, recovery) = Recorder::new(fixture::settings(folder.path())).unwrap();
    assert_eq!(recovery.rows, 0);
    next.finish().unwrap();
}

fn wait_until(mut condition: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if condition() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    panic!("nothing happened in 10 seconds");
}

/// Statements that hardly compress.
fn send(recorder: &mut Recorder, session: &SessionInfo, seqs: std::ops::Range<u64>) {
    for seq in seqs.clone() {
        let value = noise(seq);
        let select = with_params(exchange(seq, MORNING, "SELECT $1"), &[(25, Some(value.as_bytes()))]);
        recorder.statement(session, &select);
        if seq % 256 == 255 {
            recorder.commit(seq);
        }
    }
    recorder.commit(seqs.end);
}

/// A file system of its own, in a file.
struct Disk {
    image: PathBuf,
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl Disk {
    fn make() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts a file system: run it as root");
        let parent = tempfile::tempdir().unwrap();
        let disk =
            Self { image: parent.path().join("image"), folder: parent.path().join("disk"), _parent: parent };
        fs::create_dir(&disk.folder).unwrap();
        File::create(&disk.image).unwrap().set_len(256 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        disk.mount();
        disk
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.folder));
    }

    fn mount_again(&self) {
        unmount(&self.folder);
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Frozen, nobody could take it down.
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.folder).stderr(Stdio::null()).status();
        unmount(&self.folder);
    }
}

fn unmount(folder: &Path) {
    let _ = Command::new("umount").arg(folder).status();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
