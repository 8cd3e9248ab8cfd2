//! Walks a parse tree and notes what it finds: kinds of statements, relations, functions, settings.

use std::collections::{BTreeSet, HashMap};

use pg_query::protobuf::{JsonExprOp, ObjectType};

use super::tree::{Node, Value};
use super::{Analysis, kinds, name};

/// Fills in everything that the tree tells.
pub(super) fn collect(tree: &Node, analysis: &mut Analysis) {
    let mut walk = Walk { steps: vec![Step::Node(tree, Role::Read)], ..Walk::default() };
    while let Some(step) = walk.steps.pop() {
        match step {
            Step::Node(node, role) => walk.node(node, role),
            Step::Declare(name) => *walk.ctes.entry(name).or_default() += 1,
            Step::Forget(name) => {
                if let Some(count) = walk.ctes.get_mut(name) {
                    *count -= 1;
                }
            }
        }
    }
    analysis.kinds = walk.kinds.into_iter().collect();
    analysis.tables_read = walk.read.into_iter().collect();
    analysis.tables_written = walk.written.into_iter().collect();
    analysis.functions = walk.functions.into_iter().collect();
    analysis.settings = walk.settings.into_iter().collect();
    analysis.executes = walk.executes.into_iter().collect();
    analysis.update_without_where = walk.update_without_where;
    analysis.delete_without_where = walk.delete_without_where;
}

#[derive(Default)]
struct Walk<'t> {
    /// What is to be done, the last one first. The tree may be deep, so the walk does not recurse.
    steps: Vec<Step<'t>>,
    /// Common table expressions in scope, and how many of that name there are.
    ctes: HashMap<&'t str, usize>,
    kinds: BTreeSet<String>,
    read: BTreeSet<String>,
    written: BTreeSet<String>,
    functions: BTreeSet<String>,
    settings: BTreeSet<String>,
    prepares: BTreeSet<&'t str>,
    executes: BTreeSet<String>,
    update_without_where: bool,
    delete_without_where: bool,
}

