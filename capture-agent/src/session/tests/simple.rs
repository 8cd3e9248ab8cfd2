use crate::session::testing::*;
use crate::session::*;

#[test]
fn a_query_is_one_statement_with_its_rows() {
    let recorder = Talk::started()
        .client(&[query("SELECT a, b FROM t;")])
        .server(&[
            columns(&[("a", 23), ("b", 25)]),
            row(&[t("1"), t("x")]),
            row(&[t("2"), None]),
            done("SELECT 2"),
            ready(b'I'),
        ])
        .client(&[empty(b'X')])
        .record();
    assert_eq!(recorder.texts(), ["SELECT a, b FROM t;"]);
    let statement = &recorder.statements[0];
    assert_eq!(statement.status, Status::Completed);
    assert_eq!(statement.protocol, Protocol::Simple);
    assert_eq!(statement.rows, Some(2));
    assert_eq!(statement.command_tag.as_deref(), Some("SELECT 2"));
    assert_eq!((statement.started_at, statement.duration_us), (Micros(1_002), Some(1)));
    assert!(statement.complete);
    assert_eq!(recorder.rows[1].values, [Some(b"2".to_vec()), None]);
    assert_eq!(recorder.rows[1].columns, ["a", "b"]);
    let end = recorder.end();
    assert_eq!((&end.reason, end.statements, end.errors), (&EndReason::Terminate, 1, 0));
    assert_eq!(end.gap_bytes, 0);
    assert_eq!(text(&recorder.info().user), Some("ann"));
    assert_eq!(text(&recorder.info().application_name), Some("till"));
    assert_eq!(text(&recorder.info().auth_method), Some("trust"));
}

#[test]
fn each_statement_of_a_query_string_has_its_own_text_and_time() {
    let recorder = Talk::started()
        .client(&[query("BEGIN; INSERT INTO t VALUES (';'); SELECT 1; COMMIT")])
        .server(&[done("BEGIN")])
        .server(&[
            done("INSERT 0 1"),
            columns(&[("a", 23)]),
            row(&[t("1")]),
            done("SELECT 1"),
            done("COMMIT"),
        ])
        .server(&[ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["BEGIN", "INSERT INTO t VALUES (';')", "SELECT 1", "COMMIT"]);
    let rows: Vec<_> = recorder.statements.iter().map(|row| row.rows).collect();
    assert_eq!(rows, [Some(0), Some(1), Some(1), Some(0)]);
    assert_eq!(recorder.statements[0].started_at, Micros(1_002));
    assert_eq!(recorder.statements[1].started_at, Micros(1_003));
    assert!(recorder.statements.iter().all(|row| row.complete && row.status == Status::Completed));
    let seqs: Vec<_> = recorder.statements.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3]);
    assert_eq!(recorder.rows[0].seq, 2);
    assert!(recorder.statements[0].bytes_in > 0 && recorder.statements[1].bytes_in == 0);
}

