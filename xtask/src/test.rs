//! `cargo xtask test`: proves it, with real servers, real clients and the real kernel.
//!
//! Nothing is skipped: what the machine lacks is named, and the run fails.

mod tally;

use crate::{build, setup, shell, tidy};
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;
use std::time::Instant;
use tally::Tally;

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
    let alone = || {
        let mut command = end_to_end();
        command.env("CAPTURE_RIGHTS", "own");
        command
    };
    let mut tally = Tally::default();
    tally.run("unit tests", shell::cargo().args(["test", "--locked", "--no-fail-fast"]))?;
    tally.run_twice("end-to-end tests: real servers, real clients, real kernel", end_to_end, &[])?;
    tally.run_twice("the same, in part, of an agent without a shim beside it", alone, &ALONE)?;
    println!("{tally} in {}", shell::human(began.elapsed()));
    tally.judge()
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

/// The topics that look at servers and sessions most: everywhere else a shim does that for the agent.
const ALONE: [&str; 5] = ["attach", "containers", "discovery", "guard", "required"];
