//! A data directory as `initdb` leaves it, made once for each version and copied from then on.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::account;
use crate::deps;

/// Makes `target` a fresh data directory that belongs to the server's account.
pub(super) fn copy_to(version: u32, target: &Path) -> anyhow::Result<()> {
    let template = template(version)?;
    deps::run(Command::new("cp").args(["-a", "--sparse=always"]).arg(template).arg(target))?;
    Ok(())
}

/// Makes `target` a copy of a backup that belongs to the server's account.
pub(super) fn copy_backup(backup: &Path, target: &Path) -> anyhow::Result<()> {
    let account = account::postgres()?;
    deps::run(Command::new("cp").args(["-a", "--sparse=always"]).arg(backup).arg(target))?;
    let owner = format!("{}:{}", account.uid, account.gid);
    deps::run(Command::new("chown").args(["-R", &owner]).arg(target))?;
    Ok(())
}

/// Makes a data directory with `initdb`: `data` in a folder of its own, which goes with what is returned.
///
/// # Errors
/// The version is not installed, or `initdb` fails: then with its words.
pub fn run_initdb(version: u32) -> anyhow::Result<tempfile::TempDir> {
    let account = account::postgres()?;
    let folder = tempfile::Builder::new().prefix("capture-initdb-").tempdir()?;
    chown(folder.path(), Some(account.uid), Some(account.gid))?;
    let data = folder.path().join("data");
    let arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
    let mut initdb = account.command(&deps::server_program(version, "initdb")?);
    deps::run(initdb.args(arguments).arg("-D").arg(&data).current_dir(folder.path()))?;
    Ok(folder)
}

/// The template's name carries the full version, so that an upgrade makes a new one.
fn template(version: u32) -> anyhow::Result<PathBuf> {
    let initdb = deps::server_program(version, "initdb")?;
    let full = deps::run(Command::new(&initdb).arg("--version"))?;
    let name = full.trim().replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "-");
    let templates = deps::home().join("templates");
    let template = templates.join(name);
    if template.is_dir() {
        return Ok(template);
    }
    let folder = run_initdb(version)?;
    let data = folder.path().join("data");
    // Another test process may do the same: whoever renames first wins, and both are alike.
    fs::create_dir_all(&templates)?;
    let draft = tempfile::Builder::new().prefix("draft-").tempdir_in(&templates)?;
    deps::run(Command::new("cp").arg("-a").arg(&data).arg(draft.path()))?;
    if fs::rename(draft.path().join("data"), &template).is_err() {
        anyhow::ensure!(template.is_dir(), "cannot create {}", template.display());
    }
    Ok(template)
}
