use super::*;

fn analyze(text: &str) -> Analysis {
    Analyzer::default().analyze(&text.into(), true).as_ref().clone()
}

/// Kinds, tables read, tables written and functions, each with spaces between.
fn told(text: &str) -> [String; 4] {
    let analysis = analyze(text);
    assert_eq!(analysis.unknown, None, "{text}");
    let Analysis { kinds, tables_read, tables_written, functions, .. } = analysis;
    [kinds, tables_read, tables_written, functions].map(|list| list.join(" "))
}

#[track_caller]
fn check(text: &str, kinds: &str, read: &str, written: &str, functions: &str) {
    assert_eq!(told(text), [kinds, read, written, functions], "{text}");
}

#[test]
fn what_is_executed_by_name_is_told_unless_the_text_prepares_it() {
    let executes = |text: &str| analyze(text).executes.join(" ");
    assert_eq!(executes("EXECUTE a(1); explain analyze execute \"B\""), "B a");
    assert_eq!(executes("create table t as execute c"), "c");
    assert_eq!(executes("prepare a as select 1; execute a"), "");
    assert_eq!(executes("execute a; prepare a as select 1"), "a");
    assert_eq!(executes("select 1"), "");
}

#[test]
fn queries_and_changes() {
    check("SELECT abalance FROM pgbench_accounts WHERE aid = 12345;", "select", "pgbench_accounts", "", "");
    check("SELECT 1", "select", "", "", "");
    check("TABLE a.b", "select", "a.b", "", "");
    check("INSERT INTO t VALUES (f(1)), (2)", "insert", "", "t", "f");
    check("VALUES (f(1)), (s.g(2))", "select", "", "", "f s.g");
    check("INSERT INTO t (a) SELECT max(b) FROM u", "insert select", "u", "t", "max");
    check(
        "INSERT INTO t VALUES (nextval('seq')) ON CONFLICT (a) DO UPDATE SET b = (SELECT 1 FROM v)",
        "insert select",
        "v",
        "t",
        "nextval",
    );
    check("UPDATE t SET a = 1 FROM u WHERE t.b = u.b", "update", "u", "t", "");
    check("UPDATE t SET a = 1 RETURNING ssn", "update", "t", "t", "");
    check("DELETE FROM ONLY db.s.t USING u", "delete", "u", "db.s.t", "");
    check(
        "MERGE INTO t USING u ON t.a = u.a WHEN MATCHED THEN UPDATE SET b = f(u.b) WHEN NOT MATCHED THEN INSERT VALUES (1)",
        "merge",
        "u",
        "t",
        "f",
    );
    check(
        "SELECT * FROM a, LATERAL (SELECT * FROM b JOIN c USING (x)) s, f(1) g, ROWS FROM (h(2), i(3))",
        "select",
        "a b c",
        "",
        "f h i",
    );
    check("SELECT a FROM t ORDER BY f(a) LIMIT g() OFFSET h()", "select", "t", "", "f g h");
    check(
        "SELECT sum(a) FILTER (WHERE f(b)) OVER (PARTITION BY g(c)) FROM t WINDOW w AS (ORDER BY h(d))",
        "select",
        "t",
        "",
        "f g h sum",
    );
    check(
        "SELECT extract(year FROM now()), x COLLATE \"C\", '1'::pg_catalog.int4, a[f(1)]",
        "select",
        "",
        "",
        "f now pg_catalog.extract",
    );
    check("SELECT * FROM t TABLESAMPLE bernoulli(f(1))", "select", "t", "", "f");
    check(
        "SELECT * FROM xmltable('/a' PASSING f(x) COLUMNS b int DEFAULT g(1)), json_table(h(), '$' COLUMNS (a int))",
        "select",
        "",
        "",
        "f g h",
    );
    check(
        "SELECT \"My Table\".a FROM \"My Table\", \"a.b\".c, \"q\"\"t\"",
        "select",
        "\"a.b\".c \"q\"\"t\" My Table",
        "",
        "",
    );
    check("", "", "", "", "");
    check(" ; -- nothing\n;", "", "", "", "");
}

