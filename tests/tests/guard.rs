//! Guardrails hold: what must not run does not, on real servers, and its session lives on.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::tls::TlsClient;
use tests::wire::{Message, Wire, frontend};
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
    let error = error(&wire.query("drop table ledger")?).context("no error")?;
    ensure!(error == "42601 syntax error at or near \"'no-ddl: schema '\"", "{error}");
    let error =
        self::error(&wire.query(&format!("drop table ledger {}", " ".repeat(100)))?).unwrap_or_default();
    ensure!(error.contains("'no-ddl: schema changes go through migrations'"), "{error}");
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
        let messages = once("delete from ledger", &[]);
        let replies = exchange(&mut wire, &messages, together)?;
        ensure!(error(&replies).is_some_and(|error| error.contains("'no-ddl: ")), "{replies:?}");
        // The values decide.
        for (value, runs) in [("12", true), ("13", false)] {
            let messages = once("insert into ledger values ($1)", &[value]);
            let replies = exchange(&mut wire, &messages, together)?;
            ensure!(error(&replies).is_none() == runs, "{value}: {replies:?}");
        }
        // Only one of several in a pipeline is denied.
        let mut pipeline = once("insert into ledger values ($1)", &["21"]);
        pipeline.extend(once("drop table ledger", &[]));
        pipeline.extend(once("insert into ledger values ($1)", &["22"]));
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
            let replies = exchange(&mut wire, &messages, together)?;
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
    let extended = once("delete from ledger where id > $1 or true; ", &["13"]).concat();
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
    let replies = exchange(&mut wire, &messages, true).with_context(|| agent.stderr())?;
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
    for messages in [vec![frontend::query("execute seen")], once("execute seen", &[])] {
        let replies = exchange(&mut wire, &messages, true)?;
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
                                exchange(&mut wire, &once("insert into ledger values ($1)", &[&value]), true)?
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
/// What a guardrail says of a prepared statement it says once, unless it looks at parameters: then at each Execute.
#[test]
fn an_execute_waits_only_where_its_parameters_matter() -> anyhow::Result<()> {
    let by_text = "[[guardrail]]\nname = 'no-drop'\nwhen = '\"drop\" in stmt.kinds'\naction = 'block'\n";
    let by_value = "[[guardrail]]\nname = 'not-13'\nwhen = '\"13\" in stmt.params'\naction = 'block'\n";
    for (rules, waits) in [(by_text.to_owned(), false), (by_value.to_owned(), true)] {
        let server = Server::start()?;
        server.psql(TABLES)?;
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
        let replies = exchange(&mut wire, &once("drop table ledger", &[]), true)?;
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
    let replies = exchange(
        &mut wire,
        &[frontend::bind("", "bad", &[], &[], &[]), frontend::execute("", 0), sync()],
        true,
    )?;
    ensure!(error(&replies).is_some(), "{replies:?}");
    ensure!(server.psql("select count(*) from ledger")?.trim() == "0");
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

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

/// Parse, Bind, Execute and Sync of the unnamed statement.
fn once(sql: &str, values: &[&str]) -> Vec<Vec<u8>> {
    let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes().to_vec())).collect();
    vec![
        frontend::parse("", sql, &[]),
        frontend::bind("", "", &[], &values, &[]),
        frontend::execute("", 0),
        frontend::message(b'S', b""),
    ]
}

/// Sends messages in one piece, or each by itself, and yields the replies up to ReadyForQuery.
fn exchange(wire: &mut Wire, messages: &[Vec<u8>], together: bool) -> anyhow::Result<Vec<Message>> {
    if together {
        wire.send(&messages.concat())?;
    } else {
        for message in messages {
            wire.send(message)?;
        }
    }
    wire.until_ready()
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

/// The SQLSTATE and the words of the error among `replies`.
fn error(replies: &[Message]) -> Option<String> {
    let error = replies.iter().find(|reply| reply.tag == b'E')?;
    Some(format!("{} {}", error.field(b'C')?, error.field(b'M')?))
}
