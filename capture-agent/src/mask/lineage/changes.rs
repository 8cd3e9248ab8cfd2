//! Statements that change rows: what they store, and where.

use super::super::outputs::{Outputs, Table, either};
use super::super::rules::Applies;
use super::super::scope::{Item, Source};
use super::{Lineage, is_star, nodes};
use crate::sql::tree::{Node, Value};

impl<'t, 'r> Lineage<'t, 'r> {
    pub(super) fn insert(&mut self, node: &'t Node) -> Outputs {
        let table = node.node("relation").map(|relation| self.table(relation));
        let columns: Vec<_> =
            nodes(node.list("cols")).map(|column| column.text("name").unwrap_or_default()).collect();
        if let Some(source) = node.node("select_stmt") {
            match table.as_ref().filter(|table| self.rules.relation(&table.relation()).is_some()) {
                Some(table) => {
                    let places = self.places(table, &columns, width(source));
                    self.stored(source, &places);
                }
                None => drop(self.query(source)),
            }
        }
        let Some(table) = table else { return Outputs::CLEAR };
        let item = self.target(node, table.clone());
        let excluded = Item { name: "excluded", renamed: Vec::new(), source: Source::Table(table.clone()) };
        self.scopes.push(vec![item.clone(), excluded]);
        if let Some(conflict) = node.node("on_conflict_clause") {
            self.conditions(conflict, "infer");
            self.conditions(conflict, "where_clause");
            self.assignments(conflict.list("target_list"), &table);
        }
        self.scopes.pop();
        self.returning(node, vec![item])
    }

    pub(super) fn update(&mut self, node: &'t Node) -> Outputs {
        let Some(relation) = node.node("relation") else { return Outputs::CLEAR };
        let table = self.table(relation);
        let mut scope = vec![self.target(node, table.clone())];
        self.scopes.push(scope.clone());
        scope.extend(self.from(node.list("from_clause")));
        self.scopes.pop();
        self.scopes.push(scope.clone());
        self.conditions(node, "where_clause");
        self.assignments(node.list("target_list"), &table);
        self.scopes.pop();
        self.returning(node, scope)
    }

    pub(super) fn delete(&mut self, node: &'t Node) -> Outputs {
        let Some(relation) = node.node("relation") else { return Outputs::CLEAR };
        let table = self.table(relation);
        let mut scope = vec![self.target(node, table)];
        scope.extend(self.from(node.list("using_clause")));
        self.scopes.push(scope.clone());
        self.conditions(node, "where_clause");
        self.scopes.pop();
        self.returning(node, scope)
    }

    pub(super) fn merge(&mut self, node: &'t Node) -> Outputs {
        let Some(relation) = node.node("relation") else { return Outputs::CLEAR };
        let table = self.table(relation);
        let mut scope = vec![self.target(node, table.clone())];
        if let Some(source) = node.node("source_relation") {
            let item = self.item(source);
            scope.extend(item);
        }
        self.scopes.push(scope.clone());
        self.conditions(node, "join_condition");
        for clause in nodes(node.list("merge_when_clauses")) {
            self.conditions(clause, "condition");
            let targets = clause.list("target_list");
            let values = clause.list("values");
            if values.is_empty() {
                self.assignments(targets, &table);
                continue;
            }
            let columns: Vec<_> =
                nodes(targets).map(|column| column.text("name").unwrap_or_default()).collect();
            let places = self.places(&table, &columns, Some(values.len()));
            for (at, value) in nodes(values).enumerate() {
                self.store(value, places.at(at));
            }
        }
        self.scopes.pop();
        self.returning(node, scope)
    }

