//! Several messages of the extended protocol before a reply, and errors among them.

use crate::session::testing::*;
use crate::session::*;

fn run(text: &str) -> Vec<u8> {
    [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat()
}

fn ran() -> Vec<u8> {
    [empty(b'1'), empty(b'2'), done("SELECT 0")].concat()
}

#[test]
fn everything_up_to_sync_is_skipped_after_an_error() {
    let recorder = Talk::started()
        .client(&[run("one"), run("two"), run("three"), query("four"), sync(), run("five"), sync()])
        .server(&[ran(), empty(b'1'), empty(b'2'), error("ERROR", "22012", "no"), ready(b'I')])
        .server(&[ran(), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["one", "two", "three", "four", "five"]);
    use Status::{Completed, Failed, Skipped};
    assert_eq!(recorder.statuses(), [Completed, Failed, Skipped, Skipped, Completed]);
}

#[test]
fn what_comes_after_the_error_and_before_sync_is_skipped_too() {
    let recorder = Talk::started()
        .client(&[run("one"), flush()])
        .server(&[empty(b'1'), empty(b'2'), error("ERROR", "22012", "no")])
        .client(&[run("two")])
        .client(&[query("three")])
        .client(&[sync()])
        .server(&[ready(b'I')])
        .client(&[run("four"), sync()])
        .server(&[ran(), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["one", "two", "three", "four"]);
    use Status::{Completed, Failed, Skipped};
    assert_eq!(recorder.statuses(), [Failed, Skipped, Skipped, Completed]);
}

#[test]
fn a_parse_or_bind_that_fails_fails_its_execute() {
    let recorder = Talk::started()
        .client(&[run("one"), run("two"), sync()])
        .server(&[error("ERROR", "42601", "syntax error"), ready(b'I')])
        .client(&[parse("", "three", &[]), bind("", "", &[t("x")]), execute("", 0), sync()])
        .server(&[empty(b'1'), error("ERROR", "22P02", "invalid input syntax"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["one", "two", "three"]);
    use Status::{Failed, Skipped};
    assert_eq!(recorder.statuses(), [Failed, Skipped, Failed]);
    assert_eq!(recorder.params(2), [t("x")]);
    assert_eq!(recorder.statements[2].sqlstate.as_deref(), Some("22P02"));
}

#[test]
fn a_parse_or_bind_that_fails_without_an_execute_is_recorded() {
    let recorder = Talk::started()
        .client(&[parse("p", "one", &[]), describe(b'S', "p"), sync()])
        .server(&[error("ERROR", "42P01", "no such relation"), ready(b'I')])
        .client(&[parse("p", "two", &[]), sync()])
        .server(&[empty(b'1'), ready(b'I')])
        .client(&[bind("", "p", &[t("x")]), sync()])
        .server(&[error("ERROR", "42501", "permission denied"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["one", "two"]);
    assert_eq!(recorder.statuses(), [Status::Failed; 2]);
    assert_eq!(recorder.params(1), [t("x")]);
}

#[test]
fn an_error_is_not_blamed_on_a_later_portal_of_the_same_name() {
    let recorder = Talk::started()
        .client(&[run("one"), parse("", "two", &[]), bind("", "", &[t("x")]), run("three"), sync()])
        .server(&[ran(), empty(b'1'), error("ERROR", "22P02", "no"), ready(b'I')])
        .record();
    assert_eq!(recorder.texts(), ["one", "two", "three"]);
    use Status::{Completed, Failed, Skipped};
    assert_eq!(recorder.statuses(), [Completed, Failed, Skipped]);
}

#[test]
fn a_canceled_statement_is_told_from_a_failed_one() {
    let recorder = Talk::started()
        .client(&[query("SELECT pg_sleep(9)")])
        .server(&[columns(&[("pg_sleep", 2278)]), error("ERROR", "57014", "canceling"), ready(b'I')])
        .record();
    assert_eq!(recorder.statuses(), [Status::Canceled]);
}

#[test]
fn a_thousand_executes_in_one_pipeline_are_a_thousand_statements() {
    let mut requests = vec![parse("p", "INSERT INTO t VALUES ($1)", &[23])];
    let mut replies = vec![empty(b'1')];
    for index in 0..1_000 {
        requests.extend([bind("", "p", &[t(&index.to_string())]), execute("", 0)]);
        replies.extend([empty(b'2'), done("INSERT 0 1")]);
    }
    requests.push(sync());
    replies.push(ready(b'I'));
    let recorder = Talk::started().client(&requests).server(&replies).record();
    assert_eq!(recorder.statements.len(), 1_000);
    assert_eq!(recorder.params(999), [t("999")]);
}
