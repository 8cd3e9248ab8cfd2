//! Retention: which files go, which would but stay because somebody holds them, and that they are gone.

use std::collections::HashSet;

use arrow::array::{Array as _, AsArray as _, StringArray};
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use ulid::Ulid;
use uuid::Uuid;

use super::holds::{Hold, Whose};
use crate::record::{Archive, StoredFile, Table};
use crate::seal::Sealed;

/// What legal holds keep, as far as it was looked up.
#[derive(Debug, Default)]
pub(super) struct Held {
    sessions: HashSet<Uuid>,
    users: HashSet<String>,
    /// Sessions of held roles.
    of_users: HashSet<Uuid>,
    /// Files that were looked through for them.
    seen: HashSet<Ulid>,
}

impl Held {
    /// Takes over what is held now.
    pub(super) fn set(&mut self, holds: &[Hold]) {
        self.sessions.clear();
        let mut users = HashSet::new();
        for hold in holds {
            match &hold.whose {
                Whose::Session(id) => drop(self.sessions.insert(*id)),
                Whose::User(name) => drop(users.insert(name.clone())),
            }
        }
        if users != self.users {
            self.users = users;
            self.of_users.clear();
            self.seen.clear();
        }
    }

    /// Looks up the sessions of held roles, in files that were not looked through yet. Statements tell of a session before it
    /// has ended.
    pub(super) fn look(&mut self, archive: &Archive, files: &[StoredFile]) -> Result<(), ParquetError> {
        if self.users.is_empty() {
            return Ok(());
        }
        for file in files.iter().filter(|file| has_users(file.table)) {
            if self.seen.contains(&file.id) {
                continue;
            }
            let Self { users, of_users, .. } = self;
            let mut add = |user: Option<&str>, session: Option<&str>| {
                if user.is_some_and(|user| users.contains(user)) {
                    of_users.extend(session.and_then(|id| id.parse::<Uuid>().ok()));
                }
                false
            };
            any(archive, file, &mut add)?;
            self.seen.insert(file.id);
        }
        Ok(())
    }

    /// Whether a file has a row that is held.
    pub(super) fn has(
        &self,
        archive: &Archive,
        file: &StoredFile,
        sealed: Option<&Sealed>,
    ) -> Result<bool, ParquetError> {
        if self.users.is_empty() && !self.sessions.iter().any(|id| may_have(sealed, id)) {
            return Ok(false);
        }
        any(archive, file, &mut |user, session| {
            user.is_some_and(|user| self.users.contains(user))
                || session
                    .and_then(|id| id.parse::<Uuid>().ok())
                    .is_some_and(|id| self.sessions.contains(&id) || self.of_users.contains(&id))
        })
    }
}

/// Whether a file can have rows of a session, as its seal says.
fn may_have(sealed: Option<&Sealed>, id: &Uuid) -> bool {
    let Some(Sealed { sessions: Some((first, last)), .. }) = sealed else { return true };
    let id = id.hyphenated().to_string();
    *first <= id && id <= *last
}

fn has_users(table: Table) -> bool {
    matches!(table, Table::Sessions | Table::Statements | Table::Decisions)
}

/// Whether `is` says so of any row's role and session.
fn any(
    archive: &Archive,
    file: &StoredFile,
    is: &mut impl FnMut(Option<&str>, Option<&str>) -> bool,
) -> Result<bool, ParquetError> {
    let builder = archive.open(file)?;
    let columns: &[&str] = if has_users(file.table) { &["pg_user", "session_id"] } else { &["session_id"] };
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    for rows in builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()? {
        let rows = rows?;
        let text = |name: &str| rows.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let (users, sessions) = (text("pg_user"), text("session_id"));
        for at in 0..rows.num_rows() {
            if is(value(users, at), value(sessions, at)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn value(column: Option<&StringArray>, at: usize) -> Option<&str> {
    column.filter(|column| column.is_valid(at)).map(|column| column.value(at))
}

/// Rows that are looked at together.
const BATCH_ROWS: usize = 8_192;
