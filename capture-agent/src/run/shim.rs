//! `capture-agent shim`, and the agent's way to it.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context as _;

use crate::config::Config;
use crate::enforce::Backends;
use crate::probes::{Holds, Kernel, Pins};
use crate::shim::{self, Client};

use super::cores;

/// Serves the agent of one data directory until it has detached.
///
/// # Errors
///
/// There is nothing to serve, or another shim does.
pub fn shim(config: &Config) -> anyhow::Result<ExitCode> {
    cores::forbid();
    let pins = Pins::of(&config.kernel.pin_dir, &config.data_dir).context(NO_PINS)?;
    shim::run(&pins, &shim::socket(&config.shim.runtime_dir, &pins))?;
    Ok(ExitCode::SUCCESS)
}

/// The way to stopped backends. Sees to a shim that runs.
pub(super) fn backends(config: &Config, file: Option<&Path>, kernel: &Kernel) -> anyhow::Result<Backends> {
    let pins = kernel.pins().context(NO_PINS)?;
    let holds = Holds::open(pins)?;
    let command = config.shim.start.then(|| {
        // Also when an upgrade has replaced the program's file: the two must be of one version.
        let mut command = Command::new("/proc/self/exe");
        command.arg("shim").arg("--data-dir").arg(&config.data_dir);
        command.args(file.into_iter().flat_map(|file| [Path::new("--config"), file]));
        command
    });
    let mut client = Client::new(shim::socket(&config.shim.runtime_dir, pins), command);
    client.connect().context(
        "a rule needs the shim, which cannot be reached: see whether `capture-agent shim` starts \
         (docs/errors.md#shim)",
    )?;
    Ok(Backends::new(holds, client))
}

const NO_PINS: &str = "a rule needs the table of holds to outlive this agent, but nothing is pinned: set kernel.pin_dir \
                       to a folder in a BPF file system (see docs/errors.md#not-pinned)";
