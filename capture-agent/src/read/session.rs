//! One session, statement by statement.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::path::Path;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::files::{Dates, of_table};
use super::scan::{Scan, row_groups, session_ids};
use super::sessions::{SessionRow, born, day};
use super::value::Row;
use super::{ReadError, Source};
use crate::record::{Keys, Table};
use crate::session::Micros;

/// What a person's name for a session stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No session.
    None,
    /// This one.
    One(Box<SessionRow>),
    /// Several, the first of them.
    Several(Vec<SessionRow>),
}

/// What stands in a session, in its order.
#[derive(Clone, Debug)]
pub enum Item {
    /// A statement.
    Statement(Box<Statement>),
    /// Something that is missing.
    Gap(Gap),
    /// A decision: after the statement that it is about.
    Decision(Box<Decision>),
}

/// A row of `statements`, with its rows of `results`.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "docs/schema.md documents the columns")]
pub struct Statement {
    pub seq: i64,
    pub started_at: Option<Micros>,
    pub duration_us: Option<i64>,
    pub protocol: Option<String>,
    pub sql: Option<String>,
    pub statement_name: Option<String>,
    pub params: Vec<Option<String>>,
    pub columns: Vec<Option<String>>,
    pub rows: Option<i64>,
    pub command_tag: Option<String>,
    pub status: Option<String>,
    pub sqlstate: Option<String>,
    pub error_message: Option<String>,
    pub complete: bool,
    pub results_truncated: bool,
    pub params_truncated: bool,
    pub verdict: Option<String>,
    pub guardrail: Option<String>,
    pub decided_by: Option<String>,
    pub held_us: Option<i64>,
    /// The rows that were recorded; none if they were not asked for.
    pub results: Option<Vec<Vec<Option<String>>>>,
    /// All columns, by name.
    pub json: Map<String, Value>,
}

/// A row of `gaps`.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "docs/schema.md documents the columns")]
pub struct Gap {
    pub at: Option<Micros>,
    pub direction: Option<String>,
    pub offset: Option<i64>,
    pub length: Option<i64>,
    pub reason: Option<String>,
    pub lost_table: Option<String>,
    pub lost_rows: Option<i64>,
    /// All columns, by name.
    pub json: Map<String, Value>,
}

/// A row of `decisions`.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "docs/schema.md documents the columns")]
pub struct Decision {
    pub at: Option<Micros>,
    pub kind: Option<String>,
    pub seq: Option<i64>,
    pub guardrail: Option<String>,
    pub action: Option<String>,
    pub verdict: Option<String>,
    pub reason: Option<String>,
    pub decided_by: Option<String>,
    pub held_us: Option<i64>,
    pub sql: Option<String>,
    pub message: Option<String>,
    /// All columns, by name.
    pub json: Map<String, Value>,
}

/// The sessions whose id is `name`, or begins or ends with it.
///
/// # Errors
///
/// There is no record, or a file cannot be read.
pub fn find(source: Source<'_>, name: &str) -> Result<Found, ReadError> {
    super::settled(|| look(source, name))
}

fn look(source: Source<'_>, name: &str) -> Result<Found, ReadError> {
    let name = name.to_ascii_lowercase();
    let mut found: BTreeMap<String, SessionRow> = BTreeMap::new();
    let exact = name.parse::<Uuid>().ok().map(|id| id.hyphenated().to_string());
    let dates = exact.as_deref().map(dates_of).unwrap_or_default();
    let names = |id: &str| match &exact {
        Some(exact) => exact == id,
        None => name.len() >= SHORTEST_NAME && (id.starts_with(&name) || id.ends_with(&name)),
    };
    let mut scan = Scan::new(
        source.keys,
        of_table(source.data_dir, Table::Sessions, Dates { to: dates.from.and(dates.to), ..dates })?,
        None,
    );
    if let Some(id) = &exact {
        scan = scan.of_session(id);
    }
    for rows in scan {
        for row in Row::all(&rows?) {
            if !row.text("session_id").is_some_and(names) {
                continue;
            }
            let row = SessionRow::of(row);
            if let Some(known) = found.get_mut(&row.session_id) {
                if known.is_superseded_by(&row) {
                    *known = row;
                }
            } else if found.len() < CANDIDATES {
                found.insert(row.session_id.clone(), row);
            }
        }
    }
    if found.is_empty() {
        // A session has no row before it ends.
        for file in of_table(source.data_dir, Table::Statements, Dates { to: None, ..dates })? {
            add_open(source.keys, &file, &names, &mut found)?;
        }
    }
    let mut found: Vec<_> = found.into_values().collect();
    Ok(match found.len() {
        0 => Found::None,
        1 => found.pop().map_or(Found::None, |row| Found::One(Box::new(row))),
        _ => Found::Several(found),
    })
}