#[test]
fn names_of_common_table_expressions_are_no_tables() {
    check("WITH x AS (SELECT * FROM t) SELECT * FROM x", "select", "t", "", "");
    check("WITH x AS (SELECT * FROM x) SELECT * FROM x", "select", "x", "", "");
    check("WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT * FROM x) SELECT * FROM x", "select", "", "", "");
    check("WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a", "select", "", "", "");
    check("WITH a AS (SELECT * FROM b), b AS (SELECT 1) SELECT * FROM a, b", "select", "b", "", "");
    check("WITH x AS (SELECT 1) SELECT * FROM s.x", "select", "s.x", "", "");
    check("SELECT * FROM (WITH x AS (SELECT 1) SELECT * FROM x) y, x", "select", "x", "", "");
    check(
        "WITH x AS (SELECT 1) SELECT (SELECT max(a) FROM x UNION SELECT 1 FROM z) FROM y",
        "select",
        "y z",
        "",
        "max",
    );
    check(
        "WITH x AS (DELETE FROM t RETURNING *) INSERT INTO log SELECT * FROM x",
        "delete insert select",
        "t",
        "log t",
        "",
    );
    check("WITH x AS (SELECT 1) UPDATE x SET a = 1", "select update", "", "x", "");
    check("SELECT * FROM x; WITH x AS (SELECT 1) SELECT * FROM x", "select", "x", "", "");
    check("INSERT INTO t WITH x AS (SELECT * FROM u) SELECT * FROM x", "insert select", "u", "t", "");
    check("SELECT * FROM t FOR UPDATE OF t", "select", "t", "", "");
    check("SELECT * FROM t a FOR NO KEY UPDATE OF a NOWAIT", "select", "t", "", "");
}

#[test]
fn tables_made_from_queries_are_written() {
    check("SELECT * INTO n FROM t", "select select_into", "t", "n", "");
    check("CREATE TABLE n AS SELECT * FROM t", "create create_table_as select", "t", "n", "");
    check(
        "CREATE MATERIALIZED VIEW n AS SELECT * FROM t",
        "create create_materialized_view select",
        "t",
        "n",
        "",
    );
    check("CREATE TABLE n AS EXECUTE p(1)", "create create_table_as execute", "", "n", "");
    check("REFRESH MATERIALIZED VIEW n", "refresh refresh_materialized_view", "", "n", "");
    check("CREATE OR REPLACE VIEW v AS SELECT f(a) FROM t", "create create_view select", "t", "v", "f");
}

#[test]
fn copy_tells_its_direction_and_what_it_reaches() {
    check("COPY t FROM STDIN", "copy copy_from", "", "t", "");
    check("COPY s.t (a) TO STDOUT (FORMAT binary)", "copy copy_to", "s.t", "", "");
    check("COPY (SELECT * FROM t) TO STDOUT", "copy copy_to select", "t", "", "");
    check("COPY (DELETE FROM t RETURNING *) TO STDOUT", "copy copy_to delete", "t", "t", "");
    check("COPY t FROM PROGRAM 'curl x'", "copy copy_from copy_program", "", "t", "");
    check("COPY t TO PROGRAM 'sh'", "copy copy_program copy_to", "t", "", "");
    check("COPY t TO '/tmp/x'", "copy copy_file copy_to", "t", "", "");
    check("COPY t FROM STDIN WHERE f(a)", "copy copy_from", "", "t", "f");
}

