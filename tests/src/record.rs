//! What the agent recorded, read by an engine that shares no code with it: DuckDB.
//!
//! Fields are the columns of `docs/schema.md`, with its units.
#![expect(missing_docs, reason = "docs/schema.md documents the columns")]

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::deps;

/// All rows of a record.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Record {
    /// The table `sessions`, one row for each session: the latest.
    pub sessions: Vec<Session>,
    /// The table `statements`, by session and `seq`.
    pub statements: Vec<Statement>,
    /// The table `results`, by session, `seq` and `row`.
    pub results: Vec<ResultRow>,
    /// The table `gaps`, by session, direction and offset.
    pub gaps: Vec<Gap>,
    /// The table `decisions`, by time.
    pub decisions: Vec<Decision>,
}

/// A row of `sessions`.
#[derive(Clone, Debug, Deserialize)]
pub struct Session {
    pub session_id: String,
    pub started_at: String,
    pub ended_at: Option<String>,
    pub end_reason: Option<String>,
    pub pg_user: Option<String>,
    pub database: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub client_port: Option<u16>,
    pub transport: String,
    pub tls: bool,
    pub auth_method: Option<String>,
    pub backend_pid: u32,
    pub server_version: Option<String>,
    pub peer_pid: Option<u32>,
    pub peer_exe: Option<String>,
    pub statements: u64,
    pub errors: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub gap_bytes: u64,
    pub partial: bool,
    pub host_pid: u32,
    pub server_pid: Option<u32>,
    pub server_port: Option<u16>,
    pub container_id: Option<String>,
    pub pod_uid: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
    pub socket_bytes_in: u64,
    pub socket_bytes_out: u64,
    pub gss_encrypted: bool,
}

/// A row of `statements`.
#[derive(Clone, Debug, Deserialize)]
pub struct Statement {
    pub session_id: String,
    pub seq: u64,
    pub started_at: String,
    pub duration_us: Option<i64>,
    pub first_row_us: Option<i64>,
    pub pg_user: Option<String>,
    pub database: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub protocol: String,
    pub sql: Option<String>,
    pub statement_name: Option<String>,
    pub params: Option<Vec<Param>>,
    pub kinds: Option<Vec<String>>,
    pub columns: Option<Vec<Column>>,
    pub rows: Option<u64>,
    pub command_tag: Option<String>,
    pub status: String,
    pub verdict: String,
    pub guardrail: Option<String>,
    pub decided_by: Option<String>,
    pub held_us: Option<i64>,
    pub sqlstate: Option<String>,
    pub error_message: Option<String>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub complete: bool,
    pub results_truncated: bool,
    #[serde(default)]
    pub masked: u32,
}

/// One parameter of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Param {
    pub type_oid: u32,
    pub format: String,
    pub value: Option<String>,
}

/// One column of a statement's result.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Column {
    pub name: String,
    pub type_oid: u32,
    pub table_oid: u32,
    pub attnum: i16,
}

/// A row of `results`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ResultRow {
    pub session_id: String,
    pub seq: u64,
    pub row: u64,
    pub values: Vec<Option<String>>,
}

/// A row of `gaps`: bytes of a stream, or rows of a table, that are not in the record.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Gap {
    pub session_id: Option<String>,
    pub direction: String,
    pub offset: Option<u64>,
    pub length: Option<u64>,
    pub reason: String,
    pub lost_table: Option<String>,
    pub lost_rows: Option<u64>,
}

/// A row of `decisions`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Decision {
    pub at: String,
    pub kind: String,
    pub session_id: Option<String>,
    pub seq: Option<u64>,
    pub pg_user: Option<String>,
    pub database: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub guardrail: Option<String>,
    pub action: Option<String>,
    pub verdict: Option<String>,
    pub reason: Option<String>,
    pub decided_by: Option<String>,
    pub held_us: Option<i64>,
    pub sql: Option<String>,
    pub message: Option<String>,
}

