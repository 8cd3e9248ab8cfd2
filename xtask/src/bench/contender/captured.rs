//! Capture's own agent.

use super::super::Bench;
use super::super::round::{Round, Via};
use super::super::work::{Recorded, Work};
use super::{Kept, Running};
use crate::agent::Agent;
use crate::postgres::Server;
use crate::usage::Usage;
use crate::{setup, shell};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

pub(super) struct Captured {
    agent: Agent,
    folder: TempDir,
    via: Via,
    /// The server that it follows instead of the clients': nothing is recorded then.
    other: Option<Server>,
}

impl Captured {
    pub(super) fn start(bench: &Bench, config: String) -> Result<Self> {
        Self::follow(bench, config, None)
    }

    /// An agent that follows another server of the same program, which does nothing: all hooks and probes are hit, and their
    /// programs turn away at once.
    pub(super) fn aside(bench: &Bench, config: String) -> Result<Self> {
        Self::follow(bench, config, Some(Server::start_with_tls(&[])?))
    }

    fn follow(bench: &Bench, config: String, other: Option<Server>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("capture-bench-").tempdir()?;
        let file = folder.path().join("capture.toml");
        fs::write(&file, config)?;
        let followed = other.as_ref().unwrap_or(&bench.server);
        let agent = Agent::start_with(&bench.program, folder.path(), followed.port(), Some(&file))?;
        Ok(Self { agent, folder, via: Via { port: bench.server.port(), options: "" }, other })
    }
}

impl Running for Captured {
    fn via(&self) -> Via {
        self.via.clone()
    }

    fn pid(&self) -> Option<u32> {
        Some(self.agent.pid())
    }

    fn usage(&self) -> Result<Option<Usage>> {
        self.agent.usage().map(Some)
    }

    fn end(self: Box<Self>, work: &Work, round: &Round) -> Result<Kept> {
        let Self { agent, folder, other, .. } = *self;
        agent.stop()?;
        if other.is_some() {
            return Ok(Kept::default());
        }
        let recorded = work.recorded();
        let expected = i64::try_from(round.transactions)? * recorded.each;
        let lost = expected - count(folder.path(), &recorded)?;
        Ok(Kept { bytes: Some(published(folder.path())?), lost: Some(lost) })
    }
}

/// How many of the clients' statements or rows are in the record, counted by DuckDB rather than by our own reader.
fn count(data_dir: &Path, recorded: &Recorded) -> Result<i64> {
    let mut python = Command::new(setup::python());
    python.args(["-c", COUNT]).arg(data_dir).args([recorded.like, if recorded.rows { "rows" } else { "" }]);
    let text = shell::read(&mut python)?;
    text.trim().parse().with_context(|| format!("DuckDB counted {text}"))
}

/// Bytes of the published files.
fn published(data_dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for table in ["sessions", "statements", "results", "gaps", "decisions"] {
        for day in fs::read_dir(data_dir.join(table)).into_iter().flatten().flatten() {
            for file in fs::read_dir(day.path())?.flatten() {
                bytes += file.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

const COUNT: &str = r#"
import duckdb, glob, sys
folder, like, rows = sys.argv[1:]
source = lambda table: f"read_parquet('{folder}/{table}/*/*.parquet')"
chosen = f"SELECT session_id, seq, rows FROM {source('statements')} WHERE regexp_matches(sql, ?)"
if not rows:
    query = f"SELECT count(*) FROM ({chosen})"
elif glob.glob(folder + "/results/*/*.parquet"):
    query = f"SELECT count(*) FROM {source('results')} SEMI JOIN ({chosen}) USING (session_id, seq)"
else:
    query = f"SELECT coalesce(sum(rows), 0)::bigint FROM ({chosen})"
print(duckdb.execute(query, [like]).fetchone()[0])
"#;
