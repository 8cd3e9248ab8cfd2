//! Which kind of statement a node is: PostgreSQL's command tag (`CreateCommandTag` in `src/backend/tcop/utility.c`)
//! in lower case, with underscores.

use std::collections::BTreeSet;

use pg_query::protobuf::{DiscardMode, ObjectType, ReindexObjectType, TransactionStmtKind, VariableSetKind};

use super::tree::Node;

/// Adds the kinds of a node, if it is a statement.
pub(super) fn add(node: &Node, kinds: &mut BTreeSet<String>) {
    let tag = match node.name {
        "TransactionStmt" => {
            kinds.insert("transaction".to_owned());
            transaction(node.number("kind")).into()
        }
        "CopyStmt" => {
            add_copy(node, kinds);
            "copy".into()
        }
        "SelectStmt" => {
            if node.field("into_clause").is_some() {
                insert("select_into".to_owned(), kinds);
            }
            "select".into()
        }
        "DropStmt" => with_object("drop", node.number("remove_type")),
        "DefineStmt" => with_object("create", node.number("kind")),
        "RenameStmt" => with_object("alter", renamed(node)),
        "AlterTableStmt" => with_object("alter", node.number("objtype")),
        "AlterObjectSchemaStmt" | "AlterOwnerStmt" | "AlterObjectDependsStmt" => {
            with_object("alter", node.number("object_type"))
        }
        "AlterFunctionStmt" | "AlterTableMoveAllStmt" => with_object("alter", node.number("objtype")),
        name => match simple(node, name) {
            Some(tag) => tag.to_owned(),
            None => match name.strip_suffix("Stmt") {
                // A statement of a newer grammar: its node's name, which is close to its tag.
                Some(name) if !is_part(name) => snake_case(name),
                _ => return,
            },
        },
    };
    insert(tag, kinds);
}

fn insert(tag: String, kinds: &mut BTreeSet<String>) {
    if let Some((verb, _)) = tag.split_once('_') {
        kinds.insert(verb.to_owned());
    }
    kinds.insert(tag);
}

/// Nodes that are called statements and are none: `RawStmt` wraps one, `ReturnStmt` is a routine's body,
/// `PLAssignStmt` PL/pgSQL's, `SetOperationStmt` the planner's.
fn is_part(name: &str) -> bool {
    matches!(name, "Raw" | "Return" | "Plassign" | "PlAssign" | "SetOperation")
}

fn snake_case(name: &str) -> String {
    let mut tag = String::new();
    for char in name.chars() {
        if char.is_ascii_uppercase() && !tag.is_empty() {
            tag.push('_');
        }
        tag.push(char.to_ascii_lowercase());
    }
    tag
}

fn add_copy(node: &Node, kinds: &mut BTreeSet<String>) {
    kinds.insert(if node.is("is_from") { "copy_from" } else { "copy_to" }.to_owned());
    if node.is("is_program") {
        kinds.insert("copy_program".to_owned());
    } else if node.text("filename").is_some() {
        kinds.insert("copy_file".to_owned());
    }
}

/// Statements whose tag depends on nothing, or on one field.
fn simple(node: &Node, name: &str) -> Option<&'static str> {
    let either = |field: &str, yes, no| if node.is(field) { yes } else { no };
    Some(match name {
        "InsertStmt" => "insert",
        "UpdateStmt" => "update",
        "DeleteStmt" => "delete",
        "MergeStmt" => "merge",
        "CallStmt" => "call",
        "DoStmt" => "do",
        "ExplainStmt" => "explain",
        "PrepareStmt" => "prepare",
        "ExecuteStmt" => "execute",
        "DeallocateStmt" => either("isall", "deallocate_all", "deallocate"),
        "DeclareCursorStmt" => "declare_cursor",
        "FetchStmt" => either("ismove", "move", "fetch"),
        "ClosePortalStmt" => {
            if node.text("portalname").is_some() {
                "close_cursor"
            } else {
                "close_cursor_all"
            }
        }
        "VariableSetStmt" => variable(node.number("kind")),
        "VariableShowStmt" => "show",
        "ConstraintsSetStmt" => "set_constraints",
        "DiscardStmt" => discard(node.number("target")),
        "ListenStmt" => "listen",
        "NotifyStmt" => "notify",
        "UnlistenStmt" => "unlisten",
        "LockStmt" => "lock_table",
        "LoadStmt" => "load",
        "CheckPointStmt" => "checkpoint",
        "ClusterStmt" => "cluster",
        "VacuumStmt" => either("is_vacuumcmd", "vacuum", "analyze"),
        "ReindexStmt" => match ReindexObjectType::try_from(node.number("kind")) {
            Ok(ReindexObjectType::ReindexObjectSystem | ReindexObjectType::ReindexObjectDatabase) => {
                "reindex_database"
            }
            _ => "reindex",
        },
        "RefreshMatViewStmt" => "refresh_materialized_view",
        "TruncateStmt" => "truncate_table",
        "CommentStmt" => "comment",
        "SecLabelStmt" => "security_label",
        "GrantStmt" => either("is_grant", "grant", "revoke"),
        "GrantRoleStmt" => either("is_grant", "grant_role", "revoke_role"),
        "ReassignOwnedStmt" => "reassign_owned",
        "ImportForeignSchemaStmt" => "import_foreign_schema",
        _ => return definition(node, name),
    })
}