/// What a failure message shows of a statement.
impl fmt::Display for Statement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sql = self.sql.as_deref().map(|sql| sql.chars().take(120).collect::<String>());
        write!(out, "#{} {} {} {sql:?}", self.seq, self.status, self.protocol)?;
        write!(out, " name {:?} rows {:?} tag {:?}", self.statement_name, self.rows, self.command_tag)?;
        let values = self.params.iter().flatten().map(|param| param.value.as_deref());
        write!(out, " params {:?}", values.take(4).collect::<Vec<_>>())?;
        write!(out, " error {:?} {:?}", self.sqlstate, self.error_message)?;
        write!(out, " bytes {} {} complete {}", self.bytes_in, self.bytes_out, self.complete)
    }
}

/// Where in the agent's data folder any of `words` stands: in a value of any table, or in the bytes of any file. A
/// word is text, or bytes as `x'hex'`.
///
/// # Errors
/// A file cannot be read.
pub fn find(folder: &Path, words: &[&str]) -> anyhow::Result<Vec<String>> {
    let program = deps::client("find_in_record.py")?;
    let found = deps::run(Command::new(deps::python()?).arg(program).arg(folder).args(words))?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// What is in a record that is too large to be read row by row: see `clients/count_record.py`.
#[derive(Clone, Debug, serde::Deserialize)]
#[expect(missing_docs, reason = "the program says what it counts")]
pub struct Counts {
    pub statements: u64,
    pub distinct_statements: u64,
    pub completed: u64,
    pub results: u64,
    pub distinct_results: u64,
    pub unknown: u64,
    pub ended: u64,
    pub ended_rows: u64,
    pub partial: u64,
    pub gaps: u64,
    pub writers: Vec<String>,
}

impl Counts {
    /// Counts in the agent's data folder; statements and results those whose text begins with `prefix`.
    ///
    /// # Errors
    /// DuckDB is missing, or cannot read a file.
    pub fn read(folder: &Path, prefix: &str) -> anyhow::Result<Self> {
        let program = deps::client("count_record.py")?;
        let text = deps::run(Command::new(deps::python()?).arg(program).arg(folder).arg(prefix))?;
        serde_json::from_str(&text).context("count_record.py printed something else")
    }
}

impl Record {
    /// Reads every table in the agent's data folder.
    ///
    /// # Errors
    /// DuckDB is missing, or cannot read a file.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let text = deps::run(Command::new(deps::python()?).arg(deps::client("read_record.py")?).arg(folder))?;
        serde_json::from_str(&text).context("the record's rows have another shape than docs/schema.md says")
    }

    /// What is recorded of one server: the one whose postmaster has this process id, as the host sees it.
    #[must_use]
    pub fn of_server(&self, postmaster: u32) -> Self {
        let mut own = self.clone();
        own.sessions.retain(|session| session.server_pid == Some(postmaster));
        let known: HashSet<_> = own.sessions.iter().map(|session| session.session_id.clone()).collect();
        own.statements.retain(|statement| known.contains(&statement.session_id));
        own.results.retain(|row| known.contains(&row.session_id));
        own.gaps.retain(|gap| gap.session_id.as_ref().is_some_and(|session| known.contains(session)));
        own
    }

    /// The session of the client that connected from `port`.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn session_from_port(&self, port: u16) -> anyhow::Result<&Session> {
        self.only(&format!("client port {port}"), |session| session.client_port == Some(port))
    }

    /// The session whose backend had process id `pid`.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn session_of_backend(&self, pid: u32) -> anyhow::Result<&Session> {
        self.only(&format!("backend {pid}"), |session| session.backend_pid == pid)
    }

    /// The session with this `application_name`.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn session_named(&self, application_name: &str) -> anyhow::Result<&Session> {
        self.only(&format!("application {application_name}"), |session| {
            session.application_name.as_deref() == Some(application_name)
        })
    }

    /// The session's statements, in order.
    pub fn statements_of(&self, session: &Session) -> Vec<&Statement> {
        self.statements.iter().filter(|statement| statement.session_id == session.session_id).collect()
    }

    /// The statement's rows, in order.
    pub fn rows_of(&self, statement: &Statement) -> Vec<&[Option<String>]> {
        self.results
            .iter()
            .filter(|row| row.session_id == statement.session_id && row.seq == statement.seq)
            .map(|row| row.values.as_slice())
            .collect()
    }

    /// The decisions of this kind, by time.
    pub fn decisions_of(&self, kind: &str) -> Vec<&Decision> {
        self.decisions.iter().filter(|decision| decision.kind == kind).collect()
    }

    /// The session's gaps.
    pub fn gaps_of(&self, session: &Session) -> Vec<&Gap> {
        self.gaps.iter().filter(|gap| gap.session_id.as_ref() == Some(&session.session_id)).collect()
    }

    /// How many rows of `table` are declared as lost.
    pub fn lost_rows(&self, table: &str) -> u64 {
        let lost = self.gaps.iter().filter(|gap| gap.lost_table.as_deref() == Some(table));
        lost.filter_map(|gap| gap.lost_rows).sum()
    }

    /// The only statement whose text contains `part`.
    ///
    /// # Errors
    /// There is none, or several.
    pub fn statement_with(&self, part: &str) -> anyhow::Result<&Statement> {
        let mut found =
            self.statements.iter().filter(|row| row.sql.as_deref().is_some_and(|sql| sql.contains(part)));
        let statement = found.next().with_context(|| format!("no statement with {part:?}"))?;
        ensure!(found.next().is_none(), "several statements with {part:?}");
        Ok(statement)
    }

    /// Checks what must hold for every session: the totals of its row are those of its other rows.
    ///
    /// # Errors
    /// The first session for which they are not.
    pub fn check_totals(&self) -> anyhow::Result<()> {
        for session in &self.sessions {
            // What was captured and could not be stored is declared as rows.
            let gaps: Vec<_> =
                self.gaps_of(session).into_iter().filter(|gap| gap.lost_table.is_none()).collect();
            let missing = |direction: Option<&str>| -> u64 {
                let of = gaps.iter().filter(|gap| direction.is_none_or(|wanted| gap.direction == wanted));
                of.filter_map(|gap| gap.length).sum()
            };
            ensure!(session.gap_bytes == missing(None), "gaps of {} bytes, but {session:?}", missing(None));
            let streams = session.bytes_in + session.bytes_out + session.gap_bytes;
            let socket = session.socket_bytes_in + session.socket_bytes_out;
            ensure!(
                if session.tls || session.gss_encrypted { streams <= socket } else { streams == socket },
                "{streams} bytes of the streams, {socket} of the socket: {session:?}"
            );
            let statements = self.statements_of(session);
            ensure!(session.statements == statements.len() as u64, "{} rows, {session:?}", statements.len());
            // A message of known length that lost some of its bytes counts with all of them.
            let within: u64 = statements.iter().map(|statement| statement.bytes_in).sum();
            ensure!(
                within <= session.bytes_in + missing(Some("frontend")),
                "statements of {within} bytes in {session:?}"
            );
            let without: u64 = statements.iter().map(|statement| statement.bytes_out).sum();
            ensure!(
                without <= session.bytes_out + missing(Some("backend")),
                "replies of {without} bytes in {session:?}"
            );
        }
        Ok(())
    }

    fn only(&self, what: &str, wanted: impl Fn(&Session) -> bool) -> anyhow::Result<&Session> {
        let mut found = self.sessions.iter().filter(|session| wanted(session));
        let session = found.next().with_context(|| {
            format!("no session of {what} in the record of {} sessions", self.sessions.len())
        })?;
        ensure!(found.next().is_none(), "several sessions of {what}");
        Ok(session)
    }
}
