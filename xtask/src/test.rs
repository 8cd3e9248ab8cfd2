//! `cargo xtask test`: proves it, with real servers, real clients and the real kernel.
//!
//! Nothing is skipped: what the machine lacks is named, and the run fails.

use crate::{build, setup, shell, tidy};
use anyhow::{Context as _, Result, bail, ensure};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Runs every check in order of cost and ends with one line of numbers.
pub(crate) fn run() -> Result<()> {
    let began = Instant::now();
    setup::ensure(setup::For::Test)?;
    shell::stage("this machine: root, BTF, BPF, tracefs", machine)?;
    shell::stage("source rules", tidy::check)?;
    shell::step("format", shell::cargo().args(["fmt", "--all", "--check"]))?;
    shell::step(
        "format of the eBPF crate",
        shell::cargo().args(["fmt", "--manifest-path", "capture-ebpf/Cargo.toml", "--check"]),
    )?;
    shell::step(
        "clippy",
        shell::cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    )?;
    shell::step(
        "documentation",
        shell::cargo()
            .args(["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    let other = build::other_agent()?;
    let agent = build::agent()?;
    let end_to_end = || {
        let mut command = shell::cargo();
        command.args(["test", "--locked", "--no-fail-fast", "-p", "tests"]);
        command.env("CAPTURE_AGENT", &agent).env("CAPTURE_OTHER_AGENT", &other);
        command
    };
    let mut tally = Tally::default();
    tally.run("unit tests", shell::cargo().args(["test", "--locked", "--no-fail-fast"]))?;
    tally.run("end-to-end tests: real servers, real clients, real kernel", &mut end_to_end())?;
    tally.run(
        "the same, in part, of an agent without a shim beside it",
        end_to_end().args(ALONE.iter().flat_map(|topic| ["--test", topic])).env("CAPTURE_RIGHTS", "own"),
    )?;
    println!(
        "{} passed, {} failed, {} ignored in {}",
        tally.passed,
        tally.failed,
        tally.ignored,
        shell::human(began.elapsed())
    );
    ensure!(tally.failed == 0 && tally.broken.is_empty(), "failed: {}", tally.broken.join(", "));
    ensure!(tally.ignored == 0, "an ignored test proves nothing: make it run or remove it");
    Ok(())
}

/// What the kernel and this process must offer, or the end-to-end tests prove nothing.
///
/// # Errors
///
/// Everything that is missing, with what to do about each.
pub(crate) fn machine() -> Result<()> {
    let mut missing = Vec::new();
    if !shell::is_root() {
        missing
            .push("root: eBPF programs are loaded and servers run as another user; run this command as root");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").is_file() {
        missing
            .push("BTF: /sys/kernel/btf/vmlinux is missing; use a kernel built with CONFIG_DEBUG_INFO_BTF=y");
    }
    if !Path::new("/sys/fs/bpf").is_dir() {
        missing.push("BPF: /sys/fs/bpf is missing; use a kernel built with CONFIG_BPF_SYSCALL=y");
    }
    if fs::read_to_string("/sys/kernel/security/lockdown")
        .is_ok_and(|modes| modes.contains("[confidentiality]"))
    {
        missing
            .push("lockdown: it is in confidentiality mode, where BPF may not read memory; boot without it");
    }
    if !Path::new("/sys/kernel/tracing/events/syscalls").is_dir() {
        missing.push("tracefs: no system call events in /sys/kernel/tracing; mount -t tracefs tracefs /sys/kernel/tracing");
    }
    if !missing.is_empty() {
        bail!("this machine cannot run the tests:\n  {}", missing.join("\n  "));
    }
    Ok(())
}

/// What the test programs reported so far.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Stages that failed, also those that ended before they could report a number.
    broken: Vec<&'static str>,
}

impl Tally {
    /// Runs a `cargo test`, passes its output on, and counts.
    fn run(&mut self, what: &'static str, command: &mut Command) -> Result<()> {
        println!("\n{what}");
        let began = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", shell::show(command)))?;
        for line in BufReader::new(child.stdout.take().context("no pipe")?).lines() {
            let line = line?;
            println!("{line}");
            self.count(&line);
        }
        if !child.wait()?.success() {
            self.broken.push(what);
        }
        println!("{what}: {}", shell::human(began.elapsed()));
        Ok(())
    }

    /// Counts a line such as `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; …`.
    fn count(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let mut words = result.split([' ', ';']).filter(|word| !word.is_empty()).peekable();
        while let Some(word) = words.next() {
            let (Ok(number), Some(&unit)) = (word.parse::<u64>(), words.peek()) else { continue };
            match unit {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The topics that look at servers and sessions most: everywhere else a shim does that for the agent.
const ALONE: [&str; 5] = ["attach", "containers", "discovery", "guard", "required"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_test_programs_add_up() {
        let mut tally = Tally::default();
        tally.count(
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s",
        );
        tally.count("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 0 filtered out");
        tally.count("test a::b ... ok");
        assert_eq!((tally.passed, tally.failed, tally.ignored), (14, 4, 1));
    }

    #[test]
    fn a_stage_that_ends_without_numbers_is_a_failure() {
        let mut tally = Tally::default();
        tally.run("stage", Command::new("sh").args(["-c", "exit 101"])).unwrap();
        assert_eq!(tally.broken, ["stage"]);
    }
}
