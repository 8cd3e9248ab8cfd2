//! A real PostgreSQL server in a folder of its own, stopped when it goes out of scope.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::container::Container;
use crate::log::ServerLog;
use crate::{deps, wait};

pub(crate) mod account;
mod certificate;
mod template;

pub use template::run_initdb;

/// How a server is to be started.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    version: u32,
    settings: Vec<(String, String)>,
    port: Option<u16>,
    container: Option<Arc<Container>>,
    tls: bool,
    access: String,
    under: Vec<OsString>,
    backup: Option<PathBuf>,
}

/// A running server. TCP on 127.0.0.1 and a Unix socket; the superuser is `postgres`, trusted. Roles named
/// `by_scram`, `by_md5` and `by_password`, where a test makes them, must prove themselves over TCP.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    /// What it keeps, in the host's file system.
    folder: tempfile::TempDir,
    /// The same folder as the server sees it.
    seen: PathBuf,
    port: u16,
    process: Option<Child>,
    /// The postmaster's process id, as the host sees it.
    postmaster: u32,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            version: 15,
            settings: Vec::new(),
            port: None,
            container: None,
            tls: false,
            access: String::new(),
            under: Vec::new(),
            backup: None,
        }
    }
}

impl ServerOptions {
    /// The major version, such as 15.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// The major version that will be started.
    pub fn major(&self) -> u32 {
        self.version
    }

    /// A line of `postgresql.conf`.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A fixed port, for a server whose port must be known before it starts.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// On a copy of this data directory, such as pg_basebackup makes, instead of a fresh one.
    #[must_use]
    pub fn backup(mut self, data: &Path) -> Self {
        self.backup = Some(data.to_owned());
        self
    }

    /// Inside this container, as its first process; on the container's loopback interface and other addresses.
    #[must_use]
    pub fn container(mut self, container: &Arc<Container>) -> Self {
        self.container = Some(Arc::clone(container));
        self
    }

    /// With a certificate of its own: clients that the harness points at it encrypt whatever they send over TCP
    /// (`sslmode=require`).
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// A line of `pg_hba.conf` that comes before all others.
    #[must_use]
    pub fn access(mut self, line: &str) -> Self {
        self.access.push_str(line);
        self.access.push('\n');
        self
    }

    /// Started by this program and its arguments, which must end in executing what follows them.
    #[must_use]
    pub fn under(mut self, command: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.under = command.into_iter().map(Into::into).collect();
        self
    }

    /// Starts the server and waits until it takes connections.
    ///
    /// # Errors
    /// PostgreSQL is not installed, the test does not run as root, or the server does not start; then with the
    /// server's own words.
    pub fn start(self) -> anyhow::Result<Server> {
        deps::require_root()?;
        let mut folder = tempfile::Builder::new();
        folder.prefix("capture-pg-");
        let (folder, seen) = match &self.container {
            Some(container) => {
                let folder = folder.tempdir_in(container.root().join("tmp"))?;
                let seen = Path::new("/").join(folder.path().strip_prefix(container.root())?);
                (folder, seen)
            }
            None => {
                let folder = folder.tempdir()?;
                let seen = folder.path().to_owned();
                (folder, seen)
            }
        };
        let account = account::postgres()?;
        chown(folder.path(), Some(account.uid), Some(account.gid))?;
        let data = folder.path().join("data");
        match &self.backup {
            Some(backup) => template::copy_backup(backup, &data)?,
            None => template::copy_to(self.version, &data)?,
        }
        let port = self.port.map_or_else(free_port, Ok)?;
        let mut server = Server { options: self, folder, seen, port, process: None, postmaster: 0 };
        server.configure()?;
        server.launch()?;
        Ok(server)
    }
}

impl Server {
    /// Starts a server with the default options.
    ///
    /// # Errors
    /// As [`ServerOptions::start`].
    pub fn start() -> anyhow::Result<Self> {
        ServerOptions::default().start()
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.options.version
    }

    /// The folder of the Unix socket, as libpq's `host` takes it.
    pub fn socket_folder(&self) -> &Path {
        self.folder.path()
    }

