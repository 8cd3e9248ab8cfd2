//! What of a statement is masked, found once for each text.

use std::sync::{Arc, LazyLock};

use regex::Regex;

use super::lineage::Lineage;
use super::literal::{self, Marks, Rewritten, rewrite, rewrite_patterns};
use super::outputs::{Output, Outputs, Table, either};
use super::params::Params;
use super::rules::{ALWAYS, Applies, Rules};
use super::scope::names;
use super::secrets;
use super::strategy::Key;
use super::tables::Columns;
use crate::session::lexer::{Lexer, TokenKind};
use crate::sql::tree::{Node, Value};
use crate::sql::{Limits, with_tree};

/// What is masked of every execution of a text.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The text without it; none if nothing of the text is masked.
    pub(super) text: Option<Arc<str>>,
    /// How many constants that were, and their values.
    pub(super) count: u32,
    pub(super) values: Vec<(String, Applies)>,
    pub(super) params: Params,
    /// What comes back.
    pub(super) outputs: Outputs,
    /// What is copied.
    pub(super) copied: Outputs,
    /// Whether the statement reads or writes masked columns, or may.
    pub(super) touched: Option<Applies>,
    /// What it prepares or declares, and what comes back of that.
    pub(super) defines: Option<(String, Outputs)>,
    /// What it executes or fetches from.
    pub(super) uses: Option<String>,
    /// The table of which it names no columns, though it stores in them or copies them.
    pub(super) unnamed: Option<Table>,
}

impl Plan {
    /// Of a text of which nothing is masked.
    pub(super) fn clear() -> Self {
        Self {
            text: None,
            count: 0,
            values: Vec::new(),
            params: Params::default(),
            outputs: Outputs::CLEAR,
            copied: Outputs::CLEAR,
            touched: None,
            defines: None,
            uses: None,
            unnamed: None,
        }
    }

    /// Whether nothing of it is masked, whatever it is executed with.
    pub(super) fn is_clear(&self) -> bool {
        self.text.is_none()
            && self.touched.is_none()
            && self.defines.is_none()
            && self.uses.is_none()
            && self.params.is_empty()
    }

    /// Of a statement whose text was not seen.
    pub(super) fn unseen(rules: &Rules) -> Self {
        let mut params = Params::all(rules.any_column());
        params.join(rules.params(None));
        let Some(rule) = rules.any_column() else { return Self { params, ..Self::clear() } };
        Self {
            params,
            outputs: Outputs::All(Some(rule)),
            copied: Outputs::All(Some(rule)),
            touched: Some(rule),
            // What is known of its columns counts.
            uses: Some(String::new()),
            ..Self::clear()
        }
    }

    /// Of a text. `columns` are those of the table that it names without them, if they are known.
    pub(super) fn of(
        text: &str,
        standard_conforming_strings: bool,
        rules: &Rules,
        key: Option<&Key>,
        columns: Option<(&Table, &Columns)>,
    ) -> Self {
        let limits = Limits::default();
        let secret = secrets::may_have(text);
        let (mut plan, mut marks) = (Self::clear(), Marks::default());
        let about = rules.may_be_about(text)
            || ((rules.have_columns() || rules.have_params())
                && names_another(text, standard_conforming_strings));
        if !about && !secret && !rules.have_patterns() {
            return plan;
        }
        if about || secret {
            let read = with_tree(text, standard_conforming_strings, limits, |tree| {
                let found = about.then(|| read(tree, rules, columns));
                let secrets = secret.then(|| secrets::marks(tree, text, standard_conforming_strings));
                (found, secrets.unwrap_or_default())
            });
            match read {
                Ok((found, secrets)) => {
                    marks = secrets;
                    if let Some(found) = found {
                        marks.at.extend(found.at);
                        marks.strings = either(marks.strings, found.strings);
                        plan = found.plan;
                        hidden_queries(text, standard_conforming_strings, rules, &mut plan, &mut marks);
                    }
                }
                Err(_) if about => {
                    plan = Self::unseen(rules);
                    plan.uses = None;
                    marks = literal::all(rules.any_column());
                }
                Err(_) => {
                    plan.touched = Some(ALWAYS);
                    marks = literal::all(None);
                }
            }
        }
        let mut rewritten = Rewritten { text: text.to_owned(), ..Rewritten::default() };
        if !marks.is_empty() {
            let settings = standard_conforming_strings;
            let all = literal::all(rules.any_column());
            let left = match text.len() > limits.text_bytes {
                // Nobody can read it, and to look at each of its tokens would take many times its length in memory.
                true => literal::beginning(text, settings, &all, rules, key),
                false => rewrite(text, settings, &marks, rules, key),
            };
            rewritten =
                left.or_else(|| rewrite(text, settings, &all, rules, key)).unwrap_or_else(literal::blank);
        }
        if rules.have_patterns() {
            rewrite_patterns(&mut rewritten, standard_conforming_strings, rules, key);
        }
        // Comments may be all that went.
        if rewritten.count > 0 || rewritten.text != *text {
            plan.text = Some(rewritten.text.into());
            plan.count = rewritten.count.max(1);
            plan.values = rewritten.values;
        }
        plan
    }
}

