//! What the agent says about itself: logs on stderr, and metrics, all of whose names stand in [`metrics`].

pub mod metrics;

use tracing_subscriber::EnvFilter;

/// Sends logs to stderr. `CAPTURE_LOG` chooses what is logged (`info` by default), in tracing-subscriber's
/// syntax.
pub fn init_logging() {
    let filter = EnvFilter::try_from_env("CAPTURE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second call, as in tests, changes nothing.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}
