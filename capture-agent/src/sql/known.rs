//! Which kinds there are, for those who write them down: a kind that does not exist is a slip of the pen.

/// Whether statements may be of this kind.
pub fn is_kind(kind: &str) -> bool {
    if VERBS.contains(&kind) || OTHERS.contains(&kind) {
        return true;
    }
    kind.split_once('_').is_some_and(|(verb, object)| {
        matches!(verb, "create" | "drop" | "alter") && (OBJECTS.contains(&object) || DEFINED.contains(&kind))
    })
}

/// Kinds of one word.
pub fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.into_iter()
}

/// Kinds of one word, and the first words of the others.
const VERBS: [&str; 53] = [
    "alter",
    "analyze",
    "begin",
    "call",
    "checkpoint",
    "close",
    "cluster",
    "comment",
    "commit",
    "copy",
    "create",
    "deallocate",
    "declare",
    "delete",
    "discard",
    "do",
    "drop",
    "execute",
    "explain",
    "fetch",
    "function",
    "grant",
    "import",
    "insert",
    "listen",
    "load",
    "lock",
    "merge",
    "move",
    "notify",
    "prepare",
    "reassign",
    "refresh",
    "reindex",
    "release",
    "reset",
    "revoke",
    "rollback",
    "savepoint",
    "security",
    "select",
    "set",
    "show",
    "start",
    "transaction",
    "truncate",
    "unlisten",
    "update",
    "vacuum",
    "function_call",
    "select_into",
    "copy_from",
    "copy_to",
];

/// Other kinds of several words.
const OTHERS: [&str; 24] = [
    "close_cursor",
    "close_cursor_all",
    "commit_prepared",
    "copy_file",
    "copy_program",
    "deallocate_all",
    "declare_cursor",
    "discard_all",
    "discard_plans",
    "discard_sequences",
    "discard_temp",
    "grant_role",
    "import_foreign_schema",
    "lock_table",
    "prepare_transaction",
    "reassign_owned",
    "refresh_materialized_view",
    "reindex_database",
    "revoke_role",
    "rollback_prepared",
    "security_label",
    "set_constraints",
    "start_transaction",
    "truncate_table",
];

/// What a statement may do with only one kind of its objects.
const DEFINED: [&str; 4] = ["create_table_as", "alter_default_privileges", "alter_system", "drop_owned"];

/// What can be created, altered or dropped.
const OBJECTS: [&str; 44] = [
    "access_method",
    "aggregate",
    "cast",
    "collation",
    "conversion",
    "database",
    "domain",
    "event_trigger",
    "extension",
    "foreign_data_wrapper",
    "foreign_table",
    "function",
    "index",
    "language",
    "large_object",
    "materialized_view",
    "object",
    "operator",
    "operator_class",
    "operator_family",
    "policy",
    "procedure",
    "publication",
    "role",
    "routine",
    "rule",
    "schema",
    "sequence",
    "server",
    "statistics",
    "subscription",
    "table",
    "tablespace",
    "text_search_configuration",
    "text_search_dictionary",
    "text_search_parser",
    "text_search_template",
    "transform",
    "trigger",
    "type",
    "user_mapping",
    "view",
    "constraint",
    "text_search",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Fields of nodes, whose names stand in the source beside the kinds.
    const FIELDS: [&str; 16] = [
        "filename",
        "into_clause",
        "is_from",
        "is_grant",
        "is_procedure",
        "is_program",
        "is_vacuumcmd",
        "isall",
        "ismove",
        "kind",
        "object_type",
        "objtype",
        "portalname",
        "relation_type",
        "remove_type",
        "rename_type",
    ];

    #[test]
    fn every_kind_that_is_told_is_known() {
        let source = include_str!("kinds.rs");
        let words = source.split('"').skip(1).step_by(2);
        let kinds =
            words.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !word.is_empty());
        let mut count = 0;
        for kind in kinds.filter(|kind| !FIELDS.contains(kind) && *kind != "target") {
            assert!(is_kind(kind) || OBJECTS.contains(&kind), "{kind}");
            count += 1;
        }
        assert!(count > 150);
        for wrong in ["dropp", "DROP", "drop table", "create_", "insert_into", "tables"] {
            assert!(!is_kind(wrong), "{wrong}");
        }
    }
}
