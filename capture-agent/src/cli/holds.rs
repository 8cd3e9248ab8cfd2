//! `capture-agent holds`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use uuid::Uuid;

use super::Place;
use super::print::{brief, table};
use crate::keep::{Hold, Holds, Whose};

/// What `holds` was asked.
#[derive(Debug, Args)]
pub(super) struct HoldsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Keep the files that have rows of a session or of a role, whatever rules of retention say
    Add {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        whose: Of,
        /// Why, for those who read the list
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// List the holds
    List {
        #[command(flatten)]
        place: Place,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// End a hold
    Remove {
        #[command(flatten)]
        place: Place,
        /// Its number
        number: u64,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Of {
    /// Of this session, by its whole id
    #[arg(long, value_name = "ID")]
    session: Option<Uuid>,
    /// Of this role
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
}

pub(super) fn holds(args: HoldsArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    match args.action {
        Action::Add { place, whose, reason } => {
            let whose = whose.session.map(Whose::Session).or(whose.user.map(Whose::User));
            let hold = Holds::add(&place.config()?.data_dir, whose.context("nothing is named")?, &reason)?;
            writeln!(out, "hold {}: nothing of {} is removed", hold.hold, of(&hold))?;
        }
        Action::List { place, json } => {
            let holds = Holds::open(&place.config()?.data_dir)?;
            if json {
                for hold in holds.list() {
                    serde_json::to_writer(&mut *out, hold)?;
                    writeln!(out)?;
                }
            } else if holds.list().is_empty() {
                writeln!(out, "nothing is held")?;
            } else {
                print(holds.list(), out)?;
            }
        }
        Action::Remove { place, number, reason } => {
            Holds::remove(&place.config()?.data_dir, number, &reason)?;
            writeln!(out, "hold {number} is over")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn print(holds: &[Hold], out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = table(&["hold", "since", "of", "reason"]);
    for hold in holds {
        table.add_row([
            hold.hold.to_string(),
            brief(&hold.at, 40),
            brief(&of(hold), 80),
            brief(&hold.reason, 80),
        ]);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn of(hold: &Hold) -> String {
    match &hold.whose {
        Whose::Session(id) => format!("session {id}"),
        Whose::User(name) => format!("role {name}"),
    }
}

pub(super) const HELP: &str = "\
Example: keep what a role did, and whatever shares a file with it
  capture-agent holds add --user mcp_agent --reason \"case 4711\"
  capture-agent holds list
  capture-agent holds remove 1 --reason \"case 4711 is closed\"

An agent that runs heeds it within seconds. docs/storage.md says what a hold
keeps and what it does not.

Exit codes: 0 done, 1 failure, 2 wrong usage.";
