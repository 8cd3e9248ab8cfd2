//! A backend's other streams: connections that it opens itself, and sessions that carry the server's own data. Each
//! is a session of its own where it arrives, and nothing of it is mixed into the client's.

use std::time::Duration;

use tests::wire::Wire;
use tests::{AgentOptions, Record, Server, ServerOptions, capture_with, deps, on_every_server, oracle, wait};

on_every_server!(
    what_a_backend_asks_another_server_is_a_session_there,
    logical_replication_is_a_session_of_its_own,
);

/// Through postgres_fdw and dblink, in one client session.
fn what_a_backend_asks_another_server_is_a_session_there(options: ServerOptions) -> anyhow::Result<()> {
    let (near, far) = (options.clone().start()?, options.start()?);
    let pids = [near.pid()?, far.pid()?];
    let agent = AgentOptions::default().server(&near).server(&far).start()?;
    far.psql("create table numbers as select n from generate_series(1, 500) n")?;
    near.psql(&format!(
        "create extension postgres_fdw; create extension dblink;
         create server far foreign data wrapper postgres_fdw
             options (host '127.0.0.1', port '{}', dbname 'postgres');
         create user mapping for postgres server far options (user 'postgres');
         create foreign table numbers (n int) server far",
        far.port()
    ))?;
    let mut wire = Wire::login(&near, "client")?;
    wire.query("select count(*), 'by fdw' from numbers where n > 10")?;
    let remote =
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres application_name=dblink", far.port());
    wire.query(&format!("select * from dblink('{remote}', 'select 42 as by_dblink') as t(i int)"))?;
    wire.query("select 'after'")?;
    wire.terminate()?;
    near.wait_idle()?;
    far.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    assert!(record.gaps.is_empty(), "{:?}", record.gaps);

    let (here, there) = (record.of_server(pids[0]), record.of_server(pids[1]));
    let compared = oracle::compare(&near.stop()?, &here)?;
    assert_eq!((compared.sessions, compared.executed), (2, 4));
    let client = here.session_named("client")?;
    assert_eq!((client.bytes_in, client.bytes_out), (wire.sent, wire.received));

    let compared = oracle::compare(&far.stop()?, &there)?;
    assert_eq!(compared.sessions, 3, "{:?}", there.sessions);
    there.session_named("dblink")?;
    let statement = there.statement_with("by_dblink")?;
    assert_eq!(there.rows_of(statement), [[Some("42".to_owned())]]);
    let fetched =
        there.statements.iter().filter(|row| row.sql.as_deref().is_some_and(|sql| sql.contains("numbers")));
    assert!(fetched.count() > 0, "postgres_fdw asked nothing");
    Ok(())
}

/// The subscriber's CREATE SUBSCRIPTION, its copy of the table and its stream reach the publisher as sessions.
fn logical_replication_is_a_session_of_its_own(options: ServerOptions) -> anyhow::Result<()> {
    let publisher = options.clone().setting("wal_level", "logical").start()?;
    let subscriber = options.start()?;
    let pids = [publisher.pid()?, subscriber.pid()?];
    let agent = AgentOptions::default().server(&publisher).server(&subscriber).start()?;
    publisher.psql("create table letters (id int primary key, body text)")?;
    publisher
        .psql("insert into letters values (1, 'before'); create publication all_letters for table letters")?;
    subscriber.psql("create table letters (id int primary key, body text)")?;
    let source = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", publisher.port());
    subscriber.psql(&format!("create subscription sub connection '{source}' publication all_letters"))?;
    arrives(&subscriber, "before")?;
    publisher.psql("insert into letters values (2, 'streamed ' || 'letter')")?;
    arrives(&subscriber, "streamed letter")?;
    subscriber.psql("drop subscription sub")?;
    publisher.wait_idle()?;
    subscriber.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    assert!(record.gaps.is_empty(), "{:?}", record.gaps);

    let (there, here) = (record.of_server(pids[0]), record.of_server(pids[1]));
    oracle::compare(&subscriber.stop()?, &here)?;
    assert!(here.sessions.iter().all(|session| session.application_name.as_deref() == Some("psql")));
    oracle::compare(&publisher.stop()?, &there)?;
    let stream = streams(&there, "START_REPLICATION SLOT \"sub\"")?;
    assert_eq!(stream.protocol, "replication");
    assert_eq!(there.rows_of(stream), Vec::<&[Option<String>]>::new(), "the stream is no result");
    assert!(stream.bytes_out > 100 && stream.bytes_in > 20, "{stream}");
    Ok(())
}

