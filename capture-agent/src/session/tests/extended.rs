use crate::session::testing::*;
use crate::session::*;

#[test]
fn every_execute_of_a_prepared_statement_is_a_statement() {
    let mut talk = Talk::started()
        .client(&[parse("p", "SELECT $1", &[23]), describe(b'S', "p"), sync()])
        .server(&[empty(b'1'), parameters(&[23]), columns(&[("a", 23)]), ready(b'I')]);
    for value in ["1", "2", "3"] {
        talk = talk.client(&[bind("", "p", &[t(value)]), execute("", 0), sync()]).server(&[
            empty(b'2'),
            row(&[t(value)]),
            done("SELECT 1"),
            ready(b'I'),
        ]);
    }
    let recorder = talk.record();
    assert_eq!(recorder.texts(), ["SELECT $1"; 3]);
    assert_eq!(recorder.params(2), [t("3")]);
    let statement = &recorder.statements[2];
    assert_eq!(text(&statement.statement_name), Some("p"));
    assert_eq!((statement.params[0].type_oid, statement.params[0].format), (23, 0));
    assert_eq!(recorder.rows[2].columns, ["a"]);
    assert_eq!(statement.protocol, Protocol::Extended);
    assert_eq!(recorder.end().reason, EndReason::Disconnected);
}

/// Replies to Bind, Describe of the portal, Execute and Sync, with one row.
fn one_row(value: &str) -> Vec<Vec<u8>> {
    vec![empty(b'2'), columns(&[("a", 23)]), row(&[t(value)]), done("SELECT 1"), ready(b'I')]
}

#[test]
fn the_unnamed_statement_is_what_was_parsed_last() {
    let mut talk = Talk::started();
    for value in ["1", "2", "1"] {
        let mut replies = vec![empty(b'1')];
        replies.extend(one_row(value));
        talk = talk
            .client(&[
                parse("", &format!("SELECT {value}"), &[]),
                bind("", "", &[]),
                describe(b'P', ""),
                execute("", 0),
                sync(),
            ])
            .server(&replies);
    }
    let recorder = talk.record();
    assert_eq!(recorder.texts(), ["SELECT 1", "SELECT 2", "SELECT 1"]);
    assert_eq!(text(&recorder.statements[0].statement_name), Some(""));
    assert_eq!(recorder.rows[2].columns, ["a"]);
    let bind_length = bind("", "", &[]).len() as u64;
    let execute_length = execute("", 0).len() as u64;
    assert_eq!(recorder.statements[0].bytes_in, bind_length + execute_length);
    let replies: usize = one_row("1")[..4].iter().map(Vec::len).sum();
    assert_eq!(recorder.statements[0].bytes_out, replies as u64);
}

#[test]
fn the_range_of_a_statement_goes_from_its_bind_to_its_execute() {
    let started = startup(&[("user", "ann"), ("database", "shop"), ("application_name", "till")]).len();
    let before = started + parse("", "SELECT 1", &[]).len();
    let bound = bind("", "", &[]).len() + describe(b'P', "").len() + execute("", 0).len();
    let recorder = Talk::started()
        .client(&[parse("", "SELECT 1", &[]), bind("", "", &[]), describe(b'P', ""), execute("", 0), sync()])
        .server(&[vec![empty(b'1')], one_row("1")].concat())
        .record();
    let range = (before as u64, (before + bound) as u64);
    assert_eq!(recorder.statements[0].frontend_range, range);
}

#[test]
fn each_execute_of_a_portal_with_a_row_limit_is_a_statement() {
    let recorder = Talk::started()
        .client(&[query("BEGIN")])
        .server(&[done("BEGIN"), ready(b'T')])
        .client(&[parse("", "TABLE t", &[]), bind("c", "", &[t("x")]), execute("c", 2), sync()])
        .server(&[empty(b'1'), empty(b'2'), row(&[t("1")]), row(&[t("2")]), empty(b's'), ready(b'T')])
        .client(&[execute("c", 2), sync()])
        .server(&[row(&[t("3")]), done("SELECT 1"), ready(b'T')])
        .client(&[query("COMMIT")])
        .server(&[done("COMMIT"), ready(b'I')])
        .client(&[execute("c", 2), sync()])
        .server(&[error("ERROR", "34000", "portal \"c\" does not exist"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["BEGIN", "TABLE t", "TABLE t", "COMMIT", "?"]);
    use Status::{Completed, Failed, Suspended};
    assert_eq!(recorder.statuses(), [Completed, Suspended, Completed, Completed, Failed]);
    assert_eq!(recorder.statements[1].rows, Some(2));
    assert_eq!(recorder.statements[2].rows, Some(1));
    assert_eq!(recorder.params(2), [t("x")]);
    assert_eq!((recorder.rows[2].seq, recorder.rows[2].row), (2, 0));
}

#[test]
fn parameters_take_type_and_format_from_wherever_they_stand() {
    let recorder = Talk::started()
        .client(&[parse("p", "SELECT $1, $2", &[0, 0]), describe(b'S', "p"), sync()])
        .server(&[empty(b'1'), parameters(&[23, 25]), columns(&[("a", 23), ("b", 25)]), ready(b'I')])
        .client(&[bind_with("", "p", &[1, 0], &[Some(&[0, 0, 0, 7]), None], &[1, 0]), execute("", 0), sync()])
        .server(&[empty(b'2'), row(&[Some(&[0, 0, 0, 7]), None]), done("SELECT 1"), ready(b'I')])
        .record();
    let params = &recorder.statements[0].params;
    assert_eq!((params[0].type_oid, params[0].format), (23, 1));
    assert_eq!((params[1].type_oid, params[1].format, params[1].value), (25, 0, None));
    assert_eq!(recorder.params(0), [Some([0, 0, 0, 7].as_slice()), None]);
    let columns = recorder.statements[0].columns.as_ref().unwrap();
    assert_eq!((columns[0].format, columns[1].format), (1, 0));
}

#[test]
fn an_empty_statement_completes_without_a_tag() {
    let recorder = Talk::started()
        .client(&[parse("", "", &[]), bind("", "", &[]), execute("", 0), sync()])
        .server(&[empty(b'1'), empty(b'2'), empty(b'I'), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), [""]);
    assert_eq!(recorder.statuses(), [Status::Completed]);
}

#[test]
fn a_commit_that_fails_at_sync_fails_the_statement() {
    let recorder = Talk::started()
        .client(&[parse("", "INSERT INTO t VALUES (1)", &[]), bind("", "", &[]), execute("", 0), sync()])
        .server(&[
            empty(b'1'),
            empty(b'2'),
            done("INSERT 0 1"),
            error("ERROR", "23503", "violates foreign key constraint"),
            ready(b'I'),
        ])
        .record();
    assert_eq!(recorder.texts(), ["INSERT INTO t VALUES (1)"]);
    assert_eq!(recorder.statuses(), [Status::Failed]);
    assert_eq!(recorder.statements[0].sqlstate.as_deref(), Some("23503"));
}

#[test]
fn a_statement_between_flush_and_sync_is_recorded_once() {
    let recorder = Talk::started()
        .client(&[parse("", "SELECT 1", &[]), describe(b'S', ""), flush()])
        .server(&[empty(b'1'), parameters(&[]), columns(&[("a", 23)])])
        .client(&[bind("", "", &[]), execute("", 0), flush()])
        .server(&[empty(b'2'), row(&[t("1")]), done("SELECT 1")])
        .client(&[sync()])
        .server(&[ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SELECT 1"]);
    assert_eq!(recorder.rows[0].columns, ["a"]);
}
