//! Where the values of a statement come from and go to: which constants and parameters are compared with masked
//! columns or stored in them, and which columns of the result are made of them.
//!
//! It errs towards masking: a name that could be a masked column's is one; what is computed from a masked column is
//! masked, with every constant in it, unless it is only counted.

use std::collections::HashSet;
use std::rc::Rc;

mod changes;
mod from;

use super::outputs::{Output, Outputs, Table, either};
use super::rules::{Applies, Rules};
use super::scope::{Derived, Item, Source, figured, names};
use super::tables::Columns;
use crate::sql::tree::{Node, Value};

/// Walks through one statement.
pub(super) struct Lineage<'t, 'r> {
    pub(super) rules: &'r Rules,
    /// The rule about any table that is named.
    pub(super) touched: Option<Applies>,
    /// Where constants stand that are masked.
    pub(super) literals: Vec<(i32, Applies)>,
    /// Parameters that are, by number.
    pub(super) params: Vec<(i32, Applies)>,
    /// The columns of a table that the statement may name without them.
    pub(super) columns: Option<(&'r Table, &'r Columns)>,
    /// The last table that it names so.
    pub(super) unnamed: Option<Table>,
    ctes: Vec<(&'t str, Rc<Derived<'t>>)>,
    scopes: Vec<Vec<Item<'t>>>,
    /// Queries whose constants are all masked.
    spoiled: HashSet<*const Node>,
}

