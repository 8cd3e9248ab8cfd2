//! A script's word against the record.

use anyhow::{Context, bail, ensure};

use super::{Run, Script, Wanted};
use crate::record::{Record, Session, Statement};

/// Compares what the script says is recorded with what is. Every statement and row of the session must be named,
/// and the session's ledger must close.
///
/// # Errors
/// The first difference, with the script's line.
pub fn check(script: &Script, run: &Run, record: &Record) -> anyhow::Result<()> {
    let session = match (run.port, run.backend) {
        (Some(port), _) => record.session_from_port(port)?,
        (None, Some(pid)) => record.session_of_backend(pid)?,
        (None, None) => {
            bail!("{}.pgt: a session that is neither TCP nor logged in is not found", script.name)
        }
    };
    let statements = record.statements_of(session);
    for (wanted, statement) in script.statements.iter().zip(&statements) {
        compare(wanted, statement, record).with_context(|| at(script, wanted.line))?;
    }
    if let Some(missing) = script.statements.get(statements.len()) {
        let all: String = statements.iter().map(|row| format!("\n    {row}")).collect();
        bail!("{}: not recorded; all that is: {all}", at(script, missing.line));
    }
    if let Some(extra) = statements.get(script.statements.len()) {
        bail!("{}.pgt: recorded, but not in the script: {extra}", script.name);
    }
    end(script, run, session, statements.len()).with_context(|| at(script, script.end.line))
}

fn compare(wanted: &Wanted, statement: &Statement, record: &Record) -> anyhow::Result<()> {
    ensure!(statement.status == wanted.status, "status is {}: {statement}", statement.status);
    ensure!(statement.protocol == wanted.protocol, "protocol is {}", statement.protocol);
    ensure!(statement.sql == wanted.sql, "sql is {:?}", statement.sql);
    for (name, value) in &wanted.fields {
        let found = match name.as_str() {
            "rows" => statement.rows.map(|rows| rows.to_string()),
            "tag" => statement.command_tag.clone(),
            "sqlstate" => statement.sqlstate.clone(),
            "message" => statement.error_message.clone(),
            "name" => statement.statement_name.clone(),
            "complete" => Some(statement.complete.to_string()),
            "columns" => statement.columns.as_ref().map(|columns| {
                columns.iter().map(|c| format!("{}:{}", c.name, c.type_oid)).collect::<Vec<_>>().join(",")
            }),
            other => bail!("a statement has no field {other}"),
        };
        ensure!(found.as_deref().unwrap_or("null") == value, "{name} is {found:?}");
    }
    if let Some(wanted) = &wanted.params {
        let found: Vec<_> = statement.params.iter().flatten().map(|param| param.value.clone()).collect();
        ensure!(found == *wanted, "params are {found:?}");
    }
    let rows = record.rows_of(statement);
    ensure!(rows.len() == wanted.rows.len(), "{} rows are recorded: {rows:?}", rows.len());
    for (number, (wanted, found)) in wanted.rows.iter().zip(rows).enumerate() {
        ensure!(wanted.as_ref().is_none_or(|wanted| wanted == found), "row {number} is {found:?}");
    }
    Ok(())
}

fn end(script: &Script, run: &Run, session: &Session, statements: usize) -> anyhow::Result<()> {
    for (name, value) in &script.end.fields {
        let found = match name.as_str() {
            "reason" => session.end_reason.clone(),
            "user" => session.pg_user.clone(),
            "database" => session.database.clone(),
            "application_name" => session.application_name.clone(),
            "auth" => session.auth_method.clone(),
            "errors" => Some(session.errors.to_string()),
            "transport" => Some(session.transport.clone()),
            "tls" => Some(session.tls.to_string()),
            other => bail!("a session has no field {other}"),
        };
        ensure!(found.as_deref().unwrap_or("null") == value, "{name} is {found:?}");
    }
    ensure!(session.statements == statements as u64, "`statements` is {}", session.statements);
    ensure!(!session.partial && session.ended_at.is_some(), "the session is not whole: {session:?}");
    let recorded = session.bytes_in + session.bytes_out + session.gap_bytes;
    let passed = run.sent + run.received;
    let closes = if script.end.unread { recorded <= passed } else { recorded == passed };
    ensure!(closes, "the ledger: {recorded} bytes recorded or declared, {passed} passed");
    Ok(())
}

fn at(script: &Script, line: usize) -> String {
    format!("{}.pgt, line {line}", script.name)
}
