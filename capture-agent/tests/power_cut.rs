//! The power fails at random, twenty times or `CAPTURE_POWER_CUTS`: what was not brought to the disk is gone. No published file is unreadable, no
//! statement is recorded twice, and none is lost that was committed longer ago than the journal's interval.
//!
//! The record lies on a file system of its own, in a loop device, which is shut down in the middle of the work without a flush
//! (`EXT4_IOC_SHUTDOWN`, as the kernel's own tests do it): every dirty page is dropped. The program starts itself to record.
#![expect(clippy::print_stdout, reason = "a test without harness says itself what it did")]
#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::disallowed_types, reason = "a test looks at the clock")]

mod numbered;

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use capture_agent::record::{Recorder, Table};
use capture_agent::seal::{self, Request};
use capture_agent::session::Micros;
use numbered::{EVENING, Random, numbers, tell};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// How often the power fails, unless the environment says otherwise.
const CUTS: u64 = 20;
/// How long an agent lives at most.
const LONGEST_LIFE_MS: u64 = 600;
/// The journal is brought to the disk as often.
const SYNC: Duration = Duration::from_millis(100);
/// What bringing it there may take, on a disk that others use: the interval begins anew when it is there.
const SLACK: Duration = Duration::from_millis(400);

fn main() {
    if let Some(data_dir) = std::env::var_os("CAPTURE_TEST_RECORD") {
        return record(Path::new(&data_dir));
    }
    assert!(rustix::process::geteuid().is_root(), "this test mounts a file system: run it as root");
    // In memory: what the device has taken is there at once, however busy the machine's own disk is.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = Disk::make(folder.path());
    let data_dir = disk.folder.join("data");
    let told = folder.path().join("told");
    let mut random = Random(u64::from(std::process::id()) << 20 | 1);
    let cuts = std::env::var("CAPTURE_POWER_CUTS").map_or(CUTS, |text| text.parse().unwrap());
    let mut next = 0;
    // By life: when each event was committed, and when the power failed.
    let mut lives: Vec<(BTreeMap<u64, u64>, u64)> = Vec::new();
    for _ in 0..cuts {
        disk.mount();
        fs::write(&told, "").unwrap();
        let mut child = Recording(start(&data_dir, &told, next));
        std::thread::park_timeout(Duration::from_millis(random.below(LONGEST_LIFE_MS)));
        let cut = disk.cut();
        let _ = child.0.kill();
        let _ = child.0.wait();
        disk.unmount();
        let commits = commits(&told);
        next = commits.keys().next_back().map_or(next, |last| last + 1_000);
        lives.push((commits, cut));
        disk.mount();
        check_files(&data_dir);
        disk.unmount();
    }
    disk.mount();
    Recorder::new(numbered::settings(&data_dir, SYNC)).unwrap().0.finish().unwrap();
    let report =
        seal::verify(&Request { data_dir: data_dir.clone(), ..Request::default() }, |_, _| {}).unwrap();
    assert_eq!(report.findings, []);
    let (events, lost, longest) = check(&data_dir, &lives);
    disk.unmount();
    assert!(longest <= SYNC + SLACK, "what was committed {longest:?} before the power failed was lost");
    println!(
        "test the power failed {cuts} times: of {events} statements {lost} are lost, all of the last {} ms at most before it; \
         the journal's interval is {} ms ... ok",
        longest.as_millis(),
        SYNC.as_millis()
    );
}

/// Records events from `CAPTURE_TEST_FROM` on, and says outside of the disk when each was committed.
fn record(data_dir: &Path) {
    let variable = |name: &str| std::env::var(name).unwrap();
    let mut told = OpenOptions::new().append(true).open(variable("CAPTURE_TEST_TOLD")).unwrap();
    let mut event: u64 = variable("CAPTURE_TEST_FROM").parse().unwrap();
    let (mut recorder, _) = Recorder::new(numbered::settings(data_dir, SYNC)).unwrap();
    let _keeper = numbered::keeper(&recorder);
    let session = numbered::session();
    let mut random = Random(event << 20 | u64::from(std::process::id()));
    let begun = now();
    loop {
        let from = event;
        for _ in 0..=random.below(20) {
            tell(&mut recorder, &session, event);
            event += 1;
        }
        recorder.commit(event);
        writeln!(told, "{from} {event} {}", now()).unwrap();
        recorder.tick(Micros(EVENING + i64::try_from((now() - begun) / 1_000).unwrap() * 20));
        // A disk takes less than memory does.
        std::thread::park_timeout(Duration::from_micros(500));
    }
}

