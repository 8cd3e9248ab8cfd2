//! The commands that read a record: for people and as JSON, with filters, safe to print.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::captured::Captured;
use tests::wire::{Wire, frontend};
use tests::{AgentOptions, Server, capture, deps};

#[test]
fn sessions_are_listed_and_filtered() -> anyhow::Result<()> {
    let captured = recorded()?;
    let data = &captured.finished.data;
    let all = json(data, &["sessions"])?;
    assert_eq!(all.len(), captured.record().sessions.len());
    for session in &captured.record().sessions {
        let listed = all.iter().find(|row| row["session_id"] == session.session_id.as_str());
        let listed = listed.ok_or_else(|| anyhow::anyhow!("{} is not listed", session.session_id))?;
        assert_eq!(listed["pg_user"].as_str(), session.pg_user.as_deref());
        assert_eq!(listed["statements"].as_u64(), Some(session.statements));
        assert_eq!(listed["end_reason"].as_str(), session.end_reason.as_deref());
    }
    for (filter, application) in [
        (["--user", "reader"], "as reader"),
        (["--database", "template1"], "on template1"),
        (["--text", "needle in a haystack"], "with needle"),
        (["--status", "failed"], "failing"),
    ] {
        let found = json(data, &["sessions", filter[0], filter[1]])?;
        let names: Vec<_> = found.iter().filter_map(|row| row["application_name"].as_str()).collect();
        assert_eq!(names, [application], "{filter:?}");
    }
    assert!(json(data, &["sessions", "--user", "nobody"])?.is_empty());
    assert!(json(data, &["sessions", "--until", "2001-01-01"])?.is_empty());
    assert_eq!(json(data, &["sessions", "--since", "2001-01-01"])?.len(), all.len());
    Ok(())
}

#[test]
fn a_session_is_shown_with_parameters_rows_errors_and_timing() -> anyhow::Result<()> {
    let captured = recorded()?;
    let data = &captured.finished.data;
    let session = captured.record().session_named("with needle")?;
    let text = agent(data, &["show", &session.session_id, "--results"])?;
    for part in ["needle in a haystack", "'parameter one'", "parameter onerow value é", "ms"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let failing = captured.record().session_named("failing")?;
    let text = agent(data, &["show", &failing.session_id])?;
    assert!(text.contains("22012") && text.contains("division by zero"), "{text}");
    let shown = agent(data, &["show", &session.session_id, "--json", "--results"])?;
    for part in ["needle in a haystack", "\"parameter one\"", "parameter onerow value é"] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    // Without --results, no row is shown.
    let shown = agent(data, &["show", &session.session_id])?;
    assert!(!shown.contains("onerow value"), "{shown}");
    Ok(())
}

/// What a client sends must not move the cursor, change the colours or fake lines of the auditor's terminal.
/// A statement that a guardrail blocked shows the verdict, the decision with its reason stands behind it, and it is found.
#[test]
fn what_was_decided_is_shown_with_its_statement() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = AgentOptions::default().server(&server).config(GUARDRAILS).start()?;
    let mut wire = Wire::login(&server, "decided")?;
    wire.query("drop table nothing_there_by_this_name")?;
    wire.query("select 1")?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let data = &finished.data;
    let session = finished.record.session_named("decided")?;
    let text = self::agent(data, &["show", &session.session_id])?;
    let mut rest = text.as_str();
    for part in [
        "blocked",
        "[blocked by no-drop]",
        "drop table nothing_there_by_this_name",
        "!!",
        "blocked by guardrail no-drop (block): its condition is true",
        "decided by policy, held",
        "changes go through migrations",
        "select 1",
        "!!",
        "observed by guardrail watch (observe)",
    ] {
        let at = rest.find(part);
        let at = at.ok_or_else(|| anyhow::anyhow!("no {part:?} where it should be in:\n{text}"))?;
        rest = &rest[at + part.len()..];
    }
    let items = json(data, &["show", &session.session_id])?;
    let statement = &items[1];
    assert_eq!((&statement["type"], &statement["status"]), (&"statement".into(), &"blocked".into()));
    assert_eq!((&statement["verdict"], &statement["guardrail"]), (&"blocked".into(), &"no-drop".into()));
    let decision = items.iter().find(|item| item["type"] == "decision" && item["verdict"] == "blocked");
    let decision = decision.ok_or_else(|| anyhow::anyhow!("no decision in {items:?}"))?;
    assert_eq!(decision["sql"], "drop table nothing_there_by_this_name");
    assert_eq!(decision["application_name"], "decided");
    let found = json(data, &["sessions", "--status", "blocked"])?;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["session_id"], session.session_id.as_str());
    Ok(())
}

