//! `cargo xtask setup`: installs what is missing, says what it does, and does nothing twice.

mod debian;
mod python_node;
mod rust;
mod servers;
mod stores;

use crate::shell;
use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
pub(crate) use python_node::python;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Options of `cargo xtask setup`.
#[derive(Args)]
pub(crate) struct Options {
    /// What the machine shall be able to do
    #[arg(long = "for", value_enum, default_value_t = For::Test)]
    purpose: For,
}

/// What the machine shall be able to do; each includes the ones before it, but for `Bench`, which is for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum For {
    /// Compile the agent.
    Build,
    /// Run the demo: a PostgreSQL server, a driver, eBPF.
    Demo,
    /// Measure: what Capture is compared with.
    Bench,
    /// Run the tests: more drivers, servers of every version, object storage, lints.
    Test,
    /// Boot other kernels in an emulated machine, and run tests there.
    Kernels,
    /// Run what CI runs: dependency checks, counting instructions, fuzzing.
    All,
}

/// Sets up and says so also when there was nothing to do.
pub(crate) fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    if ensure(options.purpose)? == 0 {
        println!("setup: nothing is missing ({})", shell::human(began.elapsed()));
    }
    Ok(())
}

/// Installs what `purpose` needs and is not there, and yields how many things that was.
///
/// # Errors
///
/// If something cannot be installed, or needs root and this is not root.
pub(crate) fn ensure(purpose: For) -> Result<usize> {
    let mut done = debian::ensure(purpose)?;
    done += rust::ensure(purpose)?;
    if purpose >= For::Demo {
        done += tracefs()?;
        done += python_node::ensure_python()?;
    }
    if purpose >= For::Test {
        done += python_node::ensure_node()?;
        done += servers::ensure()?;
        done += stores::ensure()?;
    }
    Ok(done)
}

/// Installs what counts instructions, if it is not there.
///
/// # Errors
///
/// As [`ensure`].
pub(crate) fn ensure_valgrind() -> Result<usize> {
    debian::ensure_valgrind()
}

/// Tracepoints are found through tracefs, which containers and small images leave unmounted.
fn tracefs() -> Result<usize> {
    if Path::new(TRACEFS).join("events").is_dir() {
        return Ok(0);
    }
    need_root("mounting tracefs")?;
    shell::step("mounting tracefs", Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))
        .context("the kernel's trace events are out of reach")?;
    Ok(1)
}

/// Fails with what root is needed for, if this is not root.
fn need_root(what: &str) -> Result<()> {
    if !shell::is_root() {
        bail!("{what} needs root: run this command as root (it was run as an ordinary user)");
    }
    Ok(())
}

const TRACEFS: &str = "/sys/kernel/tracing";
