//! Running other programs, and showing that something happens while they run.

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Runs `command` under one line that names `what`, shows the program's latest words while it runs, and ends
/// with the time that it took.
///
/// # Errors
///
/// If the program cannot be started or fails; then with everything that it printed.
pub(crate) fn step(what: &str, command: &mut Command) -> Result<()> {
    heard(what, command).map(drop)
}

/// The same, and yields what the program printed.
///
/// # Errors
///
/// Those of [`step`].
pub(crate) fn heard(what: &str, command: &mut Command) -> Result<String> {
    let line = StatusLine::begin(what);
    let mut printed = String::new();
    let status = listen(command, |text| {
        line.show(text);
        printed.push_str(text);
        printed.push('\n');
    })?;
    if !status.success() {
        line.end("failed");
        bail!("{} failed ({status}):\n{printed}", show(command));
    }
    line.end("");
    Ok(printed)
}

/// Runs `command`, hands on each line that it prints on either stream, and yields how it ended.
///
/// # Errors
///
/// If it cannot be started.
pub(crate) fn listen(command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
    // One pipe for both streams, so that they stay in order.
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| cannot_run(command))?;
    // The command holds the pipe's writing end, which must close for the reader to see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for text in BufReader::new(reader).split(b'\n') {
        line(&String::from_utf8_lossy(&text?));
    }
    Ok(child.wait()?)
}

/// How `child` ended, if it does within so long.
///
/// # Errors
///
/// The system's own.
pub(crate) fn ended(child: &mut Child, within: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + within;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() > deadline {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// Does `work` under one line that names `what` and ends with the time that it took.
///
/// # Errors
///
/// Those of `work`.
pub(crate) fn stage<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let line = StatusLine::begin(what);
    let result = work();
    line.end(if result.is_ok() { "" } else { "failed" });
    result
}

/// Runs `command` with this program's own output and input.
///
/// # Errors
///
/// If it cannot be started or fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_run(command))?;
    if !status.success() {
        bail!("{} failed ({status})", show(command));
    }
    Ok(())
}

/// Runs `command` and yields what it printed on its standard output.
///
/// # Errors
///
/// If it cannot be started or fails; then with everything that it printed.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| cannot_run(command))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}):\n{stdout}{stderr}", show(command), output.status);
    }
    Ok(stdout)
}

/// Whether `command` runs and succeeds; silent.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Sends a signal to a program that this one started and has not waited for.
///
/// # Errors
///
/// The system's own.
pub(crate) fn signal(child: &Child, signal: Signal) -> Result<()> {
    rustix::process::kill_process(Pid::from_child(child), signal)
        .with_context(|| format!("cannot signal process {}", child.id()))
}

/// Where `program` is on the path, or among what `cargo install` installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(xtask::ebpf::cargo_bin())
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The cargo that runs this task, in the project's folder, free of what it told this program about `xtask`:
/// build scripts would take that for a change.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (key, _) in env::vars_os() {
        let text = key.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&key);
        }
    }
    command
}

/// The project's folder.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(xtask::ebpf::workspace_root);
    &ROOT
}

/// Cargo's target folder: this program was built into it.
///
/// # Errors
///
/// If this program does not know its own path.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where xtask itself is")?;
    let folder = program.ancestors().nth(2).context("xtask does not lie in a target folder")?;
    Ok(folder.to_owned())
}

/// Where the programs that tests and the demo need are installed: `$CAPTURE_DEPS`, or a folder in the user's cache.
pub(crate) fn deps_dir() -> PathBuf {
    env::var_os("CAPTURE_DEPS").map_or_else(
        || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/var".into())).join(".cache/capture-deps"),
        PathBuf::from,
    )
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    read(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

/// A command as one would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 5 s`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run {}", show(command))
}

/// One line of progress: what happens, since when, and the program's latest words. A thread keeps its clock going.
struct StatusLine {
    what: String,
    began: Instant,
    /// The latest words; closed when the work ends.
    words: Sender<String>,
    ticker: JoinHandle<()>,
}

impl StatusLine {
    fn begin(what: &str) -> Self {
        let began = Instant::now();
        let (words, latest) = channel();
        let what = what.to_owned();
        let ticker = thread::spawn({
            let what = what.clone();
            move || tick(&what, began, &latest)
        });
        Self { what, began, words, ticker }
    }

    fn show(&self, words: &str) {
        // Progress is no reason to stop the work.
        drop(self.words.send(words.trim().to_owned()));
    }

    fn end(self, outcome: &str) {
        drop(self.words);
        drop(self.ticker.join());
        let line = format!("  {:<WIDTH$} {:>11}  {outcome}", self.what, human(self.began.elapsed()));
        println!("{}", line.trim_end());
    }
}

/// Draws the line until the words end: at once on a terminal, else now and then, so that a log does not look dead.
fn tick(what: &str, began: Instant, latest: &Receiver<String>) {
    let terminal = stdout().is_terminal();
    let mut words = String::new();
    let mut told = began;
    loop {
        if terminal {
            print!("\r\x1b[2K  {what:<WIDTH$} {:>11}  {}", human(began.elapsed()), shorten(&words));
            drop(stdout().flush());
        } else if told.elapsed() > SILENCE {
            told = Instant::now();
            println!("  {what} ... {} {}", human(began.elapsed()), shorten(&words));
        }
        match latest.recv_timeout(TICK) {
            Ok(newer) => words = latest.try_iter().last().unwrap_or(newer),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if terminal {
        print!("\r\x1b[2K");
    }
}

fn shorten(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(60).collect()
}

/// Columns for the name of a step.
const WIDTH: usize = 52;

/// How often a child that shall end is looked at.
const POLL: Duration = Duration::from_millis(20);

/// How often a line on a terminal is drawn anew.
const TICK: Duration = Duration::from_millis(200);

/// How long a log stays silent.
const SILENCE: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_shows_what_the_program_printed() {
        let error =
            step("test", Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
        assert!(error.to_string().contains("one\ntwo"), "{error}");
    }

    #[test]
    fn durations_read_like_words() {
        assert_eq!(human(Duration::from_millis(420)), "0.4 s");
        assert_eq!(human(Duration::from_secs(59)), "59 s");
        assert_eq!(human(Duration::from_secs(185)), "3 min 5 s");
    }
}
