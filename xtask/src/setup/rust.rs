//! What cargo and rustup install.

use super::For;
use crate::shell;
use anyhow::{Context as _, Result};
use std::process::Command;

/// Installs the missing Rust programs and yields how many.
pub(super) fn ensure(purpose: For) -> Result<usize> {
    let mut done = 0;
    if !has_bpf_linker() {
        let llvm =
            shell::read(Command::new(LLVM_CONFIG).arg("--prefix")).context("LLVM 22 is not installed")?;
        let mut install =
            cargo_install("bpf-linker", BPF_LINKER, &["--no-default-features", "--features", "llvm-22"]);
        shell::step("installing bpf-linker (about a minute)", install.env("LLVM_PREFIX", llvm.trim()))?;
        done += 1;
    }
    if purpose >= For::Test {
        for (component, program) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
            if !shell::works(shell::cargo().args([program, "--version"])) {
                let mut add = Command::new("rustup");
                shell::step(&format!("installing {component}"), add.args(["component", "add", component]))?;
                done += 1;
            }
        }
    }
    if purpose >= For::All {
        for (name, version) in [("cargo-deny", CARGO_DENY), ("cargo-fuzz", CARGO_FUZZ)] {
            if shell::find(name).is_none() {
                shell::step(
                    &format!("installing {name} (some minutes)"),
                    &mut cargo_install(name, version, &[]),
                )?;
                done += 1;
            }
        }
    }
    Ok(done)
}

/// Whether bpf-linker is there and starts: it does not without its LLVM's shared library.
pub(super) fn has_bpf_linker() -> bool {
    xtask::ebpf::bpf_linker().is_some_and(|path| shell::works(Command::new(path).arg("--version")))
}

fn cargo_install(name: &str, version: &str, arguments: &[&str]) -> Command {
    let mut command = shell::cargo();
    command.args(["install", "--locked", name, "--version", version]).args(arguments);
    // Kept apart from the project's own artifacts and flags.
    command.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
    command
}

const LLVM_CONFIG: &str = "llvm-config-22";
const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";
const CARGO_FUZZ: &str = "0.13.2";