/// pg_basebackup and pg_receivewal, which speak with servers up to their own version.
#[test]
fn a_base_backup_and_a_stream_of_wal_are_sessions_of_their_own() -> anyhow::Result<()> {
    let agent = AgentOptions::default().config("ring_size = 268435456");
    let captured = capture_with(ServerOptions::default(), agent, |server, _| {
        let backup = server.socket_folder().join("backup");
        deps::run(
            server.program("pg_basebackup")?.arg("-D").arg(&backup).args(["-X", "stream", "-c", "fast"]),
        )?;
        let mut client = Wire::login(server, "client")?;
        client.query("select 'between'")?;
        client.terminate()
    })?;
    captured.compare()?;
    let record = captured.record();
    assert!(record.gaps.is_empty(), "{:?}", record.gaps);
    // The backup itself and, beside it, the stream of WAL that is written meanwhile.
    assert_eq!(record.sessions.len(), 3);
    let backup = streams(record, "BASE_BACKUP")?;
    assert_eq!((backup.protocol.as_str(), backup.status.as_str()), ("replication", "completed"));
    assert!(backup.bytes_out > 20_000_000, "{backup}");
    let stream = streams(record, "START_REPLICATION")?;
    assert_eq!((stream.protocol.as_str(), stream.status.as_str()), ("replication", "completed"));
    assert!(record.rows_of(stream).is_empty());
    let client = record.session_named("client")?;
    assert_eq!(record.statements_of(client).len(), 1);
    Ok(())
}

/// A standby's walreceiver is a session at the primary, and no part of what the standby's own clients do.
#[test]
fn a_standby_is_a_session_at_its_primary() -> anyhow::Result<()> {
    let primary = Server::start()?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    deps::run(primary.program("pg_basebackup")?.arg("-D").arg(&data).args(["-R", "-c", "fast"]))?;
    let agent = AgentOptions::default().server(&primary).selector("auto").saying("capturing ").start()?;
    primary.wait_idle()?;
    let source = format!("host=127.0.0.1 port={} user=postgres", primary.port());
    let standby = ServerOptions::default().backup(&data).setting("primary_conninfo", &source).start()?;
    let pids = [primary.pid()?, standby.pid()?];
    primary.psql("create table letters as select 'streamed' as body")?;
    wait::until("the table to arrive", Duration::from_secs(30), || {
        Ok((standby.psql("select to_regclass('letters') is not null")?.trim() == "t").then_some(()))
    })?;
    standby.psql("select * from letters")?;
    standby.wait_idle()?;
    let standby_log = standby.stop()?;
    primary.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    let (there, here) = (record.of_server(pids[0]), record.of_server(pids[1]));
    oracle::compare(&standby_log, &here)?;
    assert!(here.sessions.iter().all(|session| session.application_name.as_deref() == Some("psql")));
    assert_eq!(here.rows_of(here.statement_with("from letters")?), [[Some("streamed".to_owned())]]);
    let receiver = there.session_named("walreceiver")?;
    assert_eq!((receiver.pg_user.as_deref(), receiver.gap_bytes), (Some("postgres"), 0));
    let stream = streams(&there, "START_REPLICATION")?;
    assert_eq!((stream.protocol.as_str(), &stream.session_id), ("replication", &receiver.session_id));
    assert!(stream.bytes_out > 1_000 && there.rows_of(stream).is_empty(), "{stream}");
    Ok(())
}

/// The stream began before the agent came: nothing that it carries is taken for a statement.
#[test]
fn a_stream_of_wal_that_was_open_before_the_agent_is_accounted_for() -> anyhow::Result<()> {
    let server = Server::start()?;
    let folder = tempfile::tempdir()?;
    let mut receiver = server.program("pg_receivewal")?;
    let mut receiver = receiver.args(["--no-loop", "-D"]).arg(folder.path()).spawn()?;
    let streaming = "select pid from pg_stat_replication where state = 'streaming'";
    let pid: u32 = wait::until("the stream to begin", Duration::from_secs(20), || {
        Ok(server.psql(streaming)?.trim().parse().ok())
    })?;
    let agent = AgentOptions::default().server(&server).start()?;
    server.psql("create table t as select 'select ' || n as text from generate_series(1, 20000) n")?;
    server.psql("select 'statement'; drop table t; select pg_switch_wal()")?;
    let sent = "select count(*) from pg_stat_replication where sent_lsn >= pg_current_wal_flush_lsn()";
    wait::until("the stream to catch up", Duration::from_secs(20), || {
        Ok((server.psql(sent)?.trim() == "1").then_some(()))
    })?;
    receiver.kill()?;
    receiver.wait()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    let session = record.session_of_backend(pid)?;
    assert!(session.partial);
    assert_eq!((session.pg_user.as_deref(), session.database.as_deref()), (Some("postgres"), None));
    assert!(session.bytes_out + session.gap_bytes > 1_000_000, "{session:?}");
    let statements = record.statements_of(session);
    assert!(statements.iter().all(|statement| statement.sql.is_none()), "{statements:?}");
    assert!(record.results.iter().all(|row| row.session_id != session.session_id));
    Ok(())
}

/// The only statement that begins with these words.
fn streams<'r>(record: &'r Record, words: &str) -> anyhow::Result<&'r tests::record::Statement> {
    let mut found =
        record.statements.iter().filter(|row| row.sql.as_deref().is_some_and(|sql| sql.starts_with(words)));
    let statement = found.next().ok_or_else(|| anyhow::anyhow!("no {words}: {:?}", record.statements))?;
    anyhow::ensure!(found.next().is_none(), "several {words}");
    Ok(statement)
}

fn arrives(subscriber: &Server, body: &str) -> anyhow::Result<()> {
    let sql = format!("select count(*) from letters where body = '{body}'");
    wait::until("the row to arrive", Duration::from_secs(30), || {
        Ok((subscriber.psql(&sql)?.trim() == "1").then_some(()))
    })
}
