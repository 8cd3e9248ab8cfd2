//! What a prepared statement's name stands for.

use crate::session::testing::*;
use crate::session::*;

fn run(name: &str) -> [Vec<u8>; 3] {
    [bind("", name, &[]), execute("", 0), sync()]
}

fn ran() -> [Vec<u8>; 3] {
    [empty(b'2'), done("SELECT 0"), ready(b'I')]
}

fn prepared(talk: Talk, name: &str, text: &str) -> Talk {
    talk.client(&[parse(name, text, &[]), sync()]).server(&[empty(b'1'), ready(b'I')])
}

#[test]
fn a_parse_that_fails_leaves_the_name_as_it_was() {
    let recorder = prepared(Talk::started(), "p", "SELECT 1")
        .client(&[parse("p", "SELECT 2", &[]), sync()])
        .server(&[error("ERROR", "42P05", "prepared statement \"p\" already exists"), ready(b'I')])
        .client(&run("p"))
        .server(&ran())
        .record();
    assert_eq!(recorder.texts(), ["SELECT 2", "SELECT 1"]);
    assert_eq!(recorder.statuses(), [Status::Failed, Status::Completed]);
}

#[test]
fn the_unnamed_statement_is_gone_when_its_successor_fails() {
    let recorder = prepared(Talk::started(), "", "SELECT 1")
        .client(&[parse("", "SELEC 2", &[]), sync()])
        .server(&[error("ERROR", "42601", "syntax error"), ready(b'I')])
        .client(&run(""))
        .server(&[error("ERROR", "26000", "unnamed prepared statement does not exist"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SELEC 2", "?"]);
    assert_eq!(recorder.statuses(), [Status::Failed, Status::Failed]);
}

#[test]
fn a_query_drops_the_unnamed_statement() {
    let recorder = prepared(Talk::started(), "", "SELECT 1")
        .client(&[query("SET x = 1")])
        .server(&[done("SET"), ready(b'I')])
        .client(&run(""))
        .server(&[error("ERROR", "26000", "unnamed prepared statement does not exist"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SET x = 1", "?"]);
}

#[test]
fn a_closed_name_can_stand_for_something_else() {
    let talk = prepared(Talk::started(), "p", "SELECT 1")
        .client(&run("p"))
        .server(&ran())
        .client(&[close(b'S', "p"), sync()])
        .server(&[empty(b'3'), ready(b'I')]);
    let recorder = prepared(talk, "p", "SELECT 2").client(&run("p")).server(&ran()).record();
    assert_eq!(recorder.texts(), ["SELECT 1", "SELECT 2"]);
}

#[test]
fn deallocate_and_discard_take_names_away() {
    for (text, tag) in [
        ("DEALLOCATE p", "DEALLOCATE"),
        ("deallocate prepare \"p\"", "DEALLOCATE"),
        ("DEALLOCATE ALL", "DEALLOCATE ALL"),
        ("DISCARD ALL", "DISCARD ALL"),
    ] {
        let recorder = prepared(Talk::started(), "p", "SELECT 1")
            .client(&[query(text)])
            .server(&[done(tag), ready(b'I')])
            .client(&run("p"))
            .server(&ran())
            .record();
        assert_eq!(recorder.texts(), [text, "?"]);
    }
}

#[test]
fn a_name_prepared_in_sql_stands_for_the_statement_inside() {
    let recorder = Talk::started()
        .client(&[query("PREPARE P (int) AS SELECT $1")])
        .server(&[done("PREPARE"), ready(b'I')])
        .client(&run("p"))
        .server(&ran())
        .record();
    assert_eq!(recorder.texts(), ["PREPARE P (int) AS SELECT $1", "SELECT $1"]);
}

#[test]
fn a_pipeline_sees_names_as_the_server_does() {
    // Both executions are sent before the first reply: the first of "b" fails, since its Parse did.
    let recorder = prepared(Talk::started(), "a", "SELECT 1")
        .client(&[
            close(b'S', "a"),
            parse("a", "SELECT 2", &[]),
            bind("", "a", &[]),
            execute("", 0),
            sync(),
            parse("b", "SELEC", &[]),
            bind("", "b", &[]),
            execute("", 0),
            sync(),
            bind("", "b", &[]),
            execute("", 0),
            sync(),
        ])
        .server(&[empty(b'3'), empty(b'1'), empty(b'2'), done("SELECT 0"), ready(b'I')])
        .server(&[error("ERROR", "42601", "syntax error"), ready(b'I')])
        .server(&[error("ERROR", "26000", "prepared statement \"b\" does not exist"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["SELECT 2", "SELEC", "?"]);
    assert_eq!(recorder.statuses(), [Status::Completed, Status::Failed, Status::Failed]);
}

#[test]
fn statements_beyond_the_limit_are_executed_as_unknown() {
    let limits = Limits { names: 1, ..Limits::default() };
    let talk = prepared(prepared(Talk::started(), "a", "SELECT 1"), "b", "SELECT 2");
    let recorder =
        talk.client(&run("a")).server(&ran()).client(&run("b")).server(&ran()).record_with(origin(), limits);
    assert_eq!(recorder.texts(), ["SELECT 1", "?"]);
    assert_eq!(text(&recorder.statements[1].statement_name), Some("b"));
}
