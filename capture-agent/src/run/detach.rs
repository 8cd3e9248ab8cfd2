//! Removes what agents left in the kernel.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::vault;
use crate::approvals;
use crate::cli::DetachOptions;
use crate::probes::Pins;

/// Detaches the kernel side of one data directory, or of all, and removes the sockets of the agents that are gone.
///
/// # Errors
///
/// An agent still uses one of them, or a pin cannot be removed.
pub fn detach(options: &DetachOptions) -> anyhow::Result<ExitCode> {
    let root = &options.config.kernel.pin_dir;
    let pins = if options.all {
        Pins::all(root)
    } else {
        Pins::of(root, &options.config.data_dir).into_iter().filter(Pins::exist).collect()
    };
    let mut out = io::stdout().lock();
    if pins.is_empty() {
        writeln!(out, "nothing is attached (looked in {})", root.display())?;
    }
    let mut busy = 0;
    for pins in pins {
        let folder = pins.folder().display();
        if let Some(pid) = pins.user() {
            busy += 1;
            writeln!(
                out,
                "{folder}: in use by process {pid}; stop it, then detach (see docs/errors.md#in-use)"
            )?;
            continue;
        }
        // A killed agent could not; whoever finds it there would think that somebody listens.
        remove_socket(&approvals::socket(&options.config.shim.runtime_dir, &pins))?;
        vault::forget(&options.config, pins.name());
        let removed = pins.clear().with_context(|| format!("cannot remove the pins in {folder}"))?;
        writeln!(out, "{folder}: detached, {removed} pins removed")?;
    }
    Ok(if busy == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Removes an agent's socket, and its folder, unless the shim's is there too: that goes with the shim.
fn remove_socket(socket: &Path) -> anyhow::Result<()> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", socket.display()))
        }
        _ => {
            let _ = socket.parent().map(fs::remove_dir);
            Ok(())
        }
    }
}
