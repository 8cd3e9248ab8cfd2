//! The drivers and engines that demo and tests speak with: a Python environment and node modules of their own.

use crate::shell;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes the Python environment hold what `tests/clients/requirements.txt` names; yields 1 if it did not.
pub(super) fn ensure_python() -> Result<usize> {
    ensure_venv("installing Python drivers and DuckDB", "tests/clients", "venv").map(usize::from)
}

/// Makes the Python environment in `target`, below the folder of dependencies, hold what `requirements.txt` in `source`
/// names. Whether it did not.
pub(super) fn ensure_venv(what: &str, source: &str, target: &str) -> Result<bool> {
    let requirements = shell::root().join(source).join("requirements.txt");
    let venv = shell::deps_dir().join(target);
    let python = venv.join("bin/python");
    let stamp = Stamp { file: venv.join(".capture-requirements"), wanted: read(&requirements)? };
    if stamp.is_current() && python.exists() {
        return Ok(false);
    }
    shell::step(
        &format!("creating the Python environment {target}"),
        Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&venv),
    )?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--requirement"]);
    shell::step(what, pip.arg(requirements))?;
    stamp.set()?;
    Ok(true)
}

/// Makes the node modules those that `tests/clients/package-lock.json` names; yields 1 if they were not.
pub(super) fn ensure_node() -> Result<usize> {
    ensure_modules("installing node drivers", "tests/clients", "node").map(usize::from)
}

/// Makes the modules in `target`, below the folder of dependencies, those that the lock file in `source` names, with
/// the checksums that stand in it. Whether they were not. No package's own scripts run.
pub(super) fn ensure_modules(what: &str, source: &str, target: &str) -> Result<bool> {
    let source = shell::root().join(source);
    let folder = shell::deps_dir().join(target);
    let stamp =
        Stamp { file: folder.join(".capture-lock"), wanted: read(&source.join("package-lock.json"))? };
    if stamp.is_current() {
        return Ok(false);
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        fs::copy(source.join(name), folder.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--omit=dev", "--ignore-scripts"]).current_dir(&folder);
    shell::step(what, &mut npm)?;
    stamp.set()?;
    Ok(true)
}

/// The environment's interpreter.
pub(crate) fn python() -> PathBuf {
    shell::deps_dir().join("venv/bin/python")
}

/// What was installed last, kept beside it.
struct Stamp {
    file: PathBuf,
    wanted: String,
}

impl Stamp {
    fn is_current(&self) -> bool {
        fs::read_to_string(&self.file).is_ok_and(|found| found == self.wanted)
    }

    fn set(&self) -> Result<()> {
        fs::write(&self.file, &self.wanted).with_context(|| format!("cannot write {}", self.file.display()))
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Debian's own: another Python on the path may come without `venv`.
pub(super) const PYTHON: &str = "/usr/bin/python3";
