//! Recording rules: what of a session is recorded is what the first rule that is about it says.

use anyhow::ensure;
use tests::wire::Wire;
use tests::{AgentOptions, Server};

#[test]
fn each_session_is_recorded_as_its_first_rule_says() -> anyhow::Result<()> {
    let server = Server::start()?;
    for user in ["counted", "skipped", "short"] {
        server.psql(&format!("create role {user} superuser login"))?;
    }
    let agent = AgentOptions::default().server(&server).config(RULES).start()?;
    for user in ["postgres", "counted", "skipped", "short"] {
        let mut wire = Wire::tcp(&server)?;
        wire.start(&[("user", user), ("database", "postgres"), ("application_name", user)])?;
        wire.query(&format!("select '{user}', n from generate_series(1, 20) n"))?;
        wire.terminate()?;
    }
    server.wait_idle()?;
    let record = agent.stop()?.record;
    for (user, statements, rows) in
        [("postgres", 1, 20), ("counted", 1, 0), ("skipped", 0, 0), ("short", 1, 5)]
    {
        let session = record.session_named(user)?;
        // What a rule leaves out is counted all the same.
        ensure!(session.statements == 1 && session.gap_bytes == 0, "{session:?}");
        let recorded = record.statements_of(session);
        ensure!(recorded.len() == statements, "{user}: {} statements", recorded.len());
        for statement in recorded {
            ensure!(statement.rows == Some(20), "the count of rows is exact: {statement}");
            ensure!(record.rows_of(statement).len() == rows, "{user}: {:?}", record.rows_of(statement));
            ensure!(statement.results_truncated == (rows < 20), "{user}: {statement}");
        }
    }
    // The record says which rule left which session out, and under which policy.
    let session = record.session_named("skipped")?;
    let [skipped] = record.decisions_of("recording_skipped")[..] else {
        anyhow::bail!("decisions: {:?}", record.decisions);
    };
    ensure!(skipped.session_id.as_ref() == Some(&session.session_id), "{skipped:?}");
    ensure!(skipped.reason.as_deref() == Some("record-2") && skipped.verdict.is_none(), "{skipped:?}");
    ensure!(skipped.decided_by.as_deref() == Some("policy"), "{skipped:?}");
    ensure!(skipped.application_name.as_deref() == Some("skipped"), "{skipped:?}");
    let [loaded] = record.decisions_of("policy_loaded")[..] else {
        anyhow::bail!("decisions: {:?}", record.decisions);
    };
    let reason = loaded.reason.as_deref().unwrap_or_default();
    ensure!(reason.contains(".toml sha256:") && loaded.session_id.is_none(), "{loaded:?}");
    ensure!(loaded.message.as_deref() == Some("3 recording rules, 0 guardrails"), "{loaded:?}");
    Ok(())
}

/// An agent that is killed while a session is open has told that it is skipped; the next one does not tell it again,
/// unless another rule skips it now.
#[test]
fn a_skipped_session_is_told_once_also_when_the_agent_is_killed() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = |rules: &str| AgentOptions::default().server(&server).data(data.path()).config(rules).start();
    let agent = start(SKIP)?;
    let mut wire = Wire::login(&server, "skipped")?;
    wire.query("select 1")?;
    agent.wait_drained()?;
    let left = agent.kill()?;
    let agent = start(SKIP)?;
    left.adopted();
    wire.query("select 2")?;
    agent.wait_drained()?;
    let left = agent.kill()?;
    let agent = start(&SKIP.replace("[[record]]", "[[record]]\nname = 'another'"))?;
    left.adopted();
    wire.query("select 3")?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let rules: Vec<_> =
        record.decisions_of("recording_skipped").into_iter().map(|row| row.reason.as_deref()).collect();
    ensure!(rules == [Some("record-1"), Some("another")], "{rules:?}");
    ensure!(record.decisions_of("policy_loaded").len() == 3, "{:?}", record.decisions);
    Ok(())
}

const SKIP: &str = "[[record]]\nmatch = 'session.application_name == \"skipped\"'\nskip = true";

const RULES: &str = r#"
[[record]]
match   = 'session.user == "counted"'
results = "none"

[[record]]
match = 'session.user == "skipped"'
skip  = true

[[record]]
match   = 'session.application_name == "short"'
results = { rows = 5 }
"#;