    /// A written table as a thing that names may mean.
    fn target(&self, node: &'t Node, table: Table) -> Item<'t> {
        let relation = node.node("relation");
        let name = relation.map_or("", alias_or_name);
        Item { name, renamed: Vec::new(), source: Source::Table(table) }
    }

    fn returning(&mut self, node: &'t Node, scope: Vec<Item<'t>>) -> Outputs {
        let Some(returning) = node.node("returning_clause") else { return Outputs::List(Vec::new()) };
        self.scopes.push(scope);
        let outputs = self.targets(returning.list("exprs"));
        self.scopes.pop();
        outputs
    }

    /// The rules of the columns that so many values are stored in.
    fn places(&mut self, table: &Table, columns: &[&str], width: Option<usize>) -> Places {
        let known = if columns.is_empty() { self.columns_of(table) } else { Vec::new() };
        let columns = if columns.is_empty() { known.as_slice() } else { columns };
        let relation = table.relation();
        // What is known of a table may be of another one, or of another day: then it likely has other columns.
        if columns.is_empty() || (!known.is_empty() && width != Some(known.len())) {
            return Places::All(self.rules.relation(&relation));
        }
        Places::Each(columns.iter().map(|column| self.rules.column(&relation, column)).collect())
    }

    /// The columns of a table that is named without them, as far as they are known.
    pub(in crate::mask) fn columns_of(&mut self, table: &Table) -> Vec<&'r str> {
        if self.rules.relation(&table.relation()).is_none() {
            return Vec::new();
        }
        self.unnamed = Some(table.clone());
        let known = self.columns.filter(|(known, _)| *known == table);
        known.map(|(_, columns)| columns.iter().map(|column| &**column).collect()).unwrap_or_default()
    }

    /// A query whose rows are stored.
    fn stored(&mut self, source: &'t Node, places: &Places) {
        let known = self.ctes.len();
        if let Some(with) = source.node("with_clause") {
            self.with(with);
        }
        if let (Some(left), Some(right)) = (source.node("larg"), source.node("rarg")) {
            self.stored(left, places);
            self.stored(right, places);
        } else if !source.list("values_lists").is_empty() {
            for row in nodes(source.list("values_lists")) {
                for (at, value) in nodes(row.list("items")).enumerate() {
                    self.store(value, places.at(at));
                }
            }
        } else {
            self.select(source);
            let targets: Vec<_> = nodes(source.list("target_list")).collect();
            let starred = targets.iter().any(|target| target.node("val").is_some_and(is_star));
            let scope = self.from(source.list("from_clause"));
            self.scopes.push(scope);
            for (at, target) in targets.into_iter().enumerate() {
                let rule = if starred { places.any() } else { places.at(at) };
                if let (Some(value), Some(rule)) = (target.node("val"), rule) {
                    self.mark(value, rule);
                }
            }
            self.scopes.pop();
        }
        self.ctes.truncate(known);
    }

    fn store(&mut self, value: &'t Node, rule: Option<Applies>) {
        self.condition(value);
        if let Some(rule) = rule {
            self.mark(value, rule);
        }
    }

    /// `column = value`, of UPDATE and its kin.
    fn assignments(&mut self, targets: &'t [Value], table: &Table) {
        for target in nodes(targets) {
            let column = target.text("name").unwrap_or_default();
            let rule = self.rules.column(&table.relation(), column);
            let Some(value) = target.node("val") else { continue };
            let value = match value.node("source").filter(|_| value.name == "MultiAssignRef") {
                Some(source) => {
                    let place = usize::try_from(value.number("colno") - 1).ok();
                    let part = place.and_then(|at| source.list("args").get(at)).and_then(Value::as_node);
                    part.filter(|_| source.name == "RowExpr").unwrap_or(source)
                }
                None => value,
            };
            self.store(value, rule);
        }
    }
}

/// How many values a query gives of each row, if its text tells.
fn width(source: &Node) -> Option<usize> {
    if let (Some(left), Some(right)) = (source.node("larg"), source.node("rarg")) {
        return width(left).filter(|left| width(right) == Some(*left));
    }
    let mut rows = nodes(source.list("values_lists")).map(|row| row.list("items").len());
    if let Some(first) = rows.next() {
        return rows.all(|row| row == first).then_some(first);
    }
    let targets = source.list("target_list");
    let starred = nodes(targets).any(|target| target.node("val").is_some_and(is_star));
    (!starred).then_some(targets.len())
}

/// The rules of the columns that values are stored in.
enum Places {
    Each(Vec<Option<Applies>>),
    /// The columns are not named.
    All(Option<Applies>),
}

impl Places {
    fn at(&self, place: usize) -> Option<Applies> {
        match self {
            Self::Each(rules) => rules.get(place).copied().flatten(),
            Self::All(rule) => *rule,
        }
    }

    fn any(&self) -> Option<Applies> {
        match self {
            Self::Each(rules) => rules.iter().fold(None, |any, rule| either(any, *rule)),
            Self::All(rule) => *rule,
        }
    }
}

fn alias_or_name(relation: &Node) -> &str {
    let alias = relation.node("alias").and_then(|alias| alias.text("aliasname"));
    alias.or_else(|| relation.text("relname")).unwrap_or_default()
}
