//! The corpora of the policy against real servers: what the cases claim is true when nobody stops them, and what real
//! programs send is allowed. `capture-agent/tests/corpus.rs` decides the corpora themselves.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use tests::corpus::{self, Stage};
use tests::oracle::{Said, sessions};
use tests::{Server, ServerOptions, deps};

/// A case without an effect would prove nothing: its statement may be denied, or not, and nobody would notice.
fn every_case_has_its_effect_when_nobody_stops_it(options: ServerOptions) -> anyhow::Result<()> {
    let server =
        options.setting("log_statement", "none").setting("log_min_duration_statement", "-1").start()?;
    let stage = Stage::build(&server)?;
    let mut wrong = Vec::new();
    let mut cases = corpus::cases(&corpus::folder().join("bypass"))?;
    cases.extend(corpus::cases(&corpus::folder().join("gaps.toml"))?);
    for case in &cases {
        match stage.play(case) {
            Ok(played) if played.happened && !played.before => {}
            Ok(played) => wrong.push(format!("{}: {played:?}", case.name)),
            Err(error) => wrong.push(format!("{error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}

// MERGE is as old as 15; what newer servers do otherwise is nothing to the policy.
tests::on_server!(
    postgres_15,
    tests::ServerOptions::default(),
    every_case_has_its_effect_when_nobody_stops_it
);

/// What psql's commands and pg_dump send is denied nowhere: their texts are what the server's log says they are.
#[test]
fn what_psql_and_pg_dump_send_is_allowed() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql("create role mcp_agent login; create schema agent authorization mcp_agent")?;
    let program = |name: &str| -> anyhow::Result<Command> {
        let mut command = server.program(name)?;
        command.env("PGUSER", corpus::ROLE);
        Ok(command)
    };
    server.psql(
        "set role mcp_agent; set search_path = agent; create table orders (id serial primary key, total numeric check (total >= 0)); \
         create table customers (id int primary key, order_id int references orders, name text default 'x'); \
         create index on customers (lower(name)); create view totals as select sum(total) from orders; \
         create function one() returns int language sql as 'select 1'; comment on table orders is 'x'; \
         insert into orders (total) values (1), (2)",
    )?;
    for command in [
        r"\d",
        r"\d agent.orders",
        r"\d+ agent.customers",
        r"\d+ agent.totals",
        r"\dt *.*",
        r"\dti+",
        r"\df agent.*",
        r"\df+ agent.one",
        r"\l",
        r"\du",
        r"\dn+",
        r"\dx",
        r"\dp agent.*",
        r"\ds agent.*",
        r"\dT",
        r"\db",
        r"\dD",
        r"\sf agent.one",
        r"\sv agent.totals",
        r"\dd",
        r"\dC",
        r"\do",
        r"\dL",
        r"\des",
        r"\dRp",
        r"\drds",
        r"\dconfig",
        r"\conninfo",
    ] {
        deps::run(program("psql")?.args(["-X", "-c", command]))?;
    }
    deps::run(program("pg_dump")?.args(["-n", "agent"]))?;
    deps::run(program("pg_dump")?.args(["-n", "agent", "--inserts", "--no-comments"]))?;
    server.wait_idle()?;
    let log = sessions(&server.stop()?);
    let mine = log.iter().filter(|session| session.user == corpus::ROLE);
    let texts: BTreeSet<&str> = mine
        .flat_map(|session| &session.executed)
        .filter_map(|executed| match &executed.said {
            Said::Query(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert!(texts.len() > 60, "{}", texts.len());
    let agent = deps::agent()?;
    let policy = corpus::folder().join("policy.toml");
    let mut denied = Vec::new();
    for text in &texts {
        let mut check = Command::new(&agent);
        check.arg("check").arg(&policy).args(["--user", corpus::ROLE, "--json", "--sql", text]);
        let answer: Value = serde_json::from_str(&deps::run(&mut check)?)?;
        if answer["verdict"] != "allow" {
            denied.push(format!("by {}: {text}", answer["guardrail"]));
        }
    }
    assert!(denied.is_empty(), "{} of {}:\n{}", denied.len(), texts.len(), denied.join("\n"));
    Ok(())
}