/// Statements that define, alter or drop something.
fn definition(node: &Node, name: &str) -> Option<&'static str> {
    Some(match name {
        "CreateStmt" => "create_table",
        "CreateTableAsStmt" => match ObjectType::try_from(node.number("objtype")) {
            Ok(ObjectType::ObjectMatview) => "create_materialized_view",
            _ => "create_table_as",
        },
        "CreateForeignTableStmt" => "create_foreign_table",
        "ViewStmt" => "create_view",
        "IndexStmt" => "create_index",
        "CreateSeqStmt" => "create_sequence",
        "AlterSeqStmt" => "alter_sequence",
        "CreateSchemaStmt" => "create_schema",
        "CreateFunctionStmt" if node.is("is_procedure") => "create_procedure",
        "CreateFunctionStmt" => "create_function",
        "CreateTrigStmt" => "create_trigger",
        "CreateEventTrigStmt" => "create_event_trigger",
        "AlterEventTrigStmt" => "alter_event_trigger",
        "RuleStmt" => "create_rule",
        "CreatePolicyStmt" => "create_policy",
        "AlterPolicyStmt" => "alter_policy",
        "CreateDomainStmt" => "create_domain",
        "AlterDomainStmt" => "alter_domain",
        "CompositeTypeStmt" | "CreateEnumStmt" | "CreateRangeStmt" => "create_type",
        "AlterEnumStmt" | "AlterTypeStmt" => "alter_type",
        "CreateStatsStmt" => "create_statistics",
        "AlterStatsStmt" => "alter_statistics",
        "AlterCollationStmt" => "alter_collation",
        "CreateConversionStmt" => "create_conversion",
        "CreateCastStmt" => "create_cast",
        "CreateTransformStmt" => "create_transform",
        "CreateOpClassStmt" => "create_operator_class",
        "CreateOpFamilyStmt" => "create_operator_family",
        "AlterOpFamilyStmt" => "alter_operator_family",
        "AlterOperatorStmt" => "alter_operator",
        "CreateAmStmt" => "create_access_method",
        "CreatePlangStmt" => "create_language",
        "AlterTsDictionaryStmt" => "alter_text_search_dictionary",
        "AlterTsConfigurationStmt" => "alter_text_search_configuration",
        "CreateExtensionStmt" => "create_extension",
        "AlterExtensionStmt" | "AlterExtensionContentsStmt" => "alter_extension",
        "CreateFdwStmt" => "create_foreign_data_wrapper",
        "AlterFdwStmt" => "alter_foreign_data_wrapper",
        "CreateForeignServerStmt" => "create_server",
        "AlterForeignServerStmt" => "alter_server",
        "CreateUserMappingStmt" => "create_user_mapping",
        "AlterUserMappingStmt" => "alter_user_mapping",
        "DropUserMappingStmt" => "drop_user_mapping",
        "CreatePublicationStmt" => "create_publication",
        "AlterPublicationStmt" => "alter_publication",
        "CreateSubscriptionStmt" => "create_subscription",
        "AlterSubscriptionStmt" => "alter_subscription",
        "DropSubscriptionStmt" => "drop_subscription",
        "CreatedbStmt" => "create_database",
        "AlterDatabaseStmt" | "AlterDatabaseRefreshCollStmt" | "AlterDatabaseSetStmt" => "alter_database",
        "DropdbStmt" => "drop_database",
        "CreateTableSpaceStmt" => "create_tablespace",
        "AlterTableSpaceOptionsStmt" => "alter_tablespace",
        "DropTableSpaceStmt" => "drop_tablespace",
        "CreateRoleStmt" => "create_role",
        "AlterRoleStmt" | "AlterRoleSetStmt" => "alter_role",
        "DropRoleStmt" => "drop_role",
        "DropOwnedStmt" => "drop_owned",
        "AlterDefaultPrivilegesStmt" => "alter_default_privileges",
        "AlterSystemStmt" => "alter_system",
        _ => return None,
    })
}

