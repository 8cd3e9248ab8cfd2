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
