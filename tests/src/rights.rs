//! What agents of the tests may do: look at other processes themselves, or have a shim look.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use crate::deps;

/// The right to look at other processes (CAP_SYS_PTRACE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The agent has it, and starts a shim where a rule needs one.
    Own,
    /// The agent is started with the capabilities that its unit file grants, without it, and a shim with those that its
    /// own grants runs beside it.
    Withheld,
    /// The agent is started with it, is told that a shim runs beside it, and gives it up.
    GivenUp,
}

impl Rights {
    /// Those of an agent that was not told otherwise: withheld, unless `CAPTURE_RIGHTS` is `own`.
    ///
    /// # Panics
    /// The variable has a value that means nothing.
    pub fn usual() -> Self {
        match std::env::var("CAPTURE_RIGHTS").as_deref() {
            Ok("own") => Self::Own,
            Ok("withheld") | Err(_) => Self::Withheld,
            Ok(other) => panic!("CAPTURE_RIGHTS is neither own nor withheld but {other}"),
        }
    }
}

/// Starts a program as root with the capabilities that this unit file of `deploy` grants, and without a way to get others.
///
/// # Errors
/// There is no such unit file, or it grants none.
pub fn as_unit(unit: &str, program: &Path) -> anyhow::Result<Command> {
    let file = deps::crate_dir().join("../deploy").join(unit);
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let granted =
        text.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).context("none")?;
    let granted = granted.split(' ').map(|name| name.to_lowercase().replace("cap_", ",+"));
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--bounding-set=-all{}", granted.collect::<String>()))
        .arg("--inh-caps=-all")
        .arg(program);
    Ok(command)
}

/// The unit file of the agent.
pub const AGENT: &str = "capture-agent.service";
/// The unit file of the shim.
pub const SHIM: &str = "capture-shim.service";
