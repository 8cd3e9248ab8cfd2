//! A throwaway PostgreSQL server: its own folder and port, gone when the value is dropped.

use crate::shell;
use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};
use tempfile::TempDir;

/// A running server.
pub(crate) struct Server {
    bin: PathBuf,
    folder: TempDir,
    postmaster: Child,
    port: u16,
}

impl Server {
    /// Creates a cluster under the temporary folder and starts it on a free port and a Unix socket.
    ///
    /// # Errors
    ///
    /// If the server does not come up; then with the end of its log.
    pub(crate) fn start(settings: &[&str]) -> Result<Self> {
        Self::start_in(settings, |_| Ok(Vec::new()))
    }

    /// The same, with a certificate of its own: clients may encrypt.
    ///
    /// # Errors
    ///
    /// As [`Server::start`]; or openssl fails.
    pub(crate) fn start_with_tls(settings: &[&str]) -> Result<Self> {
        Self::start_in(settings, |folder| {
            let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
            let mut openssl = Command::new("openssl");
            openssl.args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ]);
            openssl.args(["-days", "2", "-subj", "/CN=localhost", "-keyout"]).arg(&key).arg("-out");
            shell::read(openssl.arg(&certificate))?;
            // openssl lets nobody but the owner read the key, as the server wants it.
            let account = Account::find()?;
            std::os::unix::fs::chown(&key, Some(account.uid), Some(account.gid))?;
            let setting = |name, path: &Path| format!("{name}={}", path.display());
            Ok(vec![
                "ssl=on".to_owned(),
                setting("ssl_key_file", &key),
                setting("ssl_cert_file", &certificate),
            ])
        })
    }

    /// `prepare` makes what the server needs in its folder, and yields further settings.
    fn start_in(settings: &[&str], prepare: impl FnOnce(&Path) -> Result<Vec<String>>) -> Result<Self> {
        let bin = bin_dir()?;
        let account = Account::find()?;
        let folder = account.folder("capture-postgres-")?;
        let data = folder.path().join("data");
        let mut initdb = account.command(&bin.join("initdb"));
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
            "-D",
        ]);
        shell::read(initdb.arg(&data).current_dir(folder.path()))?;

        let port = free_port()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut postgres = account.command(&bin.join("postgres"));
        postgres.arg("-D").arg(&data).current_dir(folder.path());
        postgres.args(["-c", &format!("port={port}"), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        postgres.arg("-c").arg(format!("unix_socket_directories={}", folder.path().display()));
        for setting in prepare(folder.path())? {
            postgres.args(["-c", &setting]);
        }
        for setting in settings {
            postgres.args(["-c", setting]);
        }
        let postmaster = postgres.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { bin, folder, postmaster, port };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// The port that it listens on, on 127.0.0.1; also part of its Unix socket's name.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The folder of its Unix socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// `psql` as `user` on the Unix socket, without anybody's `.psqlrc`, stopping at no error.
    pub(crate) fn psql(&self, user: &str, database: &str) -> Command {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-U", user, "-d", database, "-p", &self.port.to_string(), "-h"])
            .arg(self.socket_dir());
        psql
    }

    /// `pgbench`, over TCP.
    pub(crate) fn pgbench(&self) -> Command {
        let mut pgbench = Command::new(self.bin.join("pgbench"));
        pgbench.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        pgbench.env("PGSSLMODE", "disable");
        pgbench
    }

    /// The id of its postmaster.
    pub(crate) fn pid(&self) -> u32 {
        self.postmaster.id()
    }

    /// The file that the server logs to.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// What kind of server it is, such as `PostgreSQL 15.4`.
    pub(crate) fn version(&self) -> Result<String> {
        let text = shell::read(Command::new(self.bin.join("postgres")).arg("--version"))?;
        let number = text.split_whitespace().nth(2).unwrap_or("of unknown version");
        Ok(format!("PostgreSQL {number}"))
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIME;
        let mut ready = Command::new(self.bin.join("pg_isready"));
        ready.args(["-q", "-p", &self.port.to_string(), "-h"]).arg(self.folder.path());
        while !shell::works(&mut ready) {
            if self.postmaster.try_wait()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                bail!("the PostgreSQL server does not start:\n{log}");
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown: sessions end, nothing is left running.
        for signal in [Signal::INT, Signal::QUIT] {
            drop(shell::signal(&self.postmaster, signal));
            if !matches!(shell::ended(&mut self.postmaster, STOP_TIME), Ok(None)) {
                return;
            }
        }
    }
}

/// The programs of the newest installed server, by Debian's layout.
///
/// # Errors
///
/// If none is installed.
pub(crate) fn bin_dir() -> Result<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    installed
        .filter_map(|entry| {
            let version: u32 = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            ["postgres", "initdb", "pgbench", "psql"]
                .iter()
                .all(|name| bin.join(name).is_file())
                .then_some((version, bin))
        })
        .max()
        .map(|(_, bin)| bin)
        .context("no PostgreSQL server is installed")
}

/// Who runs the server: it refuses to run as root.
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// Debian's `postgres`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn find() -> Result<Self> {
        let id = |flag| -> Result<u32> {
            let text = shell::read(Command::new("id").args([flag, "postgres"]))?;
            text.trim().parse().with_context(|| format!("id printed {text}"))
        };
        Ok(Self { uid: id("-u")?, gid: id("-g")? })
    }

    /// A program that runs as this account.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.uid(self.uid).gid(self.gid);
        command
    }

    /// A temporary folder of its own.
    ///
    /// # Errors
    ///
    /// It cannot be created.
    pub(crate) fn folder(&self, prefix: &str) -> Result<TempDir> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir()?;
        std::os::unix::fs::chown(folder.path(), Some(self.uid), Some(self.gid))?;
        Ok(folder)
    }
}

/// A port of 127.0.0.1 that nobody listens on now.
///
/// # Errors
///
/// There is none.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

const START_TIME: Duration = Duration::from_secs(30);
const STOP_TIME: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
