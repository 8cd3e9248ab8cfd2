//! Finds PostgreSQL servers: postmasters, in any mount and PID namespace.

use std::fs;
use std::path::PathBuf;
use std::str::FromStr;

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
            Ok(port) if !is_server_process(number) => Ok(Self::Port(port)),
            _ => Ok(Self::Pid(number)),
        }
    }
}

/// The postmasters that run now.
pub fn find_servers() -> Vec<Server> {
    processes::all().into_iter().filter(|pid| is_server_process(*pid)).filter_map(Server::inspect).collect()
}

/// Whether `pid` is, or is about to become, a postmaster: it runs the server's executable as a server, and its
/// parent does not.
pub fn is_server_process(pid: u32) -> bool {
    runs_postgres(pid)
        && !processes::parent(pid).is_some_and(runs_postgres)
        // `postgres --single`, `--boot`, `--check`, `--describe-config`, `--version`: not a server.
        && !processes::arguments(pid).get(1).is_some_and(|argument| NOT_A_SERVER.contains(&argument.as_slice()))
}

impl Server {
    /// What is known of the postmaster `pid`; none if it is gone.
    pub fn inspect(pid: u32) -> Option<Self> {
        // A postmaster's working directory is its data directory; through /proc the link works across mount
        // namespaces.
        let data = processes::proc(pid, "cwd");
        let data_directory = fs::read_link(&data).ok()?;
        let status = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        // Format: `src/include/utils/pidfile.h`. Line 4 is the port.
        let port = status.lines().nth(3).and_then(|line| line.trim().parse().ok());
        let version = fs::read_to_string(data.join("PG_VERSION")).ok().map(|text| text.trim().to_owned());
        let container = processes::container(pid);
        let pod =
            container.as_ref().and_then(|container| container.pod_uid.as_deref()).and_then(processes::pod);
        Some(Self { postmaster: pid, port, data_directory: Some(data_directory), version, container, pod })
    }
}

fn runs_postgres(pid: u32) -> bool {
    processes::executable(pid).is_some_and(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        // The kernel adds this mark when a package upgrade has replaced the file.
        let name = name.strip_suffix(" (deleted)").unwrap_or(name);
        matches!(name, "postgres" | "postmaster")
    })
}

/// `src/backend/main/main.c`
const NOT_A_SERVER: &[&[u8]] =
    &[b"--single", b"--boot", b"--check", b"--describe-config", b"--version", b"-V", b"--help", b"-?", b"-C"];

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(!is_server_process(std::process::id()));
    }
}
