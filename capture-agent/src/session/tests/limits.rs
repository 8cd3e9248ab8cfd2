//! What is left out, and how the record says so.

use proptest::prelude::*;

use super::pieces::{Act, cut, play_restored, talk};
use crate::session::testing::*;
use crate::session::*;

#[test]
fn rows_beyond_the_limit_are_counted_only() {
    let limits = Limits { rows: 2, ..Limits::default() };
    let mut replies = vec![columns(&[("a", 23)])];
    replies.extend((0..5).map(|_| row(&[t("1")])));
    replies.extend([done("SELECT 5"), ready(b'I')]);
    let recorder = Talk::started()
        .client(&[query("TABLE t")])
        .server(&replies)
        .client(&[query("SELECT 1")])
        .server(&[columns(&[("a", 23)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record_with(origin(), limits);
    assert_eq!(recorder.rows.len(), 3);
    let truncated: Vec<_> = recorder.statements.iter().map(|row| row.results_truncated).collect();
    assert_eq!(truncated, [true, false]);
    assert_eq!(recorder.statements[0].rows, Some(5));
}

#[test]
fn a_row_that_does_not_fit_ends_the_recorded_rows() {
    let limits = Limits { bytes: 40, ..Limits::default() };
    let long = "x".repeat(50);
    let recorder = Talk::started()
        .client(&[query("TABLE t")])
        .server(&[
            columns(&[("a", 25)]),
            row(&[t("1")]),
            row(&[t(&long)]),
            row(&[t("2")]),
            done("SELECT 3"),
            ready(b'I'),
        ])
        .record_with(origin(), limits);
    assert_eq!(recorder.rows.len(), 1);
    assert!(recorder.statements[0].results_truncated);
    assert_eq!(recorder.statements[0].rows, Some(3));
}

#[test]
fn copied_rows_are_limited_too_and_counted_by_the_tag() {
    let limits = Limits { rows: 1, ..Limits::default() };
    let recorder = Talk::started()
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy_response(b'G', false, 1)])
        .client(&[copy_data(b"1\n2\n3\n"), copy_data(b"4\n"), copy_done()])
        .server(&[done("COPY 4"), ready(b'I')])
        .record_with(origin(), limits);
    assert_eq!(recorder.rows.len(), 1);
    assert_eq!(recorder.statements[0].rows, Some(4));
    assert!(recorder.statements[0].results_truncated);
}

#[test]
fn a_parameter_longer_than_what_is_kept_is_cut_off() {
    let limits = Limits { kept: 64, ..Limits::default() };
    let long = "x".repeat(2_000);
    let recorder = Talk::started()
        .client(&[parse("p", "SELECT $1, $2", &[25, 25]), sync()])
        .server(&[empty(b'1'), ready(b'I')])
        .client(&[bind("", "p", &[t(&long), t("y")]), execute("", 0), sync()])
        .server(&[empty(b'2'), done("SELECT 0"), ready(b'I')])
        .record_with(origin(), limits);
    let statement = &recorder.statements[0];
    assert!(statement.params_truncated);
    assert_eq!(text(&statement.sql), Some("SELECT $1, $2"));
    assert_eq!(statement.params.len(), 1);
    let kept = recorder.params(0)[0].unwrap();
    assert!(kept.len() < 1_024 && kept.iter().all(|byte| *byte == b'x'));
}

#[test]
fn a_query_longer_than_what_is_kept_is_cut_off() {
    let limits = Limits { kept: 2_000, ..Limits::default() };
    let long = format!("SELECT '{}'", "x".repeat(3_000));
    let recorder = Talk::started()
        .client(&[query(&long)])
        .server(&[columns(&[("a", 25)]), row(&[t("1")]), done("SELECT 1"), ready(b'I')])
        .record_with(origin(), limits);
    assert_eq!(recorder.texts(), [&long[..2_000]]);
    assert!(recorder.statements[0].params_truncated);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn limits_leave_the_same_rows_out_whatever_the_cut(
        steps in prop::collection::vec(
            prop::sample::select(vec![Act::Rows, Act::CopyIn, Act::CopyOut, Act::Limited, Act::Several]), 1..6),
        sizes in prop::collection::vec(1_usize..60, 1..8),
        rows in 0_u64..6,
        bytes in 0_u64..120,
    ) {
        let talk = talk(&steps);
        let limits = Limits { rows, bytes, ..Limits::default() };
        let play = |sizes: &[usize]| play_restored(&talk, &cut(&talk, sizes), false, limits, usize::MAX);
        prop_assert_eq!(play(&[usize::MAX]).log, play(&sizes).log);
    }
}
