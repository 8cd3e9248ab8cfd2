//! What the agent says about itself: logs on stderr, metrics, all of whose names stand in [`metrics`], and whether it is
//! well ([`health`]), for whoever asks over HTTP.

mod clock;
pub mod file;
pub mod health;
pub mod http;
pub mod metrics;
mod process;
mod version;

use std::fs::File;
use std::io::IsTerminal as _;
use std::os::fd::AsFd as _;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

pub use version::{set_version, version};

/// Sends logs to stderr. `CAPTURE_LOG` chooses what is logged (`info` by default), in tracing-subscriber's
/// syntax.
///
/// Logs go to a duplicate of the descriptor: while the SQL parser runs, it sends descriptor 2 elsewhere.
pub fn init_logging() {
    process::begin();
    let Ok(stderr) = std::io::stderr().as_fd().try_clone_to_owned() else { return };
    let filter = EnvFilter::try_from_env("CAPTURE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Arc::new(File::from(stderr)))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init();
}
