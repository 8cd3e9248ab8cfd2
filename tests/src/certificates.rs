//! Certificates of the tests' own authorities, for servers that the agent speaks to.

use std::path::Path;
use std::process::Command;

use crate::deps;

/// Puts two authorities into `folder`, `ca.crt` and `other.crt`, and the certificate `api.crt` of a server on this host, which the
/// first has signed.
///
/// # Errors
/// openssl is missing.
pub fn make(folder: &Path) -> anyhow::Result<()> {
    let request = |name: &str, rest: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(folder).args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        openssl.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", &format!("/CN={name}")]);
        openssl.args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")]);
        deps::run(openssl.args(rest)).map(drop)
    };
    request("ca", &[])?;
    request("other", &[])?;
    request(
        "api",
        &[
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=CA:FALSE",
        ],
    )
}