impl<'t, 'r> Lineage<'t, 'r> {
    pub(super) fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            touched: None,
            literals: Vec::new(),
            params: Vec::new(),
            columns: None,
            unnamed: None,
            ctes: Vec::new(),
            scopes: Vec::new(),
            spoiled: HashSet::new(),
        }
    }

    /// A query, or a statement that changes rows, and what it gives back.
    pub(super) fn query(&mut self, node: &'t Node) -> Outputs {
        let known = self.ctes.len();
        if let Some(with) = node.node("with_clause") {
            self.with(with);
        }
        let outputs = match node.name {
            "SelectStmt" => self.select(node),
            "InsertStmt" => self.insert(node),
            "UpdateStmt" => self.update(node),
            "DeleteStmt" => self.delete(node),
            "MergeStmt" => self.merge(node),
            _ => {
                let rule = self.children(node);
                Outputs::All(rule)
            }
        };
        self.ctes.truncate(known);
        outputs
    }

    fn with(&mut self, with: &'t Node) {
        for cte in with.list("ctes").iter().filter_map(Value::as_node) {
            let (Some(name), Some(query)) = (cte.text("ctename"), cte.node("ctequery")) else { continue };
            let renamed = names(cte.list("aliascolnames"));
            let recursive = with.is("recursive");
            if recursive {
                let outputs = Outputs::CLEAR;
                self.ctes.push((name, Rc::new(Derived { node: query, outputs, renamed: Vec::new() })));
            }
            let mut outputs = self.query(query);
            let more = cte.node("search_clause").or_else(|| cte.node("cycle_clause")).is_some();
            let any = outputs.any(self.rules);
            // What goes round may come out in any column.
            if more || (recursive && any.is_some()) {
                outputs = Outputs::All(any);
            }
            if recursive {
                self.ctes.pop();
                if any.is_some() {
                    let derived = Derived { node: query, outputs: outputs.clone(), renamed: Vec::new() };
                    self.ctes.push((name, Rc::new(derived)));
                    self.query(query);
                    self.ctes.pop();
                }
            }
            self.ctes.push((name, Rc::new(Derived { node: query, outputs, renamed })));
        }
    }

    fn select(&mut self, node: &'t Node) -> Outputs {
        if let (Some(left), Some(right)) = (node.node("larg"), node.node("rarg")) {
            let (left, right) = (self.query(left), self.query(right));
            for name in ["sort_clause", "limit_offset", "limit_count"] {
                self.conditions(node, name);
            }
            return left.united(right, self.rules);
        }
        if !node.list("values_lists").is_empty() {
            return self.values(node.list("values_lists"));
        }
        let scope = self.from(node.list("from_clause"));
        self.scopes.push(scope);
        for name in [
            "distinct_clause",
            "where_clause",
            "group_clause",
            "having_clause",
            "window_clause",
            "sort_clause",
            "limit_offset",
            "limit_count",
        ] {
            self.conditions(node, name);
        }
        let outputs = self.targets(node.list("target_list"));
        self.scopes.pop();
        outputs
    }

    fn values(&mut self, rows: &'t [Value]) -> Outputs {
        let mut outputs: Option<Vec<Option<Applies>>> = None;
        for row in rows.iter().filter_map(Value::as_node) {
            let rules: Vec<_> = nodes(row.list("items")).map(|value| self.condition(value)).collect();
            match &mut outputs {
                Some(known) => {
                    known.iter_mut().zip(rules).for_each(|(known, rule)| *known = either(*known, rule));
                }
                None => outputs = Some(rules),
            }
        }
        let one = |(at, rule): (usize, Option<Applies>)| {
            let name = Some(format!("column{}", at + 1));
            Output::One { name, rule, origin: None }
        };
        Outputs::List(outputs.unwrap_or_default().into_iter().enumerate().map(one).collect())
    }

    fn targets(&mut self, targets: &'t [Value]) -> Outputs {
        let mut list = Vec::with_capacity(targets.len());
        for target in nodes(targets) {
            let Some(value) = target.node("val") else { continue };
            if value.name == "ColumnRef" && is_star(value) {
                self.star(value, &mut list);
                continue;
            }
            let rule = self.condition(value);
            let name = target.text("name").or_else(|| figured(value)).map(str::to_owned);
            list.push(Output::One { name, rule, origin: self.origin(value) });
        }
        Outputs::List(list)
    }

    fn star(&self, column: &'t Node, to: &mut Vec<Output>) {
        let scope = self.scopes.last().map_or(&[][..], Vec::as_slice);
        match names(column.list("fields")).last() {
            None => scope.iter().for_each(|item| item.star(self.rules, to)),
            Some(name) => match self.named(name) {
                Some(item) => item.star(self.rules, to),
                None => to.push(Output::Many(self.touched)),
            },
        }
    }

    /// The table's column that an expression is, if it is certain.
    fn origin(&self, value: &'t Node) -> Option<(Table, String)> {
        let fields = (value.name == "ColumnRef").then(|| names(value.list("fields")))?;
        let item = match fields.as_slice() {
            [_] => match self.scopes.as_slice() {
                [scope] if scope.len() == 1 => scope.first()?,
                _ => return None,
            },
            [qualifier, _] => self.named(qualifier)?,
            _ => return None,
        };
        match &item.source {
            Source::Table(table) if item.renamed.is_empty() => {
                Some((table.clone(), (*fields.last()?).to_owned()))
            }
            _ => None,
        }
    }

    /// Conditions in a field of a node.
    pub(super) fn conditions(&mut self, node: &'t Node, field: &str) {
        match node.field(field) {
            Some(Value::Node(condition)) => {
                self.condition(condition);
            }
            Some(Value::List(list)) => {
                for condition in nodes(list) {
                    self.condition(condition);
                }
            }
            _ => {}
        }
    }

    /// An expression of its own: if a masked column is in it, so are all of its constants and parameters.
    pub(super) fn condition(&mut self, node: &'t Node) -> Option<Applies> {
        let rule = self.expression(node);
        if let Some(rule) = rule.filter(|_| !is_bare(node)) {
            self.mark(node, rule);
        }
        rule
    }

    /// The rule of a masked column that an expression is made of.
    fn expression(&mut self, node: &'t Node) -> Option<Applies> {
        match node.name {
            "ColumnRef" => self.column(node),
            "BoolExpr" => nodes(node.list("args")).fold(None, |rule, arg| either(rule, self.condition(arg))),
            "SubLink" => {
                let exists = node.number("sub_link_type") == EXISTS;
                let tested = node.node("testexpr").and_then(|tested| self.expression(tested));
                let given = node.node("subselect").and_then(|query| self.query(query).any(self.rules));
                either(tested, given).filter(|_| !exists)
            }
            "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
                self.query(node).any(self.rules)
            }
            "NullTest" => {
                self.conditions(node, "arg");
                None
            }
            "FuncCall" => {
                self.conditions(node, "agg_filter");
                let counts = names(node.list("funcname")).last() == Some(&"count");
                if counts {
                    self.conditions(node, "args");
                    return None;
                }
                ["args", "agg_order", "over"].iter().fold(None, |rule, field| {
                    let own = match node.field(field) {
                        Some(Value::Node(node)) => self.expression(node),
                        Some(Value::List(list)) => {
                            nodes(list).fold(None, |rule, node| either(rule, self.expression(node)))
                        }
                        _ => None,
                    };
                    either(rule, own)
                })
            }
            "TypeName" => None,
            _ => self.children(node),
        }
    }

    fn children(&mut self, node: &'t Node) -> Option<Applies> {
        let mut rule = None;
        for (_, value) in node.fields() {
            match value {
                Value::Node(child) => rule = either(rule, self.expression(child)),
                Value::List(list) => {
                    for child in nodes(list) {
                        rule = either(rule, self.expression(child));
                    }
                }
                _ => {}
            }
        }
        rule
    }

    /// The rule of a column's name, of all that it may mean.
    fn column(&self, node: &'t Node) -> Option<Applies> {
        let fields = names(node.list("fields"));
        if is_star(node) {
            return match fields.last() {
                Some(name) => self.named(name).map_or(self.touched, |item| item.any(self.rules)),
                None => {
                    let scope = self.scopes.last().map_or(&[][..], Vec::as_slice);
                    scope.iter().fold(None, |rule, item| either(rule, item.any(self.rules)))
                }
            };
        }
        match fields.as_slice() {
            [] => None,
            [name] => self.scopes.iter().flatten().fold(None, |rule, item| {
                // A table's name is its whole row.
                let row = item.find(name).and_then(|item| item.any(self.rules));
                either(rule, either(row, item.column(name, self.rules)))
            }),
            [.., qualifier, name] => match self.named(qualifier) {
                Some(item) => item.column(name, self.rules),
                None => self.rules.column_named(name).filter(|_| self.touched.is_some()),
            },
        }
    }

    /// What a qualifier means: the innermost.
    fn named(&self, name: &str) -> Option<&Item<'t>> {
        self.scopes.iter().rev().find_map(|scope| scope.iter().find_map(|item| item.find(name)))
    }

    /// Everything constant below `node` is masked, and what the queries give that its columns come from.
    pub(super) fn mark(&mut self, node: &'t Node, rule: Applies) {
        let mut left = vec![node];
        while let Some(node) = left.pop() {
            match node.name {
                "A_Const" | "AConst" if !node.is("isnull") => {
                    self.literals.push((node.number("location"), rule));
                }
                "ParamRef" => self.params.push((node.number("number"), rule)),
                "TypeName" => continue,
                "ColumnRef" => {
                    let fields = names(node.list("fields"));
                    let items: Vec<Item<'t>> = match fields.as_slice() {
                        [.., qualifier, _] => self.named(qualifier).cloned().into_iter().collect(),
                        [name] => {
                            self.scopes.iter().flatten().filter(|item| item.may_have(name)).cloned().collect()
                        }
                        [] => self.scopes.iter().flatten().cloned().collect(),
                    };
                    items.iter().for_each(|item| self.spoil(item, rule));
                }
                "RangeVar" => {
                    let name = node.text("relname").unwrap_or_default();
                    let query = self.ctes.iter().rev().find(|(cte, _)| *cte == name);
                    if let Some(query) = query.map(|(_, derived)| derived.node)
                        && self.spoiled.insert(query)
                    {
                        left.push(query);
                    }
                }
                _ => {}
            }
            for (_, value) in node.fields() {
                match value {
                    Value::Node(child) => left.push(child),
                    Value::List(list) => left.extend(nodes(list)),
                    _ => {}
                }
            }
        }
    }

    /// Constants of a query whose columns are compared with a masked one.
    fn spoil(&mut self, item: &Item<'t>, rule: Applies) {
        match &item.source {
            Source::Table(_) => {}
            Source::Derived(derived) => {
                if self.spoiled.insert(derived.node) {
                    self.mark(derived.node, rule);
                }
            }
            Source::Computed(node, _) => {
                if self.spoiled.insert(*node) {
                    self.mark(node, rule);
                }
            }
            Source::Join(sides) => sides.iter().for_each(|side| self.spoil(side, rule)),
        }
    }
}

fn nodes(list: &[Value]) -> impl Iterator<Item = &Node> {
    list.iter().filter_map(Value::as_node)
}

fn is_star(column: &Node) -> bool {
    column.name == "ColumnRef"
        && column
            .list("fields")
            .last()
            .and_then(Value::as_node)
            .is_some_and(|last| last.name == "AStar" || last.name == "A_Star")
}

/// A column as it is, or conditions that are looked at one by one: nothing in it is compared with it.
fn is_bare(node: &Node) -> bool {
    match node.name {
        "ColumnRef" | "BoolExpr" => true,
        "SortBy" => node.node("node").is_some_and(is_bare),
        "TypeCast" => node.node("arg").is_some_and(is_bare),
        _ => false,
    }
}

/// `EXISTS_SUBLINK` of pg_query's enumeration.
const EXISTS: i32 = 1;
