//! Statements that wait for somebody's word: held until an approver decides, or the deadline does.

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::wire::{Message, Wire};
use tests::{Agent, AgentOptions, Server, deps, wait};

fn rules(more: &str) -> String {
    format!(
        "[[guardrail]]\nname = 'big-changes'\nmatch = 'session.user == \"postgres\"'\nwhen = 'stmt.text.contains(\"ask\")'\n\
         action = 'approve'\nmessage = 'a person decides'\n{more}\n"
    )
}

fn start(more: &str) -> anyhow::Result<(Server, Agent)> {
    let server = Server::start()?;
    server.psql("create table ledger (id int primary key); insert into ledger values (0)")?;
    let agent = AgentOptions::default().server(&server).config(&rules(more)).start()?;
    Ok((server, agent))
}

/// Sends a statement on a thread of its own.
fn send(mut wire: Wire, sql: &str) -> thread::JoinHandle<(Wire, anyhow::Result<Vec<Message>>)> {
    let sql = sql.to_owned();
    thread::spawn(move || {
        let replies = wire.query(&sql);
        (wire, replies)
    })
}

fn approvals(agent: &Agent, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(deps::agent()?);
    deps::run(command.arg("approvals").args(arguments).arg("--data-dir").arg(agent.data()))
}

/// The one statement that waits.
fn waiting(agent: &Agent) -> anyhow::Result<Value> {
    wait::until("a statement to wait", Duration::from_secs(5), || {
        let list = approvals(agent, &["list", "--json"])?;
        Ok(list.lines().next().map(serde_json::from_str).transpose()?)
    })
}

fn id(request: &Value) -> anyhow::Result<&str> {
    request["id"].as_str().context("no id")
}

fn error(replies: &[Message]) -> Option<String> {
    replies.iter().find(|reply| reply.tag == b'E').and_then(|error| error.field(b'M'))
}

fn joined(
    query: thread::JoinHandle<(Wire, anyhow::Result<Vec<Message>>)>,
) -> anyhow::Result<(Wire, Vec<Message>)> {
    let (wire, replies) = query.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
    Ok((wire, replies?))
}

#[test]
fn what_somebody_approves_runs_and_what_is_denied_fails_with_the_reason() -> anyhow::Result<()> {
    let (server, agent) = start("")?;
    let query = send(Wire::login(&server, "asking")?, "insert into ledger values (1) -- ask");
    let request = waiting(&agent)?;
    ensure!(request["user"] == "postgres" && request["guardrail"] == "big-changes", "{request}");
    ensure!(request["sql"] == "insert into ledger values (1) -- ask", "{request}");
    ensure!(server.psql("select count(*) from ledger where id > 0")?.trim() == "0", "it ran already");
    approvals(&agent, &["approve", id(&request)?])?;
    let (wire, replies) = joined(query)?;
    ensure!(error(&replies).is_none(), "{replies:?}");

    let query =
        send(wire, "delete from ledger /* ask: a long text, so that there is room for what is said */");
    let request = waiting(&agent)?;
    approvals(&agent, &["deny", id(&request)?, "--reason", "not before the release"])?;
    let (mut wire, replies) = joined(query)?;
    let said = error(&replies).context("no error")?;
    ensure!(said.contains("'big-changes: denied: not before the release (root (uid 0))'"), "{said}");
    ensure!(error(&wire.query("select 1")?).is_none());
    wire.terminate()?;
    ensure!(server.psql("select count(*) from ledger")?.trim() == "2");
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let statements = record.statements_of(record.session_named("asking")?);
    let verdicts: Vec<_> = statements.iter().map(|row| (row.verdict.as_str(), row.status.as_str())).collect();
    ensure!(
        verdicts == [("approved", "completed"), ("denied", "blocked"), ("allowed", "completed")],
        "{verdicts:?}"
    );
    let decided: Vec<_> = record.decisions_of("verdict").iter().map(|row| row.decided_by.clone()).collect();
    ensure!(decided.iter().filter(|by| by.as_deref() == Some("root (uid 0)")).count() == 2, "{decided:?}");
    record.check_totals()
}

#[test]
fn without_a_word_the_deadline_decides() -> anyhow::Result<()> {
    for (on_failure, runs) in [("open", true), ("closed", false)] {
        let (server, agent) = start(&format!("timeout = '1s'\non_failure = '{on_failure}'"))?;
        let sql = "insert into ledger values (1) -- ask, and let there be room";
        let (mut wire, replies) = joined(send(Wire::login(&server, "late")?, sql))?;
        let said = error(&replies);
        ensure!(said.is_none() == runs, "{on_failure}: {replies:?}");
        ensure!(runs || said.is_some_and(|said| said.contains("nobody decided in time")), "{replies:?}");
        wire.terminate()?;
        server.wait_idle()?;
        let record = agent.stop()?.record;
        let verdicts = record.decisions_of("verdict");
        let wanted = if runs { "failed_open" } else { "failed_closed" };
        ensure!(verdicts.iter().any(|row| row.verdict.as_deref() == Some(wanted)), "{verdicts:?}");
    }
    Ok(())
}