#[test]
fn after_an_error_the_rest_of_a_query_string_is_skipped() {
    let recorder = Talk::started()
        .client(&[query("SELECT 1; SELECT 1/0; SELECT 2")])
        .server(&[
            columns(&[("a", 23)]),
            row(&[t("1")]),
            done("SELECT 1"),
            columns(&[("a", 23)]),
            error("ERROR", "22012", "division by zero"),
            ready(b'I'),
        ])
        .client(&[query("SELECT 3")])
        .server(&[columns(&[("a", 23)]), row(&[t("3")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SELECT 1", "SELECT 1/0", "SELECT 2", "SELECT 3"]);
    use Status::{Completed, Failed, Skipped};
    assert_eq!(recorder.statuses(), [Completed, Failed, Skipped, Completed]);
    assert_eq!(recorder.statements[1].sqlstate.as_deref(), Some("22012"));
    assert_eq!(recorder.statements[1].error_message.as_deref(), Some("division by zero"));
    assert_eq!(recorder.end().errors, 1);
}

#[test]
fn a_string_that_cannot_be_parsed_is_one_failed_statement() {
    let refused = error_in("ERROR", "42601", "syntax error at or near \"selec\"", "scan.l");
    let recorder = Talk::started()
        .client(&[query("SELECT 1; selec 2; SELECT 3")])
        .server(&[refused, ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SELECT 1; selec 2; SELECT 3"]);
    assert_eq!(recorder.statuses(), [Status::Failed]);
}

#[test]
fn an_error_of_the_analysis_fails_the_first_statement_alone() {
    let refused = error_in("ERROR", "42P01", "relation \"x\" does not exist", "parse_relation.c");
    let recorder =
        Talk::started().client(&[query("TABLE x; SELECT 2")]).server(&[refused, ready(b'I')]).record();
    assert_eq!(recorder.texts(), ["TABLE x", "SELECT 2"]);
    assert_eq!(recorder.statuses(), [Status::Failed, Status::Skipped]);
}

#[test]
fn an_empty_query_string_is_a_completed_statement() {
    for text in ["", " ;; -- nothing\n"] {
        let recorder = Talk::started().client(&[query(text)]).server(&[empty(b'I'), ready(b'I')]).record();
        assert_eq!(recorder.texts(), [text]);
        assert_eq!(recorder.statuses(), [Status::Completed]);
        assert_eq!(recorder.statements[0].command_tag, None);
    }
}

#[test]
fn replies_that_cannot_belong_to_their_texts_leave_a_doubt() {
    let recorder = Talk::started()
        .client(&[query("INSERT INTO t VALUES (1); UPDATE t SET a = 2")])
        .server(&[done("UPDATE 1"), done("INSERT 0 1"), ready(b'I')])
        .client(&[query("SET x = 1; SELECT 1")])
        .server(&[done("SET"), ready(b'I')])
        .record();
    let complete: Vec<_> = recorder.statements.iter().map(|row| row.complete).collect();
    assert_eq!(complete, [false, false, true, false]);
    assert_eq!(recorder.statements[3].status, Status::Unknown);
}

#[test]
fn a_tag_too_many_takes_no_text() {
    let recorder = Talk::started()
        .client(&[query("SET x = 1")])
        .server(&[done("SET"), done("SET"), ready(b'I')])
        .client(&[query("SET y = 1")])
        .server(&[done("SET"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SET x = 1", "?", "SET y = 1"]);
    assert!(!recorder.statements[1].complete);
    assert!(recorder.statements[2].complete);
}

#[test]
fn rows_of_a_rule_are_counted_with_their_statement() {
    // INSERT … with a rule DO ALSO SELECT: rows come first, without a tag of their own.
    let recorder = Talk::started()
        .client(&[query("INSERT INTO t VALUES (1)")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("INSERT 0 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["INSERT INTO t VALUES (1)"]);
    assert_eq!(recorder.rows.len(), 1);
}

#[test]
fn texts_are_decoded_with_the_session_s_encoding() {
    let recorder = Talk::started()
        .client(&[query("SET client_encoding = 'LATIN1'")])
        .server(&[done("SET"), setting("client_encoding", "LATIN1"), ready(b'I')])
        .client(&[message(b'Q', &[b"SELECT 'caf\xe9'\0"])])
        .server(&[columns(&[("?column?", 25)]), row(&[Some(b"caf\xe9")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts()[1], "SELECT 'café'");
}

#[test]
fn messages_of_the_server_s_own_accord_disturb_nothing() {
    let notice = message(b'N', &[&error("NOTICE", "00000", "hello")[5..]]);
    let notification = message(b'A', &[&[0, 0, 0, 9], &z("jobs"), &z("1")]);
    let recorder = Talk::started()
        .server(std::slice::from_ref(&notification))
        .client(&[query("SET application_name = 'desk'")])
        .server(&[notice.clone(), setting("application_name", "desk"), done("SET"), notice, ready(b'I')])
        .server(&[notification])
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record();
    assert_eq!(recorder.statuses(), [Status::Completed; 2]);
    assert_eq!(text(&recorder.info().application_name), Some("desk"));
    assert_eq!(recorder.end().errors, 0);
}

#[test]
fn a_malformed_body_is_the_server_s_to_refuse() {
    let recorder = Talk::started()
        .client(&[message(b'Q', &[b"SELECT 1"])])
        .server(&[error("ERROR", "08P01", "invalid string in message"), ready(b'I')])
        .client(&[message(b'B', &[b"\0p\0\0\x07"]), sync()])
        .server(&[error("ERROR", "08P01", "insufficient data left in message"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts()[0], "SELECT 1");
    assert_eq!(recorder.statuses()[0], Status::Failed);
    assert_eq!(recorder.end().protocol_error, None);
    assert_eq!(recorder.end().gap_bytes, 0);
}
