//! Prepared statements of guarded sessions: held where a verdict is still due, and only there.

use anyhow::ensure;
use tests::wire::{Wire, error, frontend};
use tests::{Agent, AgentOptions, Server};

/// What a guardrail says of a prepared statement it says once, unless it looks at parameters: then at each Execute.
#[test]
fn an_execute_waits_only_where_its_parameters_matter() -> anyhow::Result<()> {
    let by_text = "[[guardrail]]\nname = 'no-drop'\nwhen = '\"drop\" in stmt.kinds'\naction = 'block'\n";
    let by_value = "[[guardrail]]\nname = 'not-13'\nwhen = '\"13\" in stmt.params'\naction = 'block'\n";
    for (rules, waits) in [(by_text.to_owned(), false), (by_value.to_owned(), true)] {
        let server = Server::start()?;
        server.psql("create table ledger (id int)")?;
        let mut agent = AgentOptions::default().server(&server).config(&rules).start()?;
        let held = |agent: &Agent| agent.kernel_side()?.counter(capture_common::counter::GUARDED);
        let mut wire = Wire::login(&server, "prepared")?;
        let sync = || frontend::message(b'S', b"");
        wire.send(&[frontend::parse("s", "insert into ledger values ($1)", &[]), sync()].concat())?;
        wire.until_ready()?;
        let run = |wire: &mut Wire, value: u64| {
            let bind = frontend::bind("", "s", &[], &[Some(value.to_string().into())], &[]);
            wire.send(&[bind, frontend::execute("", 0), sync()].concat())?;
            wire.until_ready()
        };
        let before = held(&agent)?;
        for value in 100..150 {
            ensure!(error(&run(&mut wire, value)?).is_none());
        }
        ensure!(held(&agent)? - before == if waits { 50 } else { 0 }, "{rules}: {}", held(&agent)? - before);
        ensure!(error(&run(&mut wire, 13)?).is_some() == waits);
        // What is new waits, whatever was before.
        let replies = wire.exchange(&frontend::once("drop table ledger", &[]), true)?;
        ensure!(error(&replies).is_some_and(|error| error.contains("no-drop")) != waits, "{replies:?}");
        server.psql("create table if not exists ledger (id int)")?;
        // Once SQL has given a name, each Execute waits: what the name stands for was a part of another text.
        wire.query("prepare t as select 1")?;
        let before = held(&agent)?;
        ensure!(error(&run(&mut wire, 150)?).is_none());
        ensure!(held(&agent)? - before == 1, "{rules}");
        // Other rules are about what is prepared already.
        agent.configure(&by_value.replace("13", "113"))?;
        agent.wait_for("its rules hold from now on")?;
        ensure!(error(&run(&mut wire, 113)?).is_some(), "{rules}: the new rules do not hold");
        wire.terminate()?;
        server.wait_idle()?;
        let record = agent.stop()?.record;
        let session = record.session_named("prepared")?;
        let allowed = record
            .statements_of(session)
            .into_iter()
            .filter(|statement| statement.verdict == "allowed")
            .count();
        ensure!(allowed >= 50, "{rules}: {allowed} statements are called allowed");
    }
    Ok(())
}

/// A statement was prepared while nobody decided: what it stands for is not known to be harmless.
#[test]
fn an_execute_waits_where_a_parse_has_escaped() -> anyhow::Result<()> {
    let rules = "[[guardrail]]\nname = 'no-drop'\nwhen = '\"drop\" in stmt.kinds'\naction = 'block'\non_failure = 'open'\n\
                 timeout = '300ms'\n";
    let server = Server::start()?;
    server.psql("create table ledger (id int)")?;
    let agent = AgentOptions::default().server(&server).config(rules).start()?;
    let mut wire = Wire::login(&server, "escaped")?;
    let sync = || frontend::message(b'S', b"");
    // So far nothing need wait.
    wire.send(&[frontend::parse("fine", "select 1", &[]), sync()].concat())?;
    wire.until_ready()?;
    agent.stall()?;
    wire.send(&[frontend::parse("bad", "drop table ledger", &[]), sync()].concat())?;
    ensure!(error(&wire.until_ready()?).is_none(), "nobody decides: the rule is open");
    agent.resume()?;
    agent.wait_drained()?;
    let replies =
        wire.exchange(&[frontend::bind("", "bad", &[], &[], &[]), frontend::execute("", 0), sync()], true)?;
    ensure!(error(&replies).is_some(), "{replies:?}");
    ensure!(server.psql("select count(*) from ledger")?.trim() == "0");
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}
