//! What each session executed, according to the server's log.

use super::parameters;
use crate::log::{Entry, ServerLog};

/// One client session of the log.
#[derive(Clone, Debug)]
pub struct Session {
    /// The backend's process id.
    pub pid: u32,
    /// The client's `address:port`, or `[local]`.
    pub peer: String,
    /// The role; empty if the session did not get that far.
    pub user: String,
    /// The database; empty if the session did not get that far.
    pub database: String,
    /// What it executed, in order.
    pub executed: Vec<Executed>,
    /// The error that kept the session from starting or that ended it: SQLSTATE and message.
    pub fatal: Option<(String, String)>,
    /// Whether the statement logged last still runs.
    running: bool,
}

/// One thing that a session had the server do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executed {
    /// When it was logged, which the server does as it begins.
    pub at: String,
    /// How it came, and its text.
    pub said: Said,
    /// Its parameters as text, where the log has them.
    pub params: Option<Vec<Option<String>>>,
    /// The error that ended it: SQLSTATE and message.
    pub error: Option<(String, String)>,
    /// The `application_name` at that time.
    pub application_name: String,
}

/// How a statement came to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A Query message: the whole query string, which may hold several statements, or none.
    Query(String),
    /// An Execute message: the prepared statement's name and its text.
    Execute {
        /// The statement's name; empty for the unnamed one.
        name: String,
        /// Its text.
        sql: String,
    },
    /// A statement that failed before the server logged that it runs: in parsing, or in Bind.
    Refused(String),
    /// A FunctionCall message: the function's OID.
    Function(u32),
    /// A command of a replication session.
    Replication(String),
}

/// The client sessions of a log, in the order in which they began.
pub fn sessions(log: &ServerLog) -> Vec<Session> {
    let mut names: Vec<&str> = Vec::new();
    let mut sessions: Vec<Session> = Vec::new();
    for entry in &log.entries {
        if entry.message.starts_with("connection received: ") {
            names.push(&entry.session);
            sessions.push(Session {
                pid: entry.pid,
                peer: String::new(),
                user: String::new(),
                database: String::new(),
                executed: Vec::new(),
                fatal: None,
                running: false,
            });
        } else if let Some(at) = names.iter().rposition(|name| *name == entry.session) {
            sessions[at].take(entry);
        }
    }
    sessions
}

impl Session {
    fn take(&mut self, entry: &Entry) {
        if !entry.user.is_empty() {
            self.peer.clone_from(&entry.connection_from);
            self.user.clone_from(&entry.user);
            self.database.clone_from(&entry.database);
        }
        match entry.severity.as_str() {
            "LOG" if entry.message.starts_with("duration: ") => self.running = false,
            "LOG" => {
                if let Some(said) = said(&entry.message) {
                    self.start(said, entry);
                }
            }
            "ERROR" => self.fail(entry),
            "FATAL" | "PANIC" => {
                self.fatal = Some((entry.sqlstate.clone(), entry.message.clone()));
                if !entry.query.is_empty() {
                    self.fail(entry);
                }
            }
            _ => {}
        }
    }

    fn start(&mut self, said: Said, entry: &Entry) {
        let params = match said {
            Said::Execute { .. } => Some(parameters::parse(&entry.detail)),
            _ => None,
        };
        self.executed.push(Executed {
            at: entry.at.clone(),
            said,
            params,
            error: None,
            application_name: entry.application_name.clone(),
        });
        self.running = true;
    }

    /// An error belongs to the statement that runs, if that has the same text; otherwise the statement failed
    /// before the server logged that it runs it.
    fn fail(&mut self, entry: &Entry) {
        let runs = self.running
            && self.executed.last().is_some_and(|last| last.text().is_none_or(|text| text == entry.query));
        if !runs {
            self.start(Said::Refused(entry.query.clone()), entry);
        }
        self.running = false;
        if let Some(last) = self.executed.last_mut() {
            last.error = Some((entry.sqlstate.clone(), entry.message.clone()));
        }
    }
}

impl Executed {
    /// The text that the server would name in an error; none where it names none (FunctionCall).
    pub(super) fn text(&self) -> Option<&str> {
        match &self.said {
            Said::Query(text) | Said::Refused(text) | Said::Replication(text) => Some(text),
            Said::Execute { sql, .. } => Some(sql),
            Said::Function(_) => None,
        }
    }
}

/// The messages of `check_log_statement` and its callers (`src/backend/tcop/postgres.c`, `fastpath.c`) and of
/// `exec_replication_command` (`src/backend/replication/walsender.c`).
fn said(message: &str) -> Option<Said> {
    if let Some(sql) = message.strip_prefix("statement: ") {
        return Some(Said::Query(sql.to_owned()));
    }
    if let Some(rest) = message.strip_prefix("execute ") {
        let rest = rest.strip_prefix("fetch from ").unwrap_or(rest);
        let (name, sql) = rest.split_once(": ")?;
        let name = name.split_once('/').map_or(name, |(name, _portal)| name);
        let name = if name == "<unnamed>" { "" } else { name };
        return Some(Said::Execute { name: name.to_owned(), sql: sql.to_owned() });
    }
    if let Some(rest) = message.strip_prefix("fastpath function call: ") {
        let oid = rest.rsplit_once("(OID ")?.1.trim_end_matches(')');
        return Some(Said::Function(oid.parse().ok()?));
    }
    message.strip_prefix("received replication command: ").map(|text| Said::Replication(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_belongs_to_the_statement_that_was_logged_before_it() {
        let log = log(&[
            ("LOG", "connection received: host=[local]", ""),
            ("LOG", "statement: select 1/0", ""),
            ("ERROR", "division by zero", "select 1/0"),
            ("ERROR", "syntax error at or near \"selec\"", "selec"),
            ("LOG", "execute s1/p1: select 2", ""),
        ]);
        let executed = &sessions(&log)[0].executed;
        assert_eq!(executed.len(), 3);
        assert_eq!(executed[0].error.as_ref().unwrap().1, "division by zero");
        assert_eq!(executed[1].said, Said::Refused("selec".into()));
        assert_eq!(executed[2].said, Said::Execute { name: "s1".into(), sql: "select 2".into() });
        assert_eq!(executed[2].error, None);
    }

    fn log(lines: &[(&str, &str, &str)]) -> ServerLog {
        let entries = lines
            .iter()
            .map(|(severity, message, query)| Entry {
                at: String::new(),
                user: "u".into(),
                database: "d".into(),
                pid: 7,
                connection_from: String::new(),
                session: "1.7".into(),
                line: 1,
                severity: (*severity).into(),
                sqlstate: "22012".into(),
                message: (*message).into(),
                detail: String::new(),
                query: (*query).into(),
                application_name: String::new(),
                backend_type: "client backend".into(),
            })
            .collect();
        ServerLog { entries }
    }
}