enum Step<'t> {
    /// Looks at a node and what is below it.
    Node(&'t Node, Role),
    /// A common table expression's scope begins.
    Declare(&'t str),
    /// And ends.
    Forget(&'t str),
}

/// What happens to a relation that is named in a certain place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Read,
    Write,
    /// Changed, and its rows come back.
    WriteAndRead,
    /// Not a relation: an alias, or a type's name.
    None,
}

impl<'t> Walk<'t> {
    fn node(&mut self, node: &'t Node, role: Role) {
        kinds::add(node, &mut self.kinds);
        match node.name {
            "RangeVar" => self.relation(node, role),
            "FuncCall" | "CreateTrigStmt" | "CreateEventTrigStmt" => {
                self.functions.extend(name(node.list("funcname")));
            }
            "VariableSetStmt" => self.setting(node),
            "PrepareStmt" => self.prepares.extend(node.text("name")),
            "ExecuteStmt" => {
                let before = node.text("name").filter(|name| !self.prepares.contains(name));
                self.executes.extend(before.map(str::to_owned));
            }
            "UpdateStmt" => self.update_without_where |= node.field("where_clause").is_none(),
            "DeleteStmt" => self.delete_without_where |= node.field("where_clause").is_none(),
            "DropStmt" => {
                for object in node.list("objects") {
                    self.object(object, node.number("remove_type"));
                }
            }
            "CommentStmt" | "SecLabelStmt" => {
                if let Some(object) = node.field("object") {
                    self.object(object, node.number("objtype"));
                }
            }
            other => self.functions.extend(special_function(other, node).map(str::to_owned)),
        }
        // The first field is to be looked at first, so it is pushed last. WITH comes before all others.
        let with = node.node("with_clause");
        for cte in with.iter().flat_map(|with| with.list("ctes")).filter_map(cte_name) {
            self.steps.push(Step::Forget(cte));
        }
        for (field, value) in node.fields().rev().filter(|(field, _)| *field != "with_clause") {
            match value.as_node() {
                Some(part) if is_part(node, field, part) => self.fields(part, role),
                _ => self.value(value, role_of(node, field, role)),
            }
        }
        if let Some(with) = with {
            self.with_clause(with);
        }
    }

    /// Of a statement that is only part of another one.
    fn fields(&mut self, node: &'t Node, role: Role) {
        if node.name == "VariableSetStmt" {
            self.setting(node);
        }
        for (field, value) in node.fields().rev() {
            self.value(value, role_of(node, field, role));
        }
    }

    fn value(&mut self, value: &'t Value, role: Role) {
        match value {
            Value::Node(node) => self.steps.push(Step::Node(node, role)),
            // Lists in lists are `List` nodes, so this does not go deeper.
            Value::List(values) => {
                let nodes = values.iter().rev().filter_map(Value::as_node);
                self.steps.extend(nodes.map(|node| Step::Node(node, role)));
            }
            Value::True | Value::Number(_) | Value::Text(_) => {}
        }
    }

    /// A common table expression sees those before it, and with RECURSIVE all of its clause.
    fn with_clause(&mut self, with: &'t Node) {
        let recursive = with.is("recursive");
        for cte in with.list("ctes").iter().rev() {
            if !recursive {
                self.steps.extend(cte_name(cte).map(Step::Declare));
            }
            self.value(cte, Role::Read);
        }
        if recursive {
            self.steps.extend(with.list("ctes").iter().filter_map(cte_name).map(Step::Declare));
        }
    }

    /// Names of parameters are compared without case (`guc_name_compare` in `guc.c`).
    fn setting(&mut self, node: &Node) {
        self.settings.insert(node.text("name").unwrap_or("all").to_ascii_lowercase());
    }

    fn relation(&mut self, node: &'t Node, role: Role) {
        let relation = node.text("relname").unwrap_or_default();
        let parts = [node.text("catalogname"), node.text("schemaname"), Some(relation)];
        let qualified = node.text("schemaname").is_some();
        if !qualified && role == Role::Read && self.ctes.get(relation).is_some_and(|&count| count > 0) {
            return;
        }
        let Some(name) = name::joined(parts.into_iter().flatten()) else {
            return;
        };
        if matches!(role, Role::Read | Role::WriteAndRead) {
            self.read.insert(name.clone());
        }
        if matches!(role, Role::Write | Role::WriteAndRead) {
            self.written.insert(name);
        }
    }

    /// An object that is named by a list of names. Triggers, rules, policies and columns change their table.
    fn object(&mut self, object: &Value, object_type: i32) {
        let Some(list) = object.as_node().filter(|node| node.name == "List") else {
            return;
        };
        let names = list.list("items");
        match ObjectType::try_from(object_type) {
            Ok(object_type) if is_relation(object_type) => self.written.extend(name(names)),
            Ok(
                ObjectType::ObjectTrigger
                | ObjectType::ObjectRule
                | ObjectType::ObjectPolicy
                | ObjectType::ObjectColumn
                | ObjectType::ObjectTabconstraint,
            ) => self.written.extend(names.split_last().and_then(|(_, table)| name(table))),
            _ => {}
        }
    }
}

/// Whether a node that looks like a statement is only how the grammar puts down a part of its parent.
fn is_part(parent: &Node, field: &str, node: &Node) -> bool {
    match (parent.name, field) {
        ("CreateForeignTableStmt", "base_stmt") | ("AlterDefaultPrivilegesStmt", "action") => true,
        // ALTER ROLE … SET, and SET in CREATE FUNCTION.
        (_, "setstmt") | ("DefElem", "arg") => node.name == "VariableSetStmt",
        ("InsertStmt", "select_stmt") => !node.list("values_lists").is_empty(),
        _ => false,
    }
}

fn is_relation(object_type: ObjectType) -> bool {
    matches!(
        object_type,
        ObjectType::ObjectTable
            | ObjectType::ObjectView
            | ObjectType::ObjectMatview
            | ObjectType::ObjectForeignTable
            | ObjectType::ObjectSequence
    )
}

/// What happens to a relation named in this field; `role` is that of the node itself.
fn role_of(node: &Node, field: &str, role: Role) -> Role {
    let changes = |relation_type: &str| match ObjectType::try_from(node.number(relation_type)) {
        Ok(ObjectType::ObjectIndex | ObjectType::ObjectType | ObjectType::ObjectAttribute) => Role::None,
        _ => Role::Write,
    };
    match (node.name, field) {
        ("InsertStmt" | "UpdateStmt" | "DeleteStmt" | "MergeStmt", "relation") => {
            if node.field("returning_clause").is_some() { Role::WriteAndRead } else { Role::Write }
        }
        ("CopyStmt", "relation") => {
            if node.is("is_from") {
                Role::Write
            } else {
                Role::Read
            }
        }
        // An alias or table of the same FROM clause.
        ("LockingClause", "locked_rels") => Role::None,
        ("CompositeTypeStmt", "typevar") => Role::None,
        ("AlterTableStmt", "relation") => changes("objtype"),
        ("RenameStmt", "relation") => match ObjectType::try_from(node.number("rename_type")) {
            Ok(ObjectType::ObjectAttribute) => Role::None,
            _ => changes("rename_type"),
        },
        ("AlterObjectSchemaStmt" | "AlterOwnerStmt" | "AlterObjectDependsStmt", "relation") => {
            changes("object_type")
        }
        // REINDEX_OBJECT_INDEX.
        ("ReindexStmt", "relation") if node.number("kind") == 1 => Role::None,
        ("VacuumStmt", "rels") if !node.is("is_vacuumcmd") => Role::Read,
        (
            "CreateStmt" | "IndexStmt" | "CreateTrigStmt" | "RuleStmt" | "RefreshMatViewStmt" | "ClusterStmt"
            | "ReindexStmt",
            "relation",
        )
        | ("IntoClause", "rel")
        | ("TruncateStmt", "relations")
        | ("ViewStmt", "view")
        | ("CreateSeqStmt" | "AlterSeqStmt", "sequence")
        | ("VacuumStmt", "rels")
        | ("CreatePolicyStmt" | "AlterPolicyStmt", "table")
        | ("PartitionCmd", "name")
        | ("GrantStmt", "objects") => Role::Write,
        // Nodes that stand for the relation in them.
        ("VacuumRelation" | "List", _) => role,
        _ => Role::Read,
    }
}

/// What reads like a call and is syntax to the newest grammar: to a server of an older version it is a call, of a
/// function that somebody may have made.
fn special_function(name: &str, node: &Node) -> Option<&'static str> {
    Some(match name {
        "JsonParseExpr" => "json",
        "JsonScalarExpr" => "json_scalar",
        "JsonSerializeExpr" => "json_serialize",
        "JsonObjectConstructor" => "json_object",
        "JsonArrayConstructor" | "JsonArrayQueryConstructor" => "json_array",
        "JsonObjectAgg" => "json_objectagg",
        "JsonArrayAgg" => "json_arrayagg",
        "JsonFuncExpr" => match JsonExprOp::try_from(node.number("op")) {
            Ok(JsonExprOp::JsonExistsOp) => "json_exists",
            Ok(JsonExprOp::JsonQueryOp) => "json_query",
            _ => "json_value",
        },
        "MergeSupportFunc" => "merge_action",
        _ => return None,
    })
}

fn cte_name(cte: &Value) -> Option<&str> {
    cte.as_node()?.text("ctename")
}

/// A name that is a list of `String` nodes.
fn name(parts: &[Value]) -> Option<String> {
    name::joined(parts.iter().filter_map(Value::as_string))
}
