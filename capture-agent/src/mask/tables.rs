//! The columns of tables, as one session has last seen them whole: what INSERT and COPY mean that name none.
//!
//! A name may mean another table at any time, and a table may have other columns. What the agent sees of that makes it
//! forget; what it cannot see changes the number of columns in all but odd cases, and then what was seen is not used
//! either.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::outputs::{Output, Outputs, Table};
use super::rules::Rules;
use crate::session::{Column, Exchange, Status};

/// The names of a table's columns, in order.
pub(super) type Columns = Arc<[Box<str>]>;

/// What one session has seen.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: Vec<(Table, Columns)>,
    /// Which of the [`Changes`] it knows of.
    changes: u64,
    /// Whether a setting or a table was changed that COMMIT may make others of.
    pending: bool,
}

/// How often tables were changed, by whichever session.
#[derive(Debug, Default)]
pub(super) struct Changes(u64);

impl Tables {
    /// Takes from a described result the columns of the table that it is all of, if a rule is about that. Whether they are
    /// others than before.
    pub(super) fn see(
        &mut self,
        outputs: &Outputs,
        columns: &[Column],
        rules: &Rules,
        changes: &Changes,
    ) -> bool {
        let Outputs::List(list) = outputs else { return false };
        let [Output::Table(table)] = list.as_slice() else { return false };
        let first = columns.first().filter(|first| first.table_oid != 0 && first.attnum > 0);
        let Some(first) = first.filter(|_| rules.relation(&table.relation()).is_some()) else { return false };
        let whole = columns.iter().all(|column| column.table_oid == first.table_oid)
            && columns.iter().zip(columns.iter().skip(1)).all(|(one, next)| one.attnum < next.attnum);
        if !whole {
            return false;
        }
        let names: Columns = columns.iter().map(|column| column.name.as_ref().into()).collect();
        if self.columns(table, changes) == Some(&names) {
            return false;
        }
        self.known.retain(|(known, _)| known != table);
        if self.known.len() >= MOST_TABLES {
            self.known.clear();
        }
        self.known.push((table.clone(), names));
        true
    }

    /// The columns of a table that is written like this, if they are known.
    pub(super) fn columns(&mut self, table: &Table, changes: &Changes) -> Option<&Columns> {
        self.learn_of(changes);
        self.known.iter().find(|(known, _)| known == table).map(|(_, columns)| columns)
    }

    /// A statement of the session is over. Whether what was seen may hold no more.
    pub(super) fn after(&mut self, exchange: &Exchange, changes: &mut Changes) -> bool {
        let tag = exchange.command_tag.as_deref().unwrap_or_default();
        let command = tag.split(' ').next().unwrap_or_default();
        let ended = matches!(exchange.status, Status::Completed | Status::Suspended);
        if ended
            && (PLAIN.contains(&command) || (READS.contains(&command) && reads_only(exchange.sql.as_deref())))
        {
            return false;
        }
        if ended && command == "COMMIT" && !self.pending {
            return false;
        }
        self.pending = !matches!(command, "COMMIT" | "ROLLBACK");
        if ended && !OWN.contains(&command) {
            changes.0 += 1;
        }
        self.forget();
        true
    }

    /// Anything may have happened.
    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    fn learn_of(&mut self, changes: &Changes) {
        if self.changes != changes.0 {
            self.changes = changes.0;
            self.forget();
        }
    }
}

/// Whether a text whose tag is SELECT, or none, makes no table and leaves the settings alone.
fn reads_only(text: Option<&str>) -> bool {
    text.is_some_and(|text| !SUSPICIOUS.is_match(text))
}

/// What executes a prepared statement does not tell what that is, and names may be spelt otherwise.
static SUSPICIOUS: LazyLock<Regex> = LazyLock::new(|| {
    // A constant that the tests look at.
    Regex::new(r#"(?i)into|create|set_config|search_path|execute|&""#).unwrap_or_else(|_| unreachable!())
});

/// What may be no more than reading; a portal that is suspended, and an empty query, have no tag.
const READS: [&str; 2] = ["SELECT", ""];
/// Commands that change neither tables nor settings.
const PLAIN: [&str; 15] = [
    "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "FETCH", "MOVE", "BEGIN", "START", "SHOW", "PREPARE",
    "DECLARE", "CLOSE", "LISTEN", "NOTIFY",
];
/// Commands that change neither tables nor other sessions' settings.
const OWN: [&str; 8] = ["SET", "RESET", "DISCARD", "DEALLOCATE", "ROLLBACK", "SAVEPOINT", "RELEASE", "LOCK"];
/// Tables that are remembered of a session: more than rules name.
const MOST_TABLES: usize = 64;
