//! Who is told what, and how.

use std::path::PathBuf;
use std::time::Duration;

use crate::policy::Filter;

/// All receivers of one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The data directory, which holds the spools.
    pub data_dir: PathBuf,
    /// This host's name in the record.
    pub node: String,
    /// How often spools are brought to the disk, against a failure of power; none if never.
    pub sync: Option<Duration>,
    /// The receivers. Their names are unique.
    pub receivers: Vec<Receiver>,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Receiver {
    /// Its name, and that of its spool's folder.
    pub name: String,
    /// How it is reached.
    pub to: To,
    /// What it is told.
    pub what: What,
    /// Of which sessions and statements; all if none.
    pub filter: Option<Filter>,
    /// Bytes of a statement's text that it is told; none of it if 0.
    pub sql_bytes: usize,
    /// Bytes of its spool, before the oldest events are dropped.
    pub spool_bytes: u64,
    /// Events that it is sent at once.
    pub batch_events: usize,
    /// The pause after a failure, which doubles up to the second of these.
    pub retry: (Duration, Duration),
}

/// What a receiver is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct What {
    /// Statements.
    pub activity: bool,
    /// Verdicts of guardrails.
    pub findings: bool,
}

/// How a receiver is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// A file to which lines are appended.
    File(PathBuf),
    /// A syslog server.
    Syslog(Syslog),
    /// An address that takes POSTs.
    Webhook {
        /// The address.
        url: String,
        /// The file with the secret that signs them.
        secret_file: PathBuf,
        /// The file with the certificates of the authorities that the address's must be signed by.
        ca_file: PathBuf,
    },
}

/// A syslog server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Syslog {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What carries the messages.
    pub transport: Transport,
}

/// What carries messages to a syslog server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP in clear (RFC 6587), to this host itself only.
    Tcp,
    /// TLS (RFC 5425).
    Tls {
        /// The file with the certificates of the authorities that the server's must be signed by.
        ca_file: PathBuf,
        /// The files with the agent's own certificate and its key, if the server asks for them.
        own: Option<(PathBuf, PathBuf)>,
    },
}
