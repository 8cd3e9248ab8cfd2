//! When the disk fails: a clear error, capture goes on, what is lost is declared, recording resumes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tests::agent::SMALL_RING;
use tests::wire::Wire;
use tests::{AgentOptions, Disk, Record, Server, clients, deps, oracle, wait};

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing() -> anyhow::Result<()> {
    let disk = SmallDisk::mount("512k")?;
    let server = Server::start()?;
    let mut agent = rotating().server(&server).data(&disk.folder).start()?;
    let mut wire = Wire::login(&server, "full disk")?;
    for _ in 0..20 {
        fill(&mut wire, 100)?;
        wait::pause(Duration::from_millis(50));
    }
    agent.wait_for("cannot write the record: No space left on device")?;
    disk.grow("256m")?;
    recovers(&mut wire, &disk.folder)?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    assert_eq!(finished.record.lost_rows("statements"), 0, "{:#?}", finished.record.gaps);
    oracle::compare(&server.stop()?, &finished.record)?;
    Ok(())
}

#[test]
fn a_disk_that_stays_full_loses_rows_and_says_so() -> anyhow::Result<()> {
    let disk = SmallDisk::mount("512k")?;
    let server = Server::start()?;
    let mut agent = rotating().server(&server).data(&disk.folder).start()?;
    let mut wire = Wire::login(&server, "full disk")?;
    let sql = "select md5(n::text) || repeat(md5(random()::text), 20) from generate_series(1, 500) n";
    for _ in 0..60 {
        wire.query(sql)?;
    }
    agent.wait_for("cannot write the record: No space left on device")?;
    // While the writer waits for the disk: more than what waits in memory for the writer (docs/defaults.md).
    for _ in 0..200 {
        wire.query(sql)?;
    }
    disk.grow("256m")?;
    recovers(&mut wire, &disk.folder)?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_named("full disk")?;
    let statements = record.statements_of(session);
    let rows: u64 = statements.iter().map(|row| record.rows_of(row).len() as u64).sum();
    let returned: u64 = statements.iter().filter_map(|row| row.rows).sum();
    let lost = (record.lost_rows("statements"), record.lost_rows("results"));
    assert!(lost.1 > 0, "nothing was lost: {} statements, {rows} rows", statements.len());
    assert_eq!(statements.len() as u64 + lost.0, session.statements, "{:#?}", record.gaps);
    if lost.0 == 0 {
        assert_eq!(rows + lost.1, returned, "{:#?}", record.gaps);
    }
    Ok(())
}

/// Disk, memory and ring are full: the required session waits until there is space, and of the other is declared what found none.
#[test]
fn while_the_disk_is_full_required_sessions_wait_and_the_others_lose_rows_and_say_so() -> anyhow::Result<()> {
    let disk = SmallDisk::mount("512k")?;
    let server = Server::start()?;
    server.psql("create role optional superuser login")?;
    let rule = "[[record]]\nmatch = 'session.user == \"postgres\"'\nrequired = true\ntimeout = '5m'";
    let options = rotating().config(SMALL_RING).config(rule);
    let mut agent = options.server(&server).data(&disk.folder).start()?;
    // Before the disk is full the writer takes, and compresses, as much as a fast machine sends.
    large_results(&server, "optional", "first", &AtomicU64::new(0), FIRST_RESULTS)?;
    agent.wait_for("cannot write the record: No space left on device")?;
    let required = AtomicU64::new(0);
    let optional = AtomicU64::new(0);
    thread::scope(|scope| {
        let load = |user: &'static str, done: &'static str, count| {
            let server = &server;
            scope.spawn(move || large_results(server, user, done, count, LARGE_RESULTS))
        };
        let clients = [load("postgres", "required", &required), load("optional", "optional", &optional)];
        let mut before = (u64::MAX, 0);
        wait::until("the required session to wait", Duration::from_secs(120), || {
            let now = required.load(Ordering::Acquire);
            before = if before.0 == now { (now, before.1 + 1) } else { (now, 0) };
            wait::pause(Duration::from_millis(100));
            Ok((before.1 >= 30).then_some(()))
        })?;
        assert!(required.load(Ordering::Acquire) < LARGE_RESULTS, "it never waited");
        wait::until("the other session to go on all the same", Duration::from_secs(120), || {
            Ok((optional.load(Ordering::Acquire) == LARGE_RESULTS).then_some(()))
        })?;
        disk.grow("512m")?;
        clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
    })?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    let session = record.session_named("required")?;
    assert!(record.gaps_of(session).is_empty() && session.gap_bytes == 0, "{:?}", record.gaps_of(session));
    let statements = record.statements_of(session);
    assert_eq!(statements.len() as u64, LARGE_RESULTS);
    assert!(statements.iter().all(|row| row.complete && record.rows_of(row).len() == 500));
    let other = record.session_named("optional")?;
    assert!(!record.gaps_of(other).is_empty(), "nothing was lost: {other:?}");
    Ok(())
}