/// What may be shown of a text that is too long to be read.
pub(super) fn beginning(
    text: &str,
    standard_conforming_strings: bool,
    rules: &Rules,
    key: Option<&Key>,
) -> Arc<str> {
    let all = literal::all(rules.any_column());
    let left = literal::beginning(text, standard_conforming_strings, &all, rules, key);
    let mut left = left.unwrap_or_else(literal::blank);
    rewrite_patterns(&mut left, standard_conforming_strings, rules, key);
    left.text.into()
}

/// What the columns' rules mean for a text.
struct Found {
    plan: Plan,
    at: Vec<(usize, Applies)>,
    strings: Option<Applies>,
}

fn read(tree: &Node, rules: &Rules, columns: Option<(&Table, &Columns)>) -> Found {
    let mut lineage = Lineage::new(rules);
    let mut plan = Plan::clear();
    let mut strings = None;
    let statements: Vec<&Node> =
        tree.list("stmts").iter().filter_map(Value::as_node).filter_map(|raw| raw.node("stmt")).collect();
    // Of several, one may change what the name means to the next.
    lineage.columns = columns.filter(|_| statements.len() == 1);
    for statement in &statements {
        let (outputs, copied) = (plan.outputs.clone(), plan.copied.clone());
        strings = either(strings, of_statement(statement, &mut lineage, &mut plan));
        if statements.len() > 1 {
            // Which of them a row comes from is not known.
            plan.outputs = Outputs::All(either(outputs.any(rules), plan.outputs.any(rules)));
            plan.copied = Outputs::All(either(copied.any(rules), plan.copied.any(rules)));
        }
    }
    plan.touched = lineage.touched;
    plan.unnamed = lineage.unnamed.take();
    let number = |number: i32| usize::try_from(number).ok();
    for (at, rule) in &lineage.params {
        number(*at).into_iter().for_each(|number| plan.params.add(number, *rule));
    }
    if statements.len() > 1 && plan.uses.take().is_some() {
        // What comes back of one says nothing of the others.
        plan.outputs = Outputs::All(rules.any_column());
    }
    let at = lineage.literals.iter().filter_map(|(at, rule)| Some((number(*at)?, *rule))).collect();
    Found { plan, at, strings }
}

/// Queries that a function is given as a text, such as `query_to_xml`'s: what comes back may be anything of theirs.
fn hidden_queries(
    text: &str,
    standard_conforming_strings: bool,
    rules: &Rules,
    plan: &mut Plan,
    marks: &mut Marks,
) {
    let lexer = Lexer::new(text, standard_conforming_strings);
    for token in lexer.filter(|token| literal::is_string(token.kind)) {
        let value = literal::value_of(token.kind, text.get(token.range()).unwrap_or_default());
        if let Some(rule) = rules.any_column().filter(|_| is_query(&value) && rules.may_be_about(&value)) {
            marks.at.push((token.start, rule));
            plan.touched = either(plan.touched, Some(rule));
            plan.outputs = Outputs::All(Some(rule));
            plan.copied = Outputs::All(Some(rule));
            if let Some((_, outputs)) = &mut plan.defines {
                *outputs = Outputs::All(Some(rule));
            }
        }
    }
}

