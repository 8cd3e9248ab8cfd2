//! Walsenders.

use crate::session::testing::*;
use crate::session::*;

fn walsender(mode: &str) -> Talk {
    Talk::default()
        .client(&[startup(&[("user", "rep"), ("replication", mode)])])
        .server(&[auth(0, &[]), ready(b'I')])
}

#[test]
fn a_replication_stream_is_one_statement() {
    let recorder = walsender("true")
        .client(&[query("IDENTIFY_SYSTEM")])
        .server(&[columns(&[("systemid", 25)]), row(&[t("7")]), done("IDENTIFY_SYSTEM"), ready(b'I')])
        .client(&[query("START_REPLICATION 0/0")])
        .server(&[copy_response(b'W', false, 0)])
        .server(&[copy_data(b"w0123456789")])
        .client(&[copy_data(b"r0123456789")])
        .server(&[copy_data(b"k0123456789"), copy_done()])
        .client(&[copy_done()])
        .server(&[done("COPY 0"), done("START_REPLICATION"), ready(b'I')])
        .client(&[query("IDENTIFY_SYSTEM")])
        .server(&[columns(&[("systemid", 25)]), row(&[t("7")]), done("IDENTIFY_SYSTEM"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["IDENTIFY_SYSTEM", "START_REPLICATION 0/0", "IDENTIFY_SYSTEM"]);
    assert_eq!(recorder.statuses(), [Status::Completed; 3]);
    assert!(recorder.statements.iter().all(|row| row.protocol == Protocol::Replication));
    assert!(recorder.statements[1].bytes_in > 30 && recorder.statements[1].bytes_out > 30);
    assert_eq!(recorder.rows.len(), 2);
}

#[test]
fn a_stream_that_ends_with_the_connection_is_in_flight() {
    let recorder = walsender("on")
        .client(&[query("START_REPLICATION SLOT s LOGICAL 0/0")])
        .server(&[copy_response(b'W', false, 0)])
        .server(&[copy_data(b"w0123456789")])
        .record();
    assert_eq!(recorder.statuses(), [Status::InFlight]);
    assert_eq!(recorder.statements[0].protocol, Protocol::Replication);
}

#[test]
fn a_logical_walsender_runs_sql_too() {
    let recorder = walsender("database")
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .client(&[query("DROP_REPLICATION_SLOT s")])
        .server(&[done("DROP_REPLICATION_SLOT"), ready(b'I')])
        .record();
    let protocols: Vec<_> = recorder.statements.iter().map(|row| row.protocol).collect();
    assert_eq!(protocols, [Protocol::Simple, Protocol::Replication]);
}

#[test]
fn a_base_backup_is_one_statement_with_many_results() {
    let recorder = walsender("1")
        .client(&[query("BASE_BACKUP")])
        .server(&[columns(&[("recptr", 25)]), row(&[t("0/1")]), done("SELECT")])
        .server(&[copy_response(b'H', false, 0), copy_data(b"n"), copy_data(b"dxxx"), copy_done()])
        .server(&[columns(&[("recptr", 25)]), row(&[t("0/2")]), done("SELECT"), done("BASE_BACKUP")])
        .server(&[ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["BASE_BACKUP"]);
    assert_eq!(recorder.rows.len(), 2);
}
