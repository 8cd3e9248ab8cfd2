//! Capture's hooks alone: what they cost a server that nobody follows.

use super::super::Bench;
use super::super::round::{Round, Via};
use super::super::work::Work;
use super::{Kept, Running};
use crate::agent::Agent;
use crate::postgres::Server;
use crate::usage::Usage;
use anyhow::Result;
use tempfile::TempDir;

/// An agent that follows another server of the same program, which does nothing: all hooks and probes are hit, and their
/// programs turn away at once.
pub(super) struct Aside {
    agent: Agent,
    _other: Server,
    _folder: TempDir,
    via: Via,
}

impl Aside {
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-bench-").tempdir()?;
        let other = Server::start_with_tls(&[])?;
        let agent = Agent::start(&bench.program, folder.path(), other.port())?;
        let via = Via { port: bench.server.port(), options: "" };
        Ok(Self { agent, _other: other, _folder: folder, via })
    }
}

impl Running for Aside {
    fn via(&self) -> Via {
        self.via.clone()
    }

    fn pid(&self) -> Option<u32> {
        Some(self.agent.pid())
    }

    fn usage(&self) -> Result<Option<Usage>> {
        self.agent.usage().map(Some)
    }

    fn end(self: Box<Self>, _: &Work, _: &Round) -> Result<Kept> {
        self.agent.stop()?;
        Ok(Kept::default())
    }
}
