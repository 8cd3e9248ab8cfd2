//! The columns that a statement gives back, and which of them are masked.

use super::rules::{Applies, Relation, Rules};
use crate::session::Column;

/// What a statement gives back, column by column, as far as its text tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outputs {
    /// In this order.
    List(Vec<Output>),
    /// Any number of columns, of which each may be masked by this rule.
    All(Option<Applies>),
}

/// One column, or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// One column.
    One {
        /// Its name, if it has one of its own.
        name: Option<String>,
        /// The rule that masks it.
        rule: Option<Applies>,
        /// Which table's column it is, if it is just that.
        origin: Option<(Table, String)>,
    },
    /// All columns of a table, which have their own names.
    Table(Table),
    /// Any number of columns.
    Many(Option<Applies>),
}

/// A table, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Table {
    pub(super) schema: Option<String>,
    pub(super) name: String,
}

impl Table {
    pub(super) fn relation(&self) -> Relation<'_> {
        Relation { schema: self.schema.as_deref(), name: &self.name }
    }
}

/// The rule of two that comes first.
pub(super) fn either(one: Option<Applies>, other: Option<Applies>) -> Option<Applies> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Output {
    /// The rule that masks any of it.
    pub(super) fn any(&self, rules: &Rules) -> Option<Applies> {
        match self {
            Self::One { rule, .. } | Self::Many(rule) => *rule,
            Self::Table(table) => rules.relation(&table.relation()),
        }
    }

    fn is_one(&self) -> bool {
        matches!(self, Self::One { .. })
    }
}

impl Outputs {
    /// Nothing that is masked.
    pub(super) const CLEAR: Self = Self::All(None);

    /// The rule that masks any of them.
    pub(super) fn any(&self, rules: &Rules) -> Option<Applies> {
        match self {
            Self::All(rule) => *rule,
            Self::List(list) => list.iter().fold(None, |rule, output| either(rule, output.any(rules))),
        }
    }

    /// Whether it is known how many they are.
    pub(super) fn are_counted(&self) -> bool {
        matches!(self, Self::List(list) if list.iter().all(Output::is_one))
    }

    /// The rule that masks a column of this name; `renamed` are the names that the first ones have got instead.
    pub(super) fn column(&self, name: &str, renamed: &[&str], rules: &Rules) -> Option<Applies> {
        let list = match self {
            Self::All(rule) => return *rule,
            Self::List(list) => list,
        };
        if !renamed.is_empty() {
            if !self.are_counted() {
                return self.any(rules);
            }
            if let Some(at) = renamed.iter().position(|new| *new == name) {
                return list.get(at).and_then(|output| output.any(rules));
            }
        }
        list.iter().fold(None, |rule, output| {
            let own = match output {
                Output::One { name: Some(own), .. } if own != name => None,
                Output::One { rule, .. } | Output::Many(rule) => *rule,
                Output::Table(table) => rules.column(&table.relation(), name),
            };
            either(rule, own)
        })
    }

    /// Of two queries whose rows come one after the other.
    pub(super) fn united(self, other: Self, rules: &Rules) -> Self {
        let any = either(self.any(rules), other.any(rules));
        match (self, other) {
            (Self::List(mut one), Self::List(other))
                if one.len() == other.len() && one.iter().chain(&other).all(Output::is_one) =>
            {
                for (output, other) in one.iter_mut().zip(other) {
                    if let Output::One { rule, origin, .. } = output {
                        *rule = either(*rule, other.any(rules));
                        *origin = None;
                    }
                }
                Self::List(one)
            }
            _ => Self::All(any),
        }
    }

    /// The rule of each of `count` columns; `columns` describes them, if they are described at all.
    pub(super) fn resolve(&self, columns: &[Column], count: usize, rules: &Rules) -> Vec<Option<Applies>> {
        let list = match self {
            Self::All(rule) => return vec![*rule; count],
            Self::List(list) => list,
        };
        let any = self.any(rules);
        let Some((first, last)) = several(list) else {
            if list.len() != count {
                return vec![any; count];
            }
            return list.iter().map(|output| output.any(rules)).collect();
        };
        let (before, behind) = (first, list.len() - last - 1);
        if before + behind > count {
            return vec![any; count];
        }
        let within = list.get(first..=last).unwrap_or_default();
        (0..count)
            .map(|at| {
                if at < before {
                    list.get(at).and_then(|output| output.any(rules))
                } else if at >= count - behind {
                    list.get(list.len() - (count - at)).and_then(|output| output.any(rules))
                } else {
                    let name = columns.get(at).map(|column| &*column.name);
                    within.iter().fold(None, |rule, output| {
                        let own = match (output, name) {
                            (Output::Table(table), Some(name)) => rules.column(&table.relation(), name),
                            _ => output.any(rules),
                        };
                        either(rule, own)
                    })
                }
            })
            .collect()
    }

    /// Which table's column each of `columns` is, as far as the text proves it.
    pub(super) fn origins<'o>(&'o self, columns: &'o [Column]) -> Vec<(&'o Column, &'o Table, &'o str)> {
        let Self::List(list) = self else { return Vec::new() };
        let (first, last) = several(list).unwrap_or((list.len(), list.len()));
        let behind = list.len().saturating_sub(last + 1);
        let counted =
            if first == list.len() { list.len() == columns.len() } else { first + behind <= columns.len() };
        if !counted {
            return Vec::new();
        }
        let table = match list.get(first) {
            Some(Output::Table(table)) if first == last => Some(table),
            _ => None,
        };
        let origin = |(at, column): (usize, &'o Column)| {
            let output = if at < first {
                list.get(at)
            } else if at >= columns.len() - behind {
                list.get(list.len() - (columns.len() - at))
            } else {
                return table.map(|table| (column, table, &*column.name));
            };
            match output {
                Some(Output::One { origin: Some((table, name)), .. }) => Some((column, table, name.as_str())),
                _ => None,
            }
        };
        let stored = columns.iter().enumerate().filter(|(_, column)| column.table_oid != 0);
        stored.filter_map(origin).collect()
    }
}

/// The first and the last that stand for several columns.
fn several(list: &[Output]) -> Option<(usize, usize)> {
    let first = list.iter().position(|output| !output.is_one())?;
    let last = list.iter().rposition(|output| !output.is_one())?;
    Some((first, last))
}
