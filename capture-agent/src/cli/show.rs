//! `capture-agent show`.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::{Map, Value};

use super::print::{brief, duration, safe, table, time};
use super::sessions::{client, print as print_sessions};
use super::{NOT_FOUND, Place};
use crate::read::{self, Decision, Found, Gap, Item, SessionRow, Source, Statement};
use crate::session::Micros;

/// What `show` was asked for.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    place: Place,
    /// The session: its id, or the beginning or end of its id, as `sessions` prints it
    session: String,
    /// Show the rows that statements returned
    #[arg(long)]
    results: bool,
    /// Print one JSON object per line: the session, then each statement, gap and decision, told apart by `type`
    #[arg(long)]
    json: bool,
}

pub(super) fn show(args: &ShowArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let config = args.place.config()?;
    let keys = config.keys()?;
    let source = Source { data_dir: &config.data_dir, keys: &keys };
    let session = match read::find(source, &args.session)? {
        Found::One(session) => session,
        Found::None => {
            let name = brief(&args.session, 60);
            writeln!(
                std::io::stderr(),
                "error: no session {name} in {} (see docs/errors.md#session-not-found)",
                config.data_dir.display()
            )?;
            return Ok(ExitCode::from(NOT_FOUND));
        }
        Found::Several(candidates) => {
            let mut stderr = std::io::stderr();
            let name = brief(&args.session, 60);
            writeln!(
                stderr,
                "error: {name} names several sessions, among them these (see docs/errors.md#session-ambiguous)\n"
            )?;
            print_sessions(&candidates, &mut stderr)?;
            return Ok(ExitCode::from(NOT_FOUND));
        }
    };
    let items = read::show(source, &session, args.results)?;
    if args.json {
        let Value::Object(object) = serde_json::to_value(&session)? else { return Ok(ExitCode::FAILURE) };
        write_object("session", object, out)?;
        for item in items {
            match item? {
                Item::Statement(statement) => write_object("statement", with_results(*statement), out)?,
                Item::Gap(gap) => write_object("gap", gap.json, out)?,
                Item::Decision(decision) => write_object("decision", decision.json, out)?,
            }
        }
    } else {
        print_header(&session, out)?;
        for item in items {
            match item? {
                Item::Statement(statement) => print_statement(&session, &statement, out)?,
                Item::Gap(gap) => print_gap(&session, &gap, out)?,
                Item::Decision(decision) => print_decision(&session, &decision, out)?,
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn write_object(kind: &str, fields: Map<String, Value>, out: &mut impl Write) -> anyhow::Result<()> {
    let mut object = Map::from_iter([("type".to_owned(), Value::from(kind))]);
    object.extend(fields);
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)?;
    Ok(())
}

fn with_results(statement: Statement) -> Map<String, Value> {
    let mut object = statement.json;
    if let Some(rows) = statement.results {
        object.insert("results".to_owned(), rows.into());
    }
    object
}

fn print_header(session: &SessionRow, out: &mut impl Write) -> anyhow::Result<()> {
    let text = |text: &Option<String>| brief(text.as_deref().unwrap_or("-"), 120);
    writeln!(out, "session      {}", safe(&session.session_id, true))?;
    let started = session.started_at.map_or("-".to_owned(), time);
    let (ended, lasted) = match (session.started_at, session.ended_at) {
        (Some(start), Some(end)) => (time(end), duration(end.0.saturating_sub(start.0))),
        _ => ("open".to_owned(), "open".to_owned()),
    };
    writeln!(out, "time (UTC)   {started} to {ended} ({lasted}), end: {}", text(&session.end_reason))?;
    writeln!(
        out,
        "user         {} on {}, application {}",
        text(&session.pg_user),
        text(&session.database),
        text(&session.application_name)
    )?;
    writeln!(out, "client       {}{}", client(session), peer(session))?;
    writeln!(
        out,
        "server       {}, backend {}, node {}, authentication {}",
        text(&session.server_version),
        session.backend_pid.map_or("-".to_owned(), |pid| pid.to_string()),
        text(&session.node),
        text(&session.auth_method)
    )?;
    if let Some(container) = &session.container_id {
        writeln!(out, "container    {}{}", brief(container, 100), pod(session))?;
    }
    let number = |number: Option<i64>| number.unwrap_or_default();
    writeln!(
        out,
        "totals       {} statements, {} errors, {} bytes in, {} bytes out, {} bytes missing",
        number(session.statements),
        number(session.errors),
        number(session.bytes_in),
        number(session.bytes_out),
        number(session.gap_bytes)
    )?;
    if session.partial == Some(true) {
        writeln!(
            out,
            "partial      the session was open before the agent: its beginning is not in the record"
        )?;
    }
    if session.tls == Some(true) || session.gss_encrypted == Some(true) {
        writeln!(out, "encrypted    {}", encryption(session))?;
    }
    if let Some(error) = &session.protocol_error {
        writeln!(out, "protocol     {}", brief(error, 200))?;
    }
    Ok(())
}

fn pod(session: &SessionRow) -> String {
    match (&session.namespace, &session.pod, &session.pod_uid) {
        (Some(namespace), Some(pod), _) => format!(", pod {} in {}", brief(pod, 100), brief(namespace, 100)),
        (_, _, Some(uid)) => format!(", pod {}", brief(uid, 100)),
        _ => String::new(),
    }
}

/// How the session was encrypted, and whether it could be read all the same.
fn encryption(session: &SessionRow) -> String {
    let with = match (&session.tls_version, &session.tls_cipher) {
        _ if session.gss_encrypted == Some(true) => "GSSAPI".to_owned(),
        (Some(version), Some(cipher)) => format!("{}, {}", brief(version, 40), brief(cipher, 80)),
        _ => "version and cipher not seen".to_owned(),
    };
    let unread = session.statements == Some(0) && session.gap_bytes > Some(0);
    if unread { format!("{with}: its statements are not in the record") } else { with }
}

fn peer(session: &SessionRow) -> String {
    match (&session.peer_exe, session.peer_pid) {
        (Some(exe), Some(pid)) => format!(", {} (process {pid})", brief(exe, 100)),
        (Some(exe), None) => format!(", {}", brief(exe, 100)),
        (None, Some(pid)) => format!(", process {pid}"),
        (None, None) => String::new(),
    }
}

fn print_statement(session: &SessionRow, statement: &Statement, out: &mut impl Write) -> anyhow::Result<()> {
    let status = statement.status.as_deref().unwrap_or("-");
    let lasted = statement.duration_us.map_or("-".to_owned(), duration);
    write!(
        out,
        "\n#{}  {}  {lasted}  {}",
        statement.seq,
        offset(session, statement.started_at),
        brief(status, 40)
    )?;
    match (&statement.command_tag, statement.rows) {
        (Some(tag), _) => write!(out, "  {}", brief(tag, 60))?,
        (None, Some(rows)) => write!(out, "  {rows} rows")?,
        (None, None) => {}
    }
    if let Some(verdict) = statement.verdict.as_deref().filter(|verdict| *verdict != "none") {
        write!(out, "  [{}", brief(verdict, 40))?;
        if let Some(guardrail) = &statement.guardrail {
            write!(out, " by {}", brief(guardrail, 70))?;
        }
        write!(out, "]")?;
    }
    if !statement.complete {
        write!(out, "  [incomplete: a gap touched it]")?;
    }
    writeln!(out)?;
    match &statement.sql {
        Some(sql) => {
            for line in safe(sql, false).lines() {
                writeln!(out, "    {line}")?;
            }
        }
        None => writeln!(out, "    [text unknown: it was prepared where the record does not reach]")?,
    }
    for (at, value) in statement.params.iter().enumerate() {
        let value = value.as_deref().map_or("NULL".to_owned(), |value| format!("'{}'", brief(value, VALUE)));
        writeln!(out, "    ${} = {value}", at + 1)?;
    }
    if statement.params_truncated {
        writeln!(out, "    [text or parameters were longer than what is kept of one message]")?;
    }
    if let Some(message) = &statement.error_message {
        writeln!(
            out,
            "    ERROR {}: {}",
            brief(statement.sqlstate.as_deref().unwrap_or("-"), 10),
            brief(message, VALUE)
        )?;
    }
    if let Some(rows) = &statement.results {
        print_rows(statement, rows, out)?;
    }
    if statement.results_truncated {
        writeln!(out, "    [more rows were returned than are recorded]")?;
    }
    Ok(())
}

/// Rows as tables of some rows each, so that a long result takes no more memory than a short one.
fn print_rows(
    statement: &Statement,
    rows: &[Vec<Option<String>>],
    out: &mut impl Write,
) -> anyhow::Result<()> {
    for rows in rows.chunks(TABLE_ROWS) {
        let width = rows.iter().map(Vec::len).max().unwrap_or_default();
        let names = (0..width).map(|at| match statement.columns.get(at) {
            Some(Some(name)) => brief(name, CELL),
            _ => format!("column {}", at + 1),
        });
        let names: Vec<_> = names.collect();
        let mut table = table(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for row in rows {
            let cell = |value: &Option<String>| {
                value.as_deref().map_or("NULL".to_owned(), |value| brief(value, CELL))
            };
            table.add_row(row.iter().map(cell));
        }
        for line in table.lines() {
            writeln!(out, "    | {}", line.trim_end())?;
        }
    }
    Ok(())
}

fn print_gap(session: &SessionRow, gap: &Gap, out: &mut impl Write) -> anyhow::Result<()> {
    let text = |text: &Option<String>| brief(text.as_deref().unwrap_or("-"), 40);
    write!(out, "\n--  {}  missing: ", offset(session, gap.at))?;
    match (&gap.lost_table, gap.lost_rows) {
        (Some(table), Some(rows)) => write!(out, "{rows} rows of {}", brief(table, 40))?,
        _ => write!(
            out,
            "{} bytes of the {} stream at {}",
            gap.length.unwrap_or_default(),
            text(&gap.direction),
            gap.offset.unwrap_or_default()
        )?,
    }
    writeln!(out, " ({})", text(&gap.reason))?;
    Ok(())
}

fn print_decision(session: &SessionRow, decision: &Decision, out: &mut impl Write) -> anyhow::Result<()> {
    let text = |text: &Option<String>, most| brief(text.as_deref().unwrap_or("-"), most);
    write!(out, "\n!!  {}  ", offset(session, decision.at))?;
    match (&decision.guardrail, &decision.verdict) {
        (Some(guardrail), verdict) => write!(
            out,
            "{} by guardrail {} ({}): {}",
            text(verdict, 40),
            brief(guardrail, 70),
            text(&decision.action, 40),
            text(&decision.reason, VALUE)
        )?,
        (None, Some(verdict)) => write!(out, "{}: {}", brief(verdict, 40), text(&decision.reason, VALUE))?,
        (None, None) => write!(out, "{}: {}", text(&decision.kind, 40), text(&decision.reason, VALUE))?,
    }
    if let Some(seq) = decision.seq {
        write!(out, ", statement #{seq}")?;
    }
    write!(out, ", decided by {}", text(&decision.decided_by, 100))?;
    if let Some(held) = decision.held_us {
        write!(out, ", held {}", duration(held))?;
    }
    writeln!(out)?;
    if let Some(message) = &decision.message {
        writeln!(out, "    {}", brief(message, VALUE))?;
    }
    // Otherwise it stands with the statement.
    if let Some(sql) = decision.sql.as_ref().filter(|_| decision.seq.is_none()) {
        writeln!(out, "    {}", brief(sql, VALUE))?;
    }
    Ok(())
}

/// How long after the session's start.
fn offset(session: &SessionRow, at: Option<Micros>) -> String {
    match (session.started_at, at) {
        (Some(start), Some(at)) if at >= start => format!("+{}", duration(at.0 - start.0)),
        (_, Some(at)) => time(at),
        (_, None) => "-".to_owned(),
    }
}

/// Characters of a parameter or message.
const VALUE: usize = 1_000;

/// Characters of a table's cell.
const CELL: usize = 60;

/// Rows of one table.
const TABLE_ROWS: usize = 500;

pub(super) const HELP: &str = "\
Example: everything that was said in one session, with the rows that came back
  capture-agent show 0198417a-6f2b-7c31-9e55-0d3f6f1a2b3c --results
  capture-agent show 0d3f6f1a2b3c --json

Exit codes: 0 shown, 1 the record cannot be read, 2 wrong usage,
3 no such session, or several.";