fn is_query(value: &str) -> bool {
    let words = ["select", "table", "insert", "update", "delete", "merge", "with", "values"];
    let first = value.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
    let word = first.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    words.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// One statement. The rule for all of its strings, if they are masked without being looked at.
fn of_statement<'t>(statement: &'t Node, lineage: &mut Lineage<'t, '_>, plan: &mut Plan) -> Option<Applies> {
    let rules = lineage.rules;
    let name = |field: &str| statement.text(field).unwrap_or_default().to_owned();
    plan.outputs = Outputs::CLEAR;
    match statement.name {
        "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
            plan.outputs = lineage.query(statement);
        }
        "ExplainStmt" => {
            if let Some(query) = statement.node("query") {
                let (outputs, strings) = within(query, lineage);
                // The plan tells the conditions.
                plan.outputs = Outputs::All(either(outputs.any(rules), lineage.touched));
                return strings;
            }
        }
        "CreateTableAsStmt" | "ViewStmt" => {
            return statement.node("query").and_then(|query| within(query, lineage).1);
        }
        "DeclareCursorStmt" | "PrepareStmt" => {
            if let Some(query) = statement.node("query") {
                let (outputs, strings) = within(query, lineage);
                let defined = if statement.name == "PrepareStmt" { name("name") } else { name("portalname") };
                plan.defines = Some((defined, outputs));
                return strings;
            }
        }
        "ExecuteStmt" => {
            plan.uses = Some(name("name"));
            plan.outputs = Outputs::All(rules.any_column());
            // What they are compared with or stored in is not known from here, nor whose parameters they are.
            let params = rules.params(None);
            for (at, node) in statement.list("params").iter().filter_map(Value::as_node).enumerate() {
                if let Some(rule) = either(rules.any_column(), params.at(at)) {
                    lineage.touched = either(lineage.touched, Some(rule));
                    lineage.mark(node, rule);
                }
            }
        }
        "FetchStmt" => {
            plan.uses = Some(name("portalname"));
            plan.outputs = Outputs::All(rules.any_column());
        }
        "CopyStmt" => return copy(statement, lineage, plan),
        "DoStmt" | "CreateFunctionStmt" => {
            lineage.touched = either(lineage.touched, rules.any_column());
            return rules.any_column();
        }
        _ => {
            tables(statement, lineage);
            if let Some(rule) = lineage.touched {
                lineage.mark(statement, rule);
                return Some(rule);
            }
        }
    }
    None
}

/// A query, or another statement, within a statement.
fn within<'t>(node: &'t Node, lineage: &mut Lineage<'t, '_>) -> (Outputs, Option<Applies>) {
    match node.name {
        "SelectStmt" | "InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt" => {
            (lineage.query(node), None)
        }
        _ => {
            let mut plan = Plan::clear();
            let strings = of_statement(node, lineage, &mut plan);
            (plan.outputs, strings)
        }
    }
}

fn copy<'t>(statement: &'t Node, lineage: &mut Lineage<'t, '_>, plan: &mut Plan) -> Option<Applies> {
    if let Some(query) = statement.node("query") {
        plan.copied = lineage.query(query);
        return None;
    }
    let relation = statement.node("relation")?;
    let table = lineage.table(relation);
    let columns = names(statement.list("attlist"));
    let columns = if columns.is_empty() { lineage.columns_of(&table) } else { columns };
    plan.copied = if columns.is_empty() {
        Outputs::All(lineage.rules.relation(&table.relation()))
    } else {
        let one = |column: &&str| {
            let rule = lineage.rules.column(&table.relation(), column);
            Output::One { name: Some((*column).to_owned()), rule, origin: None }
        };
        Outputs::List(columns.iter().map(one).collect())
    };
    // COPY … FROM … WHERE: its columns are the table's.
    if let Some(condition) = statement.node("where_clause")
        && let Some(rule) = lineage.touched
    {
        lineage.mark(condition, rule);
    }
    None
}

/// Notes the tables that a statement names anywhere.
fn tables(node: &Node, lineage: &mut Lineage<'_, '_>) {
    let mut left = vec![node];
    while let Some(node) = left.pop() {
        if node.name == "RangeVar" {
            lineage.table(node);
        }
        for (_, value) in node.fields() {
            match value {
                Value::Node(child) => left.push(child),
                Value::List(list) => left.extend(list.iter().filter_map(Value::as_node)),
                _ => {}
            }
        }
    }
}

/// Whether a statement of the text may name a prepared statement or a cursor, wherever it stands: behind a comment, or
/// within EXPLAIN or CREATE TABLE AS.
fn names_another(text: &str, standard_conforming_strings: bool) -> bool {
    NAMES_ANOTHER.is_match(text)
        && Lexer::new(text, standard_conforming_strings).any(|token| {
            // Not a word within a string, such as a function's body.
            token.kind == TokenKind::Word
                && NAMES_ANOTHER.is_match(text.get(token.range()).unwrap_or_default())
        })
}

static NAMES_ANOTHER: LazyLock<Regex> = LazyLock::new(|| {
    // A constant that the tests look at.
    Regex::new(r"(?i)\b(?:prepare|execute|declare|fetch|move)\b").unwrap_or_else(|_| unreachable!())
});

#[cfg(test)]
mod tests;
