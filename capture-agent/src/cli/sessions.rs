//! `capture-agent sessions`.

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use super::Place;
use super::print::{brief, duration, table, time};
use super::when::When;
use crate::read::{self, Filter, SessionRow, Source, StatementFilter};

/// What `sessions` was asked for.
#[derive(Debug, Args)]
pub(super) struct SessionsArgs {
    #[command(flatten)]
    place: Place,
    /// Of this role
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// With this database
    #[arg(long)]
    database: Option<String>,
    /// Started then or later: RFC 3339, a date in UTC, or a while ago such as 2h, 30m or 7d
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Started before then
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// With this in the text of a statement, in upper or lower case
    #[arg(long)]
    text: Option<String>,
    /// With a statement of this status; with --text, the same statement
    #[arg(long)]
    status: Option<Status>,
    /// The latest so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
    /// Print one JSON object per line, with the columns of the table `sessions`
    #[arg(long)]
    json: bool,
}

/// The values of the column `status`.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Status {
    Completed,
    Failed,
    Skipped,
    Suspended,
    Canceled,
    Blocked,
    InFlight,
    Unknown,
}

pub(super) fn sessions(args: SessionsArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let now = Timestamp::now();
    let status = args.status.and_then(|status| Some(status.to_possible_value()?.get_name().to_owned()));
    let filter = Filter {
        user: args.user,
        database: args.database,
        since: args.since.map(|when| when.seen_from(now)),
        until: args.until.map(|when| when.seen_from(now)),
        statement: StatementFilter { text: args.text, status },
        limit: Some(args.limit),
    };
    let config = args.place.config()?;
    let keys = config.keys()?;
    let source = Source { data_dir: &config.data_dir, keys: &keys };
    let (rows, more) = read::sessions(source, &filter)?;
    if args.json {
        for row in &rows {
            serde_json::to_writer(&mut *out, row)?;
            writeln!(out)?;
        }
    } else if rows.is_empty() {
        writeln!(out, "no such session")?;
    } else {
        print(&rows, out)?;
    }
    out.flush()?;
    if more {
        writeln!(std::io::stderr(), "only the latest {} are listed; --limit lists more", args.limit)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each session.
pub(super) fn print(rows: &[SessionRow], out: &mut impl Write) -> anyhow::Result<()> {
    let mut table = table(&HEADER);
    for row in rows {
        let text = |text: &Option<String>| brief(text.as_deref().unwrap_or("-"), MOST);
        let number = |number: Option<i64>| number.map_or("-".to_owned(), |number| number.to_string());
        let lasted = match (row.started_at, row.ended_at) {
            (Some(start), Some(end)) => duration(end.0.saturating_sub(start.0)),
            _ => "open".to_owned(),
        };
        table.add_row([
            row.started_at.map_or("-".to_owned(), time),
            text(&row.pg_user),
            text(&row.database),
            text(&row.application_name),
            client(row),
            number(row.statements),
            number(row.errors),
            lasted,
            short(&row.session_id),
        ]);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// The client's address and port, or how it is connected without one.
pub(super) fn client(row: &SessionRow) -> String {
    match (&row.client_addr, row.client_port) {
        (Some(addr), Some(port)) if addr.contains(':') => brief(&format!("[{addr}]:{port}"), MOST),
        (Some(addr), Some(port)) => brief(&format!("{addr}:{port}"), MOST),
        (Some(addr), None) => brief(addr, MOST),
        (None, _) => brief(row.transport.as_deref().unwrap_or("-"), MOST),
    }
}

/// The end of an id, which is random; its beginning is the time.
fn short(id: &str) -> String {
    brief(id.get(id.len().saturating_sub(12)..).unwrap_or(id), MOST)
}

const HEADER: [&str; 9] = [
    "started (UTC)",
    "user",
    "database",
    "application",
    "client",
    "statements",
    "errors",
    "duration",
    "session",
];

/// Characters of a cell: names in PostgreSQL have at most 63 bytes (`NAMEDATALEN` in `pg_config_manual.h`).
const MOST: usize = 40;

pub(super) const HELP: &str = "\
Example: what an agent's role did in the last hour, and who read customers.ssn
  capture-agent sessions --user mcp_agent --since 1h
  capture-agent sessions --text customers.ssn --status completed

The last column names a session for `capture-agent show`. A session without an
end is `open`: it still runs, or the agent stopped before it ended.

Exit codes: 0 listed, also if there is none; 1 the record cannot be read;
2 wrong usage.";
