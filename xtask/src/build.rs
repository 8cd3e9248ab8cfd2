//! `cargo xtask build`: the agent as it ships.

use crate::{setup, shell};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::PathBuf;

/// Sets up, builds and says where the agent is.
pub(crate) fn run() -> Result<()> {
    setup::ensure(setup::For::Build)?;
    println!("{}", agent()?.display());
    Ok(())
}

/// Builds the agent for release, with the eBPF object inside, and yields its path.
pub(crate) fn agent() -> Result<PathBuf> {
    cargo_build("building the agent (release)", &["--release"], "release")
}

/// Another version of the agent, under a name of its own, for tests of upgrades. To be built before the agent itself,
/// which it replaces for a moment.
pub(crate) fn other_agent() -> Result<PathBuf> {
    shell::step(
        "building another version of the agent (release)",
        shell::cargo()
            .args(["build", "--locked", "--release", "-p", "capture-agent"])
            .env("CAPTURE_VERSION", OTHER_VERSION),
    )?;
    let folder = shell::target_dir()?.join("release");
    let other = folder.join("capture-agent-other");
    fs::copy(folder.join("capture-agent"), &other).context("cargo left no agent")?;
    Ok(other)
}

/// The same without optimization, in half the time: fast enough to be shown.
pub(crate) fn unoptimized_agent() -> Result<PathBuf> {
    cargo_build("building the agent (not optimized)", &[], "debug")
}

fn cargo_build(what: &str, profile: &[&str], folder: &str) -> Result<PathBuf> {
    shell::step(what, shell::cargo().args(["build", "--locked", "-p", "capture-agent"]).args(profile))?;
    let agent = shell::target_dir()?.join(folder).join("capture-agent");
    ensure!(agent.is_file(), "cargo left no agent at {}", agent.display());
    Ok(agent)
}

/// A version that no release has.
const OTHER_VERSION: &str = "999.0.0-other";
