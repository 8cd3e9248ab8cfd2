//! A Kerberos realm: a key distribution centre on the loopback interface, gone when it goes out of scope.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};

use crate::server::{Server, ServerOptions, account, free_port};
use crate::{deps, wait};

/// A realm with one server, `postgres/localhost`, and its clients.
#[derive(Debug)]
pub struct Kerberos {
    folder: tempfile::TempDir,
    process: Child,
}

impl Kerberos {
    /// Starts a realm in which each of `clients` has a name and a ticket.
    ///
    /// # Errors
    /// The programs are not installed, or one fails: then with its words.
    pub fn start(clients: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-krb5-").tempdir()?;
        // The server reads its keys and the configuration here.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let at = folder.path().display();
        let port = free_port()?;
        fs::write(folder.path().join("krb5.conf"), configuration(port))?;
        fs::write(
            folder.path().join("kdc.conf"),
            format!(
                "[kdcdefaults]\n kdc_listen = \"\"\n kdc_tcp_listen = 127.0.0.1:{port}\n\
                 [realms]\n {REALM} = {{\n  database_name = {at}/principal\n  key_stash_file = {at}/stash\n }}\n\
                 [logging]\n kdc = FILE:{at}/kdc.log\n"
            ),
        )?;
        deps::run(program(folder.path(), "kdb5_util")?.args(["create", "-s", "-P", "master", "-r", REALM]))?;
        let admin = |query: &str| -> anyhow::Result<String> {
            deps::run(program(folder.path(), "kadmin.local")?.args(["-r", REALM, "-q", query]))
        };
        for name in clients.iter().chain([&SERVICE]) {
            admin(&format!("addprinc -randkey {name}"))?;
            let keys = if *name == SERVICE { "server" } else { name };
            admin(&format!("ktadd -k {at}/{keys}.keytab {name}"))?;
        }
        let postgres = account::postgres()?;
        chown(folder.path().join("server.keytab"), Some(postgres.uid), Some(postgres.gid))?;

        let mut kdc = program(folder.path(), "krb5kdc")?;
        let kdc = kdc.arg("-n").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = kdc.spawn().context("cannot start krb5kdc")?;
        let mut realm = Self { folder, process };
        realm.wait_until_ready(port)?;
        for name in clients {
            let keys = realm.folder.path().join(format!("{name}.keytab"));
            let mut kinit = program(realm.folder.path(), "kinit")?;
            deps::run(kinit.arg("-k").arg("-t").arg(keys).args(["-c", &realm.tickets(name), name]))?;
        }
        Ok(realm)
    }

    /// A server of this realm that encrypts for whoever asks for it, and takes the client's Kerberos name for its role's.
    pub fn server(&self, options: ServerOptions) -> ServerOptions {
        let environment = [
            "env".to_owned(),
            format!("KRB5_CONFIG={}", self.folder.path().join("krb5.conf").display()),
            // Else it keeps a file of its own in /var/tmp.
            "KRB5RCACHENAME=none:".to_owned(),
        ];
        let keys = self.folder.path().join("server.keytab").display().to_string();
        options
            .setting("krb_server_keyfile", &keys)
            .access("hostgssenc all all 127.0.0.1/32 gss include_realm=0")
            .access("host all by_gss 127.0.0.1/32 gss include_realm=0")
            .under(environment)
    }

    /// The client program `name`, as `client`, which logs in with its ticket. `encrypted` by GSSAPI, else in clear.
    ///
    /// # Errors
    /// The program is not installed.
    pub fn program(
        &self,
        server: &Server,
        name: &str,
        client: &str,
        encrypted: bool,
    ) -> anyhow::Result<Command> {
        let mut command = server.program(name)?;
        command
            .env("KRB5_CONFIG", self.folder.path().join("krb5.conf"))
            .env("KRB5CCNAME", self.tickets(client))
            // The name that the ticket is for.
            .env("PGHOST", "localhost")
            .env("PGHOSTADDR", "127.0.0.1")
            .env("PGUSER", client)
            .env("PGSSLMODE", "disable")
            .env("PGGSSENCMODE", if encrypted { "require" } else { "disable" });
        Ok(command)
    }

    fn tickets(&self, client: &str) -> String {
        format!("FILE:{}", self.folder.path().join(format!("{client}.tickets")).display())
    }

    fn wait_until_ready(&mut self, port: u16) -> anyhow::Result<()> {
        let log = self.folder.path().join("kdc.log");
        wait::until("krb5kdc to listen", wait::SOON, || {
            if let Some(status) = self.process.try_wait()? {
                bail!("krb5kdc ended ({status}): {}", fs::read_to_string(&log).unwrap_or_default());
            }
            Ok(std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop))
        })
    }
}

impl Drop for Kerberos {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What client, server and centre share. Nobody asks the name service for realms, centres or canonical names.
fn configuration(port: u16) -> String {
    format!(
        "[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n dns_lookup_realm = false\n\
         \x20dns_canonicalize_hostname = false\n rdns = false\n udp_preference_limit = 1\n\
         [realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n\
         [domain_realm]\n localhost = {REALM}\n"
    )
}

/// A program of MIT Kerberos that works for the realm in `folder`. Administration lies outside of some users' PATH.
fn program(folder: &Path, name: &str) -> anyhow::Result<Command> {
    let path = ["/usr/sbin", "/usr/bin"].map(|bin| PathBuf::from(bin).join(name));
    let path = path.into_iter().find(|path| path.exists());
    let mut command =
        Command::new(path.with_context(|| format!("{name} is missing: run `cargo xtask setup`"))?);
    command.env("KRB5_CONFIG", folder.join("krb5.conf")).env("KRB5_KDC_PROFILE", folder.join("kdc.conf"));
    Ok(command)
}

const REALM: &str = "CAPTURE.TEST";
const SERVICE: &str = "postgres/localhost";