fn transaction(kind: i32) -> &'static str {
    match TransactionStmtKind::try_from(kind) {
        Ok(TransactionStmtKind::TransStmtStart) => "start_transaction",
        Ok(TransactionStmtKind::TransStmtCommit) => "commit",
        Ok(TransactionStmtKind::TransStmtRollback | TransactionStmtKind::TransStmtRollbackTo) => "rollback",
        Ok(TransactionStmtKind::TransStmtSavepoint) => "savepoint",
        Ok(TransactionStmtKind::TransStmtRelease) => "release",
        Ok(TransactionStmtKind::TransStmtPrepare) => "prepare_transaction",
        Ok(TransactionStmtKind::TransStmtCommitPrepared) => "commit_prepared",
        Ok(TransactionStmtKind::TransStmtRollbackPrepared) => "rollback_prepared",
        Ok(TransactionStmtKind::TransStmtBegin | TransactionStmtKind::Undefined) | Err(_) => "begin",
    }
}

fn variable(kind: i32) -> &'static str {
    match VariableSetKind::try_from(kind) {
        Ok(VariableSetKind::VarReset | VariableSetKind::VarResetAll) => "reset",
        _ => "set",
    }
}

fn discard(target: i32) -> &'static str {
    match DiscardMode::try_from(target) {
        Ok(DiscardMode::DiscardPlans) => "discard_plans",
        Ok(DiscardMode::DiscardSequences) => "discard_sequences",
        Ok(DiscardMode::DiscardTemp) => "discard_temp",
        _ => "discard_all",
    }
}

/// RENAME of a part alters the whole.
fn renamed(node: &Node) -> i32 {
    match ObjectType::try_from(node.number("rename_type")) {
        Ok(ObjectType::ObjectColumn) => node.number("relation_type"),
        _ => node.number("rename_type"),
    }
}

fn with_object(verb: &str, object_type: i32) -> String {
    let object = match ObjectType::try_from(object_type) {
        Ok(object_type) => object(object_type),
        Err(_) => "object",
    };
    format!("{verb}_{object}")
}

/// `AlterObjectTypeCommandTag` in `utility.c`.
fn object(object_type: ObjectType) -> &'static str {
    match object_type {
        ObjectType::ObjectAccessMethod => "access_method",
        ObjectType::ObjectAggregate => "aggregate",
        ObjectType::ObjectAttribute | ObjectType::ObjectType => "type",
        ObjectType::ObjectCast => "cast",
        ObjectType::ObjectCollation => "collation",
        ObjectType::ObjectConversion => "conversion",
        ObjectType::ObjectDatabase => "database",
        ObjectType::ObjectDomain | ObjectType::ObjectDomconstraint => "domain",
        ObjectType::ObjectEventTrigger => "event_trigger",
        ObjectType::ObjectExtension => "extension",
        ObjectType::ObjectFdw => "foreign_data_wrapper",
        ObjectType::ObjectForeignServer => "server",
        ObjectType::ObjectForeignTable => "foreign_table",
        ObjectType::ObjectFunction => "function",
        ObjectType::ObjectIndex => "index",
        ObjectType::ObjectLanguage => "language",
        ObjectType::ObjectLargeobject => "large_object",
        ObjectType::ObjectMatview => "materialized_view",
        ObjectType::ObjectOpclass => "operator_class",
        ObjectType::ObjectOperator => "operator",
        ObjectType::ObjectOpfamily => "operator_family",
        ObjectType::ObjectPolicy => "policy",
        ObjectType::ObjectProcedure => "procedure",
        ObjectType::ObjectPublication => "publication",
        ObjectType::ObjectRole => "role",
        ObjectType::ObjectRoutine => "routine",
        ObjectType::ObjectRule => "rule",
        ObjectType::ObjectSchema => "schema",
        ObjectType::ObjectSequence => "sequence",
        ObjectType::ObjectStatisticExt => "statistics",
        ObjectType::ObjectSubscription => "subscription",
        ObjectType::ObjectTable | ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => "table",
        ObjectType::ObjectTablespace => "tablespace",
        ObjectType::ObjectTransform => "transform",
        ObjectType::ObjectTrigger => "trigger",
        ObjectType::ObjectTsconfiguration => "text_search_configuration",
        ObjectType::ObjectTsdictionary => "text_search_dictionary",
        ObjectType::ObjectTsparser => "text_search_parser",
        ObjectType::ObjectTstemplate => "text_search_template",
        ObjectType::ObjectUserMapping => "user_mapping",
        ObjectType::ObjectView => "view",
        ObjectType::Undefined
        | ObjectType::ObjectAmop
        | ObjectType::ObjectAmproc
        | ObjectType::ObjectDefacl
        | ObjectType::ObjectDefault
        | ObjectType::ObjectParameterAcl
        | ObjectType::ObjectPublicationNamespace
        | ObjectType::ObjectPublicationRel => "object",
    }
}
