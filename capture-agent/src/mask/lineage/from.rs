//! FROM: the tables, queries and functions that a statement reads.

use std::rc::Rc;

use super::super::outputs::{Table, either};
use super::super::scope::{Derived, Item, Source, names};
use super::{Lineage, nodes};
use crate::sql::tree::{Node, Value};

impl<'t> Lineage<'t, '_> {
    /// FROM.
    pub(super) fn from(&mut self, list: &'t [Value]) -> Vec<Item<'t>> {
        let mut scope: Vec<Item<'t>> = Vec::new();
        for node in nodes(list) {
            // LATERAL sees what stands before it.
            self.scopes.push(scope.clone());
            let items = self.item(node);
            self.scopes.pop();
            scope.extend(items);
        }
        scope
    }

    pub(super) fn item(&mut self, node: &'t Node) -> Vec<Item<'t>> {
        let alias = node.node("alias");
        let name = alias.and_then(|alias| alias.text("aliasname"));
        let renamed = alias.map(|alias| names(alias.list("colnames"))).unwrap_or_default();
        let source = match node.name {
            "RangeVar" => {
                let own = node.text("relname").unwrap_or_default();
                let cte =
                    self.ctes.iter().rev().find(|(cte, _)| *cte == own && node.text("schemaname").is_none());
                let source = match cte {
                    Some((_, derived)) => Source::Derived(Rc::clone(derived)),
                    None => Source::Table(self.table(node)),
                };
                return vec![Item { name: name.unwrap_or(own), renamed, source }];
            }
            "RangeSubselect" => match node.node("subquery") {
                Some(query) => {
                    let outputs = self.query(query);
                    Source::Derived(Rc::new(Derived { node: query, outputs, renamed: Vec::new() }))
                }
                None => return Vec::new(),
            },
            "JoinExpr" => return self.join(node, name, renamed),
            "RangeTableSample" => {
                self.conditions(node, "args");
                self.conditions(node, "repeatable");
                return node.node("relation").map(|relation| self.item(relation)).unwrap_or_default();
            }
            _ => {
                let rule = self.condition(node);
                Source::Computed(node, rule)
            }
        };
        let name = name.unwrap_or_default();
        vec![Item { name, renamed, source }]
    }

    fn join(&mut self, node: &'t Node, name: Option<&'t str>, renamed: Vec<&'t str>) -> Vec<Item<'t>> {
        let mut sides = node.node("larg").map(|left| self.item(left)).unwrap_or_default();
        self.scopes.push(sides.clone());
        let right = node.node("rarg").map(|right| self.item(right)).unwrap_or_default();
        self.scopes.pop();
        sides.extend(right);
        self.scopes.push(sides.clone());
        self.conditions(node, "quals");
        let using = names(node.list("using_clause"));
        let shared = |item: &Item<'t>| {
            let any = node.is("is_natural").then(|| item.any(self.rules)).flatten();
            using.iter().fold(any, |rule, column| either(rule, item.column(column, self.rules)))
        };
        let rule = sides.iter().fold(None, |rule, item| either(rule, shared(item)));
        if let Some(rule) = rule {
            // Columns are compared without being named.
            sides.iter().for_each(|item| self.spoil(item, rule));
        }
        self.scopes.pop();
        match name {
            Some(name) => vec![Item { name, renamed, source: Source::Join(sides) }],
            None if !using.is_empty() || node.is("is_natural") => {
                vec![Item { name: "", renamed, source: Source::Join(sides) }]
            }
            None => sides,
        }
    }

    /// A table that is named.
    pub(in crate::mask) fn table(&mut self, node: &Node) -> Table {
        let table = Table {
            schema: node.text("schemaname").map(str::to_owned),
            name: node.text("relname").unwrap_or_default().to_owned(),
        };
        self.touched = either(self.touched, self.rules.relation(&table.relation()));
        table
    }
}
