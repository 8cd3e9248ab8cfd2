//! Statements: Datastore Activity, class 6005.

use serde_json::{Map, Value};

use super::super::item::Statement;
use super::{Class, Context, HIGH, INFORMATIONAL, LOW, known};
use crate::session::{Micros, SessionInfo, Status, Verdict};
use crate::sql::Analysis;

/// Datastore Activity.
pub(super) const CLASS: u64 = 6_005;

impl Context {
    pub(super) fn activity(
        &self,
        number: u64,
        session: &SessionInfo,
        statement: &Statement,
        now: Micros,
    ) -> Map<String, Value> {
        let stopped = statement.judged.as_ref().is_some_and(|judged| judged.verdict.stops());
        let status = status(statement, stopped);
        let class = Class {
            uid: CLASS,
            name: "Datastore Activity",
            category: "Application Activity",
            activity: activity(statement.analysis.as_deref()),
            severity: match status.0 {
                _ if stopped => HIGH,
                2 => LOW,
                _ => INFORMATIONAL,
            },
            profiles: &["host", "security_control"],
        };
        let mut fields = self.base(number, class, statement.started_at, now);
        let mut set = |key: &str, value: Value| {
            if !value.is_null() {
                fields.insert(key.to_owned(), value);
            }
        };
        set("actor", self.actor(session));
        set("database", self.database(session));
        set("src_endpoint", self.source(session));
        set("dst_endpoint", self.destination(session));
        set("type_id", 1.into());
        set("type", "Database".into());
        set("duration", statement.duration_us.map(|time| time / 1_000).into());
        set("status_id", status.0.into());
        set("status", status.1.into());
        set("status_code", statement.sqlstate.as_deref().into());
        set("status_detail", statement.error_message.as_deref().map(cut).into());
        set("message", statement.command_tag.as_deref().unwrap_or(status.2).into());
        if let Some(judged) = &statement.judged {
            let (action, disposition) = match judged.verdict {
                Verdict::Allowed => ((1, "Allowed"), (1, "Allowed")),
                Verdict::Approved => ((1, "Allowed"), (8, "Approved")),
                Verdict::Blocked => ((2, "Denied"), (2, "Blocked")),
                Verdict::Denied => ((2, "Denied"), (25, "Rejected")),
            };
            set("action_id", action.0.into());
            set("action", action.1.into());
            set("disposition_id", disposition.0.into());
            set("disposition", disposition.1.into());
        }
        let fingerprint = statement.analysis.as_ref().and_then(|analysis| analysis.fingerprint.as_deref());
        let (sql, cut) = self.text(statement.sql.as_deref().unwrap_or_default());
        set(
            "query_info",
            known([
                ("query_string", sql.into()),
                ("uid", fingerprint.into()),
                ("bytes", statement.bytes_out.into()),
            ]),
        );
        set("unmapped", more(statement, status.2, cut));
        fields
    }
}

/// What OCSF has no field for, named as in the table `statements`.
fn more(statement: &Statement, status: &str, cut: bool) -> Value {
    let known_of = statement.analysis.as_ref().filter(|analysis| analysis.unknown.is_none());
    let names = |names: &[String]| {
        Value::from(names.iter().take(MOST_NAMES).map(|name| self::cut(name)).collect::<Vec<_>>())
    };
    let list =
        |of: fn(&Analysis) -> &Vec<String>| known_of.map(|analysis| names(of(analysis))).unwrap_or_default();
    let unknown = statement.analysis.as_ref().and_then(|analysis| analysis.unknown);
    let judged = statement.judged.as_deref();
    known([
        ("seq", statement.seq.into()),
        ("protocol", statement.protocol.name().into()),
        ("status", status.into()),
        ("rows", statement.rows.into()),
        ("kinds", list(|analysis| &analysis.kinds)),
        ("tables_read", list(|analysis| &analysis.tables_read)),
        ("tables_written", list(|analysis| &analysis.tables_written)),
        ("functions", list(|analysis| &analysis.functions)),
        ("guardrail", judged.and_then(|judged| judged.guardrail.as_deref()).into()),
        ("decided_by", judged.and_then(|judged| judged.decided_by.as_deref()).into()),
        ("held_us", judged.map(|judged| judged.held_us).into()),
        ("complete", statement.complete.into()),
        ("sql_unknown", unknown.map(|unknown| unknown.to_string()).into()),
        ("sql_missing", if statement.sql.is_none() { true.into() } else { Value::Null }),
        ("sql_truncated", if cut { true.into() } else { Value::Null }),
    ])
}

/// The kind of activity: of what a text does, the gravest.
fn activity(analysis: Option<&Analysis>) -> (u64, String) {
    let Some(analysis) = analysis.filter(|analysis| analysis.unknown.is_none()) else {
        return (0, "Unknown".to_owned());
    };
    let does = |kinds: &[&str]| analysis.kinds.iter().any(|kind| kinds.contains(&kind.as_str()));
    for (kinds, id, name) in ACTIVITIES {
        if does(kinds) {
            return (*id, (*name).to_owned());
        }
    }
    (99, analysis.kinds.first().cloned().unwrap_or_else(|| "other".to_owned()))
}

const ACTIVITIES: &[(&[&str], u64, &str)] = &[
    (&["delete", "drop", "truncate"], 7, "Delete"),
    (&["update", "merge"], 2, "Update"),
    (&["insert", "copy_from"], 5, "Write"),
    (&["create", "select_into", "create_table_as"], 6, "Create"),
    (&["copy_to"], 1, "Read"),
    (&["select", "fetch", "values", "execute", "show"], 4, "Query"),
];

/// OCSF's status, its caption, and the record's word.
fn status(statement: &Statement, stopped: bool) -> (u64, &'static str, &'static str) {
    if stopped {
        return (2, "Failure", "blocked");
    }
    let (id, caption) = match statement.status {
        Status::Completed | Status::Suspended => (1, "Success"),
        Status::Failed | Status::Skipped | Status::Canceled => (2, "Failure"),
        Status::InFlight | Status::Unknown => (0, "Unknown"),
    };
    (id, caption, statement.status.name())
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MOST_TEXT)).unwrap_or_default()
}

/// Names of one list: a statement may have thousands.
const MOST_NAMES: usize = 64;
/// Bytes of one name, and of an error's message.
const MOST_TEXT: usize = 512;
