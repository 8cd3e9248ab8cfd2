use proptest::prelude::*;

use super::*;
use crate::sql::parse;

fn shape(text: &str, standard_conforming_strings: bool) -> Vec<u8> {
    let mut shape = vec![b'x'; 10];
    write(text, standard_conforming_strings, &mut shape);
    shape
}

#[track_caller]
fn same(a: &str, b: &str) {
    assert_eq!(shape(a, true), shape(b, true), "{a} | {b}");
}

#[track_caller]
fn different(a: &str, b: &str) {
    assert_ne!(shape(a, true), shape(b, true), "{a} | {b}");
}

#[test]
fn constants_of_expressions_are_left_out() {
    same("SELECT abalance FROM a WHERE aid = 12345;", "SELECT abalance FROM a WHERE aid = 1;");
    same("SELECT 'a''b', E'c', $$d$$", "SELECT '', 'it', $x$;$x$");
    same("SELECT 1.5, B'01', X'1F', 1e5", "SELECT .5, B'', X'', 99999999999");
    same(
        "INSERT INTO t VALUES (1, 'a') -- c",
        "insert INTO t VALUES (2, /* d */ 'b')".replace("insert", "INSERT").as_str(),
    );
    same("EXECUTE p(1)", "EXECUTE p(2)");
    same("SELECT $1", "SELECT $65535");
    same("INSERT INTO t VALUES ($1, $2), ($3, $4)", "INSERT INTO t VALUES ($1, $2)");
    same("(SELECT 1)", "(  SELECT 2 )");
    same("SELECT 1; DELETE FROM t WHERE a = 'x'", "SELECT 2;DELETE FROM t WHERE a='y'");
}

#[test]
fn repeated_rows_and_members_are_left_out() {
    same("INSERT INTO t VALUES (1, 'a'), (2, 'b')", "INSERT INTO t VALUES (3, 'c')");
    same(
        "INSERT INTO t VALUES (f(1), (2)), (f(3), (4)), (f(5), (6)) ON CONFLICT DO NOTHING",
        "INSERT INTO t VALUES (f(1), (2)) ON CONFLICT DO NOTHING",
    );
    same("SELECT * FROM (VALUES (1), (2), ('a')) AS x, y", "SELECT * FROM (VALUES (1), ('b')) AS x, y");
    same(
        "SELECT a FROM t WHERE b IN (1, 2, 3) AND c NOT IN ('a', 'b')",
        "SELECT a FROM t WHERE b IN (1) AND c NOT IN ('a')",
    );
    same("SELECT a IN (1, 2, 'x', 'y', b, b, 3, 4)", "SELECT a IN (1, 'x', b, b, 3)");
    let mut shape = Vec::new();
    let rows = "(1, 'a', NULL), ".repeat(10_000);
    assert_eq!(write(&format!("INSERT INTO t VALUES {rows}(1, 'a', NULL)"), true, &mut shape), 11);
    assert_eq!(text(&shape), Some("INSERT INTO t VALUES ( 0 , '' , NULL ) "));
}

#[test]
fn constants_that_are_no_expressions_stay() {
    for (a, b) in [
        ("SET x = 'a'", "SET x = 'b'"),
        ("COPY t FROM 'a'", "COPY t FROM 'b'"),
        ("DO 'a'", "DO 'b'"),
        ("FETCH 1 FROM c", "FETCH 2 FROM c"),
        ("SELECT 1; FETCH 1 FROM c", "SELECT 1; FETCH 2 FROM c"),
        ("SELECT a::float(1)", "SELECT a::float(53)"),
        ("SELECT a::int[1]", "SELECT a::int[2]"),
        ("SELECT U&\"d!0061\" UESCAPE '!'", "SELECT U&\"d!0061\" UESCAPE '?'"),
        ("SELECT E'\\u0041'", "SELECT E'\\u00'"),
        ("SELECT 1", "SELECT 3000000000"),
        ("SELECT 1", "SELECT '1'"),
        // A string with a cast to a type of characters.
        ("SELECT f 'a'", "SELECT f N'a'"),
        ("INSERT INTO t VALUES (1), (1)", "INSERT INTO t VALUES (1), ('a')"),
        ("SELECT a IN (b, b)", "SELECT a IN (b)"),
        ("SELECT f(1, 1)", "SELECT f(1)"),
        ("SELECT 1 a", "SELECT 1a"),
        ("SELECT $1", "SELECT 1"),
        ("SELECT a", "SELECT \"a\""),
        ("SELECT a<-1", "SELECT a< -1"),
    ] {
        different(a, b);
    }
    assert_ne!(shape("SELECT 'a'", true), shape("SELECT 'a'", false));
}

