//! The rules that are about one session, taken together.

use super::params::Params;
use crate::policy::{ColumnPattern, MaskRule, ParamMask, StatementFacts, Strategy, ValuePattern};

/// The rule that masks something: of several, the first one in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Applies(pub(super) u16);

/// Nothing but what is masked always.
pub(super) const ALWAYS: Applies = Applies(u16::MAX);

/// All rules about a session.
#[derive(Debug, Default)]
pub(super) struct Rules {
    strategies: Vec<Strategy>,
    columns: Vec<(ColumnPattern, Applies)>,
    patterns: Vec<(ValuePattern, Applies)>,
    params: Vec<(ParamMask, Applies)>,
    /// The tables' names in lower case; none if a rule is about columns of any table.
    tables: Option<Vec<String>>,
}

impl Rules {
    pub(super) fn new<'r>(rules: impl Iterator<Item = &'r MaskRule>) -> Self {
        let mut all = Self { tables: Some(Vec::new()), ..Self::default() };
        for (index, rule) in rules.enumerate() {
            let applies = Applies(u16::try_from(index).unwrap_or(u16::MAX - 1));
            all.strategies.push(rule.strategy);
            for column in &rule.columns {
                match (&column.table, &mut all.tables) {
                    (Some(table), Some(tables)) => tables.push(table.to_lowercase()),
                    _ => all.tables = None,
                }
                all.columns.push((column.clone(), applies));
            }
            all.patterns.extend(rule.patterns.iter().map(|pattern| (*pattern, applies)));
            all.params.extend(rule.params.clone().map(|params| (params, applies)));
        }
        all
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.strategies.is_empty()
    }

    /// Whether any is about columns.
    pub(super) fn have_columns(&self) -> bool {
        !self.columns.is_empty()
    }

    /// What the rule leaves of a value.
    pub(super) fn strategy(&self, rule: Applies) -> Strategy {
        self.strategies.get(usize::from(rule.0)).copied().unwrap_or_default()
    }

    /// The patterns, each with its rule.
    pub(super) fn patterns(&self) -> impl Iterator<Item = (ValuePattern, Applies)> + '_ {
        self.patterns.iter().copied()
    }

    /// Whether there are any.
    pub(super) fn have_patterns(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Whether any is about parameters by their numbers, or all of them.
    pub(super) fn have_params(&self) -> bool {
        !self.params.is_empty()
    }

    /// Whether what a statement does decides about its parameters.
    pub(super) fn ask_about_statements(&self) -> bool {
        self.params.iter().any(|(params, _)| params.asks())
    }

    /// The parameters of a statement that are masked by their numbers; without a statement, those of any.
    pub(super) fn params(&self, stmt: Option<&StatementFacts>) -> Params {
        let mut all = Params::default();
        for (params, rule) in self.params.iter().filter(|(params, _)| params.is_about(stmt)) {
            match &params.numbers {
                Some(numbers) => numbers.iter().for_each(|number| all.add(usize::from(*number), *rule)),
                None => all.add_all(*rule),
            }
        }
        all
    }

    /// The rule for what may be of any masked column.
    pub(super) fn any_column(&self) -> Option<Applies> {
        self.columns.first().map(|(_, rule)| *rule)
    }

    /// The rule about a column of a relation, whose schema may not be known.
    pub(super) fn column(&self, relation: &Relation<'_>, column: &str) -> Option<Applies> {
        self.columns
            .iter()
            .find(|(pattern, _)| is_about(pattern, relation) && is(pattern.column.as_deref(), Some(column)))
            .map(|(_, rule)| *rule)
    }

    /// The rule about any column of that name.
    pub(super) fn column_named(&self, column: &str) -> Option<Applies> {
        self.columns
            .iter()
            .find(|(pattern, _)| is(pattern.column.as_deref(), Some(column)))
            .map(|(_, rule)| *rule)
    }

    /// The rule about any column of a relation.
    pub(super) fn relation(&self, relation: &Relation<'_>) -> Option<Applies> {
        self.columns.iter().find(|(pattern, _)| is_about(pattern, relation)).map(|(_, rule)| *rule)
    }

    /// Whether a statement with this text may read or write a masked column at all. Names are compared without case,
    /// and where they may be spelt otherwise, they may be any.
    pub(super) fn may_be_about(&self, text: &str) -> bool {
        if self.columns.is_empty() {
            return false;
        }
        let Some(tables) = &self.tables else { return true };
        let folded = |byte: u8| byte.to_ascii_lowercase();
        let has = |name: &str| {
            let name = name.as_bytes();
            !name.is_ascii()
                || name.contains(&b'"')
                || text
                    .as_bytes()
                    .windows(name.len())
                    .any(|window| window.iter().zip(name).all(|(&byte, &wanted)| folded(byte) == wanted))
        };
        tables.iter().any(|table| has(table)) || memchr::memmem::find(text.as_bytes(), b"&\"").is_some()
    }
}

/// A relation as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Relation<'t> {
    /// Its schema, if it is written.
    pub(super) schema: Option<&'t str>,
    /// Its name.
    pub(super) name: &'t str,
}

/// A name of which nothing is known may be the one.
fn is(wanted: Option<&str>, name: Option<&str>) -> bool {
    match (wanted, name) {
        (Some(wanted), Some(name)) => wanted.eq_ignore_ascii_case(name),
        _ => true,
    }
}

fn is_about(pattern: &ColumnPattern, relation: &Relation<'_>) -> bool {
    is(pattern.table.as_deref(), Some(relation.name)) && is(pattern.schema.as_deref(), relation.schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, RowLimits};

    fn rules(columns: &str) -> Rules {
        let text = format!("[[mask]]\nname = 'm'\ncolumns = [{columns}]\n");
        Rules::new(Policy::compile(&text, RowLimits::default()).unwrap().mask_rules().iter())
    }

    #[test]
    fn a_schema_that_is_not_written_may_be_the_one() {
        let rules = rules("'public.customers.ssn', 'orders.*'");
        let of = |schema, name| Relation { schema, name };
        assert!(rules.column(&of(None, "customers"), "ssn").is_some());
        assert!(rules.column(&of(Some("public"), "Customers"), "SSN").is_some());
        assert!(rules.column(&of(Some("other"), "customers"), "ssn").is_none());
        assert!(rules.column(&of(None, "customers"), "id").is_none());
        assert!(rules.column(&of(Some("any"), "orders"), "id").is_some());
        assert!(rules.relation(&of(None, "customers")).is_some() && rules.relation(&of(None, "x")).is_none());
    }

    #[test]
    fn texts_without_the_tables_names_are_about_others() {
        let people = rules("'customers.ssn'");
        assert!(people.may_be_about("select * from CUSTOMERS"));
        assert!(people.may_be_about("select * from U&\"c\\0075stomers\""));
        assert!(!people.may_be_about("select * from orders"));
        assert!(rules("'*.password'").may_be_about("select 1"));
    }
}
