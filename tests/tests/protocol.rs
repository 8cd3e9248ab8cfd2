//! Protocol 3.2, which PostgreSQL 18 is the first to speak, by the clients that speak it; older servers negotiate
//! it down. `golden/` has the messages one by one.

use std::time::Duration;

use tests::wire::{PROTOCOL_3_2, Wire, frontend};
use tests::{ServerOptions, capture_on, clients, deps, on_every_server, record, wait};

on_every_server!(psycopg_asks_for_protocol_3_2, psql_with_the_newest_libpq_asks_for_protocol_3_2);

fn psycopg_asks_for_protocol_3_2(options: ServerOptions) -> anyhow::Result<()> {
    let spoken = if options.major() >= 18 { "protocol 30002" } else { "protocol 30000" };
    let mut said = String::new();
    let captured = capture_on(options, |server, _| {
        let mut workload = clients::command("psycopg_workload.py")?;
        server.point(&mut workload);
        said = deps::run(workload.env("PGMAXPROTOCOLVERSION", "3.2"))?;
        Ok(())
    })?;
    assert!(said.contains(spoken), "{said}");
    let compared = captured.compare()?;
    assert!(compared.executed >= 130, "the workload did less than it should: {compared:?}");
    assert!(captured.record().gaps.is_empty(), "{:?}", captured.record().gaps);
    Ok(())
}

/// Debian's psql with the client library of PostgreSQL 18.
fn psql_with_the_newest_libpq_asks_for_protocol_3_2(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_on(options, |server, _| {
        let objects = deps::client("objects.sql")?;
        for host in ["127.0.0.1".as_ref(), server.socket_folder()] {
            let mut psql = server.program("psql")?;
            psql.env("LD_LIBRARY_PATH", deps::libraries(18)?).env("PGMAXPROTOCOLVERSION", "3.2");
            deps::run(psql.env("PGHOST", host).args(["-X", "-q", "-f"]).arg(&objects))?;
        }
        Ok(())
    })?;
    let compared = captured.compare()?;
    assert_eq!(compared.sessions, 2);
    assert!(compared.executed >= 24, "the workload did less than it should: {compared:?}");
    assert!(captured.record().gaps.is_empty(), "{:?}", captured.record().gaps);
    Ok(())
}

#[test]
fn a_cancel_request_with_a_long_key_is_recorded_without_it() -> anyhow::Result<()> {
    let mut key = Vec::new();
    let captured = capture_on(ServerOptions::default().version(18), |server, _| {
        let mut wire = Wire::tcp(server)?;
        wire.start_with_version(PROTOCOL_3_2, &[("user", "postgres"), ("database", "postgres")], "")?;
        let (pid, secret) = wire.key.clone().unwrap_or_default();
        wire.send(&frontend::query("select pg_sleep(60)"))?;
        let asleep = format!("select wait_event = 'PgSleep' from pg_stat_activity where pid = {pid}");
        wait::until("the statement to run", Duration::from_secs(10), || {
            Ok((server.psql(&asleep)?.trim() == "t").then_some(()))
        })?;
        let mut cancel = Wire::tcp(server)?;
        cancel.send(&frontend::cancel(pid, &secret))?;
        cancel.discard(u64::MAX)?;
        wire.until_ready()?;
        wire.terminate()?;
        key = secret;
        Ok(())
    })?;
    assert_eq!(key.len(), 32);
    let record = captured.record();
    assert_eq!(record.statement_with("pg_sleep(60)")?.status, "canceled");
    let request =
        record.sessions.iter().find(|session| session.end_reason.as_deref() == Some("cancel_request"));
    // Length, code, process id, key.
    assert!(request.is_some_and(|request| (request.bytes_in, request.gap_bytes) == (44, 0)), "{request:?}");
    let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let found = record::find(&captured.finished.data, &[&hex, &format!("x'{hex}'")])?;
    assert!(found.is_empty(), "the key is on disk: {found:?}");
    Ok(())
}