/// Pieces of statements; `%` is a constant of any kind, `#` an integer.
const PIECES: &[&str] = &[
    "SELECT %",
    "SELECT %, f(%) FROM t WHERE a = % AND b IN (%, %)",
    "SELECT a[%], b::int[#], c::numeric(#, #)",
    "SELECT a::float(#), b::varchar(#), INTERVAL '1' SECOND(#), CAST(c AS bit(#))",
    "SELECT x FROM t LIMIT % OFFSET %",
    "SELECT DATE %, INTERVAL %, f %",
    "SELECT a FROM t FETCH FIRST # ROWS ONLY",
    "SELECT -%, +%, a - %, a -%",
    "SELECT CASE WHEN a = % THEN % ELSE % END, ARRAY[%, %], ARRAY[#], ROW(%, %)",
    "SELECT a FROM t ORDER BY #",
    "SELECT EXTRACT(% FROM x), OVERLAY(a PLACING % FROM # FOR #), a LIKE % ESCAPE %",
    "SELECT % %",
    "SELECT #a",
    "SELECT sum(a) OVER (ROWS BETWEEN # PRECEDING AND # FOLLOWING), % AS x",
    "SELECT * FROM t TABLESAMPLE system(#) REPEATABLE (#)",
    "INSERT INTO t VALUES (%, %), (%, DEFAULT)",
    "UPDATE t SET a = %, b[#] = % WHERE c = % RETURNING %",
    "DELETE FROM t WHERE a = % OR b BETWEEN % AND %",
    "WITH x AS (SELECT %) SELECT * FROM x WHERE y = %",
    "WITH RECURSIVE x AS (SELECT 1) CYCLE a SET b TO % DEFAULT % USING p SELECT %",
    "VALUES (%), (%)",
    "CALL p(%)",
    "EXECUTE q(%, %)",
    "MERGE INTO t USING u ON a = % WHEN MATCHED AND b = % THEN UPDATE SET c = %",
    "SELECT a AT TIME ZONE %, JSON_OBJECT(%: %)",
    "SELECT * FROM json_table(a, % COLUMNS (b int PATH %, NESTED PATH % COLUMNS (c int)))",
    "SELECT xmlpi(name a, %), xmlroot(a, version %)",
    "SELECT * FROM xmltable(XMLNAMESPACES(% AS x), % PASSING a COLUMNS b int PATH % DEFAULT %)",
    "SELECT * FROM f(%) AS (a int[#])",
    "SET x = %",
    "SET x TO %, %",
    "FETCH # FROM c",
    "DECLARE c CURSOR FOR SELECT %",
    "COPY t FROM %",
    "COPY (SELECT %) TO %",
    "DO %",
    "CREATE TABLE t (a varchar(#) DEFAULT %, b int[#])",
    "CREATE SEQUENCE s INCREMENT BY #",
    "COMMENT ON TABLE t IS %",
    "NOTIFY a, %",
    "EXPLAIN (FORMAT %) SELECT %",
    "PREPARE p AS SELECT %",
    "CREATE TABLE t AS SELECT %",
    "CREATE FUNCTION f() RETURNS int AS % LANGUAGE sql",
    "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT %; SELECT # END",
    "CREATE RULE r AS ON INSERT TO t DO (SELECT %; NOTIFY a, %)",
    "ALTER TABLE t ALTER # SET STATISTICS #",
    "CREATE VIEW v AS SELECT %",
    "LOCK TABLE t",
    "SELECT U&% UESCAPE %",
    "SELECT U&\"a\" UESCAPE %",
    "SELECT $#, a$#, $#a",
    "SELECT a FROM t WHERE b = $# AND c IN ($#, $#, %)",
    "INSERT INTO t VALUES ($#, $#), ($#, $#)",
    "SELECT a FROM t WHERE b = ANY (%) FOR UPDATE",
    "TABLE t",
    "SELECT x INTO y FROM z WHERE a = %",
    "SELECT grouping(%)",
    "INSERT INTO t VALUES (%, %), (%, %), (%, %) ON CONFLICT DO NOTHING",
    "SELECT a IN (%, %, %), b NOT IN (%, %)",
    "SELECT * FROM (VALUES (%), (f(%)), (f(%))) x",
    "SELECT values, (%), (%) FROM t",
    "INSERT INTO t (values) VALUES (%), (%)",
    "SELECT position(% IN %), a IN (SELECT %, % FROM b, b GROUP BY #, #), a IN (VALUES (%), (%))",
    "VALUES (%), (%), (a), (%) ORDER BY #",
];

