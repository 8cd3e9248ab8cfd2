//! The `capture-agent` command.

use std::process::ExitCode;

use capture_agent::{cli, run, telemetry};

/// Batches of rows pass from one thread to another, which gives their memory back. glibc's allocator keeps up to twice as much of
/// it, and moves the ends of its heaps all the time.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    telemetry::set_version(VERSION);
    cli::main(cli::Agent { run: run::run, detach: run::detach, shim: run::shim, doctor: run::doctor })
}

/// What a packager calls the build, or the package's version.
const VERSION: &str = match option_env!("CAPTURE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
