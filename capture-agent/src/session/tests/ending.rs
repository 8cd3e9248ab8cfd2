//! Sessions that end anywhere.

use crate::session::testing::*;
use crate::session::*;

fn asked() -> Talk {
    Talk::started().client(&[
        query("SELECT 1; SELECT 2"),
        parse("", "three", &[]),
        bind("", "", &[t("x")]),
        execute("", 0),
        sync(),
    ])
}

#[test]
fn statements_without_a_reply_are_in_flight() {
    let recorder = asked().server(&[columns(&[("a", 23)]), row(&[t("1")])]).record();
    assert_eq!(recorder.texts(), ["SELECT 1", "SELECT 2", "three"]);
    assert_eq!(recorder.statuses(), [Status::InFlight; 3]);
    assert_eq!(recorder.params(2), [t("x")]);
    assert_eq!(recorder.statements[0].rows, Some(1));
    assert_eq!(recorder.statements[0].duration_us, None);
    assert!(recorder.statements.iter().all(|row| row.complete));
    assert_eq!(recorder.end().reason, EndReason::Disconnected);
}

#[test]
fn an_agent_that_stops_leaves_the_session_open() {
    let talk = asked();
    let mut recorder = Recorder::default();
    talk.play(origin(), Limits::default(), &mut recorder).stop(Micros(9_000), &mut recorder);
    assert_eq!(recorder.statuses(), [Status::InFlight; 3]);
    assert_eq!((recorder.end().ended_at, &recorder.end().reason), (None, &EndReason::AgentStopped));
}

#[test]
fn a_fatal_error_fails_what_was_running_and_names_the_reason() {
    let recorder = asked().server(&[error("FATAL", "57P01", "terminating connection")]).record();
    use Status::{Failed, InFlight, Skipped};
    assert_eq!(recorder.statuses(), [Failed, Skipped, InFlight]);
    assert_eq!(recorder.end().reason, EndReason::Fatal("57P01".into()));
}

#[test]
fn a_backend_that_is_killed_names_the_signal() {
    let mut recorder = Recorder::default();
    let talk = asked();
    let session = talk.play(origin(), Limits::default(), &mut recorder);
    session.close(talk.closing(9), &mut recorder);
    assert_eq!(recorder.end().reason, EndReason::Signal(9));
}

#[test]
fn a_message_cut_off_by_the_end_is_no_statement() {
    let whole = query("SELECT 1");
    let recorder = Talk::started().client(&[whole[..whole.len() - 3].to_vec()]).record();
    assert!(recorder.statements.is_empty());
    assert_eq!(recorder.end().gap_bytes, 0);
}
