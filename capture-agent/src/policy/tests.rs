use proptest::prelude::*;

use super::*;
use crate::session::Protocol;
use crate::sql::{Examiner, Opinions, Reading};

fn policy(text: &str) -> Policy {
    Policy::compile(text, RowLimits::default()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(text: &str) -> Vec<PolicyError> {
    Policy::compile(text, RowLimits::default()).unwrap_err().0
}

fn user(name: &str) -> SessionFacts {
    SessionFacts { user: Some(name.into()), ..SessionFacts::default() }
}

fn stmt(sql: &str) -> StatementFacts {
    let examined = Examiner::default().examine(sql.as_bytes(), Reading::default(), Opinions::Two);
    StatementFacts::new(examined.text, Protocol::Simple, examined.analysis)
}

/// The design's example.
const NO_DDL: &str = r#"
[[guardrail]]
name    = "no-ddl-from-agents"
match   = 'session.user.startsWith("mcp_")'
when    = '"drop" in stmt.kinds || "truncate" in stmt.kinds'
action  = "block"
message = "schema changes go through migrations"
on_unknown = "block"
on_failure = "closed"
"#;

#[test]
fn a_guardrail_catches_its_statements_in_its_sessions() {
    let policy = policy(NO_DDL);
    let decision = policy.decide(&user("mcp_1"), &stmt("select 1; drop table t"));
    assert_eq!(decision.verdict, Verdict::Block);
    assert_eq!(decision.reason, Some(Reason::True));
    let guardrail = decision.guardrail.unwrap();
    assert_eq!(guardrail.message.as_deref(), Some("schema changes go through migrations"));
    assert_eq!(guardrail.on_failure, OnFailure::Closed);
    assert_eq!(policy.decide(&user("mcp_1"), &stmt("select 1")), Decision::allow());
    assert_eq!(policy.decide(&user("app"), &stmt("drop table t")), Decision::allow());
}

#[test]
fn an_unknown_statement_is_caught_as_the_guardrail_says() {
    let closed = policy(NO_DDL);
    let decision = closed.decide(&user("mcp_1"), &stmt("selec 1"));
    assert_eq!((decision.verdict, decision.reason), (Verdict::Block, Some(Reason::Unknown)));
    assert_eq!(closed.decide(&user("app"), &stmt("selec 1")), Decision::allow());
    let open = policy(&NO_DDL.replace("on_unknown = \"block\"", "on_unknown = \"allow\""));
    assert_eq!(open.decide(&user("mcp_1"), &stmt("selec 1")), Decision::allow());
    // A session that is not known may be one of the guardrail's.
    assert_eq!(closed.decide(&SessionFacts::default(), &stmt("drop table t")).reason, Some(Reason::Unknown));
    assert_eq!(closed.decide(&SessionFacts::default(), &stmt("select 1")), Decision::allow());
}

#[test]
fn what_cannot_be_computed_is_caught_if_failure_is_closed() {
    let text = "[[guardrail]]\nname = 'a'\naction = 'block'\nwhen = 'int(stmt.text) > 0'\n";
    let decision = policy(text).decide(&user("a"), &stmt("select 1"));
    assert_eq!(
        (decision.verdict, decision.reason),
        (Verdict::Block, Some(Reason::Failed(Fault::NotANumber)))
    );
    let open = policy(&format!("{text}on_failure = 'open'\n"));
    assert_eq!(open.decide(&user("a"), &stmt("select 1")), Decision::allow());
}

#[test]
fn the_strictest_action_wins_and_of_equals_the_first() {
    let rule = |name: &str, action: &str| format!("[[guardrail]]\nname = '{name}'\naction = '{action}'\n");
    let decide = |rules: &[(&str, &str)]| {
        let text: String = rules.iter().map(|(name, action)| rule(name, action)).collect();
        let decision = policy(&text).decide(&user("a"), &stmt("select 1"));
        let observed: Vec<_> =
            decision.observed.iter().map(|observed| observed.guardrail.name.clone()).collect();
        (decision.verdict, decision.guardrail.map(|guardrail| guardrail.name.clone()), observed.join(" "))
    };
    assert_eq!(decide(&[("a", "observe"), ("b", "alert")]), (Verdict::Allow, None, "a b".into()));
    assert_eq!(
        decide(&[("a", "approve"), ("b", "block"), ("c", "block"), ("d", "observe")]),
        (Verdict::Block, Some("b".into()), "d".into())
    );
    assert_eq!(
        decide(&[("a", "block"), ("b", "terminate")]),
        (Verdict::Terminate, Some("b".into()), String::new())
    );
}

#[test]
fn a_statement_waits_for_parameters_that_a_guardrail_reads() {
    let policy = policy(
        "[[guardrail]]\nname = 'a'\naction = 'block'\n\
         when = '\"delete\" in stmt.kinds && stmt.params.exists(p, p == \"42\")'\n",
    );
    let examined =
        Examiner::default().examine(b"delete from t where a = $1", Reading::default(), Opinions::Two);
    let parsed = StatementFacts::new(examined.text, Protocol::Extended, examined.analysis);
    let decision = policy.decide(&user("a"), &parsed);
    assert_eq!((decision.verdict, decision.later), (Verdict::Allow, true));
    let decide = |param| policy.decide(&user("a"), &parsed.clone().with_params([param]));
    assert_eq!(decide(Some("42")).verdict, Verdict::Block);
    assert_eq!(decide(Some("41")), Decision::allow());
    assert_eq!(decide(None), Decision::allow());
    // Whether it waits depends on the text too.
    let decision = policy.decide(&user("a"), &stmt("select 1"));
    assert!(!decision.later);
    assert!(policy.needs(&user("a")).params);
}

#[test]
fn sessions_are_armed_until_no_guardrail_can_be_about_them() {
    let waits = |policy: &Policy, session| policy.waits(&session).is_some();
    let armed = policy(&format!("{NO_DDL}[[guardrail]]\nname = 'x'\naction = 'observe'\n"));
    assert!(waits(&armed, SessionFacts::default()));
    assert!(waits(&armed, user("mcp_1")));
    // A guardrail that only watches holds nothing.
    assert!(!waits(&armed, user("app")));
    assert!(!waits(&Policy::default(), SessionFacts::default()));
    assert!(waits(&policy("[[guardrail]]\nname = 'x'\naction = 'approve'\n"), SessionFacts::default()));
    let both = policy(
        "[[guardrail]]\nname = 'x'\naction = 'block'\nmatch = 'session.user == \"a\" && session.database == \"b\"'\n",
    );
    assert!(!waits(&both, user("c")));
    assert!(waits(&both, user("a")));
}

#[test]
fn needs_are_those_of_guardrails_that_can_be_about_the_session() {
    let policy = policy(NO_DDL);
    assert_eq!(policy.needs(&user("mcp_1")), Needs { params: false, opinions: Opinions::Two });
    assert_eq!(policy.needs(&user("app")), Needs { params: false, opinions: Opinions::One });
}

#[test]
fn the_first_recording_rule_that_is_about_a_session_is_taken() {
    let policy = policy(
        r#"
[[record]]
match = 'session.user == "backup"'
skip = true

[[record]]
name = "payments"
match = 'session.database == "payments"'
results = { rows = 1000 }
required = true
timeout = "2s"
on_failure = "open"

[[record]]
match = 'session.user == "app"'
results = "none"
"#,
    );
    let name = |session: &SessionFacts| policy.record_rule(session).name.clone();
    let with = |user: Option<&str>, database: Option<&str>| SessionFacts {
        user: user.map(Into::into),
        database: database.map(Into::into),
        ..SessionFacts::default()
    };
    assert_eq!(name(&with(Some("backup"), Some("payments"))), "record-1");
    let payments = policy.record_rule(&with(Some("app"), Some("payments")));
    assert_eq!((payments.name.as_str(), payments.index, payments.required), ("payments", Some(1), true));
    assert_eq!(payments.results, RowLimits { rows: 1000, ..RowLimits::default() });
    assert_eq!((payments.timeout.as_secs(), payments.on_failure), (2, OnFailure::Open));
    assert_eq!(policy.record_rule(&with(Some("app"), Some("x"))).results, RowLimits::NONE);
    assert_eq!(policy.record_rule(&with(Some("x"), Some("x"))).index, None);
    // What is not known is recorded, and as strictly as it may have to be.
    assert_eq!(name(&with(Some("app"), None)), "payments");
    assert_eq!(name(&with(None, Some("x"))), "default");
}

#[test]
fn rules_are_refused_as_a_whole_with_every_error_and_its_line() {
    let text = r#"
[[record]]
match = 'session.databas == "x"'
results = "some"

[[guardrail]]
name = "a"
action = "blok"

[[guardrail]]
name = "b"
action = "block"
when = '''
"drop" in stmt.kinds
  && stmt.tables == []
'''
timeout = "soon"
approval = ["text"]

[[guardrail]]
name = "a b"
action = "approve"
approval = ["text", "30m", "forever"]

[[guardrail]]
action = "alert"
"#;
    let found = errors(text);
    let lines: Vec<_> = found.iter().map(|error| error.line).collect();
    assert_eq!(lines, [3, 4, 8, 15, 17, 18, 21, 23, 25], "{found:#?}");
    let parts = [
        "did you mean `session.database`?\n  | session.databas == \"x\"\n  |        ^",
        "expected \"none\", \"full\" or { rows = N, bytes = N }",
        "did you mean \"block\"?",
        "`stmt` has no field `tables`",
        "expected 100ms to 24h",
        "for the action \"approve\" only",
        "is not 1 to 63 letters",
        "not \"forever\"",
        "a guardrail without `name`",
    ];
    for (error, part) in found.iter().zip(parts) {
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.to_string().contains("(see docs/errors.md#"), "{error}");
    }
}

#[test]
fn other_errors_of_rules() {
    for (text, line, part) in [
        ("[[guardrail]]\nname = 'a'\naction = 'block'\nwhem = 'true'", 4, "unknown field `whem`"),
        ("[[guardrail]]\nname = 'a'\naction = 3", 3, "expected a string"),
        ("[[guardrail]]\nname = 'a'", 1, "has no `action`"),
        (
            "[[guardrail]]\nname = 'a'\naction = 'alert'\n[[guardrail]]\nname = 'a'\naction = 'alert'",
            4,
            "names are unique",
        ),
        ("[[record]]\ntimeout = '5s'", 2, "`required = true` only"),
        ("[[record]]\nskip = true\nrequired = true", 1, "cannot be required"),
        ("[[record]]\nskip = true\nresults = 'none'", 3, "has no `results`"),
        ("[[record]]\nresults = { row = 1 }", 2, "expected \"none\""),
        ("[[record]]\nresults = { rows = -1 }", 2, "expected \"none\""),
        ("[[record]]\nname = 'default'", 2, "is taken"),
        ("[[guardrail]]\nname = 'a'\naction = 'block'\nmessage = \"two\\nlines\"", 4, "not one line"),
        (
            "[[guardrail]]\nname = 'a'\naction = 'block'\nmax_blocked = 3",
            4,
            "for the action \"approve\" only",
        ),
        (
            "[[guardrail]]\nname = 'a'\naction = 'block'\nmatch = '\"drop\" in stmt.kinds'",
            4,
            "belong in a guardrail's `when`",
        ),
        ("\n[guardrail]\nname = 'a'", 2, "expected"),
        ("= 1", 1, ""),
    ] {
        let found = errors(text);
        assert_eq!(found[0].line, line, "{text}: {found:?}");
        assert!(found[0].message.contains(part), "{text}: {found:?}");
    }
}

#[test]
fn what_a_guardrail_does_not_say_has_a_default() {
    let policy = policy(
        "[[guardrail]]\nname = 'a'\naction = 'approve'\napproval = ['text', '30m']\nmax_blocked = 3\n\
         [[guardrail]]\nname = 'b'\naction = 'block'\ntimeout = '500ms'\n",
    );
    let [a, b] = policy.guardrails() else { panic!() };
    assert_eq!(
        (a.timeout.as_secs(), a.max_blocked, a.on_unknown, a.on_failure),
        (300, Some(3), OnUnknown::Block, OnFailure::Closed)
    );
    assert!(a.approval.text && a.approval.at_most.is_some_and(|time| time.as_secs() == 1800));
    assert_eq!((b.timeout.as_millis(), b.max_blocked, b.approval), (500, None, Approval::default()));
}

/// The page for operators names every field, its type and what it says, and no other.
#[test]
fn the_page_documents_the_fields_that_there_are() {
    let page = include_str!("../../../docs/policy.md");
    let documented: Vec<&str> =
        page.lines().filter(|line| line.starts_with("| `session.") || line.starts_with("| `stmt.")).collect();
    let fields: Vec<String> = FIELDS
        .iter()
        .map(|field| format!("| `{}.{}` | {} | {} |", field.object, field.name, field.kind, field.meaning))
        .collect();
    assert_eq!(documented, fields);
}

/// Examples of the page compile.
#[test]
fn the_examples_of_the_page_are_valid() {
    let page = include_str!("../../../docs/policy.md");
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(examples.len() >= 5);
    for example in examples {
        policy(example);
    }
}

#[test]
fn an_explanation_agrees_with_the_decision() {
    let policy = policy(NO_DDL);
    let explanation = policy.explain(&user("mcp_1"), Some(&stmt("drop table t")));
    assert_eq!(
        (explanation.verdict, explanation.guardrail.as_deref()),
        (Verdict::Block, Some("no-ddl-from-agents"))
    );
    let report = &explanation.guardrails[0];
    assert_eq!(
        (report.matching.as_ref().unwrap().says.as_str(), report.when.as_ref().unwrap().says.as_str()),
        ("true", "true")
    );
    let explanation = policy.explain(&user("mcp_1"), Some(&stmt("selec 1")));
    assert_eq!(explanation.guardrails[0].effect, Effect::CatchesUnknown);
    assert_eq!(
        explanation.guardrails[0].when.as_ref().unwrap().says,
        "unknown: PostgreSQL's grammar does not read the text"
    );
    assert_eq!(policy.explain(&user("app"), None).guardrails[0].effect, Effect::Passes);
}

/// It is compiled on one thread and asked on another.
#[test]
fn a_policy_may_move_between_threads() {
    fn movable<T: Send + Sync + 'static>() {}
    movable::<Policy>();
    movable::<Decision>();
    movable::<StatementFacts>();
}

/// Reads every field, in ways that fail.
const CURIOUS: &str = r#"
[[guardrail]]
name = "a"
action = "block"
match = 'session.user.startsWith("a") || session.tls || session.server_port > 0'
when = 'stmt.params[0] == stmt.text || int(stmt.text) / size(stmt.kinds) == 1 || stmt.opaque || stmt.delete_without_where'
[[guardrail]]
name = "b"
action = "terminate"
on_unknown = "allow"
when = '(stmt.tables_read + stmt.tables_written + stmt.schemas + stmt.functions + stmt.function_names + stmt.settings).exists(x, x.matches("[a-z]+$"))'
[[guardrail]]
name = "c"
action = "observe"
when = 'stmt.unknown != "" || stmt.update_without_where || stmt.protocol == "x"'
"#;

proptest! {
    #[test]
    fn a_policy_decides_about_any_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        setting in any::<Option<bool>>(),
        encoding in prop::sample::select(vec!["UTF8", "SJIS", "SQL_ASCII", "LATIN1", "GB18030"]),
        user in any::<Option<String>>(),
    ) {
        let reading = Reading { encoding: crate::session::value::Encoding::from_name(encoding), standard_conforming_strings: setting };
        let examined = Examiner::default().examine(&bytes, reading, Opinions::Two);
        let session = SessionFacts { user: user.map(Into::into), ..SessionFacts::default() };
        for protocol in [Protocol::Simple, Protocol::Extended] {
            let facts = StatementFacts::new(Arc::clone(&examined.text), protocol, Arc::clone(&examined.analysis));
            let policy = policy(CURIOUS);
            let decision = policy.decide(&session, &facts);
            prop_assert_eq!(policy.explain(&session, Some(&facts)).verdict, decision.verdict);
        }
    }

    #[test]
    fn any_text_is_a_policy_or_refused(text in "(\\[\\[(guardrail|record)\\]\\]\n((name|match|when|action|results|timeout|skip) = ['\"{]?\\PC{0,20}['\"}]?\n){0,4}){0,3}") {
        let _ = Policy::compile(&text, RowLimits::default());
    }
}
