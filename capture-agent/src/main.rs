//! The `capture-agent` command.

use std::process::ExitCode;

use capture_agent::{cli, run};

fn main() -> ExitCode {
    cli::main(cli::Agent { run: run::run, detach: run::detach, doctor: run::doctor })
}