    /// The Unix socket itself.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(format!(".s.PGSQL.{}", self.port))
    }

    /// Its certificate, if it was started with [`ServerOptions::tls`]: whoever trusts it can verify the server.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.crt")
    }

    /// The postmaster's process id, as the host sees it.
    ///
    /// # Errors
    /// The server does not run.
    pub fn pid(&self) -> anyhow::Result<u32> {
        self.process.as_ref().map(|_| self.postmaster).context("the server does not run")
    }

    /// A `postgresql://` address over TCP.
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// A client program that finds the server by itself, over TCP.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn program(&self, name: &str) -> anyhow::Result<Command> {
        let program = deps::client_program(name)?;
        let mut command = match &self.options.container {
            Some(container) => container.network().command(&program),
            None => Command::new(program),
        };
        self.point(&mut command);
        Ok(command)
    }

    /// Sets libpq's environment so that `command` reaches this server over TCP.
    pub fn point(&self, command: &mut Command) {
        command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres")
            .env("PGSSLMODE", if self.options.tls { "require" } else { "disable" })
            .env("PGGSSENCMODE", "disable")
            .env("PGSOCKETS", self.socket_folder())
            .env("PSQLRC", "/dev/null")
            .env("TZ", "UTC");
    }

    /// Runs `sql` as one query string through psql and yields its unaligned output.
    ///
    /// # Errors
    /// psql fails: then with its words.
    pub fn psql(&self, sql: &str) -> anyhow::Result<String> {
        deps::run(self.program("psql")?.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]))
    }

    /// Waits until no client session is left: clients close before their backends do.
    ///
    /// # Errors
    /// A session stays.
    pub fn wait_idle(&self) -> anyhow::Result<()> {
        wait::until("the server's sessions to end", Duration::from_secs(30), || {
            Ok(self.sessions()?.is_empty().then_some(()))
        })
    }

    /// Process ids of the backends that serve clients now.
    ///
    /// # Errors
    /// The server does not run.
    pub fn sessions(&self) -> anyhow::Result<Vec<u32>> {
        let postmaster = self.pid()?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            if parent_of(pid) == Some(postmaster) && !is_auxiliary(&title_of(pid)) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Stops the server in an orderly way, ending every session, and yields its log.
    ///
    /// # Errors
    /// It does not stop, or its log cannot be read.
    pub fn stop(mut self) -> anyhow::Result<ServerLog> {
        self.halt()?;
        ServerLog::read(&self.folder.path().join("log"))
    }

    /// Stops the server and starts it again on the same port and data.
    ///
    /// # Errors
    /// It does not stop or start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.restart_after(|| Ok(()))
    }

    /// The same, and does something `meanwhile`.
    ///
    /// # Errors
    /// It does not stop or start, or something fails.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.halt()?;
        meanwhile()?;
        self.launch()
    }

    fn halt(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the server does not run")?;
        signal(self.postmaster, Signal::INT)?;
        let ended = wait::until("the server to stop", Duration::from_secs(30), || Ok(process.try_wait()?));
        if ended.is_err() {
            self.process = Some(process);
        }
        ended.map(|_| ())
    }

    fn configure(&self) -> anyhow::Result<()> {
        let mut text = String::from(SETTINGS);
        let socket_folder = self.seen.display();
        text.push_str(&format!("port = {}\nunix_socket_directories = '{socket_folder}'\n", self.port));
        text.push_str(&format!("log_directory = '{socket_folder}/log'\n"));
        if self.options.tls {
            text.push_str(&certificate::make(self.folder.path(), &account::postgres()?)?);
        }
        for (name, value) in &self.options.settings {
            text.push_str(&format!("{name} = '{value}'\n"));
        }
        let data = self.folder.path().join("data");
        fs::write(data.join("postgresql.auto.conf"), text)?;
        fs::write(data.join("pg_hba.conf"), format!("{}{ACCESS}", self.options.access))?;
        Ok(())
    }

    /// The server gets SIGQUIT when the test dies, however it dies.
    fn launch(&mut self) -> anyhow::Result<()> {
        let account = account::postgres()?;
        let data = self.folder.path().join("data");
        let words = self.folder.path().join("postgres.err");
        let mut command = match &self.options.container {
            Some(container) => {
                container.command(account.uid, account.gid, &Container::server_program("postgres"))?
            }
            None => {
                let program = deps::server_program(self.version(), "postgres")?;
                under(&self.options.under, account.command(&program))
            }
        };
        let process = command
            .arg("-D")
            .arg(self.seen.join("data"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&words)?)
            .spawn()
            .context("cannot start setpriv (util-linux)")?;
        let process = self.process.insert(process);
        wait::until("the server to be ready", Duration::from_secs(30), || {
            if let Some(status) = process.try_wait()? {
                bail!("the server ended ({status}): {}", fs::read_to_string(&words).unwrap_or_default());
            }
            Ok(is_ready(&data).then_some(()))
        })?;
        let child = process.id();
        self.postmaster = if self.options.container.is_some() {
            let children = fs::read_to_string(format!("/proc/{child}/task/{child}/children"))?;
            children.trim().parse().context("the container has one first process")?
        } else {
            child
        };
        Ok(())
    }
}

