//! COPY, in and out, by both protocols.

use crate::session::testing::*;
use crate::session::*;

fn values(recorder: &Recorder) -> Vec<Vec<Option<String>>> {
    let text =
        |value: &Option<Vec<u8>>| value.as_ref().map(|value| String::from_utf8(value.clone()).unwrap());
    recorder.rows.iter().map(|row| row.values.iter().map(text).collect()).collect()
}

fn some(fields: &[&str]) -> Vec<Option<String>> {
    fields.iter().map(|field| Some((*field).to_owned())).collect()
}

#[test]
fn copied_in_rows_are_told_apart_whatever_the_messages() {
    let recorder = Talk::started()
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy_response(b'G', false, 2)])
        .client(&[copy_data(b"1\ta"), copy_data(b"b\n2\t\\N\n3\tx\\ty"), copy_data(b"\n"), copy_done()])
        .server(&[done("COPY 3"), ready(b'I')])
        .record();
    let statement = &recorder.statements[0];
    assert_eq!((statement.protocol, statement.status), (Protocol::Copy, Status::Completed));
    assert_eq!(statement.rows, Some(3));
    assert_eq!(values(&recorder), [some(&["1", "ab"]), vec![Some("2".into()), None], some(&["3", "x\ty"])]);
    assert!(statement.bytes_in > query("COPY t FROM STDIN").len() as u64 + 20);
}

#[test]
fn copied_out_rows_are_recorded() {
    let recorder = Talk::started()
        .client(&[query("COPY t TO STDOUT (FORMAT csv, HEADER)")])
        .server(&[
            copy_response(b'H', false, 2),
            copy_data(b"a,b\n"),
            copy_data(b"1,\"x,\"\"y\"\"\nz\"\n"),
            copy_data(b"2,\n"),
            copy_done(),
            done("COPY 2"),
            ready(b'I'),
        ])
        .record();
    assert_eq!(values(&recorder), [some(&["1", "x,\"y\"\nz"]), vec![Some("2".into()), None]]);
    assert_eq!(recorder.statements[0].rows, Some(2));
}

#[test]
fn binary_copy_is_cut_by_its_lengths() {
    let mut data = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    data.extend([0, 2, 0, 0, 0, 1, 7, 0xff, 0xff, 0xff, 0xff]);
    data.extend([0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 8, 9, 0xff, 0xff]);
    let pieces: Vec<_> = data.chunks(3).map(copy_data).collect();
    let recorder = Talk::started()
        .client(&[query("COPY t FROM STDIN (FORMAT binary)")])
        .server(&[copy_response(b'G', true, 2)])
        .client(&pieces)
        .client(&[copy_done()])
        .server(&[done("COPY 2"), ready(b'I')])
        .record();
    assert_eq!(recorder.rows[0].values, [Some(vec![7]), None]);
    assert_eq!(recorder.rows[1].values, [Some(vec![]), Some(vec![8, 9])]);
    assert_eq!(recorder.rows.len(), 2);
}

#[test]
fn sync_and_flush_inside_a_copy_are_passed_over() {
    let recorder = Talk::started()
        .client(&[parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0), sync()])
        .server(&[empty(b'1'), empty(b'2'), copy_response(b'G', false, 1)])
        .client(&[copy_data(b"1\n"), flush(), sync(), copy_data(b"2\n"), copy_done(), sync()])
        .server(&[done("COPY 2"), ready(b'I')])
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["COPY t FROM STDIN", "SELECT 1"]);
    assert_eq!(recorder.statuses(), [Status::Completed; 2]);
    assert_eq!(recorder.statements[0].protocol, Protocol::Copy);
    assert_eq!(recorder.rows.len(), 3);
}

#[test]
fn data_sent_ahead_of_the_server_s_word_is_data() {
    let recorder = Talk::started()
        .client(&[query("COPY t FROM STDIN"), copy_data(b"1\n2\n"), copy_done(), query("SELECT 1")])
        .server(&[copy_response(b'G', false, 1)])
        .server(&[done("COPY 2"), ready(b'I')])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["COPY t FROM STDIN", "SELECT 1"]);
    assert_eq!(recorder.rows.len(), 3);
    assert_eq!(recorder.statuses(), [Status::Completed; 2]);
}

#[test]
fn what_follows_an_error_in_mid_copy_is_passed_over() {
    let recorder = Talk::started()
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy_response(b'G', false, 1)])
        .client(&[copy_data(b"x\n")])
        .server(&[error("ERROR", "22P02", "invalid input syntax"), ready(b'I')])
        .client(&[copy_data(b"2\n"), copy_done(), query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["COPY t FROM STDIN", "SELECT 1"]);
    assert_eq!(recorder.statuses(), [Status::Failed, Status::Completed]);
    assert!(recorder.statements[1].complete);
}

#[test]
fn an_error_in_mid_copy_of_the_extended_protocol_waits_for_sync() {
    let recorder = Talk::started()
        .client(&[parse("", "COPY t FROM STDIN", &[]), bind("", "", &[]), execute("", 0), sync()])
        .server(&[empty(b'1'), empty(b'2'), copy_response(b'G', false, 1)])
        .client(&[copy_data(b"x\n")])
        .server(&[error("ERROR", "22P02", "invalid input syntax")])
        .client(&[copy_data(b"y\n"), copy_done(), sync()])
        .server(&[ready(b'I')])
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["COPY t FROM STDIN", "SELECT 1"]);
    assert_eq!(recorder.statuses(), [Status::Failed, Status::Completed]);
    assert!(recorder.statements[1].complete);
}

#[test]
fn copy_fail_fails_the_statement() {
    let recorder = Talk::started()
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy_response(b'G', false, 1)])
        .client(&[copy_data(b"1\n"), message(b'f', &[&z("enough")])])
        .server(&[error("ERROR", "57014", "COPY from stdin failed: enough"), ready(b'I')])
        .record();
    assert_eq!(recorder.statuses(), [Status::Canceled]);
    assert_eq!(recorder.rows.len(), 1);
}

#[test]
fn copies_among_other_statements_of_a_query_string_are_their_own() {
    let recorder = Talk::started()
        .client(&[query("SELECT 1; COPY t TO STDOUT; SELECT 2")])
        .server(&[
            columns(&[("a", 23)]),
            row(&[t("1")]),
            done("SELECT 1"),
            copy_response(b'H', false, 1),
            copy_data(b"x\n"),
            copy_done(),
            done("COPY 1"),
            columns(&[("a", 23)]),
            row(&[t("2")]),
            done("SELECT 1"),
            ready(b'I'),
        ])
        .record();
    assert_eq!(recorder.texts(), ["SELECT 1", "COPY t TO STDOUT", "SELECT 2"]);
    let protocols: Vec<_> = recorder.statements.iter().map(|row| row.protocol).collect();
    assert_eq!(protocols, [Protocol::Simple, Protocol::Copy, Protocol::Simple]);
}