/// Returns so many results to one session.
fn large_results(
    server: &Server,
    user: &str,
    name: &str,
    done: &AtomicU64,
    results: u64,
) -> anyhow::Result<()> {
    let mut wire = Wire::tcp(server)?;
    wire.start(&[("user", user), ("database", "postgres"), ("application_name", name)])?;
    for _ in 0..results {
        wire.query("select md5(n::text) || repeat(md5(random()::text), 20) from generate_series(1, 500) n")?;
        done.fetch_add(1, Ordering::Release);
    }
    wire.terminate()
}

/// Of 350 KB each: some megabytes more than memory and ring hold together.
const LARGE_RESULTS: u64 = 150;

/// As large: more than the disk holds.
const FIRST_RESULTS: u64 = 60;

/// Of a btrfs, whose quotas hold for everybody; what a user may use holds for no process with CAP_SYS_RESOURCE.
#[test]
fn a_quota_that_is_used_up_is_named_and_costs_nothing_once_it_is_raised() -> anyhow::Result<()> {
    let disk = Disk::make("mkfs.btrfs", 512 << 20)?;
    disk.mount()?;
    let data = disk.folder().join("data");
    deps::run(Command::new("btrfs").args(["subvolume", "create"]).arg(&data))?;
    let quota = |words: &[&str]| deps::run(Command::new("btrfs").args(words).arg(disk.folder()));
    quota(&["quota", "enable"])?;
    let server = Server::start()?;
    let mut agent = rotating().server(&server).data(&data).start()?;
    // Less than what is used already.
    quota(&["qgroup", "limit", "1M", FIRST_SUBVOLUME])?;
    let mut wire = Wire::login(&server, "quota")?;
    for _ in 0..20 {
        fill(&mut wire, 100)?;
        wait::pause(Duration::from_millis(50));
    }
    agent.wait_for("cannot write the record: Disk quota exceeded")?;
    quota(&["qgroup", "limit", "none", FIRST_SUBVOLUME])?;
    recovers(&mut wire, &data)?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    assert_eq!(finished.record.lost_rows("statements"), 0, "{:#?}", finished.record.gaps);
    finished.verify()?;
    oracle::compare(&server.stop()?, &finished.record)?;
    drop(finished);
    disk.unmount()
}

/// The first number that a btrfs gives to a subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
const FIRST_SUBVOLUME: &str = "0/256";

#[test]
fn a_removed_folder_is_made_again() -> anyhow::Result<()> {
    let parent = tempfile::tempdir()?;
    let data = parent.path().join("data");
    let server = Server::start()?;
    let agent = rotating().server(&server).data(&data).start()?;
    let mut wire = Wire::login(&server, "removed folder")?;
    fill(&mut wire, 10)?;
    wait_for_files(&data)?;
    // The agent may be writing into it at that moment.
    while let Err(error) = fs::remove_dir_all(&data) {
        anyhow::ensure!(error.kind() == ErrorKind::DirectoryNotEmpty, "{error}");
    }
    fill(&mut wire, 10)?;
    recovers(&mut wire, &data)?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.session_named("removed folder")?;
    Ok(())
}

#[test]
fn an_unwritable_folder_is_named_and_does_not_stop_capture() -> anyhow::Result<()> {
    // Of one table: below the journal, whose files are open all the time, no disk can be made read-only.
    let data = tempfile::tempdir()?;
    let disk = SmallDisk::mount_at(data.path().join("statements"), "64m")?;
    let server = Server::start()?;
    let mut agent = rotating().server(&server).data(data.path()).start()?;
    let mut wire = Wire::login(&server, "read only")?;
    fill(&mut wire, 10)?;
    wait_for_files(&disk.folder)?;
    disk.set_read_only(true)?;
    fill(&mut wire, 10)?;
    agent.wait_for(&data.path().display().to_string())?;
    agent.wait_for("Read-only file system")?;
    disk.set_read_only(false)?;
    recovers(&mut wire, data.path())?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_named("read only")?;
    let stored = record.statements_of(session).len() as u64;
    assert_eq!(stored + record.lost_rows("statements"), session.statements);
    Ok(())
}

#[test]
fn no_reader_ever_meets_a_broken_file() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = rotating().server(&server).start()?;
    let mut reader = clients::command("read_forever.py")?
        .arg(agent.data())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut wire = Wire::login(&server, "rotated")?;
    for _ in 0..60 {
        fill(&mut wire, 200)?;
        wait::pause(Duration::from_millis(50));
    }
    wire.terminate()?;
    server.wait_idle()?;
    let files = parquet_files(agent.data())?.len();
    let finished = agent.stop()?;
    drop(reader.stdin.take());
    let output = reader.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    anyhow::ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(files >= 4, "only {files} files: rotation did not happen");
    assert!(said.trim().parse::<u64>()? > 10, "the reader read {said}");
    // And nothing got lost between two files.
    oracle::compare(&server.stop()?, &finished.record)?;
    assert!(leftovers(&finished.data)?.is_empty(), "{:?}", leftovers(&finished.data)?);
    Ok(())
}

