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
