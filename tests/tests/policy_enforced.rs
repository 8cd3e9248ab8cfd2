//! The corpora of the policy against real servers, with the policy in force: no case has its effect, and nothing that
//! ordinary programs send is stopped. What the cases do without it, `policy_corpus` shows.

use std::collections::HashSet;

use anyhow::Context as _;
use tests::corpus::{self, Stage};
use tests::wire::{Wire, frontend};
use tests::{AgentOptions, Server, ServerOptions};

fn quiet() -> ServerOptions {
    ServerOptions::default().setting("log_statement", "none").setting("log_min_duration_statement", "-1")
}

fn policy() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(corpus::folder().join("policy.toml"))?)
}

fn no_case_gets_around_the_policy(server: &Server) -> anyhow::Result<()> {
    let stage = Stage::build(server)?;
    let agent = AgentOptions::default().server(server).config(&policy()?).start()?;
    let cases = corpus::cases(&corpus::folder().join("bypass"))?;
    let mut wrong = Vec::new();
    for case in &cases {
        match stage.play_guarded(case) {
            Ok(played) if !played.happened && !played.before && !played.errors.is_empty() => {}
            Ok(played) => wrong.push(format!("{}: {played:?}", case.name)),
            Err(error) => wrong.push(format!("{}: {error:#}", case.name)),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    server.wait_idle()?;
    let record = agent.stop()?.record;
    // Each was stopped by a guardrail, not by an accident. Each case has a database of its own.
    let stopped = |row: &&tests::record::Decision| {
        row.verdict.as_deref().is_some_and(|verdict| ["blocked", "terminated"].contains(&verdict))
    };
    let databases: HashSet<_> =
        record.decisions.iter().filter(stopped).filter_map(|row| row.database.as_deref()).collect();
    let not_stopped: Vec<_> =
        cases.iter().filter(|case| !databases.contains(corpus::database_of(case).as_str())).collect();
    assert!(not_stopped.is_empty(), "no guardrail stopped {not_stopped:#?}");
    Ok(())
}

#[test]
fn nothing_gets_around_the_policy() -> anyhow::Result<()> {
    no_case_gets_around_the_policy(&quiet().start()?)
}

#[test]
fn ordinary_statements_are_not_stopped() -> anyhow::Result<()> {
    let server = quiet().start()?;
    Stage::build(&server)?;
    let agent = AgentOptions::default().server(&server).config(&policy()?).start()?;
    let statements = corpus::ordinary()?;
    let connect = || -> anyhow::Result<Wire> {
        let mut wire = Wire::tcp(&server)?;
        wire.start(&[("user", corpus::ROLE), ("database", "corpus")])?;
        Ok(wire)
    };
    let mut prepare = "";
    for (whose, sql) in &statements {
        // Most name tables that are not there: the server's own errors are no concern here. A connection for each, lest a
        // COPY or a transaction touch the next.
        let mut wire = connect()?;
        if sql.starts_with("EXECUTE") {
            wire.query(prepare)?;
        }
        if sql.starts_with("PREPARE") {
            prepare = sql;
        }
        wire.send(&frontend::query(sql))?;
        wire.send(&frontend::message(b'f', b"no data\0"))?;
        wire.until_ready().with_context(|| format!("{whose}: {sql}"))?;
        wire.terminate()?;
    }
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let stopped = record.decisions_of("verdict");
    assert!(stopped.is_empty(), "{stopped:#?}");
    let allowed = record.statements.iter().filter(|row| row.verdict == "allowed").count();
    assert!(allowed >= statements.len(), "{allowed} of {} were held and allowed", statements.len());
    println!("{} ordinary statements, none stopped", statements.len());
    Ok(())
}
