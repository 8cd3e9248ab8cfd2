//! Guardrails hold: what must not run does not, on real servers, and its session lives on.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::tls::TlsClient;
use tests::wire::{Wire, error, frontend};
use tests::{Agent, AgentOptions, Server, ServerOptions, wait};

/// No DROP and no DELETE without a WHERE; who reads `vault` is thrown out.
const RULES: &str = r#"
[[guardrail]]
name    = "no-ddl"
match   = 'session.user == "postgres"'
when    = '"drop" in stmt.kinds || stmt.delete_without_where'
action  = "block"
message = "schema changes go through migrations"

[[guardrail]]
name    = "vault"
match   = 'session.user == "postgres"'
when    = '"vault" in stmt.tables_read'
action  = "terminate"
on_unknown = "allow"

[[guardrail]]
name    = "not-thirteen"
match   = 'session.user == "postgres"'
when    = '"13" in stmt.params || stmt.text.contains("deny")'
action  = "block"
"#;

const TABLES: &str = "create table ledger (id int); insert into ledger select generate_series(1, 5); \
    create table vault (secret text); insert into vault values ('needle')";

fn guarded(options: ServerOptions) -> anyhow::Result<(Server, Agent)> {
    let server = options.start()?;
    server.psql(TABLES)?;
    server.psql("create role other superuser login")?;
    let agent = AgentOptions::default().server(&server).config(RULES).start()?;
    Ok((server, agent))
}

#[test]
fn a_blocked_statement_fails_with_the_guardrails_words_and_its_session_lives_on() -> anyhow::Result<()> {
    let (server, agent) = guarded(ServerOptions::default())?;
    let mut wire = Wire::login(&server, "blocked")?;
    let said = error(&wire.query("drop table ledger")?).context("no error")?;
    ensure!(said == "42601 syntax error at or near \"'no-ddl: schema '\"", "{said}");
    let said = error(&wire.query(&format!("drop table ledger {}", " ".repeat(100)))?).unwrap_or_default();
    ensure!(said.contains("'no-ddl: schema changes go through migrations'"), "{said}");
    ensure!(rows(&mut wire)? == "5");
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_named("blocked")?;
    let statements = record.statements_of(session);
    ensure!(statements.len() == 3, "{statements:?}");
    ensure!(statements[0].status == "blocked", "{}", statements[0]);
    ensure!(statements[0].sql.as_deref() == Some("drop table ledger"), "{}", statements[0]);
    ensure!(statements[2].status == "completed", "{}", statements[2]);
    ensure!(session.gap_bytes == 0, "{session:?}");
    record.check_totals()
}

#[test]
fn a_session_is_ended_before_its_statement_runs_and_the_server_goes_on() -> anyhow::Result<()> {
    let (server, agent) = guarded(ServerOptions::default())?;
    let mut other = Wire::login(&server, "bystander")?;
    let mut wire = Wire::login(&server, "terminated")?;
    wire.send(&frontend::query("select secret from vault"))?;
    let mut replies = Vec::new();
    while let Some(reply) = wire.receive()? {
        replies.push(reply);
    }
    ensure!(error(&replies).is_some_and(|error| error.starts_with("57P01")), "{replies:?}");
    ensure!(!replies.iter().any(|reply| reply.tag == b'D'), "{replies:?}");
    ensure!(rows(&mut other)? == "5");
    other.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_named("terminated")?;
    ensure!(session.end_reason.as_deref() == Some("fatal 57P01"), "{session:?}");
    record.check_totals()
}

