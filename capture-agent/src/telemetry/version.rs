//! Which build of the agent this is.

use std::sync::OnceLock;

static BUILD: OnceLock<&'static str> = OnceLock::new();

/// Names this build; once, and before anything asks. The program knows it rather than this library, which need not be
/// compiled again when a packager names a build (`CAPTURE_VERSION=… cargo build`).
pub fn set_version(version: &'static str) {
    // Whoever came first has named it.
    let _ = BUILD.set(version);
}

/// The build's name: the package's version if it has no other.
pub fn version() -> &'static str {
    BUILD.get().copied().unwrap_or(env!("CARGO_PKG_VERSION"))
}
