//! Finds PostgreSQL servers: postmasters, in any mount and PID namespace.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::access::{Access, ServerFile, name_of};
use super::container::{Container, Pod};
use super::processes;

/// A running PostgreSQL server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The postmaster's process id, as the host sees it.
    pub postmaster: u32,
    /// The port that it listens on, on TCP and in the name of its Unix socket.
    pub port: Option<u16>,
    /// Its data directory, as the server sees it.
    pub data_directory: Option<PathBuf>,
    /// Its major version, from `PG_VERSION`.
    pub version: Option<String>,
    /// The container that it runs in.
    pub container: Option<Container>,
    /// Its Kubernetes pod, where the host knows its names.
    pub pod: Option<Pod>,
}

/// Which servers to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Every server on the host.
    Auto,
    /// The servers that listen on this port, each in its own network namespace.
    Port(u16),
    /// The server whose postmaster has this process id, as the host sees it.
    Pid(u32),
}

impl Selector {
    /// Whether this selects `server`. A server whose port is not known yet may still be selected by it.
    pub fn selects(self, server: &Server) -> bool {
        match self {
            Self::Auto => true,
            Self::Port(port) => server.port == Some(port),
            Self::Pid(pid) => server.postmaster == pid,
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    /// `auto`, a port (up to 65535), or `pid:N`; a larger plain number is a process id.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not `auto`, a port, or `pid:N`");
        if text == "auto" {
            return Ok(Self::Auto);
        }
        if let Some(pid) = text.strip_prefix("pid:") {
            return pid.parse().map(Self::Pid).map_err(|_| wrong());
        }
        let number: u32 = text.parse().map_err(|_| wrong())?;
        match u16::try_from(number) {
            Ok(0) => Err(wrong()),
            // A small number can be either; a process of that id that is a server decides.
            Ok(port) if !looks_like_a_server(number) => Ok(Self::Port(port)),
            _ => Ok(Self::Pid(number)),
        }
    }
}

/// The executables of servers that packages have installed on this host, whether they run or not.
pub fn installed_servers() -> impl Iterator<Item = File> {
    let each = |folder: &str, prefix: &str| {
        let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        named.map(|entry| entry.path().join("bin/postgres")).collect::<Vec<_>>()
    };
    let mut paths = each("/usr/lib/postgresql", "");
    paths.extend(each("/usr", "pgsql-"));
    paths.extend(
        ["/usr/bin/postgres", "/usr/local/bin/postgres", "/usr/local/pgsql/bin/postgres"].map(PathBuf::from),
    );
    paths.into_iter().filter(|path| path.is_file()).filter_map(|path| File::open(path).ok())
}

/// The executable of the process `pid` if it is a server's that makes a data directory: it will soon be a server's that serves. One
/// that is asked for its version is not meant, though `pg_ctl` does that: the server itself may be next.
pub fn soon_to_serve(pid: u32, access: &dyn Access) -> Option<File> {
    let prepares =
        processes::arguments(pid).get(1).is_some_and(|argument| PREPARES.contains(&argument.as_slice()));
    let is_servers = || access.executable(pid).is_ok_and(|path| path.is_some_and(|path| is_postgres(&path)));
    if prepares && is_servers() { access.open_if_any(pid, ServerFile::Executable).ok()? } else { None }
}

/// The postmasters that run now, of which some may be `known`.
///
/// # Errors
///
/// Nobody is there who may look.
pub fn find_servers(access: &dyn Access, known: impl Iterator<Item = u32>) -> io::Result<Vec<Server>> {
    let running: HashSet<u32> = access.servers()?.into_iter().collect();
    // Of a server's thousand backends one file tells; each by itself would be asked for its parent and its arguments.
    let children: HashSet<u32> = known.flat_map(processes::children).collect();
    let is_child = |pid: u32| {
        children.contains(&pid) || processes::parent(pid).is_some_and(|parent| running.contains(&parent))
    };
    let postmasters = running.iter().filter(|pid| !is_child(**pid) && serves(**pid));
    postmasters.filter_map(|pid| Server::inspect(*pid, access).transpose()).collect()
}

/// The server whose postmaster `pid` is, or is about to become: it runs the server's executable as a server, and its
/// parent does not.
///
/// # Errors
///
/// Nobody is there who may look.
pub fn find_server(pid: u32, access: &dyn Access) -> io::Result<Option<Server>> {
    let runs = |pid| access.executable(pid).map(|path| path.is_some_and(|path| is_postgres(&path)));
    if runs(pid)? && serves(pid) && !processes::parent(pid).map_or(Ok(false), runs)? {
        return Server::inspect(pid, access);
    }
    Ok(None)
}

/// Whether a path is that of a server's executable, as the kernel tells it.
pub(super) fn is_postgres(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    // The kernel adds this mark when a package upgrade has replaced the file.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    SERVER_NAMES.contains(&name)
}

impl Server {
    /// What is known of the postmaster `pid`; none if it is gone.
    fn inspect(pid: u32, access: &dyn Access) -> io::Result<Option<Self>> {
        if processes::parent(pid).is_none() {
            return Ok(None);
        }
        // Its working directory is its data directory, once it has got there; through /proc the link works across mount
        // namespaces.
        let status = access.open_if_any(pid, ServerFile::PidFile)?;
        let status = status.and_then(|file| io::read_to_string(file).ok()).unwrap_or_default();
        // Format: `src/include/utils/pidfile.h`. Line 4 is the port.
        let port = status.lines().nth(3).and_then(|line| line.trim().parse().ok());
        let version = access.open_if_any(pid, ServerFile::Version)?;
        let data_directory = version.as_ref().and_then(name_of);
        let version = version.and_then(|file| io::read_to_string(file).ok());
        let container = processes::container(pid);
        let pod =
            container.as_ref().and_then(|container| container.pod_uid.as_deref()).and_then(processes::pod);
        Ok(Some(Self {
            postmaster: pid,
            port,
            data_directory: data_directory.and_then(|path| Some(path.parent()?.to_owned())),
            version: version.map(|text| text.trim().to_owned()),
            container,
            pod,
        }))
    }
}

/// `postgres --single`, `--boot`, `--check`, `--describe-config`, `--version`: not a server.
fn serves(pid: u32) -> bool {
    !processes::arguments(pid).get(1).is_some_and(|argument| NOT_A_SERVER.contains(&argument.as_slice()))
}

/// Whether a number is meant as a process id: the process looks like a server to anybody. Whether it is one is looked at
/// before it is followed.
fn looks_like_a_server(pid: u32) -> bool {
    let looks = |pid| processes::command(pid).is_some_and(|name| SERVER_NAMES.contains(&name.as_str()));
    looks(pid) && serves(pid) && !processes::parent(pid).is_some_and(looks)
}

const SERVER_NAMES: [&str; 2] = ["postgres", "postmaster"];
/// What `initdb` runs, `src/bin/initdb/initdb.c`.
const PREPARES: &[&[u8]] = &[b"--boot", b"--single"];
/// `src/backend/main/main.c`
const NOT_A_SERVER: &[&[u8]] =
    &[b"--single", b"--boot", b"--check", b"--describe-config", b"--version", b"-V", b"--help", b"-?", b"-C"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probes::access::OwnRights;

    #[test]
    fn selectors_are_ports_process_ids_or_auto() {
        assert_eq!("auto".parse(), Ok(Selector::Auto));
        assert_eq!("5432".parse(), Ok(Selector::Port(5432)));
        assert_eq!("pid:17".parse(), Ok(Selector::Pid(17)));
        assert_eq!("4194303".parse(), Ok(Selector::Pid(4_194_303)));
        for wrong in ["", "0", "-1", "postgres", "pid:", "99999999999"] {
            assert!(wrong.parse::<Selector>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn this_test_is_no_server() {
        assert_eq!(find_server(std::process::id(), &OwnRights).unwrap(), None);
    }
}