#[test]
fn what_a_killed_agent_had_captured_is_recorded_by_the_next_once() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = rotating().server(&server).data(data.path()).start()?;
    let mut wire = Wire::login(&server, "killed")?;
    let statements = 500;
    for n in 0..statements {
        wire.query(&format!("select {n}, 'before the kill'"))?;
    }
    agent.wait_drained()?;
    agent.kill()?;
    wire.terminate()?;
    let record = rotating().server(&server).data(data.path()).start()?.stop()?.record;
    let mut found: Vec<_> = record.statements.iter().filter_map(|row| row.sql.clone()).collect();
    found.retain(|sql| sql.contains("before the kill"));
    found.sort();
    let mut sent: Vec<_> = (0..statements).map(|n| format!("select {n}, 'before the kill'")).collect();
    sent.sort();
    assert_eq!(found, sent);
    assert!(leftovers(data.path())?.is_empty(), "{:?}", leftovers(data.path())?);
    Ok(())
}

#[test]
fn a_killed_agent_leaves_only_whole_files() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = rotating().server(&server).data(data.path()).start()?;
    let mut wire = Wire::login(&server, "killed")?;
    for _ in 0..20 {
        fill(&mut wire, 200)?;
        wait::pause(Duration::from_millis(100));
    }
    let _killed = agent.kill()?;
    let before = Record::read(data.path())?.statements.len();
    assert!(before > 0);
    // The next agent does not stumble over what the first left behind.
    let agent = rotating().server(&server).data(data.path()).start()?;
    wire.query("select 'after the kill'")?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    // The session was handed on, and nothing of it was lost between the two.
    let after = record.statement_with("after the kill")?;
    assert_eq!((after.seq, after.complete), (4_000, true), "{after}");
    assert_eq!(record.statements.len(), 4_001);
    assert!(leftovers(data.path())?.is_empty(), "{:?}", leftovers(data.path())?);
    Ok(())
}

/// Statements that do not compress well; yields how many.
fn fill(wire: &mut Wire, statements: u64) -> anyhow::Result<u64> {
    for _ in 0..statements {
        wire.query("select md5(random()::text), md5(random()::text) || md5(random()::text) from generate_series(1, 20)")?;
    }
    Ok(statements)
}

/// Works on until the record holds a statement that was sent after the disk was repaired.
fn recovers(wire: &mut Wire, data: &Path) -> anyhow::Result<()> {
    wire.query("select 'after the repair'")?;
    wait::until("the record to resume", Duration::from_secs(40), || {
        wire.query("select 'still after the repair'")?;
        wait::pause(Duration::from_millis(200));
        Ok(Record::read(data)?
            .statements
            .iter()
            .any(|row| row.sql.as_deref() == Some("select 'after the repair'"))
            .then_some(()))
    })
}

fn wait_for_files(data: &Path) -> anyhow::Result<()> {
    wait::until("the first files", Duration::from_secs(20), || {
        Ok((!parquet_files(data)?.is_empty()).then_some(()))
    })
}

fn parquet_files(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    Ok(files(data)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "parquet")).collect())
}

/// Files that are not tables: drafts that nobody will finish, and a journal that nobody needs.
fn leftovers(data: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let expected = |path: &Path| {
        path.extension().is_some_and(|end| ["parquet", "jsonl", "pub", "key"].iter().any(|own| end == *own))
            || path.ends_with("lock")
    };
    Ok(files(data)?.into_iter().filter(|path| !expected(path)).collect())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn rotating() -> AgentOptions {
    AgentOptions::default().config(tests::agent::QUICK_ROTATION)
}

/// A file system of a given size in memory.
struct SmallDisk {
    folder: PathBuf,
    parent: Option<tempfile::TempDir>,
}

impl SmallDisk {
    fn mount(size: &str) -> anyhow::Result<Self> {
        let parent = tempfile::tempdir()?;
        let mut disk = Self::mount_at(parent.path().join("disk"), size)?;
        disk.parent = Some(parent);
        Ok(disk)
    }

    fn mount_at(folder: PathBuf, size: &str) -> anyhow::Result<Self> {
        deps::require_root()?;
        fs::create_dir(&folder)?;
        mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), Some(options(size)?.as_c_str()))?;
        Ok(Self { folder, parent: None })
    }

    fn grow(&self, size: &str) -> anyhow::Result<()> {
        Ok(mount_remount(&self.folder, MountFlags::empty(), options(size)?.as_c_str())?)
    }

    fn set_read_only(&self, read_only: bool) -> anyhow::Result<()> {
        let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        Ok(mount_remount(&self.folder, flags, c"")?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.folder, UnmountFlags::DETACH);
        // Removed now that nothing is mounted in it.
        drop(self.parent.take());
    }
}

fn options(size: &str) -> anyhow::Result<std::ffi::CString> {
    Ok(std::ffi::CString::new(format!("size={size}"))?)
}
