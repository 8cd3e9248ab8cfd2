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
    shell::step(
        "building the agent (release)",
        shell::cargo().args(["build", "--release", "--locked", "-p", "capture-agent"]),
    )?;
    let agent = shell::target_dir()?.join("release/capture-agent");
    ensure!(agent.is_file(), "cargo left no agent at {}", agent.display());
    Ok(agent)
}
