//! A machine in software that boots a kernel on the host's files, which it cannot change, and runs jobs there.

use super::package::Kernel;
use crate::shell;
use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// A program to run in the guest.
pub(super) struct Job {
    /// Names it on the console and in the results.
    pub(super) name: String,
    /// The program and its arguments; the files are the host's.
    pub(super) command: Vec<String>,
    /// Its environment, beside that of all jobs.
    pub(super) environment: Vec<(&'static str, String)>,
}

/// What a job left.
pub(super) struct Ended {
    /// What it printed.
    pub(super) said: String,
    /// How it ended; none if the guest ended before.
    pub(super) status: Option<u32>,
    /// How long it took.
    pub(super) time: Duration,
}

/// What the guest left: by the job's place in the list.
pub(super) struct Visit {
    /// `uname -r`
    pub(super) release: String,
    /// The jobs, in their order.
    pub(super) jobs: Vec<Ended>,
}

/// Boots `kernel`, runs `jobs` one after the other, and powers off.
///
/// # Errors
///
/// qemu is missing, or the guest does not get as far as its jobs; then with what it said on its console.
pub(super) fn run(what: &str, kernel: &Kernel, jobs: &[Job]) -> Result<Visit> {
    let folder = tempfile::Builder::new().prefix("capture-kernel-").tempdir()?;
    let initramfs = initramfs(kernel, &folder)?;
    let shared = folder.path().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("guest.sh"), include_str!("guest.sh"))?;
    fs::write(shared.join("kept"), kept()?)?;
    for _ in 0..BOOTS {
        let left = jobs.iter().filter(|job| !shared.join(format!("{}.ended", job.name)).exists());
        fs::write(shared.join("jobs.sh"), script(left))?;
        // A guest that hangs is ended from outside, also when this program is killed.
        let mut qemu = Command::new("setpriv");
        qemu.args(["--pdeathsig=TERM", "timeout", "--kill-after=5", &LIMIT.as_secs().to_string()]);
        qemu.args(machine(kernel, &initramfs, &shared));
        let console = shell::heard(what, &mut qemu);
        if shared.join("over").exists() {
            break;
        }
        // A kernel that panics leaves its words on the console alone.
        let hung = console.is_err();
        let words = console.unwrap_or_else(|error| format!("{error:#}"));
        println!("the guest ended before its jobs did; its console's last words:\n{}", tail(&words));
        ensure!(!failed(&words), "the kernel {} failed, as its console says", kernel.version);
        if hung {
            break;
        }
    }
    let read = |name: &str| fs::read_to_string(shared.join(name)).unwrap_or_default();
    let release = read("release").trim().to_owned();
    ensure!(!release.is_empty(), "the guest did not reach its jobs; the console's last words are above");
    let ended = |job: &Job| {
        let said = fs::read(shared.join(format!("{}.said", job.name))).unwrap_or_default();
        let ended = read(&format!("{}.ended", job.name));
        let mut numbers = ended.split_whitespace().filter_map(|number| number.parse().ok());
        let status = numbers.next();
        let seconds: u32 = numbers.next().unwrap_or(0);
        let said = String::from_utf8_lossy(&said).into_owned();
        Ended { said, status, time: Duration::from_secs(seconds.into()) }
    };
    Ok(Visit { release, jobs: jobs.iter().map(ended).collect() })
}

/// The first root: a shell, the modules that lead to the host's files, and what to do with them.
fn initramfs(kernel: &Kernel, folder: &TempDir) -> Result<PathBuf> {
    let root = folder.path().join("initramfs");
    for name in ["modules", "proc", "dev", "host", "layer", "newroot"] {
        fs::create_dir_all(root.join(name))?;
    }
    for module in fs::read_dir(kernel.modules())?.flatten() {
        fs::copy(module.path(), root.join("modules").join(module.file_name()))?;
    }
    fs::copy(kernel.busybox(), root.join("busybox"))?;
    fs::write(root.join("init"), include_str!("init.sh"))?;
    for program in ["busybox", "init"] {
        fs::set_permissions(root.join(program), Permissions::from_mode(0o755))?;
    }
    let archive = folder.path().join("initramfs.cpio");
    let mut pack = Command::new("sh");
    pack.current_dir(&root).args(["-c", "find . | \"$0\" cpio -o -H newc > \"$1\""]);
    shell::read(pack.arg(kernel.busybox()).arg(&archive)).context("cannot pack the guest's first root")?;
    Ok(archive)
}