/// What a session said, with rows of results or without. Reads as it goes; what stands in memory is one batch of
/// each table, and the session's gaps.
///
/// # Errors
///
/// A file cannot be read.
pub fn show(source: Source<'_>, session: &SessionRow, results: bool) -> Result<Shown, ReadError> {
    let id = session.session_id.as_str();
    let mut dates = dates_of(id);
    if let Some(started_at) = session.started_at {
        dates.from = Some(day(started_at, -1).min(dates.from.unwrap_or(jiff::civil::Date::MAX)));
    }
    dates.to = session.ended_at.map(|at| day(at, 1));
    let scan = |table, dates| {
        let files = of_table(source.data_dir, table, dates)?;
        Ok(Scan::new(source.keys, files, None).of_session(id))
    };
    let mut gaps = Vec::new();
    // Gaps are dated when they are noticed.
    let all = Dates { to: None, ..dates };
    for rows in scan(Table::Gaps, all)? {
        gaps.extend(Row::all(&rows?).map(Gap::of));
    }
    gaps.sort_by_key(|gap| gap.at);
    let rows = if results { Some(ResultRows::new(scan(Table::Results, dates)?)) } else { None };
    Ok(Shown {
        statements: Rows::new(scan(Table::Statements, dates)?, Statement::of),
        gaps: gaps.into_iter().peekable(),
        decisions: Rows::new(scan(Table::Decisions, all)?, Decision::of),
        rows,
    })
}

/// What a session said, in its order.
pub struct Shown {
    statements: Rows<Statement>,
    decisions: Rows<Decision>,
    gaps: Peekable<std::vec::IntoIter<Gap>>,
    rows: Option<ResultRows>,
}

impl Iterator for Shown {
    type Item = Result<Item, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        let before = match self.statements.peek() {
            None => None,
            Some(Err(_)) => return self.statements.next().and_then(Result::err).map(Err),
            Some(Ok(statement)) => Some(statement.started_at),
        };
        let comes = |at: Option<Micros>| before.is_none_or(|before| at < before);
        let gap = self.gaps.peek().map(|gap| gap.at).filter(|at| comes(*at));
        match self.decisions.peek() {
            Some(Ok(decision)) if comes(decision.at) && gap.is_none_or(|gap| decision.at <= gap) => {
                return Some(self.decisions.next()?.map(|decision| Item::Decision(Box::new(decision))));
            }
            Some(Err(_)) => return self.decisions.next().and_then(Result::err).map(Err),
            _ => {}
        }
        if gap.is_some() {
            return self.gaps.next().map(|gap| Ok(Item::Gap(gap)));
        }
        let mut statement = match self.statements.next()? {
            Ok(statement) => statement,
            Err(error) => return Some(Err(error)),
        };
        if let Some(rows) = &mut self.rows {
            match rows.of(statement.seq) {
                Ok(rows) => statement.results = Some(rows),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(Item::Statement(Box::new(statement))))
    }
}

impl Gap {
    fn of(row: Row<'_>) -> Self {
        Self {
            at: row.time("at"),
            direction: row.owned("direction"),
            offset: row.number("offset"),
            length: row.number("length"),
            reason: row.owned("reason"),
            lost_table: row.owned("lost_table"),
            lost_rows: row.number("lost_rows"),
            json: row.json(),
        }
    }
}

impl Statement {
    fn of(row: Row<'_>) -> Self {
        Self {
            seq: row.number("seq").unwrap_or_default(),
            started_at: row.time("started_at"),
            duration_us: row.number("duration_us"),
            protocol: row.owned("protocol"),
            sql: row.owned("sql"),
            statement_name: row.owned("statement_name"),
            params: row.texts_in("params", "value"),
            columns: row.texts_in("columns", "name"),
            rows: row.number("rows"),
            command_tag: row.owned("command_tag"),
            status: row.owned("status"),
            sqlstate: row.owned("sqlstate"),
            error_message: row.owned("error_message"),
            complete: row.flag("complete").unwrap_or(true),
            results_truncated: row.flag("results_truncated").unwrap_or_default(),
            params_truncated: row.flag("params_truncated").unwrap_or_default(),
            verdict: row.owned("verdict"),
            guardrail: row.owned("guardrail"),
            decided_by: row.owned("decided_by"),
            held_us: row.number("held_us"),
            results: None,
            json: row.json(),
        }
    }
}

