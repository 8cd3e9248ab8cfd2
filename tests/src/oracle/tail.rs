//! A record that begins in the middle of sessions, against the log: from a moment on, everything is there.

use anyhow::{Context as _, bail, ensure};

use super::executed::{Executed, Said, Session, sessions};
use super::text::same_value;
use crate::log::ServerLog;
use crate::record::{Record, Statement};

/// What was compared, when nothing differed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Sessions that were open at the moment and executed something after it.
    pub open: usize,
    /// What these executed after it: each is a row.
    pub executed: usize,
    /// Rows of these whose text is not known: they executed what was prepared before.
    pub unknown: usize,
}

/// Compares the sessions that were open when `marker` was executed: what they executed since then is in the record,
/// each row with the text and the parameters that the log has, or, if it was prepared before, without a text.
///
/// For sessions in which each thing that the log has is one statement.
///
/// # Errors
/// The first difference of each session.
pub fn compare_tail(log: &ServerLog, record: &Record, marker: &str) -> anyhow::Result<Tail> {
    let logged = sessions(log);
    let moment = logged
        .iter()
        .flat_map(|session| &session.executed)
        .find(|executed| executed.text().is_some_and(|text| text.contains(marker)))
        .map(|executed| executed.at.as_str())
        .with_context(|| format!("{marker} is not in the log"))?;
    let mut tail = Tail::default();
    let mut differences = Vec::new();
    for session in logged.iter().filter(|session| session.was_open_at(moment)) {
        if let Err(difference) = tail.session(session, record, moment) {
            differences.push(format!("backend {} ({}): {difference:#}", session.pid, session.peer));
        }
    }
    ensure!(differences.is_empty(), "{} sessions differ:\n{}", differences.len(), differences.join("\n"));
    Ok(tail)
}

impl Session {
    fn was_open_at(&self, moment: &str) -> bool {
        let executed = |wanted: fn(&str, &str) -> bool| {
            self.executed.iter().any(|executed| wanted(executed.at.as_str(), moment))
        };
        executed(|at, moment| at < moment) && executed(|at, moment| at > moment)
    }
}

impl Tail {
    fn session(&mut self, logged: &Session, record: &Record, moment: &str) -> anyhow::Result<()> {
        let session = record.session_of_backend(logged.pid)?;
        ensure!(session.partial, "not partial");
        let names = [session.pg_user.as_deref(), session.database.as_deref()];
        ensure!(names == [Some(&*logged.user), Some(&*logged.database)], "recorded as {names:?}");
        let peer = match (&session.client_addr, session.client_port, session.peer_pid) {
            (Some(address), Some(port), _) => format!("{address}:{port}"),
            (None, None, Some(_)) => "[local]".to_owned(),
            unknown => bail!("the peer is not known: {unknown:?}"),
        };
        ensure!(peer == logged.peer, "recorded from {peer}");
        let rows = record.statements_of(session);
        let after = logged.executed.iter().filter(|executed| executed.at.as_str() > moment).count();
        // The record begins somewhere before the moment, and ends where the log does.
        let Some(before) = logged.executed.len().checked_sub(rows.len()) else {
            bail!("{} rows, but {} things were executed", rows.len(), logged.executed.len());
        };
        ensure!(
            rows.len() >= after,
            "{} rows, but {after} things were executed since; first {:?}, of which {:?}; not in the record: {:?}",
            rows.len(),
            rows.first().map(|row| &row.params),
            logged
                .executed
                .iter()
                .find(|executed| executed.at.as_str() > moment)
                .map(|executed| &executed.params),
            record.gaps_of(session)
        );
        let skipped = rows.len() - after;
        for (at, (executed, row)) in logged.executed.iter().skip(before).zip(&rows).enumerate() {
            same(executed, row, at >= skipped).with_context(|| {
                format!("row {at} of {}\n    logged {executed:?}\n    recorded {row}", rows.len())
            })?;
        }
        self.open += 1;
        self.executed += after;
        self.unknown += rows.iter().skip(skipped).filter(|row| row.sql.is_none()).count();
        Ok(())
    }
}

/// `whole`: the statement was executed after the moment.
fn same(executed: &Executed, row: &Statement, whole: bool) -> anyhow::Result<()> {
    if let Some(sql) = &row.sql {
        ensure!(executed.text() == Some(sql), "another text");
    }
    if !whole {
        return Ok(());
    }
    ensure!(row.complete && row.status == "completed" && executed.error.is_none(), "not completed");
    match &executed.said {
        Said::Execute { name, .. } => {
            ensure!(row.statement_name.as_deref() == Some(name), "another name");
            ensure!(row.sql.is_some() || !name.is_empty(), "the unnamed statement has no text");
        }
        _ => ensure!(row.sql.is_some(), "no text, though it came with it"),
    }
    let logged = executed.params.as_deref().unwrap_or_default();
    let recorded = row.params.as_deref().unwrap_or_default();
    let equal = logged.len() == recorded.len()
        && logged.iter().zip(recorded).all(|(logged, recorded)| {
            let (type_oid, logged, value) = (recorded.type_oid, logged.as_deref(), recorded.value.as_deref());
            same_value(type_oid, value, logged)
                || (type_oid == 0 && recorded.format == "binary" && same_number(value, logged))
        });
    ensure!(equal, "other parameters: {recorded:?}");
    Ok(())
}