#[test]
fn definitions_carry_their_verb() {
    check(
        "CREATE TABLE t (a int DEFAULT f(1) CHECK (g(a)), b int REFERENCES u, LIKE v) INHERITS (w)",
        "create create_table",
        "u v w",
        "t",
        "f g",
    );
    check(
        "CREATE TEMP TABLE t PARTITION OF p FOR VALUES FROM (f(1)) TO (2)",
        "create create_table",
        "p",
        "t",
        "f",
    );
    check("CREATE FOREIGN TABLE t (a int) SERVER s", "create create_foreign_table", "", "t", "");
    check("DROP TABLE a, s.b CASCADE", "drop drop_table", "", "a s.b", "");
    check("DROP MATERIALIZED VIEW v", "drop drop_materialized_view", "", "v", "");
    check("DROP INDEX i", "drop drop_index", "", "", "");
    check("DROP TRIGGER r ON s.t", "drop drop_trigger", "", "s.t", "");
    check("DROP FUNCTION f(int)", "drop drop_function", "", "", "");
    check(
        "DROP SCHEMA s CASCADE; DROP DATABASE d; DROP ROLE r; DROP OWNED BY r",
        "drop drop_database drop_owned drop_role drop_schema",
        "",
        "",
        "",
    );
    check("TRUNCATE a, b", "truncate truncate_table", "", "a b", "");
    check(
        "ALTER TABLE t ADD COLUMN a int DEFAULT f(); ALTER TABLE t ATTACH PARTITION p FOR VALUES IN (1)",
        "alter alter_table",
        "",
        "p t",
        "f",
    );
    check("ALTER TABLE t RENAME COLUMN a TO b", "alter alter_table", "", "t", "");
    check("ALTER VIEW v RENAME TO w", "alter alter_view", "", "v", "");
    check("ALTER INDEX i RENAME TO j", "alter alter_index", "", "", "");
    check("ALTER TABLE t SET SCHEMA s", "alter alter_table", "", "t", "");
    check("ALTER TABLE t OWNER TO o", "alter alter_table", "", "t", "");
    check("ALTER ROLE r SUPERUSER; ALTER ROLE r SET search_path = x", "alter alter_role", "", "", "");
    check("ALTER FUNCTION f() STABLE", "alter alter_function", "", "", "");
    check("ALTER SYSTEM SET a = 1", "alter alter_system", "", "", "");
    check("CREATE UNIQUE INDEX i ON t (lower(a)) WHERE f(b)", "create create_index", "", "t", "f lower");
    check(
        "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW WHEN (g(NEW.a)) EXECUTE FUNCTION s.f()",
        "create create_trigger",
        "",
        "t",
        "g s.f",
    );
    check(
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)",
        "create create_rule delete insert",
        "",
        "t u v",
        "",
    );
    check(
        "CREATE FUNCTION f(a int DEFAULT g()) RETURNS int LANGUAGE sql BEGIN ATOMIC INSERT INTO t VALUES (1); SELECT h(); END",
        "create create_function insert select",
        "",
        "t",
        "g h",
    );
    check(
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t'",
        "create create_function",
        "",
        "",
        "",
    );
    check("CREATE PROCEDURE p() LANGUAGE sql RETURN f(1)", "create create_procedure", "", "", "f");
    check(
        "CREATE TYPE c AS (a int); CREATE TYPE e AS ENUM ('a'); CREATE DOMAIN d AS int CHECK (f(VALUE))",
        "create create_domain create_type",
        "",
        "",
        "f",
    );
    check("CREATE AGGREGATE a (int) (sfunc = f, stype = int)", "create create_aggregate", "", "", "");
    check(
        "CREATE SCHEMA s CREATE TABLE t (a int) CREATE VIEW v AS SELECT 1",
        "create create_schema create_table create_view select",
        "",
        "t v",
        "",
    );
    check(
        "CREATE FUNCTION f() RETURNS int SET search_path = x AS '' LANGUAGE sql",
        "create create_function",
        "",
        "",
        "",
    );
    check(
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO r",
        "alter alter_default_privileges",
        "",
        "",
        "",
    );
    check("CREATE POLICY p ON t USING (f(a))", "create create_policy", "", "t", "f");
    check(
        "CREATE SEQUENCE q; ALTER SEQUENCE q RESTART",
        "alter alter_sequence create create_sequence",
        "",
        "q",
        "",
    );
    check(
        "CREATE EXTENSION x; CREATE ROLE r; CREATE DATABASE d; CREATE USER u",
        "create create_database create_extension create_role",
        "",
        "",
        "",
    );
    check(
        "GRANT SELECT ON t, u TO r; REVOKE ALL ON SCHEMA s FROM r; GRANT a TO b",
        "grant grant_role revoke",
        "",
        "t u",
        "",
    );
    check(
        "COMMENT ON COLUMN t.a IS 'x'; COMMENT ON TABLE s.u IS 'y'; COMMENT ON SCHEMA z IS ''",
        "comment",
        "",
        "s.u t",
        "",
    );
    check(
        "CREATE PUBLICATION p FOR TABLE t; CREATE STATISTICS x ON a, b FROM u",
        "create create_publication create_statistics",
        "t u",
        "",
        "",
    );
}

