//! Who looks on while the clients work: nobody, Capture, or another way to know what they did.

mod captured;
mod peers;
mod process;

use super::Bench;
use super::round::{Round, Via};
use super::work::Work;
use crate::usage::Usage;
use anyhow::Result;
use std::fmt;

/// Ways to know what the clients did, and the way without any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Direct,
    /// Everything recorded: statements, and all rows.
    Captured,
    /// The hooks alone: an agent follows another server of the same program.
    Hooks,
    /// Statements recorded, without rows.
    Statements,
    /// Everything recorded, while a guardrail is about other sessions.
    Bystanding,
    /// Everything recorded, and a guardrail decides about each session: what is prepared once is decided once, each
    /// simple statement is held.
    Guarded,
    /// The clients' connections go through pgbouncer in session mode.
    PgBouncer,
    /// The server logs all statements, with parameters.
    LogStatement,
    /// The extension logs all statements, with parameters, in a server that has loaded it.
    PgAudit,
    /// tcpdump writes the packets to disk.
    Tcpdump,
    /// A bpftrace script prints what the backends receive and send, 200 bytes of each.
    Bpftrace,
}

/// A contender at work.
pub(super) trait Running {
    /// How the clients reach the server.
    fn via(&self) -> Via;

    /// Its own process; none if there is none.
    fn pid(&self) -> Option<u32> {
        None
    }

    /// What its own process used so far; none if there is none.
    fn usage(&self) -> Result<Option<Usage>>;

    /// Ends it, and tells what it has of a round.
    fn end(self: Box<Self>, work: &Work, round: &Round) -> Result<Kept>;
}

/// What a contender has of a round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    /// Bytes on the disk.
    pub(super) bytes: Option<u64>,
    /// What it lacks: statements or rows, packets, or events. Less than none means more than there were.
    pub(super) lost: Option<i64>,
}

impl Contender {
    /// Puts it to work.
    pub(super) fn start(self, bench: &Bench) -> Result<Box<dyn Running>> {
        Ok(match self {
            Self::Direct => Box::new(peers::Server::direct(&bench.server)),
            Self::Captured | Self::Statements | Self::Bystanding | Self::Guarded => {
                Box::new(captured::Captured::start(bench, self.config())?)
            }
            Self::Hooks => Box::new(captured::Captured::aside(bench, self.config())?),
            Self::PgBouncer => Box::new(peers::Beside::pgbouncer(bench)?),
            Self::LogStatement => Box::new(peers::Server::that_logs(&bench.server, "-c log_statement=all")?),
            Self::PgAudit => Box::new(peers::Server::that_logs(bench.of(self)?, AUDIT)?),
            Self::Tcpdump => Box::new(peers::Beside::tcpdump(bench)?),
            Self::Bpftrace => Box::new(peers::Beside::bpftrace(bench)?),
        })
    }

    /// Whether it is Capture.
    pub(super) fn is_capture(self) -> bool {
        matches!(self, Self::Captured | Self::Statements | Self::Bystanding | Self::Guarded)
    }

    /// The agent's configuration.
    fn config(self) -> String {
        let record = match self {
            Self::Statements => "[[record]]\nresults = 'none'\n",
            _ => "[[record]]\nresults = 'full'\n",
        };
        let guardrail = match self {
            Self::Bystanding => format!("[[guardrail]]\nmatch = 'session.user == \"another\"'\n{RULE}"),
            Self::Guarded => format!("[[guardrail]]\n{RULE}"),
            _ => String::new(),
        };
        format!("{record}{guardrail}")
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Captured => "captured",
            Self::Hooks => "hooks alone",
            Self::Statements => "statements only",
            Self::Bystanding => "others guarded",
            Self::Guarded => "guarded",
            Self::PgBouncer => "pgbouncer",
            Self::LogStatement => "log_statement",
            Self::PgAudit => "pgaudit",
            Self::Tcpdump => "tcpdump",
            Self::Bpftrace => "bpftrace",
        })
    }
}

/// Lets everything pass that pgbench sends.
const RULE: &str = "name = 'no-drop'\nwhen = '\"drop\" in stmt.kinds'\naction = 'block'\n";

const AUDIT: &str = "-c pgaudit.log=all -c pgaudit.log_parameter=on";
