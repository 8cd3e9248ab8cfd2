//! Which sessions there were.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::Serialize;
use uuid::Uuid;

use super::files::{Dates, of_table};
use super::scan::{Scan, Wanted, row_groups, session_ids, sessions_with};
use super::value::{Row, rfc3339};
use super::{ReadError, Source};
use crate::record::{Keys, Table};
use crate::session::Micros;

/// Which sessions are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of this role.
    pub user: Option<String>,
    /// With this database.
    pub database: Option<String>,
    /// Started at this time or later.
    pub since: Option<Micros>,
    /// Started before this time.
    pub until: Option<Micros>,
    /// With such a statement.
    pub statement: StatementFilter,
    /// The latest so many.
    pub limit: Option<usize>,
}

/// Which statement a session must have; both for the same statement.
#[derive(Clone, Debug, Default)]
pub struct StatementFilter {
    /// With this in its text, in upper or lower case.
    pub text: Option<String>,
    /// With this status.
    pub status: Option<String>,
}

/// A row of `sessions`, or what is known of a session that has none yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/schema.md documents the columns")]
pub struct SessionRow {
    pub session_id: String,
    pub node: Option<String>,
    #[serde(serialize_with = "time")]
    pub started_at: Option<Micros>,
    #[serde(serialize_with = "time")]
    pub ended_at: Option<Micros>,
    pub end_reason: Option<String>,
    pub pg_user: Option<String>,
    pub database: Option<String>,
    pub application_name: Option<String>,
    pub client_addr: Option<String>,
    pub client_port: Option<i64>,
    pub transport: Option<String>,
    pub tls: Option<bool>,
    pub auth_method: Option<String>,
    pub backend_pid: Option<i64>,
    pub server_version: Option<String>,
    pub peer_pid: Option<i64>,
    pub peer_exe: Option<String>,
    pub container_id: Option<String>,
    pub pod: Option<String>,
    pub namespace: Option<String>,
    pub subject: Option<String>,
    pub statements: Option<i64>,
    pub errors: Option<i64>,
    pub bytes_in: Option<i64>,
    pub bytes_out: Option<i64>,
    pub gap_bytes: Option<i64>,
    pub partial: Option<bool>,
    pub protocol_error: Option<String>,
    pub host_pid: Option<i64>,
    pub server_pid: Option<i64>,
    pub server_port: Option<i64>,
    pub pod_uid: Option<String>,
    pub tls_version: Option<String>,
    pub tls_cipher: Option<String>,
    pub socket_bytes_in: Option<i64>,
    pub socket_bytes_out: Option<i64>,
    pub gss_encrypted: Option<bool>,
}

/// The sessions that a filter wants, by the time of their start. The flag says whether the limit left out some.
///
/// A session that has statements, but no row in `sessions` yet, is listed as far as it is known.
///
/// # Errors
///
/// There is no record, or a file cannot be read.
pub fn sessions(source: Source<'_>, filter: &Filter) -> Result<(Vec<SessionRow>, bool), ReadError> {
    super::settled(|| list(source, filter))
}

fn list(source: Source<'_>, filter: &Filter) -> Result<(Vec<SessionRow>, bool), ReadError> {
    let mut listing = Listing::new(filter);
    let dates = Dates { from: filter.since.map(|at| day(at, -1)), to: filter.until.map(|at| day(at, 1)) };
    for rows in Scan::new(source.keys, of_table(source.data_dir, Table::Sessions, dates)?, None) {
        for row in Row::all(&rows?) {
            listing.add(SessionRow::of(row));
        }
    }
    // A session's statements come after its start, however late.
    for file in of_table(source.data_dir, Table::Statements, Dates { to: None, ..dates })? {
        listing.add_statements(source.keys, &file)?;
    }
    Ok(listing.finish())
}

