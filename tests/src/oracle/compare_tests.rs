//! A judge that never objects proves nothing: each way in which a record can be wrong must be found.

use super::*;
use crate::log::Entry;
use crate::record::Param;

#[test]
fn a_record_that_says_what_the_log_says_is_equal() {
    let compared = compare(&log(), &record()).unwrap();
    assert_eq!(compared, Comparison { sessions: 1, executed: 3, parameters: 2 });
}

#[test]
fn every_kind_of_difference_is_found() {
    let wrongs: [(&str, Spoil); 12] = [
        ("a missing statement", |record| drop(record.statements.pop())),
        ("a missing first statement", |record| drop(record.statements.remove(0))),
        ("an extra statement", |record| record.statements.push(statement(4, "simple", "select 9"))),
        ("another text", |record| record.statements[3].sql = Some("select $1".into())),
        ("no text", |record| record.statements[0].sql = None),
        ("another parameter", |record| record.statements[2].params.as_mut().unwrap()[0].value = None),
        ("a missing parameter", |record| drop(record.statements[2].params.as_mut().unwrap().pop())),
        ("another error", |record| record.statements[3].error_message = Some("x".into())),
        ("no error", |record| record.statements[3].sqlstate = None),
        ("another user", |record| record.statements[1].pg_user = Some("x".into())),
        ("another database", |record| record.sessions[0].database = Some("x".into())),
        ("a missing session", |record| record.sessions.clear()),
    ];
    for (what, spoil) in wrongs {
        let mut record = record();
        spoil(&mut record);
        record.sessions.iter_mut().for_each(|session| session.statements = record.statements.len() as u64);
        assert!(compare(&log(), &record).is_err(), "{what} went unnoticed");
    }
}

#[test]
fn a_session_that_the_log_does_not_know_is_found() {
    let mut record = record();
    let mut other = record.sessions[0].clone();
    other.session_id = "other".into();
    other.backend_pid = 8;
    record.sessions.push(other);
    assert!(compare(&log(), &record).is_err());
}

/// What makes a record wrong.
type Spoil = fn(&mut Record);

/// `select 1; select 2` as one query string, an Execute with two parameters, an Execute that fails.
fn log() -> ServerLog {
    let entry = |severity: &str, message: &str, detail: &str, query: &str| Entry {
        at: String::new(),
        user: "u".into(),
        database: "d".into(),
        pid: 7,
        connection_from: String::new(),
        session: "1.7".into(),
        line: 1,
        severity: severity.into(),
        sqlstate: "22012".into(),
        message: message.into(),
        detail: detail.into(),
        query: query.into(),
        application_name: String::new(),
        backend_type: "client backend".into(),
    };
    let entries = vec![
        entry("LOG", "connection received: host=[local]", "", ""),
        entry("LOG", "statement: select 1; select 2;", "", ""),
        entry("LOG", "duration: 0.1 ms", "", ""),
        entry("LOG", "execute s: select $1, $2", "parameters: $1 = 'a', $2 = NULL", ""),
        entry("LOG", "duration: 0.1 ms", "", ""),
        entry("LOG", "execute <unnamed>: select 1/0", "", ""),
        entry("ERROR", "division by zero", "", "select 1/0"),
    ];
    ServerLog { entries }
}

fn record() -> Record {
    let mut executed = statement(2, "extended", "select $1, $2");
    executed.statement_name = Some("s".into());
    let param =
        |value: Option<&str>| Param { type_oid: 25, format: "text".into(), value: value.map(str::to_owned) };
    executed.params = Some(vec![param(Some("a")), param(None)]);
    let mut failed = statement(3, "extended", "select 1/0");
    failed.statement_name = Some(String::new());
    failed.status = "failed".into();
    failed.sqlstate = Some("22012".into());
    failed.error_message = Some("division by zero".into());
    let statements =
        vec![statement(0, "simple", "select 1"), statement(1, "simple", "select 2"), executed, failed];
    let session = serde_json::json!({
        "session_id": "s", "started_at": "", "end_reason": "terminate", "pg_user": "u", "database": "d",
        "transport": "unix", "tls": false, "backend_pid": 7, "host_pid": 7, "statements": 4, "errors": 1, "bytes_in": 0,
        "bytes_out": 0, "gap_bytes": 0, "partial": false, "socket_bytes_in": 0, "socket_bytes_out": 0,
        "gss_encrypted": false,
    });
    Record { sessions: vec![serde_json::from_value(session).unwrap()], statements, ..Record::default() }
}

fn statement(seq: u64, protocol: &str, sql: &str) -> Statement {
    let statement = serde_json::json!({
        "session_id": "s", "seq": seq, "started_at": "", "pg_user": "u", "database": "d", "protocol": protocol,
        "sql": sql, "status": "completed", "verdict": "none", "bytes_in": 0, "bytes_out": 0,
        "complete": true,
        "results_truncated": false,
    });
    serde_json::from_value(statement).unwrap()
}
