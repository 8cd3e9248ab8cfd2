//! Containers without a runtime: a file system of their own, and namespaces for mounts, processes, network, host
//! name and IPC; a control group that is named as runtimes name it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};

use crate::{deps, wait};

/// A place for one server: gone, with its network and control group, when it goes out of scope.
#[derive(Debug)]
pub struct Container {
    root: tempfile::TempDir,
    network: Arc<Network>,
    group: Option<ControlGroup>,
}

/// A network namespace. It has its own loopback interface, and those that [`Network::link`] makes.
#[derive(Debug)]
pub struct Network {
    name: String,
}

/// A control group.
#[derive(Debug)]
pub struct ControlGroup {
    folder: PathBuf,
}

/// An id that no other container of this host has: 64 hexadecimal digits.
pub fn unused_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = u64::from(std::process::id()) << 16 | NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:052x}{number:012x}", 0xc0ffee_u64)
}

/// The groups that tests of this process made, so that the last that needs a group above its own removes it.
static MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

impl Container {
    /// A container whose file system holds the server of this version that setup installed, and what that needs.
    ///
    /// # Errors
    /// The server is not installed, or the file system cannot be filled.
    pub fn new(version: u32, network: &Arc<Network>, group: Option<ControlGroup>) -> anyhow::Result<Self> {
        let root = tempfile::Builder::new().prefix("capture-root-").tempdir()?;
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755))?;
        for folder in ["proc", "dev/shm", "old", "tmp", "usr/local", "usr/lib/locale"] {
            fs::create_dir_all(root.path().join(folder))?;
        }
        fs::set_permissions(root.path().join("tmp"), fs::Permissions::from_mode(0o1777))?;
        let server = deps::libraries(version)?.join("..").canonicalize()?;
        copy(&server, &root.path().join(SERVER))?;
        copy(Path::new("/usr/lib/locale/C.utf8"), &root.path().join("usr/lib/locale/C.utf8"))?;
        for library in libraries_of(&server.join("bin/postgres"))? {
            let target = root.path().join(library.strip_prefix("/")?);
            fs::create_dir_all(target.parent().context("a library without a folder")?)?;
            fs::copy(&library, target)?;
        }
        Ok(Self { root, network: Arc::clone(network), group })
    }

    /// The root of its file system, as the host sees it.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The path of a server program as the container sees it.
    pub(crate) fn server_program(name: &str) -> String {
        format!("/{SERVER}/bin/{name}")
    }

    /// `program`, a path in the container, as its first process, run by this user.
    pub(crate) fn command(&self, uid: u32, gid: u32, program: &str) -> anyhow::Result<Command> {
        let mut command = Command::new("setpriv");
        // unshare waits for its child, the first process of the new namespaces: with that, all of them end.
        command.arg("--pdeathsig=KILL").arg("nsenter").arg(self.network.argument()).args([
            "unshare",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child=KILL",
        ]);
        let group = self.group.as_ref().map_or(Path::new(""), ControlGroup::path);
        command.arg(deps::python()?).arg(deps::client("container.py")?);
        command.arg(self.root()).arg(group).args([uid.to_string(), gid.to_string()]).arg(program);
        Ok(command)
    }
}

impl Network {
    /// A new one, with its loopback interface up.
    ///
    /// # Errors
    /// `ip` (iproute2) is missing or refuses.
    pub fn new() -> anyhow::Result<Arc<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("capture-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let network = Self { name };
        network.ip(&["link", "set", "lo", "up"])?;
        Ok(Arc::new(network))
    }

    /// Joins two of them by a pair of virtual interfaces, one address on each side, such as `10.0.0.1/24`.
    ///
    /// # Errors
    /// `ip` refuses.
    pub fn link(&self, address: &str, other: &Self, other_address: &str) -> anyhow::Result<()> {
        let (here, there) = ("capture0", "capture1");
        ip(&[
            "link",
            "add",
            here,
            "netns",
            &self.name,
            "type",
            "veth",
            "peer",
            "name",
            there,
            "netns",
            &other.name,
        ])?;
        for (network, interface, address) in [(self, here, address), (other, there, other_address)] {
            network.ip(&["address", "add", address, "dev", interface])?;
            network.ip(&["link", "set", interface, "up"])?;
        }
        Ok(())
    }

    /// `program`, run inside this network and otherwise on the host.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(self.argument()).arg(program);
        command
    }

    fn argument(&self) -> String {
        format!("--net=/run/netns/{}", self.name)
    }

    fn ip(&self, arguments: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

impl ControlGroup {
    /// Makes a group, such as `docker/<64 digits>`, and those above it that are missing.
    ///
    /// # Errors
    /// This machine has no control groups that may be written, or the group is there already.
    pub fn new(path: &str) -> anyhow::Result<Self> {
        // Version 2, also where it stands beside version 1, has a file that version 1 lacks.
        let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/pids"]
            .into_iter()
            .find(|mount| Path::new(mount).join("cgroup.procs").is_file())
            .context("no control groups are mounted below /sys/fs/cgroup")?;
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut folder = PathBuf::from(mount);
        for name in path.split('/') {
            folder.push(name);
            if !folder.is_dir() {
                fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
                made.insert(folder.clone());
            }
        }
        ensure!(made.contains(&folder), "{} is there already", folder.display());
        Ok(Self { folder })
    }

    fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // A group can be removed once its last process is reaped.
        let empty = || Ok(fs::remove_dir(&self.folder).ok());
        let _ = wait::until("the group to be empty", wait::SOON, empty);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.remove(&self.folder);
        // Those above it, unless another test's group stands in them: that will remove them.
        for folder in self.folder.ancestors().skip(1) {
            if made.contains(folder) && fs::remove_dir(folder).is_ok() {
                made.remove(folder);
            }
        }
    }
}

/// The libraries that a program loads, the loader among them, without those that lie beside it.
fn libraries_of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let own = deps::home().canonicalize()?;
    let listed = deps::run(Command::new("ldd").arg(program))?;
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(paths.filter(|path| !path.starts_with(&own)).collect())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    deps::run(Command::new("cp").arg("-a").arg(from).arg(to)).map(|_| ())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    deps::run(Command::new("ip").args(arguments)).map(|_| ())
}

/// Where the server lies in the container.
const SERVER: &str = "usr/local/pgsql";
