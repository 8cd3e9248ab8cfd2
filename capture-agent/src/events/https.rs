//! Signed requests over HTTPS, as all webhooks of the agent are sent.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::hmac;
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::seal::hex;

/// Why a request cannot be sent: a file is missing, or empty.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(String, std::io::Error),
    /// There is no secret in it.
    #[error("{0} is empty")]
    Empty(String),
}

/// A client for one request to `url`, which may take `patience`: authorities may have changed by the next.
///
/// # Errors
///
/// The file with the authorities' certificates cannot be read.
pub fn client(url: &str, ca_file: &Path, patience: Duration) -> Result<ureq::Agent, HttpsError> {
    let mut config = ureq::Agent::config_builder()
        // What a statement says goes to this address and to nobody else.
        .proxy(None)
        .max_redirects(0)
        .timeout_global(Some(patience));
    if url.starts_with("https://") {
        let unreadable = |error| HttpsError::Unreadable(ca_file.display().to_string(), error);
        let pem = std::fs::read(ca_file).map_err(unreadable)?;
        let trusted: Vec<_> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .root_certs(RootCerts::from(trusted))
            .build();
        config = config.tls_config(tls).https_only(true);
    }
    Ok(config.build().new_agent())
}

/// The secret in a file, which is read for each attempt, so that it can be replaced.
///
/// # Errors
///
/// It cannot be read, or is empty.
pub fn secret(file: &Path) -> Result<String, HttpsError> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|error| HttpsError::Unreadable(name(), error))?;
    match text.trim() {
        "" => Err(HttpsError::Empty(name())),
        secret => Ok(secret.to_owned()),
    }
}

/// HMAC-SHA-256 (RFC 2104) over the timestamp, a point and the body.
pub fn signature(secret: &str, timestamp: u64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{timestamp}.").as_bytes());
    context.update(body);
    format!("sha256={}", hex(context.sign().as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `printf '1700000000.{"a":1}' | openssl dgst -sha256 -hmac secret` prints it.
    #[test]
    fn the_signature_is_the_one_that_openssl_makes() {
        let expected = "sha256=49f24e537407743fa4a0242bb63b94b9a47ee99cbbe071ccd8a22550ae411686";
        assert_eq!(signature("secret", 1_700_000_000, br#"{"a":1}"#), expected);
    }
}
