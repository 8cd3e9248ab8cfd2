//! Which table's column an object id and number stand for, learned from statements that prove it.

use std::collections::HashMap;
use std::sync::Arc;

use super::outputs::{Outputs, Table, either};
use super::rules::{Applies, Rules};
use crate::session::{Column, SessionInfo};

/// What is known of all servers' tables. It holds no values, and is lost with the agent.
#[derive(Debug, Default)]
pub(super) struct Learned {
    databases: HashMap<(u32, Arc<str>), Columns>,
    columns: usize,
}

type Columns = HashMap<(u32, i16), (Table, Box<str>), foldhash::fast::RandomState>;

impl Learned {
    /// Takes from a described result what its statement proves.
    pub(super) fn learn(&mut self, session: &SessionInfo, outputs: &Outputs, columns: &[Column]) {
        let origins = outputs.origins(columns);
        if origins.is_empty() {
            return;
        }
        if self.columns > MOST_COLUMNS {
            // What is not known is masked.
            *self = Self::default();
        }
        let known = self.databases.entry(database(session)).or_default();
        for (column, table, name) in origins {
            let place = (column.table_oid, column.attnum);
            if known.get(&place).is_none_or(|(known, old)| known != table || **old != *name) {
                known.insert(place, (table.clone(), name.into()));
                self.columns += 1;
            }
        }
    }

    /// Tables may have changed their names, or columns.
    pub(super) fn forget(&mut self, session: &SessionInfo) {
        if !self.databases.is_empty() {
            self.databases.remove(&database(session));
        }
    }

    /// Adds what is known of columns to the rules that their statement gives them. Where that says nothing, as of a
    /// cursor's rows, what is known is all there is.
    pub(super) fn apply(
        &self,
        session: &SessionInfo,
        columns: &[Column],
        rules: &Rules,
        alone: bool,
        masked: &mut [Option<Applies>],
    ) {
        let known = self.databases.get(&database(session));
        for (column, masked) in columns.iter().zip(masked) {
            let known = known.and_then(|known| known.get(&(column.table_oid, column.attnum)));
            let Some((table, name)) = known.filter(|_| column.table_oid != 0) else { continue };
            let rule = rules.column(&table.relation(), name);
            *masked = if alone { rule } else { either(*masked, rule) };
        }
    }
}

fn database(session: &SessionInfo) -> (u32, Arc<str>) {
    let name = session.database.clone().or_else(|| session.user.clone());
    (session.origin.server.pid, name.unwrap_or_else(|| Arc::from("")))
}

/// Columns that are remembered: those of some thousand tables.
const MOST_COLUMNS: usize = 65_536;