/// A binary value of unknown type is recorded as hex. The workload's only such values are integers.
fn same_number(recorded: Option<&str>, logged: Option<&str>) -> bool {
    let number = recorded.and_then(|hex| i64::from_str_radix(hex.strip_prefix("\\x")?, 16).ok());
    number.is_some() && number == logged.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Entry;

    type Spoil = fn(&mut Record);

    #[test]
    fn what_was_prepared_before_has_no_text_and_all_else_is_there() {
        let tail = compare_tail(&log(), &record(), "marker").unwrap();
        assert_eq!(tail, Tail { open: 1, executed: 2, unknown: 1 });
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let wrongs: [(&str, Spoil); 10] = [
            ("a missing statement", |record| drop(record.statements.remove(0))),
            ("an extra statement", |record| record.statements.extend(record.statements.clone())),
            ("a wrong text", |record| record.statements[0].sql = Some("select 3".into())),
            ("a text that came and is unknown", |record| record.statements[1].sql = None),
            ("another name", |record| record.statements[0].statement_name = Some("t".into())),
            ("another parameter", |record| {
                record.statements[0].params.iter_mut().flatten().for_each(|param| param.value = None);
            }),
            ("an incomplete row", |record| record.statements[1].complete = false),
            ("another user", |record| record.sessions[0].pg_user = None),
            ("an unknown peer", |record| record.sessions[0].peer_pid = None),
            ("a session that is taken for a whole one", |record| record.sessions[0].partial = false),
        ];
        for (what, spoil) in wrongs {
            let mut record = record();
            spoil(&mut record);
            assert!(compare_tail(&log(), &record, "marker").is_err(), "{what} went unnoticed");
        }
    }

    /// Backend 7 prepares `s` before the marker, which backend 8 executes, and executes it afterwards.
    fn log() -> ServerLog {
        let entry = |at: &str, pid: u32, message: &str, detail: &str| Entry {
            at: at.into(),
            user: "u".into(),
            database: "d".into(),
            pid,
            connection_from: "[local]".into(),
            session: pid.to_string(),
            line: 1,
            severity: "LOG".into(),
            sqlstate: "00000".into(),
            message: message.into(),
            detail: detail.into(),
            query: String::new(),
            application_name: String::new(),
            backend_type: "client backend".into(),
        };
        let entries = vec![
            entry("1", 7, "connection received: host=[local]", ""),
            entry("1", 8, "connection received: host=[local]", ""),
            entry("2", 7, "execute s: select $1", "parameters: $1 = '1'"),
            entry("3", 8, "statement: select 'marker'", ""),
            entry("4", 7, "execute s: select $1", "parameters: $1 = '2'"),
            entry("5", 7, "statement: select 4", ""),
        ];
        ServerLog { entries }
    }

    fn record() -> Record {
        let statement = |seq: u64, rest: serde_json::Value| {
            let mut statement = serde_json::json!({
                "session_id": "s", "seq": seq, "started_at": "", "protocol": "simple", "status": "completed", "verdict": "none",
                "bytes_in": 0, "bytes_out": 0, "complete": true, "results_truncated": false,
            });
            let fields = statement.as_object_mut().unwrap();
            fields.extend(rest.as_object().unwrap().clone());
            serde_json::from_value::<Statement>(statement).unwrap()
        };
        let params = serde_json::json!([{"type_oid": 0, "format": "binary", "value": "\\x0002"}]);
        let statements = vec![
            statement(0, serde_json::json!({"statement_name": "s", "params": params})),
            statement(1, serde_json::json!({"sql": "select 4"})),
        ];
        let session = serde_json::json!({
            "session_id": "s", "started_at": "", "end_reason": "terminate", "pg_user": "u", "database": "d",
            "transport": "unix", "tls": false, "backend_pid": 7, "host_pid": 7, "peer_pid": 9, "statements": 2,
            "errors": 0, "bytes_in": 0, "bytes_out": 0, "gap_bytes": 0, "partial": true, "socket_bytes_in": 0,
            "socket_bytes_out": 0, "gss_encrypted": false,
        });
        Record { sessions: vec![serde_json::from_value(session).unwrap()], statements, ..Record::default() }
    }
}
