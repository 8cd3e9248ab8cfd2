//! Texts that are made to hurt: each is told within a bound, or unknown, and nothing ends the process.
#![expect(clippy::disallowed_types, reason = "a test looks at the clock")]

use std::time::{Duration, Instant};

use super::super::*;

/// What is told of a text by both parsers, and how long it took.
fn examine(text: &str) -> (Option<Unknown>, Duration) {
    let begin = Instant::now();
    let examined = Examiner::default().examine(text.as_bytes(), Reading::default(), Opinions::Two);
    (examined.analysis.unknown, begin.elapsed())
}

/// No parser can be interrupted: the limits on bytes, tokens and depth are what bounds the time. Without optimization,
/// on a busy machine, a text takes less than this; with it a hundredth part.
const LONGEST: Duration = Duration::from_secs(10);

#[track_caller]
fn check(what: &str, text: &str, expected: &[Option<Unknown>]) {
    let (unknown, took) = examine(text);
    assert!(expected.contains(&unknown), "{what}: {unknown:?}");
    assert!(took < LONGEST, "{what}: {took:?}");
}

#[test]
fn long_texts_are_told_or_unknown_in_bounded_time() {
    let long = Some(Unknown::TooLong);
    check("16 MiB in a string", &format!("select '{}'", "x".repeat(16 << 20)), &[long]);
    check("16 MiB of parentheses", &"(".repeat(16 << 20), &[long]);
    check("9 MB of comment", &format!("select 1 /*{}*/", "x".repeat(9_000_000)), &[long]);
    check("1 MiB in a string", &format!("select '{}'", "x".repeat((1 << 20) - 20)), &[None]);
    check("1 MiB of spaces", &format!("select{}1", " ".repeat((1 << 20) - 20)), &[None]);
    check("1 MiB of semicolons", &";".repeat(1 << 20), &[long]);
    check("50,000 terms with or", &format!("select 1 where a = 1{}", " or a = 1".repeat(50_000)), &[long]);
    check("2,000 terms with or", &format!("select 1 where a = 1{}", " or a = 1".repeat(2_000)), &[None]);
    check("450 terms with plus", &format!("select 1{}", " + a".repeat(450)), &[None]);
    check("50,000 terms with plus", &format!("select 1{}", " + a".repeat(50_000)), &[long]);
    check("50,000 members", &format!("select 1 where a in (1{})", ", 1".repeat(50_000)), &[None]);
    check("10,000 columns", &format!("select a{}", ", a".repeat(4_900)), &[None]);
    check("3,000 statements", &"select 1;".repeat(3_000), &[None]);
}

/// Every construct that nests, just below and far above what is read. The second parser tries alternatives, so its time
/// is what would grow with a power of the depth.
#[test]
fn nested_texts_are_told_or_unknown_in_bounded_time() {
    let told = [None, Some(Unknown::TooDeep), Some(Unknown::Syntax), Some(Unknown::TooLong)];
    for (before, open, inner, close) in [
        ("select ", "(", "1", ")"),
        ("select * from ", "(", "t", ")"),
        ("select * from ", "(select * from ", "t", ") x"),
        ("select * from ", "(t join ", "t using (a)", " using (a))"),
        ("select * from ", "lateral (select * from ", "t", ") x"),
        ("select ", "(select ", "1", ")"),
        ("", "(", "select 1", ")"),
        ("", "(select 1 union ", "select 1", ")"),
        ("select ", "case when ", "true", " then 1 end"),
        ("select ", "array[", "1", "]"),
        ("select ", "a[", "1", "]"),
        ("select ", "f(", "1", ")"),
        ("select ", "cast(", "1", " as int)"),
        ("select ", "extract(year from ", "1", ")"),
        // Each level of these doubled the second parser's time.
        ("select ", "position(", "1", ")"),
        ("select ", "position(1 in ", "1", ")"),
        ("select ", "overlay(a placing ", "1", " from 1)"),
        ("select ", "substring(", "1", ")"),
        ("select ", "trim(", "1", ")"),
        ("select ", "not ", "true", ""),
        ("select ", "- ", "1", ""),
        ("select 1 ", "::int", "", ""),
        ("select 1 where a ", "between 1 and 1 and a ", "= 1", ""),
        ("select 1 where ", "exists (select 1 where ", "true", ")"),
        ("select 1 where a ", "in (select a from t where a ", "= 1", ")"),
        ("with x as ", "(with x as ", "(select 1) select 1", ") select 1"),
        ("explain ", "explain ", "select 1", ""),
        ("select row(", "row(", "1", ")"),
        ("select interval ", "(interval ", "'1 day'", ")"),
        ("values ", "(", "1", ")"),
        ("select * from t ", "join (t ", "on true", ") on true "),
        ("insert into t ", "(", "a", ")"),
        ("create table t (a int check ", "(", "true", "))"),
    ] {
        for times in [8, 16, 30, 60, 200, 1_000] {
            let text = format!("{before}{}{inner}{}", open.repeat(times), close.repeat(times));
            check(&format!("{before}{open} {times} times"), &text, &told);
        }
    }
}