/// The jobs as the guest's shell reads them.
fn script<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> String {
    let mut script = String::new();
    for (name, value) in environment() {
        let _ = writeln!(script, "export {name}={}", quoted(&value));
    }
    for job in jobs {
        let _ = write!(script, "run {} env", quoted(&job.name));
        for (name, value) in &job.environment {
            let _ = write!(script, " {name}={}", quoted(value));
        }
        for word in &job.command {
            let _ = write!(script, " {}", quoted(word));
        }
        script.push('\n');
    }
    script
}

/// The host's folders that jobs need, a line each.
fn kept() -> Result<String> {
    let folders = [shell::root().to_owned(), shell::target_dir()?, shell::deps_dir()];
    Ok(folders.iter().map(|folder| format!("{}\n", folder.display())).collect())
}

/// What programs in the guest find the host's files by.
fn environment() -> Vec<(&'static str, String)> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    vec![
        ("PATH", variable("PATH")),
        ("HOME", variable("HOME")),
        ("CAPTURE_DEPS", shell::deps_dir().display().to_string()),
        // Where the tests find their scripts and clients.
        ("CARGO_MANIFEST_DIR", shell::root().join("tests").display().to_string()),
        // An emulated processor takes ten to twenty times as long.
        ("CAPTURE_PATIENCE", "20".to_owned()),
        // A second process would take its share of it.
        ("CAPTURE_RIGHTS", "own".to_owned()),
    ]
}

/// The last lines: a kernel's report with its stack among them.
fn tail(words: &str) -> &str {
    let last = words.rmatch_indices('\n').nth(LAST_LINES);
    last.map_or(words, |(at, _)| &words[at + 1..])
}

/// Whether a console tells of a kernel that failed by itself.
fn failed(console: &str) -> bool {
    !console.contains(STALE_BREAKPOINT) && REPORTS.into_iter().any(|report| console.contains(report))
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn machine(kernel: &Kernel, initramfs: &Path, shared: &Path) -> Vec<String> {
    let share = |name: &str, folder: &Path, more: &str| {
        let folder = folder.display().to_string().replace(',', ",,");
        [
            "-fsdev".to_owned(),
            format!("local,id={name},path={folder},security_model=none,multidevs=remap{more}"),
            "-device".to_owned(),
            format!("virtio-9p-pci,fsdev={name},mount_tag={name}"),
        ]
    };
    let words = [
        "qemu-system-x86_64",
        // Emulation works everywhere, also where the machine is a virtual one itself.
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2048",
        "-nodefaults",
        "-no-reboot",
        "-display",
        "none",
        "-serial",
        "stdio",
        "-append",
        // The mitigations cost time and change nothing that is tested.
        "console=ttyS0 quiet panic=-1 mitigations=off",
        // Processes of a guest that has just booted wait for random numbers.
        "-device",
        "virtio-rng-pci",
        "-kernel",
    ];
    let mut words: Vec<String> = words.map(str::to_owned).into();
    words.push(kernel.image().display().to_string());
    words.extend(["-initrd".to_owned(), initramfs.display().to_string()]);
    words.extend(share("host", Path::new("/"), ",readonly=on"));
    words.extend(share("shared", shared, ""));
    words
}

/// An emulated machine may end of itself, without a word from its kernel; then the jobs that are left get another one.
const BOOTS: usize = 3;

/// A kernel patches its own code behind a breakpoint, and takes that out again once no processor can be at it. Emulated
/// processors run code that was translated before: now and then such a breakpoint, of which the kernel knows no more.
const STALE_BREAKPOINT: &str = "Oops: int3";

/// What a kernel says of its own failures.
const REPORTS: [&str; 4] = ["Kernel panic", "BUG: ", "Oops: ", "general protection fault"];

/// Lines of the console to show when the guest ends early.
const LAST_LINES: usize = 120;

/// All jobs of a kernel take a few minutes, more where two machines share the processors.
const LIMIT: Duration = Duration::from_secs(40 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernels_failure_is_told_from_the_emulators() {
        assert!(failed("[  1.0] Kernel panic - not syncing: Attempted to kill init!"));
        assert!(!failed(
            "[  1.0] Oops: int3: 0000 [#1]\nKernel panic - not syncing: Fatal exception in interrupt"
        ));
        assert!(!failed("doctor\nfexit.forks.discovery"));
    }

    #[test]
    fn the_guests_shell_reads_every_word_as_it_is() {
        let command = vec!["/bin/echo".to_owned(), "it's $HOME; two words".to_owned()];
        let job = Job { name: "a.b".to_owned(), command, environment: vec![("V", "x y".to_owned())] };
        let script = format!("run() {{ shift; \"$@\"; }}\n{}", script([&job]));
        let said = shell::read(Command::new("sh").args(["-c", &script])).unwrap();
        assert_eq!(said, "it's $HOME; two words\n");
    }
}
