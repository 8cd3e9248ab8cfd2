//! Events to a syslog server: RFC 5424 messages over TLS (RFC 5425), or in clear over TCP to this host itself (RFC 6587).
//!
//! Syslog acknowledges nothing. But who closes a connection of TLS in order is answered (RFC 5425, section 4.4), and a server
//! that sees the end of a connection has read what came before. So each delivery has a connection of its own, and counts
//! once the server has closed it as well.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::courier::{Deliver, Failure};
use super::ocsf::Context;
use super::settings;
use super::spool::Event;

/// A syslog server.
pub(super) struct Syslog {
    settings: settings::Syslog,
    context: Arc<Context>,
    /// Kept from one connection to the next, so that sessions of TLS are resumed; made again after a failure.
    tls: Option<Arc<ClientConfig>>,
}

impl Syslog {
    pub(super) fn new(settings: settings::Syslog, context: Arc<Context>) -> Self {
        Self { settings, context, tls: None }
    }

    fn send(&mut self, text: &[u8]) -> io::Result<()> {
        let stream = self.connect()?;
        match &self.settings.transport {
            settings::Transport::Tcp => {
                (&stream).write_all(text)?;
                stream.shutdown(Shutdown::Write)?;
                confirmed(&stream)
            }
            settings::Transport::Tls { ca_file, own } => {
                let tls = match &self.tls {
                    Some(tls) => Arc::clone(tls),
                    None => Arc::clone(self.tls.insert(trust(ca_file, own.as_ref())?)),
                };
                let name = ServerName::try_from(self.settings.host.clone()).map_err(io::Error::other)?;
                let connection = ClientConnection::new(tls, name).map_err(io::Error::other)?;
                let mut stream = StreamOwned::new(connection, stream);
                stream.write_all(text)?;
                stream.conn.send_close_notify();
                stream.flush()?;
                while stream.conn.wants_write() {
                    stream.conn.write_tls(&mut stream.sock)?;
                }
                stream.sock.shutdown(Shutdown::Write)?;
                let mut left = [0; 1024];
                loop {
                    match stream.read(&mut left) {
                        Ok(0) => return Ok(()),
                        Ok(_) => {}
                        // It has closed the connection, if not as TLS wants it: nothing came before that could be cut off.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                        Err(error) => return Err(unconfirmed(error)),
                    }
                }
            }
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut failed = io::Error::other("it has no address");
        for address in (self.settings.host.as_str(), self.settings.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    return Ok(stream);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl Deliver for Syslog {
    fn deliver(&mut self, events: &[Event]) -> Result<(), Failure> {
        let mut text = Vec::new();
        for event in events {
            let message = self.context.syslog(event);
            // RFC 5425, section 4.3: the length, a space, the message.
            text.extend_from_slice(message.len().to_string().as_bytes());
            text.push(b' ');
            text.extend_from_slice(&message);
        }
        self.send(&text).map_err(|error| {
            // Authorities or certificates may have been replaced.
            self.tls = None;
            Failure::Later(error.to_string())
        })
    }

    fn linger(&self) -> Duration {
        LINGER
    }
}

/// Waits until the server has closed the connection too.
fn confirmed(mut stream: &TcpStream) -> io::Result<()> {
    let mut left = [0; 1024];
    loop {
        match stream.read(&mut left) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(unconfirmed(error)),
        }
    }
}

fn unconfirmed(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => io::Error::other(
            "it does not close the connection when the agent does, so it is not known what it has read",
        ),
        _ => error,
    }
}

fn trust(
    ca_file: &Path,
    own: Option<&(std::path::PathBuf, std::path::PathBuf)>,
) -> io::Result<Arc<ClientConfig>> {
    let unreadable = |path: &Path, why: &dyn std::fmt::Display| {
        io::Error::other(format!("cannot read {}: {why}", path.display()))
    };
    let certificates = |path: &Path| -> io::Result<Vec<CertificateDer<'static>>> {
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(path).map_err(|error| unreadable(path, &error))?.collect();
        found.map_err(|error| unreadable(path, &error))
    };
    let mut roots = RootCertStore::empty();
    let (trusted, _) = roots.add_parsable_certificates(certificates(ca_file)?);
    if trusted == 0 {
        return Err(unreadable(ca_file, &"there is no certificate in it"));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key_of_it = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key_of_it).map_err(io::Error::other)?
        }
    };
    Ok(Arc::new(config))
}

/// The pause between two connections that carry less than a whole batch: two a second.
const LINGER: Duration = Duration::from_millis(500);

/// How long the server may take for each step.
const PATIENCE: Duration = Duration::from_secs(10);
