//! Events for the SIEM: what is recorded about statements and verdicts, as OCSF, told to receivers elsewhere.
//!
//! ```text
//!  capture thread        thread `events`                 a thread for each receiver
//!  ──────────────        ───────────────                 ──────────────────────────
//!  Feed ──transactions─► Hub ─► JSON, numbered ─► Spool ─► Courier ─► file | syslog | webhook
//!   ▲                     │       on the disk        ▲        │
//!   └── kept ◄────────────┘                          └─ taken ┘
//! ```
//!
//! Each receiver has a spool on the disk, where its events get their numbers, and which remembers two positions: up to where
//! of the journal it has everything, and up to which number the receiver has taken everything. What is recorded and was not
//! spooled when the agent died is replayed from the journal; what was spooled and not taken is sent again: each event arrives
//! at least once, or its number is declared lost.

mod courier;
mod feed;
mod file;
mod https;
mod hub;
mod item;
mod ocsf;
mod settings;
mod spool;
mod syslog;
#[cfg(test)]
mod tests;
mod webhook;

pub use feed::Feed;
pub use https::{HttpsError, client, secret, signature};
pub use settings::{Receiver, Settings, Syslog, To, Transport, What};

use std::path::PathBuf;

/// Why events cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// The spool of a receiver cannot be used.
    #[error("cannot keep events in {path}: {source} (see docs/errors.md#events-spool)", path = path.display())]
    Spool {
        /// The spool's folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The system has no thread left.
    #[error("cannot start a thread for events: {0} (see docs/errors.md#events-spool)")]
    Thread(std::io::Error),
}
