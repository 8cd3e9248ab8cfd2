//! Log against record, session by session.

use anyhow::{bail, ensure};

use super::executed::{Executed, Said, Session, sessions};
use super::text::{find_statement, same_text, same_value, skip_separators};
use crate::log::ServerLog;
use crate::record::{self, Record, Statement};

/// What was compared, when nothing differed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Sessions.
    pub sessions: usize,
    /// Entries of the log, each with the statements recorded for it.
    pub executed: usize,
    /// Parameters whose value was equal.
    pub parameters: usize,
}

/// Compares every session of the log with the record, in both directions.
///
/// # Errors
/// Every difference, one line each (the first `SHOWN` of them).
pub fn compare(log: &ServerLog, record: &Record) -> anyhow::Result<Comparison> {
    let mut judge = Judge::default();
    let logged = sessions(log);
    for session in &logged {
        judge.session(session, record);
    }
    for session in &record.sessions {
        if !logged.iter().any(|logged| logged.pid == session.backend_pid) {
            judge.differs(format!("the log has no session of backend {}", session.backend_pid));
        }
    }
    judge.verdict()
}

#[derive(Default)]
struct Judge {
    compared: Comparison,
    differences: Vec<String>,
}

impl Judge {
    fn session(&mut self, logged: &Session, record: &Record) {
        self.compared.sessions += 1;
        let session = match record.session_of_backend(logged.pid) {
            Ok(session) => session,
            Err(error) => return self.differs(format!("{error}; it ran {:?}", logged.executed.first())),
        };
        let statements = record.statements_of(session);
        let what = format!("backend {}", logged.pid);
        self.identity(&what, logged, session);
        let mut recorded = Recorded { statements: &statements, next: 0 };
        for executed in &logged.executed {
            self.compared.executed += 1;
            if let Err(error) = self.executed(executed, logged, &mut recorded) {
                let near: String = recorded.near().map(|row| format!("\n    recorded {row}")).collect();
                return self.differs(format!("{what}: {error:#}\n    logged {executed:?}{near}"));
            }
        }
        recorded.pass_skipped();
        if let Some(extra) = recorded.statements.get(recorded.next) {
            self.differs(format!("{what}: recorded, but not in the log: {extra}"));
        }
        if session.statements != statements.len() as u64 {
            let counted = session.statements;
            self.differs(format!(
                "{what}: `statements` is {counted}, but there are {} rows",
                statements.len()
            ));
        }
        for (seq, statement) in statements.iter().enumerate() {
            if statement.seq != seq as u64 {
                return self.differs(format!("{what}: row {seq} carries seq {}", statement.seq));
            }
        }
    }

    fn identity(&mut self, what: &str, logged: &Session, session: &record::Session) {
        let user = session.pg_user.as_deref().unwrap_or_default();
        let database = session.database.as_deref().unwrap_or_default();
        // The log names both once the startup packet was read, and no database for a physical walsender.
        let wrong = |logged: &str, recorded: &str| !logged.is_empty() && logged != recorded;
        if wrong(&logged.user, user) || wrong(&logged.database, database) {
            self.differs(format!(
                "{what}: recorded as {user:?} on {database:?}, logged as {:?} on {:?}",
                logged.user, logged.database
            ));
        }
    }

    fn executed(
        &mut self,
        executed: &Executed,
        logged: &Session,
        recorded: &mut Recorded<'_>,
    ) -> anyhow::Result<()> {
        let rows = match &executed.said {
            Said::Query(text) => recorded.cover(text)?,
            Said::Refused(text) if text.is_empty() => recorded.outside(executed),
            Said::Refused(text) => recorded.cover_refused(text)?,
            Said::Execute { name, sql } => vec![recorded.execute(name, sql)?],
            Said::Function(_) => vec![recorded.one_of("function")?],
            Said::Replication(text) => {
                let row = recorded.one_of("replication")?;
                ensure!(row.sql.as_deref().is_some_and(|sql| same_text(sql, text)), "another command: {row}");
                vec![row]
            }
        };
        for row in &rows {
            let database = logged.database.is_empty() || row.database.as_deref() == Some(&logged.database);
            ensure!(
                row.pg_user.as_deref() == Some(&logged.user) && database,
                "recorded for {:?} on {:?}",
                row.pg_user,
                row.database
            );
        }
        if let (Some(params), [row]) = (&executed.params, rows.as_slice()) {
            self.parameters(params, row)?;
        }
        errors(executed, &rows)
    }

    fn parameters(&mut self, logged: &[Option<String>], row: &Statement) -> anyhow::Result<()> {
        let recorded = row.params.as_deref().unwrap_or_default();
        ensure!(
            recorded.len() == logged.len(),
            "{} parameters recorded, {} logged",
            recorded.len(),
            logged.len()
        );
        for (number, (recorded, logged)) in recorded.iter().zip(logged).enumerate() {
            ensure!(
                same_value(recorded.type_oid, recorded.value.as_deref(), logged.as_deref()),
                "parameter ${}: recorded {recorded:?}, logged {logged:?}",
                number + 1
            );
            self.compared.parameters += 1;
        }
        Ok(())
    }

