//! What the tests need on the machine, and where it lies. `cargo xtask setup` puts it there.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Fails unless the test runs as root: servers run as another user, and eBPF needs rights.
///
/// # Errors
/// Says who runs the test, and how to run it.
pub fn require_root() -> anyhow::Result<()> {
    let uid = rustix::process::geteuid();
    ensure!(
        uid.is_root(),
        "these tests start servers as another user and load eBPF: run them as root, with `cargo xtask test` \
         (now running as user {})",
        uid.as_raw()
    );
    Ok(())
}

/// The server program `name` (`postgres`, `initdb`) of PostgreSQL's major version `version`: Debian's where it has
/// that version, else the one that setup installed.
///
/// # Errors
/// The program is not installed.
pub fn server_program(version: u32, name: &str) -> anyhow::Result<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin/{name}"));
    if debian.exists() {
        return Ok(debian);
    }
    installed(home().join(format!("postgres/{version}/bin/{name}")))
}

/// The client program `name`, such as `psql`: Debian's, which speaks with servers of every version.
///
/// # Errors
/// The program is not installed.
pub fn client_program(name: &str) -> anyhow::Result<PathBuf> {
    installed(format!("/usr/lib/postgresql/{CLIENTS}/bin/{name}").into())
}

/// The folder of the libraries, libpq among them, of a server that setup installed.
///
/// # Errors
/// The server is not installed.
pub fn libraries(version: u32) -> anyhow::Result<PathBuf> {
    installed(home().join(format!("postgres/{version}/lib")))
}

/// The major version of Debian's client programs.
pub const CLIENTS: u32 = 15;

/// The Python interpreter of the drivers' virtual environment.
///
/// # Errors
/// It is not installed.
pub fn python() -> anyhow::Result<PathBuf> {
    installed(home().join("venv/bin/python"))
}

/// The folder that holds node's `node_modules`.
///
/// # Errors
/// The driver is not installed.
pub fn node_modules() -> anyhow::Result<PathBuf> {
    let modules = home().join("node/node_modules");
    installed(modules.join("pg/package.json"))?;
    Ok(modules)
}

/// The folder of the object storage's servers, and of the engines that read from it.
///
/// # Errors
/// They are not installed.
pub fn stores() -> anyhow::Result<PathBuf> {
    let stores = home().join("stores");
    installed(stores.join("venv/.capture-requirements"))?;
    installed(stores.join("node_modules/azurite"))?;
    Ok(stores)
}

/// Where test dependencies lie: `$CAPTURE_DEPS`, or `.cache/capture-deps` in the home folder.
pub fn home() -> PathBuf {
    std::env::var_os("CAPTURE_DEPS").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
                .join(".cache/capture-deps")
        },
        PathBuf::from,
    )
}

/// The folder of this crate: of this run, not of the build, because checkouts that share a target folder also
/// share the compiled tests.
#[must_use]
pub fn crate_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// The client program `name` of `tests/clients`.
///
/// # Errors
/// There is no such file.
pub fn client(name: &str) -> anyhow::Result<PathBuf> {
    let path = crate_dir().join("clients").join(name);
    ensure!(path.is_file(), "no client program {}", path.display());
    Ok(path)
}

/// The agent under test: `$CAPTURE_AGENT`, else the one that cargo built last.
///
/// # Errors
/// Neither is there.
pub fn agent() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("CAPTURE_AGENT") {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "CAPTURE_AGENT names {}, which is not a file", path.display());
        return Ok(path);
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| crate_dir().join("../target"), PathBuf::from);
    ["debug", "release"]
        .iter()
        .map(|profile| target.join(profile).join("capture-agent"))
        .filter_map(|path| Some((path.metadata().ok()?.modified().ok()?, path)))
        .max()
        .map(|(_, path)| path)
        .with_context(|| {
            format!(
                "no capture-agent under {}: `cargo xtask test` builds it before the tests",
                target.display()
            )
        })
}

/// Another version of the agent: `$CAPTURE_OTHER_AGENT`.
///
/// # Errors
/// It is not there.
pub fn other_agent() -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("CAPTURE_OTHER_AGENT").map(PathBuf::from);
    path.filter(|path| path.is_file())
        .context("CAPTURE_OTHER_AGENT names no agent of another version: `cargo xtask test` builds one")
}

/// Runs a program to its end and yields what it printed.
///
/// # Errors
/// It cannot be started, or it fails: then with everything that it printed.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| {
        format!("cannot start {}: `cargo xtask setup` installs what is missing", show(&name))
    })?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} failed ({}):\n{stdout}{}",
        show(&name),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(stdout)
}

fn installed(path: PathBuf) -> anyhow::Result<PathBuf> {
    ensure!(path.exists(), "{} is missing: run `cargo xtask setup`", path.display());
    Ok(path)
}

fn show(name: &OsStr) -> String {
    name.to_string_lossy().into_owned()
}