#[test]
fn an_approval_covers_what_its_guardrail_allows() -> anyhow::Result<()> {
    let (server, agent) = start("approval = ['text', '1m']")?;
    let sql = "update ledger set id = id -- ask";
    let query = send(Wire::login(&server, "covered")?, sql);
    approvals(&agent, &["approve", id(&waiting(&agent)?)?, "--cover", "text"])?;
    let (mut wire, _) = joined(query)?;
    for _ in 0..3 {
        ensure!(error(&wire.query(sql)?).is_none());
    }
    let query = send(wire, "update ledger set id = id + 0 -- ask");
    approvals(&agent, &["approve", id(&waiting(&agent)?)?, "--cover", "30s"])?;
    let (mut wire, _) = joined(query)?;
    ensure!(error(&wire.query("update ledger set id = id * 1 -- ask")?).is_none());
    // Another session is asked for.
    let query = send(Wire::login(&server, "another")?, sql);
    approvals(&agent, &["deny", id(&waiting(&agent)?)?, "--reason", "no"])?;
    let (mut other, replies) = joined(query)?;
    ensure!(error(&replies).is_some(), "{replies:?}");
    other.terminate()?;
    wire.terminate()?;
    agent.stop()?.record.check_totals()
}

#[test]
fn the_next_agent_asks_again() -> anyhow::Result<()> {
    let (server, agent) = start("")?;
    let query = send(Wire::login(&server, "patient")?, "insert into ledger values (1) -- ask");
    waiting(&agent)?;
    let killed = agent.kill()?;
    let next = AgentOptions::default().server(&server).data(&killed.data).config(&rules("")).start()?;
    killed.adopted();
    approvals(&next, &["approve", id(&waiting(&next)?)?])?;
    let (mut wire, replies) = joined(query)?;
    ensure!(error(&replies).is_none(), "{replies:?}");
    wire.terminate()?;
    server.wait_idle()?;
    next.stop()?.record.check_totals()
}

/// A killed agent leaves its socket, and nobody who finds it there is to think that somebody listens.
#[test]
fn detaching_removes_a_dead_agents_socket() -> anyhow::Result<()> {
    let (_server, agent) = start("")?;
    let refused = tests::agent::detach(agent.data()).unwrap_or_else(|error| error.to_string());
    let folder = refused.split_once(": in use by process").context("the agent runs")?.0;
    let name = folder.rsplit('/').next().context("no name")?;
    let folder = std::path::Path::new("/run/capture").join(name);
    let socket = folder.join("approvals");
    let killed = agent.kill()?;
    ensure!(socket.exists(), "{} was not left", socket.display());
    tests::agent::detach(&killed.data)?;
    ensure!(!socket.exists(), "{} is still there", socket.display());
    wait::until("the shim to remove its socket and the folder", wait::SOON, || {
        Ok((!folder.exists()).then_some(()))
    })
}

#[test]
fn who_waits_for_its_locks_is_shown_and_bounded() -> anyhow::Result<()> {
    let (server, agent) = start("max_blocked = 0")?;
    server.psql("create role other superuser login")?;
    let mut wire = Wire::login(&server, "locking")?;
    wire.query("begin")?;
    wire.query("update ledger set id = 5")?;
    let query = send(wire, "update ledger set id = 6 -- ask, and let there be room for what is said");
    waiting(&agent)?;
    let mut other = Wire::tcp(&server)?;
    other.start(&[("user", "other"), ("database", "postgres")])?;
    let blocked = send(other, "update ledger set id = 7");
    let (mut wire, replies) = joined(query)?;
    ensure!(error(&replies).is_some_and(|said| said.contains("too many sessions")), "{replies:?}");
    wire.query("rollback")?;
    let (mut other, replies) = joined(blocked)?;
    ensure!(error(&replies).is_none(), "{replies:?}");
    other.terminate()?;
    wire.terminate()?;
    agent.stop()?.record.check_totals()
}

/// A server that is shut down, or a client that cancels, does not wait for an approver.
#[test]
fn a_cancel_or_a_shutdown_needs_no_approver() -> anyhow::Result<()> {
    let (mut server, agent) = start("")?;
    let wire = Wire::login(&server, "canceled")?;
    let (pid, secret) = wire.key.clone().context("no key")?;
    let query = send(wire, "insert into ledger values (1) -- ask");
    waiting(&agent)?;
    let mut cancel = Wire::tcp(&server)?;
    cancel.send(&tests::wire::frontend::cancel(pid, &secret))?;
    let (wire, replies) = joined(query)?;
    ensure!(error(&replies).is_some(), "{replies:?}");
    let query = send(wire, "insert into ledger values (2) -- ask");
    waiting(&agent)?;
    server.restart()?;
    let (_, replies) = query.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
    ensure!(replies.is_err(), "{replies:?}");
    ensure!(server.psql("select id from ledger where id > 0").is_ok_and(|rows| rows.trim().is_empty()));
    ensure!(approvals(&agent, &["list", "--json"])?.is_empty());
    agent.stop()?.record.check_totals()
}
