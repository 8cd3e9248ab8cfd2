//! How long the record is kept.

use serde::Deserialize;

use super::bytes::some_bytes;
use crate::keep::{Age, Rule};
use crate::record::Table;

/// How long files are kept: each rule alone removes what it says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// The tables; all if none is named.
    #[serde(default)]
    tables: Option<Vec<String>>,
    /// A file goes when it is older.
    age: Option<Age>,
    /// The oldest files go while all have more bytes together.
    #[serde(default, deserialize_with = "some_bytes")]
    bytes: Option<u64>,
    /// Files go also before it is confirmed that they are uploaded.
    #[serde(default)]
    unconfirmed: bool,
}

impl Retention {
    /// The same for those who remove.
    pub fn rule(&self) -> Rule {
        let named = |table: &Table| {
            self.tables.as_ref().is_none_or(|tables| tables.iter().any(|name| name == table.name()))
        };
        let Self { age, bytes, unconfirmed, .. } = *self;
        Rule { tables: Table::ALL.into_iter().filter(named).collect(), age, bytes, unconfirmed }
    }

    /// Whether what is set makes sense.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.age.is_none() && self.bytes.is_none() {
            return Err("`[[retention]]` needs `age`, such as \"90d\", or `bytes`, or both".into());
        }
        let unknown =
            self.tables.iter().flatten().find(|name| !Table::ALL.iter().any(|table| table.name() == *name));
        if let Some(name) = unknown {
            let names = Table::ALL.map(Table::name).join(", ");
            return Err(format!("`retention.tables` names {name:?}; expected some of {names}"));
        }
        Ok(())
    }
}
