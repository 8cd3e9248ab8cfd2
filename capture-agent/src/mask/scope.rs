//! What names mean at a place in a statement.

use std::rc::Rc;

use super::outputs::{Output, Outputs, Table, either};
use super::rules::{Applies, Rules};
use crate::sql::tree::{Node, Value};

/// One thing in FROM.
#[derive(Clone, Debug)]
pub(super) struct Item<'t> {
    /// Its alias, or its own name.
    pub(super) name: &'t str,
    /// The names that its alias gives its first columns.
    pub(super) renamed: Vec<&'t str>,
    pub(super) source: Source<'t>,
}

/// What it is.
#[derive(Clone, Debug)]
pub(super) enum Source<'t> {
    Table(Table),
    Derived(Rc<Derived<'t>>),
    /// A function, or what else is computed; masked as a whole if what it is computed from is.
    Computed(&'t Node, Option<Applies>),
    /// The sides of a join that has a name of its own, or columns that both sides share.
    Join(Vec<Item<'t>>),
}

/// A query within the statement.
#[derive(Clone, Debug)]
pub(super) struct Derived<'t> {
    pub(super) node: &'t Node,
    pub(super) outputs: Outputs,
    /// The names that WITH gives its columns.
    pub(super) renamed: Vec<&'t str>,
}

impl<'t> Item<'t> {
    /// The rule that masks its column of this name.
    pub(super) fn column(&self, name: &str, rules: &Rules) -> Option<Applies> {
        match &self.source {
            Source::Table(table) if self.renamed.contains(&name) => rules.relation(&table.relation()),
            Source::Table(table) => rules.column(&table.relation(), name),
            Source::Derived(derived) => {
                let renamed = if self.renamed.is_empty() { &derived.renamed } else { &self.renamed };
                derived.outputs.column(name, renamed, rules)
            }
            Source::Computed(_, rule) => *rule,
            Source::Join(_) if self.renamed.contains(&name) => self.any(rules),
            Source::Join(sides) => {
                sides.iter().fold(None, |rule, side| either(rule, side.column(name, rules)))
            }
        }
    }

    /// The rule that masks any of its columns.
    pub(super) fn any(&self, rules: &Rules) -> Option<Applies> {
        match &self.source {
            Source::Table(table) => rules.relation(&table.relation()),
            Source::Derived(derived) => derived.outputs.any(rules),
            Source::Computed(_, rule) => *rule,
            Source::Join(sides) => sides.iter().fold(None, |rule, side| either(rule, side.any(rules))),
        }
    }

    /// Whether a query or function that may have a column of this name is in it.
    pub(super) fn may_have(&self, name: &str) -> bool {
        match &self.source {
            Source::Table(_) => false,
            Source::Computed(..) => true,
            Source::Join(sides) => sides.iter().any(|side| side.may_have(name)),
            Source::Derived(derived) => {
                let renamed = if self.renamed.is_empty() { &derived.renamed } else { &self.renamed };
                match &derived.outputs {
                    Outputs::List(list) if renamed.is_empty() => list.iter().any(|output| match output {
                        Output::One { name: own, .. } => own.as_deref().is_none_or(|own| own == name),
                        _ => true,
                    }),
                    outputs => !outputs.are_counted() || renamed.contains(&name),
                }
            }
        }
    }

    /// Whether it, or a side of it, has this name.
    pub(super) fn find(&self, name: &str) -> Option<&Item<'t>> {
        if self.name == name {
            return Some(self);
        }
        match &self.source {
            Source::Join(sides) => sides.iter().find_map(|side| side.find(name)),
            _ => None,
        }
    }

    /// All of its columns, as `*` gives them back.
    pub(super) fn star(&self, rules: &Rules, to: &mut Vec<Output>) {
        let renamed = !self.renamed.is_empty();
        match &self.source {
            Source::Table(table) if !renamed => to.push(Output::Table(table.clone())),
            Source::Derived(derived) => match &derived.outputs {
                Outputs::List(list) if derived.outputs.are_counted() || !renamed => {
                    let renamed = if renamed { &self.renamed } else { &derived.renamed };
                    if !derived.outputs.are_counted() && !renamed.is_empty() {
                        return to.push(Output::Many(self.any(rules)));
                    }
                    to.extend(list.iter().enumerate().map(|(at, output)| {
                        let mut output = output.clone();
                        if let (Output::One { name, .. }, Some(new)) = (&mut output, renamed.get(at)) {
                            *name = Some((*new).to_owned());
                        }
                        output
                    }));
                }
                _ => to.push(Output::Many(self.any(rules))),
            },
            // Shared columns come first and once, so that no place is certain; names are.
            Source::Join(sides) if !renamed => {
                for side in sides {
                    match &side.source {
                        Source::Table(_) | Source::Join(_) => side.star(rules, to),
                        _ => to.push(Output::Many(side.any(rules))),
                    }
                }
            }
            _ => to.push(Output::Many(self.any(rules))),
        }
    }
}

/// The strings of a list of names.
pub(super) fn names(list: &[Value]) -> Vec<&str> {
    list.iter().filter_map(Value::as_string).collect()
}

/// What a column is called that has no name of its own, as far as that is certain (`FigureColname` in
/// `src/backend/parser/parse_target.c`).
pub(super) fn figured(node: &Node) -> Option<&str> {
    match node.name {
        "ColumnRef" => node.list("fields").last()?.as_string(),
        "FuncCall" => node.list("funcname").last()?.as_string(),
        _ => None,
    }
}