    fn differs(&mut self, difference: String) {
        self.differences.push(difference);
    }

    fn verdict(self) -> anyhow::Result<Comparison> {
        if self.differences.is_empty() {
            return Ok(self.compared);
        }
        let shown = self.differences.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("\n");
        bail!("{} differences between the log and the record:\n{shown}", self.differences.len())
    }
}

/// The recorded statements of one session, and how far they are accounted for.
struct Recorded<'a> {
    statements: &'a [&'a Statement],
    next: usize,
}

impl<'a> Recorded<'a> {
    fn take(&mut self) -> anyhow::Result<&'a Statement> {
        let Some(statement) = self.statements.get(self.next) else {
            bail!("missing: the record of this session ends after {} statements", self.next);
        };
        self.next += 1;
        Ok(statement)
    }

    /// In no log are Executes that the server skipped after an error in their pipeline, and Executes of nothing
    /// (`exec_execute_message` returns early for them).
    fn pass_skipped(&mut self) {
        let unlogged = |row: &&Statement| {
            row.status == "skipped"
                || (row.protocol == "extended"
                    && row.status == "completed"
                    && row.sql.as_deref().is_some_and(|sql| skip_separators(sql).is_empty()))
        };
        while self.statements.get(self.next).is_some_and(unlogged) {
            self.next += 1;
        }
    }

    /// An error that the log ties to no statement: a malformed message, a Bind of a statement that does not exist.
    /// If a row was recorded for it, that has the same error.
    fn outside(&mut self, executed: &Executed) -> Vec<&'a Statement> {
        self.pass_skipped();
        let sqlstate = executed.error.as_ref().map(|(sqlstate, _)| sqlstate.as_str());
        match self.statements.get(self.next) {
            Some(row) if row.sqlstate.as_deref() == sqlstate => {
                self.next += 1;
                vec![row]
            }
            _ => Vec::new(),
        }
    }

    /// The rows around the place that was reached.
    fn near(&self) -> impl Iterator<Item = &'a Statement> {
        self.statements.iter().skip(self.next.saturating_sub(2)).take(4).copied()
    }

    fn execute(&mut self, name: &str, sql: &str) -> anyhow::Result<&'a Statement> {
        self.pass_skipped();
        let row = self.take()?;
        ensure!(row.sql.as_deref() == Some(sql), "another text: {:?}", row.sql);
        ensure!(row.statement_name.as_deref() == Some(name), "another name: {:?}", row.statement_name);
        Ok(row)
    }

    fn one_of(&mut self, protocol: &str) -> anyhow::Result<&'a Statement> {
        self.pass_skipped();
        let row = self.take()?;
        ensure!(row.protocol == protocol, "not {protocol}: {row}");
        Ok(row)
    }

    /// A refused statement came as a Query, or as a Parse or Bind: then the text is the same.
    fn cover_refused(&mut self, text: &str) -> anyhow::Result<Vec<&'a Statement>> {
        self.pass_skipped();
        if self.statements.get(self.next).is_some_and(|row| row.sql.as_deref() == Some(text)) {
            return Ok(vec![self.take()?]);
        }
        self.cover(text)
    }

    /// The rows of one query string: their texts stand in it, one after the other, with nothing between and
    /// around them but white space, semicolons and comments. An empty query string has one row.
    fn cover(&mut self, text: &str) -> anyhow::Result<Vec<&'a Statement>> {
        self.pass_skipped();
        let mut rows = vec![];
        let mut rest = text;
        while rows.is_empty() || !skip_separators(rest).is_empty() {
            let row = self.take()?;
            let Some(sql) = row.sql.as_deref() else { bail!("recorded without its text") };
            let Some(found) = find_statement(rest, sql.trim()) else {
                bail!("recorded {sql:?}, but this is left of the logged text: {rest:?}");
            };
            rest = found;
            rows.push(row);
        }
        Ok(rows)
    }
}

/// The statement that fails carries the error; those after it in the same query string are skipped.
fn errors(executed: &Executed, rows: &[&Statement]) -> anyhow::Result<()> {
    let failed: Vec<_> = rows.iter().filter(|row| row.sqlstate.is_some()).collect();
    if rows.is_empty() {
        return Ok(());
    }
    match (&executed.error, failed.as_slice()) {
        (None, []) => Ok(()),
        (Some((sqlstate, message)), [row]) => {
            ensure!(row.sqlstate.as_deref() == Some(sqlstate), "recorded SQLSTATE {:?}", row.sqlstate);
            ensure!(row.error_message.as_deref() == Some(message), "recorded error {:?}", row.error_message);
            Ok(())
        }
        (logged, recorded) => bail!("logged error {logged:?}, recorded {} errors", recorded.len()),
    }
}

/// Differences that a failure message shows.
const SHOWN: usize = 12;

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