impl Decision {
    fn of(row: Row<'_>) -> Self {
        Self {
            at: row.time("at"),
            kind: row.owned("kind"),
            seq: row.number("seq"),
            guardrail: row.owned("guardrail"),
            action: row.owned("action"),
            verdict: row.owned("verdict"),
            reason: row.owned("reason"),
            decided_by: row.owned("decided_by"),
            held_us: row.number("held_us"),
            sql: row.owned("sql"),
            message: row.owned("message"),
            json: row.json(),
        }
    }
}

/// A session's statements or decisions, a batch at a time. Files stand in the order in which they were written, and
/// those of a session are recorded in their order.
struct Rows<T> {
    scan: Scan,
    of: fn(Row<'_>) -> T,
    batch: std::vec::IntoIter<T>,
    peeked: Option<Result<T, ReadError>>,
}

impl<T> Rows<T> {
    fn new(scan: Scan, of: fn(Row<'_>) -> T) -> Self {
        Self { scan, of, batch: Vec::new().into_iter(), peeked: None }
    }

    fn peek(&mut self) -> Option<&Result<T, ReadError>> {
        if self.peeked.is_none() {
            self.peeked = self.read();
        }
        self.peeked.as_ref()
    }

    fn next(&mut self) -> Option<Result<T, ReadError>> {
        self.peeked.take().or_else(|| self.read())
    }

    fn read(&mut self) -> Option<Result<T, ReadError>> {
        loop {
            if let Some(row) = self.batch.next() {
                return Some(Ok(row));
            }
            match self.scan.next()? {
                Ok(rows) => self.batch = Row::all(&rows).map(self.of).collect::<Vec<_>>().into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A session's rows of results, a batch at a time.
struct ResultRows {
    scan: Scan,
    batch: Peekable<std::vec::IntoIter<(i64, Vec<Option<String>>)>>,
}

impl ResultRows {
    fn new(scan: Scan) -> Self {
        Self { scan, batch: Vec::new().into_iter().peekable() }
    }

    /// The rows of a statement. Asked for in the order of the statements.
    fn of(&mut self, seq: i64) -> Result<Vec<Vec<Option<String>>>, ReadError> {
        let mut rows = Vec::new();
        loop {
            while let Some((of, values)) = self.batch.next_if(|(of, _)| *of <= seq) {
                if of == seq {
                    rows.push(values);
                }
            }
            if self.batch.peek().is_some() {
                return Ok(rows);
            }
            let Some(batch) = self.scan.next().transpose()? else { return Ok(rows) };
            let batch = Row::all(&batch).map(|row| (row.number("seq").unwrap_or(-1), row.texts("values")));
            self.batch = batch.collect::<Vec<_>>().into_iter().peekable();
        }
    }
}

/// Adds the sessions that have statements in a file and whose id `names` accepts.
fn add_open(
    keys: &Keys,
    file: &Path,
    names: &impl Fn(&str) -> bool,
    found: &mut BTreeMap<String, SessionRow>,
) -> Result<(), ReadError> {
    let mut groups = Vec::new();
    session_ids(keys, file, |group, id| {
        if names(id) && groups.last() != Some(&group) {
            groups.push(group);
        }
    })?;
    if groups.is_empty() {
        return Ok(());
    }
    for rows in row_groups(keys, file, groups, OPEN_COLUMNS)? {
        let rows = rows.map_err(|error| ReadError::File { path: file.to_owned(), source: error.into() })?;
        for row in Row::all(&rows) {
            let Some(id) = row.text("session_id").filter(|id| names(id)) else { continue };
            if found.len() < CANDIDATES || found.contains_key(id) {
                found.entry(id.to_owned()).or_insert_with(|| SessionRow::begin(row)).count(row);
            }
        }
    }
    Ok(())
}

/// The dates in which a session may have begun, by its id, with a day to spare. The end is none if there is no
/// telling.
fn dates_of(id: &str) -> Dates {
    let born = id.parse().ok().and_then(born);
    Dates { from: born.map(|at| day(at, -1)), to: born.map(|at| day(at, 1)) }
}

/// Candidates that are listed for an ambiguous name.
const CANDIDATES: usize = 20;

/// A shorter name fits too many sessions to be meant.
const SHORTEST_NAME: usize = 4;

/// What is read of statements to describe a session that has no row of its own yet.
const OPEN_COLUMNS: &[&str] =
    &["session_id", "node", "started_at", "pg_user", "database", "application_name", "client_addr", "status"];