#[test]
fn other_commands() {
    check(
        "BEGIN; SAVEPOINT a; ROLLBACK TO a; RELEASE a; COMMIT; START TRANSACTION; ABORT; PREPARE TRANSACTION 'x'; ROLLBACK PREPARED 'x'",
        "begin commit prepare prepare_transaction release rollback rollback_prepared savepoint start start_transaction transaction",
        "",
        "",
        "",
    );
    check(
        "SET ROLE x; RESET ALL; SHOW a; SET LOCAL b = 1; SET TRANSACTION READ ONLY; SET CONSTRAINTS ALL DEFERRED",
        "reset set set_constraints show",
        "",
        "",
        "",
    );
    check("DO $$ BEGIN DELETE FROM t; END $$", "do", "", "", "");
    check("CALL s.p(f(1))", "call", "", "", "f s.p");
    check("EXPLAIN ANALYZE DELETE FROM t", "delete explain", "", "t", "");
    check(
        "PREPARE p AS SELECT * FROM t; EXECUTE p(f(1)); DEALLOCATE p; DEALLOCATE ALL",
        "deallocate deallocate_all execute prepare select",
        "t",
        "",
        "f",
    );
    check(
        "DECLARE c CURSOR FOR SELECT * FROM t; FETCH 1 FROM c; MOVE 1 FROM c; CLOSE c; CLOSE ALL",
        "close close_cursor close_cursor_all declare declare_cursor fetch move select",
        "t",
        "",
        "",
    );
    check("LISTEN a; NOTIFY a, 'b'; UNLISTEN *", "listen notify unlisten", "", "", "");
    check("LOCK TABLE t", "lock lock_table", "t", "", "");
    check(
        "VACUUM FULL t; REINDEX TABLE v; CLUSTER w USING i; CHECKPOINT; REINDEX INDEX i",
        "checkpoint cluster reindex vacuum",
        "",
        "t v w",
        "",
    );
    check("ANALYZE t; LOAD 'x'; DISCARD ALL", "analyze discard discard_all load", "t", "", "");
}

#[test]
fn what_cannot_be_read_is_unknown() {
    let unknown = |text: &str| {
        let analysis = analyze(text);
        assert_eq!(Analysis { unknown: None, ..analysis.clone() }, Analysis::default());
        analysis.unknown
    };
    assert_eq!(unknown("SELEC 1"), Some(Unknown::Syntax));
    assert_eq!(unknown("SELECT 1; DROP TABLE t WHERE"), Some(Unknown::Syntax));
    assert_eq!(unknown("SELECT 'a"), Some(Unknown::Syntax));
    assert_eq!(unknown("SELECT 1 /*"), Some(Unknown::Syntax));
    assert_eq!(unknown("SELECT E'\\u00'"), Some(Unknown::Syntax));
    assert_eq!(unknown("SELECT 1\0; DROP TABLE t"), Some(Unknown::ZeroByte));
    assert_eq!(unknown(&format!("SELECT '{}'", "x".repeat(1 << 20))), Some(Unknown::TooLong));
    assert_eq!(unknown(&"(".repeat(16 << 20)), Some(Unknown::TooLong));
}

#[test]
fn strings_end_where_the_sessions_setting_ends_them() {
    let text: Arc<str> = r"SELECT 'a\'; DROP TABLE t; --'".into();
    let mut analyzer = Analyzer::default();
    for _ in 0..4 {
        assert_eq!(analyzer.analyze(&text, true).kinds, ["drop", "drop_table", "select"]);
        assert_eq!(analyzer.analyze(&text, false).kinds, ["select"]);
    }
}

#[test]
fn deep_nesting_is_unknown_or_known_but_no_crash() {
    let units: &[(&str, &str)] = &[
        ("(", ")"),
        ("ARRAY[", "]"),
        ("NOT ", ""),
        ("- ", ""),
        ("+", ""),
        ("CASE WHEN true THEN ", " END"),
        ("f(1, ", ")"),
        ("(SELECT ", ")"),
        ("1 || ", ""),
        ("1 UNION SELECT ", ""),
        ("1 = ANY (SELECT ", ")"),
        ("COALESCE(a, ", ")"),
        ("JSON_OBJECT('a': ", ")"),
        ("1 OR ", ""),
        ("1, ", ""),
        ("XMLELEMENT(name a, ", ")"),
        ("(WITH x AS (SELECT 1) SELECT ", ")"),
        ("ROW(1, ", ")"),
        ("EXISTS (SELECT * FROM t WHERE ", ")"),
    ];
    for (open, close) in units {
        for times in [1, 10, 40, 100, 300, 1_000, 5_000, 50_000] {
            let text = format!("SELECT {}1{}", open.repeat(times), close.repeat(times));
            let analysis = analyze(&text);
            let depth = depth::bounded(&text, true, usize::MAX).unwrap();
            if times <= 100 {
                assert_eq!(analysis.unknown, None, "{open} {times} times: depth {depth}");
            } else if analysis.unknown.is_some_and(|unknown| unknown == Unknown::TooDeep) {
                assert!(depth > 300, "{open} {times} times: depth {depth}");
            }
        }
    }
}