const GUARDRAILS: &str = r#"
[[guardrail]]
name    = "no-drop"
when    = '"drop" in stmt.kinds'
action  = "block"
message = "schema changes go through migrations"

[[guardrail]]
name    = "watch"
when    = '"select" in stmt.kinds'
action  = "observe"
"#;

#[test]
fn control_characters_are_not_printed_as_they_are() -> anyhow::Result<()> {
    let captured = recorded()?;
    let session = captured.record().session_named("hostile")?;
    let text = agent(&captured.finished.data, &["show", &session.session_id, "--results"])?;
    assert!(text.contains("evil"));
    let listed = agent(&captured.finished.data, &["sessions"])?;
    for text in [text, listed] {
        assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
        // Bidirectional overrides reorder what is read.
        assert!(!text.contains('\u{202e}'), "{text:?}");
    }
    Ok(())
}

#[test]
fn what_is_not_there_is_refused_with_words() -> anyhow::Result<()> {
    let captured = capture(|server, _| server.psql("select 1").map(|_| ()))?;
    let data = &captured.finished.data;
    for arguments in [
        vec!["show", "00000000-0000-7000-8000-000000000000"],
        vec!["show", "no such id"],
        vec!["sessions", "--since", "yesterdayish"],
        vec!["sessions", "--status", "no such status"],
    ] {
        let mut command = Command::new(deps::agent()?);
        let output = command.args(&arguments).arg("--data-dir").arg(data).output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} succeeded");
        assert!(words.len() > 10 && !words.contains("panicked"), "{arguments:?}: {words}");
    }
    let nowhere = tempfile::tempdir()?;
    let mut command = Command::new(deps::agent()?);
    let output = command.args(["sessions", "--data-dir"]).arg(nowhere.path().join("nothing")).output()?;
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    Ok(())
}

#[test]
fn every_command_has_help_with_an_example() -> anyhow::Result<()> {
    for command in ["run", "doctor", "check", "sessions", "show", "approvals"] {
        let help = deps::run(Command::new(deps::agent()?).args([command, "--help"]))?;
        let example = format!("capture-agent {command}");
        assert!(help.contains(&example), "the help of {command} has no example:\n{help}");
    }
    Ok(())
}

/// Five sessions, each with something that only it has.
fn recorded() -> anyhow::Result<Captured> {
    capture(|server, _| {
        server.psql("create role reader login")?;
        let mut wire = Wire::tcp(server)?;
        wire.start(&[("user", "reader"), ("database", "postgres"), ("application_name", "as reader")])?;
        wire.query("select 1")?;
        wire.terminate()?;
        let mut wire = Wire::tcp(server)?;
        wire.start(&[("user", "postgres"), ("database", "template1"), ("application_name", "on template1")])?;
        wire.query("select 2")?;
        wire.terminate()?;
        let mut wire = Wire::login(server, "with needle")?;
        let mut bytes = frontend::parse("", "select 'needle in a haystack', $1 || 'row value é'", &[]);
        bytes.extend(frontend::bind("", "", &[], &[Some(b"parameter one".to_vec())], &[]));
        bytes.extend(frontend::execute("", 0));
        bytes.extend(frontend::message(b'S', &[]));
        wire.send(&bytes)?;
        wire.until_ready()?;
        wire.terminate()?;
        let mut wire = Wire::login(server, "failing")?;
        wire.query("select 1/0")?;
        wire.terminate()?;
        let mut wire = Wire::login(server, "hostile")?;
        wire.query("select 'evil \u{1b}[2J\u{1b}]0;title\u{7} \r\u{8} \u{9b}1m \u{202e}', E'row \\x1b[31m'")?;
        wire.terminate()
    })
}

fn agent(data: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    deps::run(Command::new(deps::agent()?).args(arguments).arg("--data-dir").arg(data))
}

/// Rows of `--json`: one array, or one object on each line.
fn json(data: &Path, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let text = agent(data, &[arguments, &["--json"]].concat())?;
    if let Ok(Value::Array(rows)) = serde_json::from_str(&text) {
        return Ok(rows);
    }
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}
