#![expect(clippy::disallowed_types, reason = "a test looks at the clock")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cel::{Context, Env};
use proptest::prelude::*;

use super::*;
use crate::session::Protocol;
use crate::sql::Analysis;

fn session() -> SessionFacts {
    SessionFacts {
        user: Some("mcp_agent".into()),
        tls: Some(true),
        server_port: Some(5432),
        ..SessionFacts::default()
    }
}

fn statement() -> StatementFacts {
    let analysis = Analysis {
        kinds: vec!["delete".into(), "select".into()],
        tables_read: vec!["public.t".into(), "u".into()],
        ..Analysis::default()
    };
    StatementFacts::new("delete from t".into(), Protocol::Simple, Arc::new(analysis))
}

fn says(condition: &str) -> Outcome {
    let condition = Condition::compile(condition, Scope::Statement)
        .unwrap_or_else(|error| panic!("{condition}: {error:?}"));
    condition.outcome(&session(), Some(&statement()))
}

fn refusal(condition: &str) -> String {
    Condition::compile(condition, Scope::Statement).unwrap_err().message
}

#[test]
fn conditions_are_true_or_false() {
    for (condition, expected) in [
        ("true", true),
        (r#"session.user.startsWith("mcp_")"#, true),
        (r#"session.user == "mcp_agent" && session.tls"#, true),
        (r#""drop" in stmt.kinds || "truncate" in stmt.kinds"#, false),
        (r#"stmt.kinds.exists(k, k == "delete")"#, true),
        (r#"stmt.tables_read.all(t, t.contains("."))"#, false),
        (r#"stmt.tables_read.exists_one(t, t.startsWith("public."))"#, true),
        (r#"stmt.tables_read.filter(t, t != "u") == ["public.t"]"#, true),
        (r#"stmt.tables_read.map(t, size(t)) == [8, 1]"#, true),
        (r#"stmt.tables_read.map(t, t != "u", t + "!") == ["public.t!"]"#, true),
        (r#"stmt.tables_read[1] == "u""#, true),
        (r#"size(stmt.kinds) == 2 && stmt.text.size() > 5"#, true),
        (r#"stmt.text.matches("(?i)^DELETE\\s")"#, true),
        (r#"session.server_port in [5432, 5433]"#, true),
        (r#"session.user.upperAscii() == "MCP_AGENT" && "A".lowerAscii() == "a""#, true),
        (r#"int("42") + 1 == 43 && string(7) == "7""#, true),
        (r#"7 / 2 == 3 && -7 % 2 == -1 && 2 * 3 - 1 == 5"#, true),
        (r#"session.tls ? "a" < "b" : false"#, true),
        (r#"!(1 >= 2) && 1 <= 1 && 2 > 1 && 1 != 2"#, true),
        (r#"size([]) == 0 && !("a" in []) && ([] + ["a"]) == ["a"]"#, true),
        (r#"[[1], [2]].exists(l, l == [2])"#, true),
        ("size(\"né\") == 2", true),
        ("stmt.kinds.exists(k, stmt.tables_read.exists(t, t == \"u\" && k == \"select\"))", true),
    ] {
        assert_eq!(says(condition), if expected { Outcome::True } else { Outcome::False }, "{condition}");
    }
}

#[test]
fn what_is_not_known_matters_only_where_it_decides() {
    for (condition, expected) in [
        (r#"session.database == "x""#, Outcome::Unknown(Missing::SESSION)),
        (r#"session.database == "x" && false"#, Outcome::False),
        (r#"false && session.database == "x""#, Outcome::False),
        (r#"session.database == "x" || session.tls"#, Outcome::True),
        (r#"session.database == "x" && session.tls"#, Outcome::Unknown(Missing::SESSION)),
        (r#"!(session.database == "x")"#, Outcome::Unknown(Missing::SESSION)),
        (r#"session.database in ["x"]"#, Outcome::Unknown(Missing::SESSION)),
        (r#"size([session.database]) == 1"#, Outcome::Unknown(Missing::SESSION)),
        (r#"["a", "b"].exists(x, x == session.database || x == "b")"#, Outcome::True),
        (r#"["a", "b"].all(x, x == session.database && x == "b")"#, Outcome::False),
        (r#"session.database == "x" ? true : true"#, Outcome::Unknown(Missing::SESSION)),
        // What is not known may still decide.
        (r#"session.database == "x" && 1 / 0 == 1"#, Outcome::Unknown(Missing::SESSION)),
    ] {
        assert_eq!(says(condition), expected, "{condition}");
    }
}

#[test]
fn what_has_no_value_fails_unless_it_does_not_matter() {
    for (condition, expected) in [
        ("1 / 0 == 1", Fault::DivisionByZero),
        ("1 % 0 == 1", Fault::DivisionByZero),
        ("9223372036854775807 + 1 == 0", Fault::Overflow),
        ("-9223372036854775808 / -1 == 0", Fault::Overflow),
        ("-(-9223372036854775808) == 0", Fault::Overflow),
        ("stmt.kinds[2] == \"\"", Fault::NoSuchMember),
        ("stmt.kinds[-1] == \"\"", Fault::NoSuchMember),
        ("int(session.user) == 1", Fault::NotANumber),
        ("stmt.params[0] == \"\"", Fault::NoSuchMember),
    ] {
        assert_eq!(says(condition), Outcome::Failed(expected), "{condition}");
        assert_eq!(says(&format!("{condition} && false")), Outcome::False);
        assert_eq!(says(&format!("{condition} || true")), Outcome::True);
        assert_eq!(says(&format!("{condition} && true")), Outcome::Failed(expected));
    }
}

#[test]
fn a_condition_has_a_bounded_cost() {
    let kinds: Vec<String> = (0..20_000).map(|n| format!("k{n}")).collect();
    let analysis = Analysis { functions: kinds, ..Analysis::default() };
    let stmt = StatementFacts::new("x".repeat(16 << 20).into(), Protocol::Simple, Arc::new(analysis));
    let outcome = |condition: &str| {
        let condition = Condition::compile(condition, Scope::Statement).unwrap();
        let begin = Instant::now();
        let outcome = condition.outcome(&session(), Some(&stmt));
        (outcome, begin.elapsed())
    };
    for condition in [
        r#"stmt.functions.exists(a, stmt.functions.exists(b, stmt.functions.exists(c, a == "x")))"#,
        r#"stmt.functions.map(a, stmt.text + stmt.text).exists(t, t == "x")"#,
        r#"stmt.functions.map(a, stmt.text.lowerAscii()).exists(t, t.contains("y"))"#,
        r#"["a","a","a"].exists(a, (stmt.text + a).matches("(x+x+)+y"))"#,
    ] {
        let (outcome, took) = outcome(condition);
        assert_eq!(outcome, Outcome::Failed(Fault::Cost), "{condition}");
        assert!(took < Duration::from_secs(20), "{condition}: {took:?}");
    }
    // One search in the largest text is affordable, and linear whatever the expression is.
    let (outcome, took) = outcome(r#"stmt.text.matches("(x+x+)+y")"#);
    assert_eq!(outcome, Outcome::False);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn errors_say_what_was_expected() {
    for (condition, part) in [
        (r#"session.usr == "a""#, "did you mean `session.user`?"),
        (r#"stmt.kind == "a""#, "did you mean `stmt.kinds`?"),
        (r#"session.xyz == "a""#, "there are user, database"),
        (r#"sesion.user == "a""#, "did you mean `session`?"),
        (r#"user == "a""#, "there are `session` and `stmt`"),
        ("session.user", "a condition is bool, and this is string"),
        ("session.user == 1", "string and int are not compared"),
        ("1 < true", "int and bool are not compared"),
        ("true < false", "bool has no order"),
        (r#""dropp" in stmt.kinds"#, "no kind of statement; did you mean `drop`?"),
        (r#""DROP" in stmt.kinds"#, "no kind of statement; did you mean `drop`?"),
        (r#""Role" in stmt.settings"#, "in lower case"),
        (r#"1 in stmt.kinds"#, "int is never in list(string)"),
        (r#""a" in session.user"#, "`in` looks into a list, and this is string"),
        (r#"session.user.startWith("a")"#, "did you mean `startsWith`?"),
        (r#"session.user.startsWith()"#, "is called as text.startsWith(part)"),
        (r#"stmt.text.matches(session.user)"#, "must be a constant string"),
        (r#"stmt.text.matches("(")"#, "no regular expression"),
        (r#"stmt.text.matches("a{1000}{1000}")"#, "too large"),
        ("has(session.user)", "every field is there"),
        (r#"session == "a""#, "name a field"),
        (r#"stmt.kinds.exists(k == "a")"#, "is called as list.exists(member, condition)"),
        (r#"stmt.kinds.exists("k", true)"#, "the name of a variable"),
        (r#"session.user.exists(k, true)"#, "members of a list"),
        ("1.5 > 1.0", "constants are bool, int, string"),
        ("null == null", "nothing is null here"),
        (r#"{"a": 1} == {"a": 1}"#, "maps and messages are not supported"),
        (r#"session.user.length == 1"#, "string has no field `length`"),
        (r#"["a", 1] == []"#, "int in a list of string"),
        (r#"session.user == "#, "yntax error"),
        ("", "yntax error"),
    ] {
        let message = refusal(condition);
        assert!(message.contains(part), "{condition}: {message}");
    }
    let error = Condition::compile(r#""a" in stmt.kinds"#, Scope::Session).unwrap_err();
    assert!(error.message.contains("belong in a guardrail's `when`"), "{error:?}");
    let error = Condition::compile("session.tls &&\n  session.usr == \"é\"", Scope::Session).unwrap_err();
    // The point before the field.
    assert_eq!(error.at, 24, "{error:?}");
}

#[test]
fn texts_that_are_too_long_or_too_deep_are_refused_and_quickly() {
    for text in [
        "(".repeat(10_000),
        "[".repeat(10_000),
        "!".repeat(10_000),
        format!("{}1 == 1", "-".repeat(10_000)),
        format!("true{}", " ? true : true".repeat(1_000)),
        format!("1{} == 1", " + 1".repeat(3_000)),
        format!("true{}", " == true".repeat(1_000)),
        format!("session.user{} == \"\"", ".lowerAscii()".repeat(1_000)),
        format!("session{}", ".user".repeat(3_000)),
        format!("{}true{}", "[1].exists(a, ".repeat(1_000), ")".repeat(1_000)),
        "a".repeat(20_000),
        // Panicked in the crate's 0.14: https://github.com/cel-rust/cel-rust/issues/305
        format!(">{}?[{}{}l\0?(-", "{".repeat(63), "(".repeat(11), "{".repeat(26)),
        format!(">{}?[(((l\0?(-", "{".repeat(20)),
        format!("{}true{}", "(".repeat(40), ")".repeat(40)),
    ] {
        let begin = Instant::now();
        assert!(Condition::compile(&text, Scope::Statement).is_err(), "{}", &text[..50]);
        assert!(begin.elapsed() < Duration::from_secs(20), "{}: {:?}", &text[..50], begin.elapsed());
    }
    // Flat lists and chains of && and || may be long.
    let long = format!("{}session.tls", "session.user == \"someone\" || ".repeat(500));
    assert!(Condition::compile(&long, Scope::Statement).is_ok());
    let list = (0..1_000).map(|n| format!("\"role{n}\"")).collect::<Vec<_>>().join(", ");
    assert!(Condition::compile(&format!("session.user in [{list}]"), Scope::Statement).is_ok());
    let nested = format!("{}true{}", "(".repeat(25), ")".repeat(25));
    assert!(Condition::compile(&nested, Scope::Statement).is_ok());
}

/// What the crate's own interpreter says; none where it fails.
fn interpreted(condition: &str) -> Option<bool> {
    let program = Env::stdlib().compile(condition).ok()?;
    let mut context = Context::with_env(Arc::new(Env::stdlib()));
    let session = HashMap::from([
        ("user", cel::Value::from("mcp_agent")),
        ("tls", true.into()),
        ("server_port", 5432i64.into()),
    ]);
    let list = |list: &[String]| cel::Value::from(list.to_vec());
    let stmt = statement();
    let stmt = HashMap::from([
        ("text", cel::Value::from(stmt.text.as_ref())),
        ("kinds", list(&stmt.analysis.kinds)),
        ("tables_read", list(&stmt.tables_read)),
    ]);
    context.add_variable_from_value("session", session);
    context.add_variable_from_value("stmt", stmt);
    match program.execute(&context) {
        Ok(cel::Value::Bool(value)) => Some(value),
        _ => None,
    }
}

fn ints() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (-3i64..10).prop_map(|n| format!("({n})")),
        Just("9223372036854775807".to_owned()),
        Just("session.server_port".to_owned()),
        Just("size(stmt.kinds)".to_owned()),
        Just("size(stmt.text)".to_owned()),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        (inner.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), inner)
            .prop_map(|(a, op, b)| format!("({a} {op} {b})"))
    })
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec!["'a'", "''", "'delete'", "'u'", "'public.t'", "'mcp_'"])
            .prop_map(str::to_owned),
        Just("session.user".to_owned()),
        Just("stmt.text".to_owned()),
        Just("stmt.kinds[0]".to_owned()),
        Just("stmt.kinds[9]".to_owned()),
        Just("(session.user + 'x')".to_owned()),
    ]
}

fn lists() -> impl Strategy<Value = String> {
    prop_oneof![
        // Not alone: a text that is no kind is refused there.
        Just("(stmt.kinds + [])".to_owned()),
        Just("stmt.tables_read".to_owned()),
        (texts(), texts()).prop_map(|(a, b)| format!("[{a}, {b}]")),
        texts().prop_map(|a| format!("stmt.kinds.filter(x, x != {a})")),
        texts().prop_map(|a| format!("stmt.tables_read.map(x, x + {a})")),
        Just("(stmt.kinds + stmt.tables_read)".to_owned()),
    ]
}

fn bools() -> impl Strategy<Value = String> {
    let compare = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let leaf = prop_oneof![
        prop::sample::select(vec!["true", "false", "session.tls"]).prop_map(str::to_owned),
        (ints(), compare(), ints()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (texts(), compare(), texts()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
        (texts(), prop::sample::select(vec!["startsWith", "endsWith", "contains"]), texts())
            .prop_map(|(a, f, b)| format!("{a}.{f}({b})")),
        (texts(), lists()).prop_map(|(a, b)| format!("{a} in {b}")),
        (lists(), lists()).prop_map(|(a, b)| format!("{a} == {b}")),
        (lists(), prop::sample::select(vec!["all", "exists", "exists_one"]), texts())
            .prop_map(|(list, each, text)| format!("{list}.{each}(x, x == {text})")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) && ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) || ({b})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a}) ? ({b}) : ({c})")),
        ]
    })
}

proptest! {
    /// Where the crate's interpreter gives a value, so do we, and the same one. It takes `&&` and `||` from left to
    /// right in places where we do not care for the order, so it may fail where we do not.
    #[test]
    fn conditions_say_what_the_interpreter_of_the_crate_says(condition in bools()) {
        let compiled = Condition::compile(&condition, Scope::Statement);
        let Ok(compiled) = compiled else { panic!("{condition}: {compiled:?}") };
        let ours = compiled.outcome(&session(), Some(&statement()));
        if let Some(theirs) = interpreted(&condition) {
            prop_assert_eq!(ours, if theirs { Outcome::True } else { Outcome::False }, "{}", condition);
        } else {
            prop_assert!(!matches!(ours, Outcome::Unknown(_)));
        }
    }

    #[test]
    fn any_text_is_a_condition_or_refused(condition in "\\PC{0,60}") {
        let _ = Condition::compile(&condition, Scope::Statement);
    }

    /// Texts of the grammar's own pieces reach further into the parser than any text does.
    #[test]
    fn any_tokens_are_a_condition_or_refused(tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 0..40)) {
        let _ = Condition::compile(&tokens.concat(), Scope::Statement);
    }
}

const TOKENS: [&str; 54] = [
    "session", ".", "user", "stmt", "kinds", "(", ")", "[", "]", "{", "}", ",", "'a'", "\"", "'", "1", "1u",
    "1.5", "0x1F", "-", "+", "*", "/", "%", "!", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in", " ",
    "?", ":", "true", "false", "null", "b'a'", "r'a'", "'''", "`a`", ".?", "exists", "map", "size", "has",
    "\\", "\n", "//", "é", "in ",
];