#[test]
fn in_the_extended_protocol_the_parse_fails_or_the_execute() -> anyhow::Result<()> {
    let (server, agent) = guarded(ServerOptions::default())?;
    let mut wire = Wire::login(&server, "extended")?;
    // In one piece; then each message by itself.
    for together in [true, false] {
        let messages = frontend::once("delete from ledger", &[]);
        let replies = wire.exchange(&messages, together)?;
        ensure!(error(&replies).is_some_and(|error| error.contains("'no-ddl: ")), "{replies:?}");
        // The values decide.
        for (value, runs) in [("12", true), ("13", false)] {
            let messages = frontend::once("insert into ledger values ($1)", &[value]);
            let replies = wire.exchange(&messages, together)?;
            ensure!(error(&replies).is_none() == runs, "{value}: {replies:?}");
        }
        // Only one of several in a pipeline is denied.
        let mut pipeline = frontend::once("insert into ledger values ($1)", &["21"]);
        pipeline.extend(frontend::once("drop table ledger", &[]));
        pipeline.extend(frontend::once("insert into ledger values ($1)", &["22"]));
        wire.send(&pipeline.concat())?;
        let failed: Vec<_> =
            (0..3).map(|_| Ok(error(&wire.until_ready()?).is_some())).collect::<anyhow::Result<_>>()?;
        ensure!(failed == [false, true, false], "{failed:?}");
        // An Execute by itself, of a named statement.
        wire.send(
            &[frontend::parse("s", "insert into ledger values ($1)", &[]), frontend::message(b'S', b"")]
                .concat(),
        )?;
        wire.until_ready()?;
        let bind = |value: &str| frontend::bind("p", "s", &[], &[Some(value.into())], &[]);
        for (value, runs) in [("31", true), ("13", false)] {
            let messages = [bind(value), frontend::execute("p", 0), frontend::message(b'S', b"")];
            let replies = wire.exchange(&messages, together)?;
            ensure!(error(&replies).is_none() == runs, "{value}: {replies:?}");
        }
        wire.send(&[frontend::target(b'C', b'S', "s"), frontend::message(b'S', b"")].concat())?;
        wire.until_ready()?;
    }
    wire.terminate()?;
    ensure!(
        server.psql("select string_agg(id::text, ',' order by id) from ledger")?.trim()
            == "1,2,3,4,5,12,12,21,21,22,22,31,31"
    );
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_named("extended")?;
    let statements = record.statements_of(session);
    let blocked = statements.iter().filter(|statement| statement.status == "blocked").count();
    // Of each turn: the DELETE, the 13, the DROP and the 13 of the named statement.
    ensure!(blocked == 8, "{blocked}: {statements:?}");
    record.check_totals()
}

