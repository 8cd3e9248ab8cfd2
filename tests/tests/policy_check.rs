//! `capture-agent check`: what is wrong in a file, and what would become of a statement.

use std::fs;
use std::process::{Command, Output};

use serde_json::Value;
use tests::deps;

const RULES: &str = r#"
node = "db-1"

[[record]]
match   = 'session.database == "payments"'
results = { rows = 1000 }
required = true

[[guardrail]]
name    = "no-ddl-from-agents"
match   = 'session.user.startsWith("mcp_")'
when    = '"drop" in stmt.kinds || "truncate" in stmt.kinds'
action  = "block"
message = "schema changes go through migrations"

[[guardrail]]
name   = "large-orders"
when   = '"orders" in stmt.tables_written && int(stmt.params[0]) > 1000'
action = "approve"
"#;

fn check(rules: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("capture.toml");
    fs::write(&file, rules)?;
    Ok(Command::new(deps::agent()?).arg("check").arg(&file).args(arguments).output()?)
}

/// What is printed for a valid file.
fn told(arguments: &[&str]) -> anyhow::Result<String> {
    let output = check(RULES, arguments)?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn a_valid_file_is_ok() -> anyhow::Result<()> {
    let out = told(&[])?;
    assert!(out.trim_end().ends_with("capture.toml: ok, 1 recording rules, 2 guardrails"), "{out}");
    Ok(())
}

#[test]
fn a_wrong_file_fails_with_every_line() -> anyhow::Result<()> {
    let rules = RULES.replace("session.database", "session.databse").replace("\"block\"", "\"blok\"");
    let output = check(&rules, &["--sql", "select 1"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr)?;
    for part in [
        "capture.toml: line 5: recording rule \"record-1\", `match`: `session` has no field `databse`; did you mean `session.database`?",
        "docs/errors.md#policy-condition",
        "capture.toml: line 13: guardrail \"no-ddl-from-agents\": `action` is \"blok\"; did you mean \"block\"?",
        "docs/errors.md#policy-invalid",
    ] {
        assert!(error.contains(part), "{error}");
    }
    let output = check("nod = 'a'", &[])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr)?.contains("docs/errors.md#config-invalid"));
    Ok(())
}

#[test]
fn a_statement_is_explained() -> anyhow::Result<()> {
    let out = told(&["--user", "mcp_1", "--database", "payments", "--sql", "select 1; drop table t"])?;
    for part in [
        "kinds: drop, drop_table, select",
        "tables_written: t",
        "record-1: taken; statements, 1000 rows and 16777216 bytes of rows of each; required",
        "no-ddl-from-agents (block): catches it",
        "when is true: \"drop\" in stmt.kinds",
        "large-orders (approve): passes",
        "block, by no-ddl-from-agents: schema changes go through migrations",
    ] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let out = told(&["--user", "app", "--sql", "drop table t"])?;
    assert!(out.contains("match is false") && out.trim_end().ends_with("allow"), "{out}");
    // Nothing is known of the session: the guardrail may be about it.
    let out = told(&["--sql", "drop table t"])?;
    assert!(out.contains("match is unknown: a field of the session is not known"), "{out}");
    assert!(out.contains("catches it, since it is unknown and on_unknown is block"), "{out}");
    Ok(())
}

#[test]
fn a_parameter_decides() -> anyhow::Result<()> {
    let sql = "update orders set total = $1 where id = 1";
    let verdict = |parameter: &str| -> anyhow::Result<String> {
        let out = told(&["--user", "app", "--sql", sql, "--param", parameter, "--json"])?;
        let answer: Value = serde_json::from_str(&out)?;
        assert_eq!(answer["stmt"]["tables_written"][0], "orders");
        assert_eq!(answer["guardrails"][0]["match"]["says"], "false");
        Ok(format!("{} {}", answer["verdict"], answer["guardrails"][1]["effect"]))
    };
    assert_eq!(verdict("5")?, r#""allow" "passes""#);
    assert_eq!(verdict("5000")?, r#""approve" "catches""#);
    // A condition that cannot be computed catches: on_failure is closed.
    assert_eq!(verdict("many")?, r#""approve" "catches_failed""#);
    Ok(())
}

#[test]
fn texts_are_read_as_the_session_would_have_them_read() -> anyhow::Result<()> {
    let sql = r"select 'a\'; drop table t; --'";
    let kinds = |setting: &str| -> anyhow::Result<Value> {
        let out =
            told(&["--user", "mcp_1", "--sql", sql, "--standard-conforming-strings", setting, "--json"])?;
        Ok(serde_json::from_str::<Value>(&out)?["stmt"]["kinds"].clone())
    };
    assert_eq!(kinds("true")?, serde_json::json!(["drop", "drop_table", "select"]));
    assert_eq!(kinds("false")?, serde_json::json!(["select"]));
    let out = told(&["--user", "mcp_1", "--encoding", "SQL_ASCII", "--sql", "select 'é'"])?;
    assert!(out.contains("unknown: the text cannot be decoded"), "{out}");
    Ok(())
}

#[test]
fn masks_are_shown_with_the_text_that_is_recorded() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("capture.toml");
    fs::write(
        &file,
        "[[mask]]\nname = 'people'\nmatch = 'session.user == \"app\"'\ncolumns = ['customers.ssn']\n",
    )?;
    let sql = "select id from customers where ssn = 'x' and id = 5";
    let check = |user: &str| {
        deps::run(Command::new(deps::agent()?).arg("check").arg(&file).args(["--user", user, "--sql", sql]))
    };
    let shown = check("app")?;
    assert!(shown.contains("1 masks") && shown.contains("rules: people"), "{shown}");
    assert!(
        shown.contains("recorded as: select id from customers where ssn = '[masked]' and id = 5"),
        "{shown}"
    );
    assert!(!check("other")?.contains("masking"));
    Ok(())
}