impl SessionRow {
    pub(super) fn of(row: Row<'_>) -> Self {
        Self {
            session_id: row.owned("session_id").unwrap_or_default(),
            node: row.owned("node"),
            started_at: row.time("started_at"),
            ended_at: row.time("ended_at"),
            end_reason: row.owned("end_reason"),
            pg_user: row.owned("pg_user"),
            database: row.owned("database"),
            application_name: row.owned("application_name"),
            client_addr: row.owned("client_addr"),
            client_port: row.number("client_port"),
            transport: row.owned("transport"),
            tls: row.flag("tls"),
            auth_method: row.owned("auth_method"),
            backend_pid: row.number("backend_pid"),
            server_version: row.owned("server_version"),
            peer_pid: row.number("peer_pid"),
            peer_exe: row.owned("peer_exe"),
            container_id: row.owned("container_id"),
            pod: row.owned("pod"),
            namespace: row.owned("namespace"),
            subject: row.owned("subject"),
            statements: row.number("statements"),
            errors: row.number("errors"),
            bytes_in: row.number("bytes_in"),
            bytes_out: row.number("bytes_out"),
            gap_bytes: row.number("gap_bytes"),
            partial: row.flag("partial"),
            protocol_error: row.owned("protocol_error"),
            host_pid: row.number("host_pid"),
            server_pid: row.number("server_pid"),
            server_port: row.number("server_port"),
            pod_uid: row.owned("pod_uid"),
            tls_version: row.owned("tls_version"),
            tls_cipher: row.owned("tls_cipher"),
            socket_bytes_in: row.number("socket_bytes_in"),
            socket_bytes_out: row.number("socket_bytes_out"),
            gss_encrypted: row.flag("gss_encrypted"),
        }
    }

    /// What a statement tells of a session that has no row of its own yet.
    pub(super) fn begin(row: Row<'_>) -> Self {
        Self {
            session_id: row.owned("session_id").unwrap_or_default(),
            node: row.owned("node"),
            started_at: row.time("started_at"),
            pg_user: row.owned("pg_user"),
            database: row.owned("database"),
            application_name: row.owned("application_name"),
            client_addr: row.owned("client_addr"),
            statements: Some(0),
            errors: Some(0),
            ..Self::default()
        }
    }

    /// Counts a statement of a session that has no row of its own yet.
    pub(super) fn count(&mut self, row: Row<'_>) {
        let failed = matches!(row.text("status"), Some("failed" | "canceled"));
        self.statements = self.statements.map(|count| count + 1);
        self.errors = self.errors.map(|count| count + i64::from(failed));
        self.application_name = row.owned("application_name").or(self.application_name.take());
    }

    /// Whether `other`, of the same session, knows better: the later of two rows has the end, or more statements.
    pub(super) fn is_superseded_by(&self, other: &Self) -> bool {
        (other.ended_at.is_some(), other.statements) > (self.ended_at.is_some(), self.statements)
    }
}

/// A list that is being made.
struct Listing<'a> {
    filter: &'a Filter,
    wanted_statement: Wanted,
    /// All sessions that have a row, wanted or not.
    known: HashSet<Uuid>,
    wanted: HashMap<Uuid, SessionRow>,
    /// Sessions without a row.
    open: HashMap<Uuid, SessionRow>,
    /// Sessions with a statement that the filter wants.
    matching: HashSet<Uuid>,
}

impl<'a> Listing<'a> {
    fn new(filter: &'a Filter) -> Self {
        Self {
            filter,
            wanted_statement: Wanted {
                text: filter.statement.text.as_deref().map(str::to_lowercase),
                status: filter.statement.status.clone(),
            },
            known: HashSet::new(),
            wanted: HashMap::new(),
            open: HashMap::new(),
            matching: HashSet::new(),
        }
    }

    fn add(&mut self, row: SessionRow) {
        let Ok(id) = row.session_id.parse() else { return };
        self.known.insert(id);
        if !self.filter.wants(&row) {
            return;
        }
        self.wanted
            .entry(id)
            .and_modify(|known| {
                if known.is_superseded_by(&row) {
                    known.clone_from(&row);
                }
            })
            .or_insert(row);
    }

