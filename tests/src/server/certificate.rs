//! A certificate for a server, and the settings that make it use it.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

use super::account::Account;
use crate::deps;

/// Makes a self-signed certificate for `localhost` in `folder`. Yields the lines of `postgresql.conf`.
pub(super) fn make(folder: &Path, account: &Account) -> anyhow::Result<String> {
    let (key, certificate) = (folder.join("server.key"), folder.join("server.crt"));
    deps::run(
        Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
            // Clients that trust it take it for a server's, not for an authority's.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate),
    )?;
    // The server refuses a key that others may read.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600))?;
    chown(&key, Some(account.uid), Some(account.gid))?;
    let (key, certificate) = (key.display(), certificate.display());
    Ok(format!("ssl = on\nssl_cert_file = '{certificate}'\nssl_key_file = '{key}'\n"))
}
