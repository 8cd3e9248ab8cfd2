//! Client programs: drivers in other languages run as a process of their own.

use std::process::Command;

use crate::deps;
use crate::server::Server;

/// Runs a program of `tests/clients` against `server` and yields what it printed. Programs find the server by
/// libpq's environment variables; `.py` runs in the drivers' virtual environment, `.js` with node.
///
/// # Errors
/// A driver is missing, or the program fails: then with its words.
pub fn run(server: &Server, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = command(program)?;
    server.point(&mut command);
    deps::run(command.args(arguments))
}

/// The command that runs a program of `tests/clients`, without a server.
///
/// # Errors
/// A driver is missing.
pub fn command(program: &str) -> anyhow::Result<Command> {
    let path = deps::client(program)?;
    if program.ends_with(".js") {
        let mut command = Command::new("node");
        command.env("NODE_PATH", deps::node_modules()?).arg(path);
        return Ok(command);
    }
    let mut command = Command::new(deps::python()?);
    command.arg(path);
    Ok(command)
}