/// A statement that arrives in two pieces is held at its last, wherever it is cut.
#[test]
fn no_cut_lets_a_statement_through() -> anyhow::Result<()> {
    let (server, agent) = guarded(ServerOptions::default())?;
    let simple = frontend::query("drop table ledger");
    let extended = frontend::once("delete from ledger where id > $1 or true; ", &["13"]).concat();
    let mut ended = 0;
    for message in [simple, extended] {
        let cuts = message.len() - if message[0] == b'P' { 5 } else { 0 };
        let mut wire = Wire::login(&server, "cut")?;
        for cut in 1..cuts {
            let (front, back) = message.split_at(cut);
            wire.send(front)?;
            wait_received(&server, &wire)?;
            let replies = wire.send(back).and_then(|()| wire.until_ready());
            match replies {
                Ok(replies) => ensure!(error(&replies).is_some(), "cut at {cut}: {replies:?}"),
                Err(_) => {
                    ended += 1;
                    wire = Wire::login(&server, "cut")?;
                }
            }
            ensure!(rows(&mut wire)? == "5", "cut at {cut}");
        }
        wire.terminate()?;
    }
    ensure!(ended < 40, "{ended} sessions were ended");
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

#[test]
fn padding_hides_nothing() -> anyhow::Result<()> {
    let (server, agent) = guarded(ServerOptions::default())?;
    for size in [7_000, 8_150, 8_192, 9_000, 100_000, 9 << 20, 64 << 20] {
        let mut wire = Wire::login(&server, "padded")?;
        for sql in [
            format!("/*{}*/ drop table ledger", " ".repeat(size)),
            format!("drop table ledger /*{}*/", " ".repeat(size)),
        ] {
            let replies = wire
                .query(&sql)
                .with_context(|| format!("{size}: {}", agent.stderr().replace("blocked", "")))?;
            ensure!(error(&replies).is_some(), "{size}: {replies:?}");
            ensure!(rows(&mut wire)? == "5", "{size}");
        }
        wire.terminate()?;
    }
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

#[test]
fn it_holds_over_tls_and_unix_sockets_too() -> anyhow::Result<()> {
    for source in ["server", "library"] {
        let server = ServerOptions::default().tls().start()?;
        server.psql(TABLES)?;
        let agent = AgentOptions::default().server(&server).tls(source).config(RULES).start()?;
        let mut client = TlsClient::connect(&server, &[])?;
        for _ in 0..20 {
            ensure!(client.query("drop table ledger")?.as_deref() == Some("42601"));
            ensure!(client.query("select count(*) from ledger")?.as_deref() == Some("5"));
        }
        client.leave()?;
        let mut unix = Wire::unix(&server)?;
        unix.start(&[("user", "postgres"), ("database", "postgres")])?;
        ensure!(error(&unix.query("drop table ledger")?).is_some_and(|error| error.contains("'no-ddl")));
        unix.terminate()?;
        server.wait_idle()?;
        agent.stop()?.record.check_totals()?;
    }
    Ok(())
}

/// Nobody can vouch for an encrypted session that is not read: it does not come into being.
#[test]
fn encryption_that_is_not_read_hides_nothing() -> anyhow::Result<()> {
    let server = ServerOptions::default().tls().start()?;
    server.psql(TABLES)?;
    let agent = AgentOptions::default().server(&server).tls("off").config(RULES).start()?;
    let psql = |mode: &str| {
        let mut psql = server.program("psql")?;
        psql.env("PGSSLMODE", mode).args(["-X", "-c", "select 1 as drop_nothing"]);
        anyhow::Ok(psql.output()?.status.success())
    };
    ensure!(!psql("require")?, "an encrypted session was let in");
    ensure!(psql("disable")?, "a clear one was not");
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

/// What was prepared before anybody watched cannot be vouched for.
#[test]
fn a_statement_that_was_prepared_before_is_not_let_through() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let mut wire = Wire::login(&server, "before")?;
    wire.send(&[frontend::parse("s", "drop table ledger", &[]), frontend::message(b'S', b"")].concat())?;
    wire.until_ready()?;
    let agent = AgentOptions::default().server(&server).config(RULES).start()?;
    let messages =
        [frontend::bind("", "s", &[], &[], &[]), frontend::execute("", 0), frontend::message(b'S', b"")];
    let replies = wire.exchange(&messages, true).with_context(|| agent.stderr())?;
    ensure!(error(&replies).is_some(), "{replies:?}");
    ensure!(rows(&mut wire)? == "5");
    ensure!(error(&wire.query("drop table ledger")?).is_some());
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

/// By name in SQL: what was prepared before anybody watched cannot be vouched for either, what was seen can.
#[test]
fn an_sql_execute_is_judged_by_what_it_executes() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let mut wire = Wire::login(&server, "before")?;
    ensure!(error(&wire.query("prepare before as delete from ledger")?).is_none());
    let agent = AgentOptions::default().server(&server).config(RULES).start()?;
    for sql in ["execute before", "explain analyze execute before", "select 1; execute before"] {
        let said = error(&wire.query(sql)?).with_context(|| format!("{sql} ran"))?;
        ensure!(said.contains("'no-ddl") || said.contains("'vault"), "{sql}: {said}");
        ensure!(rows(&mut wire)? == "5", "{sql}");
    }
    ensure!(error(&wire.query("prepare seen as select count(*) from ledger")?).is_none());
    for messages in [vec![frontend::query("execute seen")], frontend::once("execute seen", &[])] {
        let replies = wire.exchange(&messages, true)?;
        ensure!(error(&replies).is_none(), "{replies:?}");
    }
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

/// A statement that was harmless when it was prepared, since no guardrail was about the session then.
#[test]
fn an_sql_execute_of_what_was_prepared_unguarded_is_stopped() -> anyhow::Result<()> {
    const LATER: &str = "[[guardrail]]\nname = 'later'\nmatch = 'session.application_name == \"watched\"'\n\
        when = 'stmt.delete_without_where'\naction = 'block'\non_unknown = 'allow'\n";
    let server = Server::start()?;
    server.psql(TABLES)?;
    let agent = AgentOptions::default().server(&server).config(LATER).start()?;
    let mut wire = Wire::login(&server, "unwatched")?;
    ensure!(error(&wire.query("prepare seen as delete from ledger")?).is_none());
    wire.query("set application_name = 'watched'")?;
    wait::until("the session to be guarded", Duration::from_secs(5), || {
        let said = error(&wire.query("delete from ledger_that_is_not_there")?).unwrap_or_default();
        Ok(said.contains("'later").then_some(()))
    })?;
    let said = error(&wire.query("execute seen")?).context("it ran")?;
    ensure!(said.contains("'later"), "{said}");
    ensure!(rows(&mut wire)? == "5");
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

#[test]
fn of_ten_thousand_racing_inserts_exactly_the_allowed_land() -> anyhow::Result<()> {
    let (server, agent) = guarded(ServerOptions::default())?;
    const SESSIONS: usize = 16;
    const EACH: usize = 10_000 / SESSIONS;
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|session| {
                let server = &server;
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut wire = Wire::login(server, "racing")?;
                    for number in 0..EACH {
                        let denied = (number + session) % 2 == 0;
                        let value = 1_000 + session * EACH + number;
                        let replies = match number % 4 {
                            0 | 1 if denied => {
                                wire.query(&format!("insert into ledger values ({value}) -- deny"))?
                            }
                            0 | 1 => wire.query(&format!("insert into ledger values ({value})"))?,
                            _ => {
                                let value = if denied { "13".to_owned() } else { value.to_string() };
                                wire.exchange(
                                    &frontend::once("insert into ledger values ($1)", &[&value]),
                                    true,
                                )?
                            }
                        };
                        ensure!(error(&replies).is_some() == denied, "{value}: {replies:?}");
                    }
                    wire.terminate()
                })
            })
            .collect();
        sessions
            .into_iter()
            .try_for_each(|session| session.join().map_err(|_| anyhow::anyhow!("panicked"))?)
    })?;
    let landed = server.psql(
        "select count(*) || ' ' || count(distinct id) || ' ' || count(*) filter (where id = 13) from ledger where id > 5",
    )?;
    ensure!(landed.trim() == "5000 5000 0", "{landed}");
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let blocked = record.statements.iter().filter(|statement| statement.status == "blocked").count();
    ensure!(blocked == 5_000, "{blocked} are blocked in the record");
    record.check_totals()
}