    fn add_statements(&mut self, keys: &Keys, file: &Path) -> Result<(), ReadError> {
        let by_statement = self.by_statement();
        // Row groups with sessions that have no row, and with others that may have a wanted statement.
        let (mut open, mut searched) = (Vec::new(), Vec::new());
        session_ids(keys, file, |group, id| {
            let Ok(id) = id.parse::<Uuid>() else { return };
            let groups = if !self.known.contains(&id) {
                if !self.filter.wants_start(born(id)) {
                    return;
                }
                &mut open
            } else if by_statement && self.wanted.contains_key(&id) && !self.matching.contains(&id) {
                &mut searched
            } else {
                return;
            };
            if groups.last() != Some(&group) {
                groups.push(group);
            }
        })?;
        if by_statement && !(open.is_empty() && searched.is_empty()) {
            searched.extend(open.iter().copied());
            searched.sort_unstable();
            searched.dedup();
            let Self { wanted_statement, matching, .. } = self;
            sessions_with(keys, file, searched, wanted_statement, |id| matching.extend(id.parse::<Uuid>()))?;
        }
        if open.is_empty() {
            return Ok(());
        }
        for rows in row_groups(keys, file, open, COLUMNS)? {
            let rows =
                rows.map_err(|error| ReadError::File { path: file.to_owned(), source: error.into() })?;
            for row in Row::all(&rows) {
                self.add_statement(row);
            }
        }
        Ok(())
    }

    /// Adds what a statement tells of a session that has no row.
    fn add_statement(&mut self, row: Row<'_>) {
        let Some(id) = row.text("session_id").and_then(|id| id.parse().ok()) else { return };
        if !self.known.contains(&id) && self.filter.wants_start(born(id)) {
            self.open.entry(id).or_insert_with(|| SessionRow::begin(row)).count(row);
        }
    }

    /// Whether only sessions with a certain statement are wanted.
    fn by_statement(&self) -> bool {
        self.wanted_statement.text.is_some() || self.wanted_statement.status.is_some()
    }

    fn finish(self) -> (Vec<SessionRow>, bool) {
        let by_statement = self.by_statement();
        let open = self.open.into_iter().filter(|(_, row)| self.filter.wants(row));
        let mut rows: Vec<_> = self
            .wanted
            .into_iter()
            .chain(open)
            .filter(|(id, _)| !by_statement || self.matching.contains(id))
            .map(|(_, row)| row)
            .collect();
        rows.sort_by(|a, b| (a.started_at, &a.session_id).cmp(&(b.started_at, &b.session_id)));
        let excess = self.filter.limit.map_or(0, |limit| rows.len().saturating_sub(limit));
        rows.drain(..excess);
        (rows, excess > 0)
    }
}

impl Filter {
    fn wants(&self, row: &SessionRow) -> bool {
        let is = |wanted: &Option<String>, value: &Option<String>| wanted.is_none() || wanted == value;
        is(&self.user, &row.pg_user) && is(&self.database, &row.database) && self.wants_start(row.started_at)
    }

    fn wants_start(&self, at: Option<Micros>) -> bool {
        at.is_none_or(|at| {
            self.since.is_none_or(|since| since <= at) && self.until.is_none_or(|until| at < until)
        })
    }
}

/// When a session began, by its id: a UUIDv7 has the milliseconds of its making (RFC 9562, section 5.7).
pub(super) fn born(id: Uuid) -> Option<Micros> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    let seconds = i64::try_from(seconds).ok()?;
    Some(Micros(seconds.checked_mul(1_000_000)?.checked_add(i64::from(nanoseconds / 1_000))?))
}

/// The date of a point in time, and some days on.
pub(super) fn day(at: Micros, days: i64) -> Date {
    let at =
        Timestamp::from_microsecond(at.0).unwrap_or(if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX });
    at.to_zoned(TimeZone::UTC).date().saturating_add(days.days())
}

#[expect(clippy::ref_option, reason = "serde hands fields over by reference")]
fn time<S: serde::Serializer>(at: &Option<Micros>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(rfc3339).serialize(serializer)
}

/// What is read of statements.
const COLUMNS: &[&str] =
    &["session_id", "node", "started_at", "pg_user", "database", "application_name", "client_addr", "status"];