/// `command`, started by the program of `starter`.
fn under(starter: &[OsString], command: Command) -> Command {
    let Some((program, arguments)) = starter.split_first() else { return command };
    let mut started = Command::new(program);
    started.args(arguments).arg(command.get_program()).args(command.get_args());
    started
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // SIGQUIT: immediate shutdown. The postmaster takes its backends along.
            let _ = signal(self.postmaster, Signal::QUIT);
            if self.postmaster == 0 {
                let _ = process.kill();
            }
            let _ = process.wait();
        }
    }
}

fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process")?;
    Ok(kill_process(pid, signal)?)
}

/// A TCP port that nobody listens on now.
///
/// # Errors
/// The machine has none left.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(free_ports::<1>()?[0])
}

/// Several, no two of which are the same.
///
/// # Errors
/// The machine has not as many left.
pub fn free_ports<const N: usize>() -> anyhow::Result<[u16; N]> {
    // A port is given again as soon as nobody listens on it.
    let listeners = [(); N].map(|()| TcpListener::bind(("127.0.0.1", 0)));
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        let listener = listener.as_ref().map_err(|error| anyhow::anyhow!("no free port: {error}"))?;
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}

/// The eighth line of `postmaster.pid` says whether the server takes connections
/// (`src/include/utils/pidfile.h`, `LOCK_FILE_LINE_PM_STATUS`).
fn is_ready(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|text| text.lines().nth(7).is_some_and(|status| status.trim() == "ready"))
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn title_of(pid: u32) -> String {
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|title| String::from_utf8_lossy(&title).replace('\0', " "))
        .unwrap_or_default()
}

/// Auxiliary processes carry their name in the process title, `postgres: checkpointer`; a backend carries its
/// user and database (`src/backend/utils/misc/ps_status.c`).
fn is_auxiliary(title: &str) -> bool {
    let name = title.trim_start_matches("postgres: ");
    AUXILIARY.iter().any(|auxiliary| name.starts_with(auxiliary))
}

/// `src/backend/utils/init/miscinit.c`, `GetBackendTypeDesc`; the statistics collector is gone since 15.
const AUXILIARY: [&str; 14] = [
    "archiver",
    "autovacuum",
    "background",
    "checkpointer",
    "io worker",
    "logger",
    "logical replication",
    "parallel worker",
    "slotsync",
    "startup",
    "stats collector",
    "walreceiver",
    "walsummarizer",
    "walwriter",
];

/// The log is the oracle: every statement with its parameters, every error, every connection. CSV, because all
/// supported versions write it. No autovacuum, so that no session appears that no test made.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
max_connections = 60
fsync = off
autovacuum = off
timezone = 'UTC'
lc_messages = 'C'
logging_collector = on
log_destination = 'csvlog'
log_filename = 'server.log'
log_rotation_age = 0
log_rotation_size = 0
log_timezone = 'UTC'
log_statement = 'all'
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = 0
log_min_error_statement = 'error'
log_replication_commands = on
log_connections = on
log_disconnections = on
";

const ACCESS: &str = "
local all         all                      trust
host  all         by_scram    127.0.0.1/32 scram-sha-256
host  all         by_md5      127.0.0.1/32 md5
host  all         by_password 127.0.0.1/32 password
host  all         refused     127.0.0.1/32 reject
host  all         all         127.0.0.1/32 trust
host  all         all         samenet      trust
host  replication all         127.0.0.1/32 trust
";