/// A session that no guardrail is about is never stopped once its user is known.
#[test]
fn others_are_not_stopped() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let metrics = folder.path().join("metrics");
    let server = Server::start()?;
    server.psql(TABLES)?;
    server.psql("create role other superuser login")?;
    let agent = AgentOptions::default().server(&server).metrics_file(&metrics).config(RULES).start()?;
    let mut wire = Wire::tcp(&server)?;
    wire.start(&[("user", "other"), ("database", "postgres")])?;
    let guarded = || -> anyhow::Result<u64> {
        let text = std::fs::read_to_string(&metrics).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("capture_guarded_events_total "));
        Ok(line.unwrap_or("0").trim().parse()?)
    };
    wire.query("select 1")?;
    let before = guarded()?;
    for _ in 0..100 {
        wire.query("select 1")?;
    }
    wire.query("drop table ledger")?;
    let mut stopped = Wire::login(&server, "stopped")?;
    stopped.query("select 1")?;
    let after =
        wait::until("the metrics", Duration::from_secs(5), || Ok(Some(guarded()?).filter(|n| *n > before)))?;
    // The other session's, and at most the first of this one before its user was known.
    ensure!(after - before <= 2, "{before} before, {after} after");
    stopped.terminate()?;
    wire.terminate()?;
    agent.stop()?.record.check_totals()
}

/// Waits until the server has taken what was sent so far.
fn wait_received(server: &Server, wire: &Wire) -> anyhow::Result<()> {
    let port = wire.port()?.context("no port")?;
    let own = format!(":{:04X}", server.port());
    let peer = format!(":{port:04X}");
    wait::until("the server to receive", Duration::from_secs(5), || {
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        let line = table.lines().find(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields.len() > 4 && fields[1].ends_with(&own) && fields[2].ends_with(&peer)
        });
        let queue = line.and_then(|line| line.split_whitespace().nth(4)).context("no connection")?;
        Ok(queue.ends_with(":00000000").then_some(()))
    })
}

fn rows(wire: &mut Wire) -> anyhow::Result<String> {
    let replies = wire.query("select count(*) from ledger")?;
    let row = replies.iter().find(|reply| reply.tag == b'D').with_context(|| format!("{replies:?}"))?;
    let value = row.values().into_iter().next().flatten().context("no value")?;
    Ok(String::from_utf8(value)?)
}
