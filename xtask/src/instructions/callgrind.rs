//! The benchmark that is counted, and what valgrind counts of it.

use crate::shell;
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Some work that the benchmark offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// What it is called.
    pub(super) name: String,
    /// What it is counted by, such as `frame`.
    item: String,
    /// How often it is to be done, so that the result is steady.
    passes: u64,
    /// Of how many threads the count is the same again and again.
    threads: usize,
}

/// How many instructions an item takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counted {
    /// What is done, on which thread if not on the first, and what an item is.
    pub(super) name: String,
    /// Instructions per item.
    pub(super) each: f64,
}

/// The program `instructions` among the agent's benchmarks.
pub(super) struct Program(PathBuf);

impl Program {
    /// Builds it.
    pub(super) fn build() -> Result<Self> {
        let mut command = shell::cargo();
        command.args(["build", "--release", "--locked", "-p", "capture-agent", "--example", "instructions"]);
        // By itself, rustix reads the kernel's vDSO when it starts, which valgrind does not show to programs: it would crash.
        command.args(["--features", "rustix/use-libc-auxv", "--message-format", "json-render-diagnostics"]);
        let said = shell::stage("building what is counted (release)", || shell::read(&mut command))?;
        Ok(Self(executable(&said)?))
    }

    /// All that it can do.
    pub(super) fn works(&self) -> Result<Vec<Work>> {
        let said = shell::read(&mut Command::new(&self.0))?;
        let works: Option<Vec<Work>> = said.lines().map(Work::parse).collect();
        let works =
            works.with_context(|| format!("the benchmark printed no list of what it can do: {said}"))?;
        ensure!(!works.is_empty(), "the benchmark can do nothing");
        Ok(works)
    }

    /// Counts the instructions of some work, by thread.
    pub(super) fn count(&self, work: &Work) -> Result<Vec<Counted>> {
        let (once, twice) = (self.run(work, work.passes)?, self.run(work, 2 * work.passes)?);
        let wanted =
            THREADS.get(..work.threads).with_context(|| format!("{} has too many threads", work.name))?;
        ensure!(once.items < twice.items, "{} done twice is no more than done once", work.name);
        let items = (twice.items - once.items) as f64;
        wanted
            .iter()
            .map(|(at, thread)| {
                let (Some(once), Some(twice)) = (once.threads.get(*at), twice.threads.get(*at)) else {
                    bail!(
                        "{} is not what its benchmark says: done once it was {once:?}, done twice {twice:?}",
                        work.name
                    )
                };
                Ok(Counted {
                    name: format!("{}{thread}, per {}", work.name, work.item),
                    each: round((*twice as f64 - *once as f64) / items),
                })
            })
            .collect()
    }

    fn run(&self, work: &Work, passes: u64) -> Result<Run> {
        let folder = tempfile::Builder::new().prefix("capture-instructions-").tempdir()?;
        let mut command = Command::new("valgrind");
        // By itself, the C library learns from when the writer thread returns memory how to get it, and a row varies by a per cent.
        command.env("MALLOC_MMAP_THRESHOLD_", "131072");
        command.args(["--quiet", "--tool=callgrind", "--separate-threads=yes"]);
        command.arg(format!("--callgrind-out-file={}", folder.path().join("out").display()));
        command.arg(&self.0).arg(&work.name).arg(passes.to_string());
        let said = shell::read(&mut command)?;
        let items = said.trim().parse().with_context(|| format!("the benchmark printed {said:?}"))?;
        Ok(Run { items, threads: threads(folder.path())? })
    }
}

impl Work {
    /// Reads a line such as `frames\tframe\t100\t1`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split('\t').map(str::to_owned);
        let (name, item) = (words.next()?, words.next()?);
        Some(Self { name, item, passes: words.next()?.parse().ok()?, threads: words.next()?.parse().ok()? })
    }
}

/// What one run did.
#[derive(Debug)]
struct Run {
    items: u64,
    /// Instructions of each thread, in the order in which they began.
    threads: Vec<u64>,
}

/// Where cargo says that it put the program.
fn executable(messages: &str) -> Result<PathBuf> {
    let found = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "instructions")
            .then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    found.context("cargo built no program `instructions`")
}

/// Reads the files that callgrind left, one of each thread: `out-01`, `out-02`, and so on.
fn threads(folder: &Path) -> Result<Vec<u64>> {
    let mut threads = Vec::new();
    for number in 1.. {
        let file = folder.join(format!("out-{number:02}"));
        if !file.exists() {
            break;
        }
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        threads.push(instructions(&text).context("callgrind left a file without a sum")?);
    }
    ensure!(!threads.is_empty(), "callgrind counted nothing");
    Ok(threads)
}

/// The sum in a file of callgrind's.
fn instructions(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("summary: ")?.trim().parse().ok())
}

/// Two digits behind the point: bytes take few instructions each.
fn round(each: f64) -> f64 {
    (each * 100.0).round() / 100.0
}

/// Where the threads of a recording agent stand in the order in which they began, and how they are called. The one that captures
/// goes without saying; the one that completes files begins before the writer, and does nothing for an item.
const THREADS: [(usize, &str); 2] = [(0, ""), (2, ", writer thread")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_callgrind_is_its_summary() {
        let text = "# callgrind format\nthread: 1\nevents: Ir\nsummary: 126389\n\nfn=(1)\n0 126389\n";
        assert_eq!(instructions(text), Some(126_389));
        assert_eq!(instructions("events: Ir\n"), None);
    }

    #[test]
    fn threads_come_in_the_order_in_which_they_began() {
        let folder = tempfile::tempdir().unwrap();
        for (name, sum) in [("out", 0), ("out-02", 7), ("out-01", 5)] {
            fs::write(folder.path().join(name), format!("summary: {sum}\n")).unwrap();
        }
        assert_eq!(threads(folder.path()).unwrap(), [5, 7]);
    }

    #[test]
    fn a_line_of_the_benchmark_says_what_is_counted() {
        let work = Work { name: "COPY in".into(), item: "byte".into(), passes: 100, threads: 1 };
        assert_eq!(Work::parse("COPY in\tbyte\t100\t1"), Some(work));
        assert_eq!(Work::parse("running 0 tests"), None);
    }

    #[test]
    fn the_program_is_the_one_that_cargo_names() {
        let said = r#"{"reason":"compiler-artifact","target":{"name":"capture_agent"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"instructions"},"executable":"/target/release/examples/instructions"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(said).unwrap(), PathBuf::from("/target/release/examples/instructions"));
        assert!(executable("").is_err());
    }
}
