//! The usual course of a test: a server and an agent, a workload, then log and record side by side.

use crate::agent::{Agent, AgentOptions, Finished};
use crate::log::ServerLog;
use crate::oracle::{self, Comparison};
use crate::record::Record;
use crate::server::{Server, ServerOptions};

/// What a captured workload left behind.
#[derive(Debug)]
pub struct Captured {
    /// The server's log.
    pub log: ServerLog,
    /// The agent's record.
    pub finished: Finished,
}

/// Runs `workload` against a captured server with default options.
///
/// # Errors
/// As [`capture_with`].
pub fn capture(workload: impl FnOnce(&Server, &Agent) -> anyhow::Result<()>) -> anyhow::Result<Captured> {
    capture_with(ServerOptions::default(), AgentOptions::default(), workload)
}

/// Runs `workload` against a captured server with these options.
///
/// # Errors
/// As [`capture_with`].
pub fn capture_on(
    server: ServerOptions,
    workload: impl FnOnce(&Server, &Agent) -> anyhow::Result<()>,
) -> anyhow::Result<Captured> {
    capture_with(server, AgentOptions::default(), workload)
}

/// Starts a server, then an agent for it, runs `workload`, and stops the agent once every session has ended.
///
/// # Errors
/// Server, agent or workload fail.
pub fn capture_with(
    server: ServerOptions,
    agent: AgentOptions,
    workload: impl FnOnce(&Server, &Agent) -> anyhow::Result<()>,
) -> anyhow::Result<Captured> {
    let server = server.start()?;
    let agent = agent.server(&server).start()?;
    workload(&server, &agent)?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    Ok(Captured { log: server.stop()?, finished })
}

impl Captured {
    /// Every row.
    pub fn record(&self) -> &Record {
        &self.finished.record
    }

    /// Compares log and record in both directions, what sessions say of themselves with their rows, and files with seals.
    ///
    /// # Errors
    /// They differ.
    pub fn compare(&self) -> anyhow::Result<Comparison> {
        self.record().check_totals()?;
        self.finished.verify()?;
        oracle::compare(&self.log, self.record())
    }
}