const CONSTANTS: &[&str] = &[
    "'a'",
    "''",
    "'it''s'",
    "E'b'",
    "E'\\n'",
    "E'\\u0041'",
    "E'\\u00'",
    "$$c$$",
    "$x$;$x$",
    "N'd'",
    "U&'\\0041'",
    "U&'\\zz'",
    "B'01'",
    "B'2'",
    "X'1F'",
    "1",
    "42",
    "2147483647",
    "2147483648",
    "99999999999999999999",
    "1.5",
    "1e10",
    ".5",
    "1.",
    "0x1F",
    "0b11",
    "1_000",
    "007",
    "-1",
    "1e",
    "'a'\n'b'",
    "'\\'",
];

const INTEGERS: &[&str] =
    &["0", "1", "2", "5", "24", "25", "53", "54", "2147483647", "2147483648", "00001", "0x2", "1_0"];

fn filled(pieces: &[usize], picks: &[usize]) -> String {
    let mut text = String::new();
    let mut picks = picks.iter().cycle();
    for &piece in pieces {
        for char in PIECES[piece].chars() {
            match char {
                '%' => text += CONSTANTS[picks.next().unwrap() % CONSTANTS.len()],
                '#' => text += INTEGERS[picks.next().unwrap() % INTEGERS.len()],
                _ => text.push(char),
            }
        }
        text += ";";
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn texts_of_one_shape_have_the_same_analysis(
        pieces in prop::collection::vec(0..PIECES.len(), 1..3),
        picks in prop::collection::vec(0usize..1000, 12),
        others in prop::collection::vec(0usize..1000, 12),
        few in any::<bool>(),
        standard in any::<bool>(),
    ) {
        // With few kinds of constants, equal shapes are frequent.
        let picks = if few { vec![picks[0] % 4; 12] } else { picks };
        let others = if few { others.iter().map(|other| other % 4).collect() } else { others };
        let (a, b) = (filled(&pieces, &picks), filled(&pieces, &others));
        let shape_of_a = shape(&a, standard);
        let a_is = parse::analysis(&a, standard, 2000);
        if shape_of_a == shape(&b, standard) {
            prop_assert_eq!(&a_is, &parse::analysis(&b, standard, 2000), "{} | {}", a, b);
        }
        let as_shape = text(&shape_of_a).unwrap();
        prop_assert_eq!(a_is, parse::analysis(as_shape, standard, 2000), "{} | {}", a, as_shape);
    }
}

#[test]
fn each_constant_alone_changes_the_shape_or_nothing() {
    let mut alike = 0;
    for piece in 0..PIECES.len() {
        for first in 0..CONSTANTS.len() {
            for second in [first + 1, first + 3, first + 15, first + 16] {
                let (a, b) = (filled(&[piece], &[first]), filled(&[piece], &[second]));
                if a != b && shape(&a, true) == shape(&b, true) {
                    alike += 1;
                    let (a_is, b_is) = (parse::analysis(&a, true, 2000), parse::analysis(&b, true, 2000));
                    assert_eq!(a_is, b_is, "{a} | {b}");
                }
            }
        }
    }
    assert!(alike > 500, "{alike}");
}
