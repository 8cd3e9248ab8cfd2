//! The right to look at other processes: this agent's own, or the shim's beside it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities,
};
use tracing::{debug, info};

use crate::config::Config;
use crate::probes::{Access, OwnRights, Pins};
use crate::shim::{self, Eyes};

/// Gives the right up for good, if the configuration says that a shim runs beside this agent: what parses hostile bytes
/// then cannot trace anybody. Before any thread is started, since each has rights of its own.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn give_up(config: &Config) -> anyhow::Result<()> {
    if config.shim.start || socket(config).is_none() {
        return Ok(());
    }
    let right = CapabilitySet::SYS_PTRACE;
    if capability_is_in_bounding_set(right)?
        && let Err(error) = remove_capability_from_bounding_set(right)
    {
        debug!(%error, "CAP_SYS_PTRACE stays in the bounding set");
    }
    let CapabilitySets { effective, permitted, inheritable } = capabilities(None)?;
    let sets = CapabilitySets {
        effective: effective - right,
        permitted: permitted - right,
        inheritable: inheritable - right,
    };
    set_capabilities(None, sets).context("cannot give up CAP_SYS_PTRACE")
}

/// Who looks at other processes for this agent.
///
/// # Errors
///
/// It has not the right itself, and no shim serves it.
pub(super) fn access(config: &Config) -> anyhow::Result<Box<dyn Access + Send>> {
    let Some(socket) = socket(config).filter(|_| !may_look()) else { return Ok(Box::new(OwnRights)) };
    let eyes = Eyes::wait_for(socket.clone(), PATIENCE).with_context(|| {
        format!(
            "this agent has no CAP_SYS_PTRACE, and no shim that could look at servers in its place listens on {}: start \
             `capture-agent shim` with the same configuration (see docs/errors.md#no-eyes)",
            socket.display()
        )
    })?;
    info!("the shim looks at other processes for this agent, which has no CAP_SYS_PTRACE");
    Ok(Box::new(eyes))
}

/// Where a shim of this configuration listens; none if there can be none.
pub(super) fn socket(config: &Config) -> Option<PathBuf> {
    let pins = Pins::of(&config.kernel.pin_dir, &config.data_dir)?;
    Some(shim::socket(&config.shim.runtime_dir, &pins))
}

fn may_look() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_PTRACE))
}

/// A supervisor starts both at once, or the shim anew within a second.
const PATIENCE: Duration = Duration::from_secs(10);