/// When each event was committed.
fn commits(told: &Path) -> BTreeMap<u64, u64> {
    let text = fs::read_to_string(told).unwrap();
    let mut commits = BTreeMap::new();
    for line in text.lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        if let [from, to, at] = numbers[..] {
            commits.extend((from..to).map(|event| (event, at)));
        }
    }
    commits
}

/// Every file that has its name can be read to its end.
fn check_files(data_dir: &Path) {
    for table in Table::ALL {
        let folder = data_dir.join(table.name());
        if !folder.is_dir() {
            continue;
        }
        for path in numbered::files(&folder) {
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap());
            let reader = reader.and_then(|builder| builder.build());
            let rows = reader.map_err(|error| error.to_string()).and_then(|rows| {
                rows.map(|rows| rows.map(|rows| rows.num_rows()))
                    .sum::<Result<usize, _>>()
                    .map_err(|error| error.to_string())
            });
            assert!(rows.as_ref().is_ok_and(|rows| *rows > 0), "{}: {rows:?}", path.display());
        }
    }
}

/// Compares the files with what was committed. Yields how many events there were, how many are lost, and the longest time that
/// one had been committed for.
fn check(data_dir: &Path, lives: &[(BTreeMap<u64, u64>, u64)]) -> (usize, usize, Duration) {
    let statements = numbers(data_dir, Table::Statements, "seq");
    assert!(statements.values().all(|times| *times == 1), "a statement is recorded twice");
    let results = numbers(data_dir, Table::Results, "seq");
    let of = |found: &HashMap<i64, usize>, event: u64| found.get(&(event as i64)).copied().unwrap_or(0);
    let (mut events, mut lost, mut longest) = (0, 0, 0);
    for (commits, cut) in lives {
        events += commits.len();
        for (event, at) in commits {
            let rows = (event % 3) as usize;
            assert!(of(&results, *event) <= rows, "a row of event {event} is recorded twice");
            if of(&statements, *event) == 0 || of(&results, *event) < rows {
                lost += 1;
                longest = longest.max(cut.saturating_sub(*at));
            }
        }
    }
    (events, lost, Duration::from_nanos(longest))
}

/// Ends with the test, also if that fails.
struct Recording(Child);

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(data_dir: &Path, told: &Path, from: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env("CAPTURE_TEST_RECORD", data_dir)
        .env("CAPTURE_TEST_TOLD", told)
        .env("CAPTURE_TEST_FROM", from.to_string())
        // It cannot go on without its disk, and says so.
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A file system whose power can fail.
struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    fn make(parent: &Path) -> Self {
        let disk = Self { image: parent.join("image"), folder: parent.join("disk") };
        fs::create_dir(&disk.folder).unwrap();
        File::create(&disk.image).unwrap().set_len(256 << 20).unwrap();
        run(Command::new("mkfs.ext4").arg("-q").arg(&disk.image));
        disk
    }

    fn mount(&self) {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.folder));
    }

    fn unmount(&self) {
        run(Command::new("umount").arg(&self.folder));
    }

    /// Drops all that is not on the disk. Yields when it began to, in nanoseconds of the monotonic clock.
    fn cut(&self) -> u64 {
        let said = run(Command::new("python3").args(["-c", CUT]).arg(&self.folder));
        said.trim().parse().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
        }
    }
}

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH` (`fs/ext4/ext4.h`).
const CUT: &str = "
import fcntl, os, struct, sys, time
folder = os.open(sys.argv[1], os.O_RDONLY)
at = time.monotonic_ns()
fcntl.ioctl(folder, 0x8004587d, struct.pack('I', 2))
print(at)
";

fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
