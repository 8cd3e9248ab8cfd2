//! `cargo xtask build`: the agent as it ships.

use crate::{setup, shell};
use anyhow::{Result, ensure};
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
