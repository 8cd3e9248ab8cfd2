//! Rows that nobody wants: what the kernel side passes over is counted as if it had been delivered.

use proptest::prelude::*;

use super::pieces::{Act, Piece, cut, talk};
use crate::session::testing::*;
use crate::session::*;

/// The kernel side, as `capture-ebpf/src/pass.rs` has it.
#[derive(Default)]
struct Passing {
    asked: Option<Unwanted>,
    on: Option<On>,
}

struct On {
    tag: u8,
    from: u64,
    seen: u64,
    /// The bytes from the next message's beginning on.
    head: Vec<u8>,
    /// Bytes of the present message that are still to come.
    rest: usize,
    messages: u64,
}

impl Passing {
    /// How many bytes at the front of a call are passed over.
    fn call(&mut self, start: u64, bytes: &[u8]) -> usize {
        if self.on.is_none() {
            let Some(Unwanted { tag, next }) = self.asked.take_if(|asked| asked.next >= start) else {
                return 0;
            };
            let rest = usize::try_from(next - start).unwrap();
            self.on = Some(On { tag, from: start, seen: start, head: Vec::new(), rest, messages: 0 });
        }
        let on = self.on.as_mut().unwrap();
        for (at, byte) in bytes.iter().enumerate() {
            if on.rest > 0 {
                on.rest -= 1;
                continue;
            }
            if on.head.is_empty() && *byte != on.tag {
                on.seen += at as u64;
                return at;
            }
            on.head.push(*byte);
            if let [_, a, b, c, d] = on.head[..] {
                on.rest = u32::from_be_bytes([a, b, c, d]) as usize - 4;
                on.messages += 1;
                on.head.clear();
            }
        }
        on.seen += bytes.len() as u64;
        bytes.len()
    }

    /// What it has to say, once something else follows, or nothing.
    fn over(&mut self) -> Option<Passed> {
        let On { from, seen, messages, .. } = self.on.take()?;
        Some(Passed { range: (from, seen), messages, astray: false })
    }
}

/// Plays it, and asks for rows to be passed over before each of the events for which `asks` says so.
fn play(talk: &Talk, pieces: &[Piece], limits: Limits, asks: &[bool]) -> (Recorder, u64) {
    let mut recorder = Recorder::default();
    let mut session = Session::new(origin(), limits);
    let (mut passing, mut passed) = (Passing::default(), 0);
    let mut asks = asks.iter().copied().cycle();
    for piece in pieces {
        if asks.next().unwrap_or(false) && passing.on.is_none() {
            passing.asked = session.unwanted();
        }
        let mut data = piece.data();
        if data.direction == Direction::Backend {
            let front = passing.call(data.offset, data.bytes);
            passed += front as u64;
            data.offset += front as u64;
            data.bytes = &data.bytes[front..];
            if data.bytes.is_empty() {
                continue;
            }
            if let Some(passed) = passing.over() {
                assert!(passed.range.0 == passed.range.1 || session.lacks(data.direction, data.offset));
                session.passed(passed, data.at, &mut recorder);
            }
        }
        session.data(data, &mut recorder);
        let (mut state, mut prepared) = (Vec::new(), Vec::new());
        session.save(&mut state);
        session.save_prepared(&mut prepared);
        session = Session::restore(&state, &prepared, limits).unwrap();
    }
    let closing = talk.closing(0);
    if let Some(passed) = passing.over() {
        session.passed(passed, closing.at, &mut recorder);
    }
    session.close(closing, &mut recorder);
    (recorder, passed)
}

/// When the first row came is known only if it was delivered.
fn statements(recorder: &Recorder) -> Vec<String> {
    let timeless = |exchange: &Exchange| Exchange { first_row_us: None, ..exchange.clone() };
    recorder.statements.iter().map(|exchange| format!("{:?}", timeless(exchange))).collect()
}

#[test]
fn a_row_that_is_passed_over_in_its_middle_counts_once() {
    let limits = Limits { rows: 0, ..Limits::default() };
    let long = "x".repeat(500);
    let rows = [row(&[t("1")]), row(&[t(&long)]), row(&[t("2")])].concat();
    let talk = Talk::started().client(&[query("TABLE t")]).server(&[
        columns(&[("a", 25)]),
        rows,
        done("SELECT 3"),
        ready(b'I'),
    ]);
    let (recorder, passed) = play(&talk, &cut(&talk, &[100]), limits, &[true]);
    assert!(passed > 300, "{passed}");
    assert_eq!(recorder.statements[0].rows, Some(3));
    assert_eq!(statements(&recorder), statements(&talk.record_with(origin(), limits)));
}

#[test]
fn what_a_rule_wants_is_not_passed_over() {
    let talk = Talk::started().client(&[query("TABLE t")]).server(&[columns(&[("a", 25)]), row(&[t("1")])]);
    let unwanted = |limits| talk.play(origin(), limits, &mut Recorder::default()).unwanted();
    assert_eq!(unwanted(Limits::default()), None);
    let tag = |rows| unwanted(Limits { rows, ..Limits::default() }).map(|unwanted| unwanted.tag);
    assert_eq!((tag(2), tag(1), tag(0)), (None, Some(b'D'), Some(b'D')));
    let idle = Talk::started().client(&[query("TABLE t")]).server(&[done("SELECT 0"), ready(b'I')]);
    let limits = Limits { rows: 0, ..Limits::default() };
    assert_eq!(idle.play(origin(), limits, &mut Recorder::default()).unwanted(), None);
}

#[test]
fn behind_bytes_that_the_kernel_lost_track_of_nothing_is_guessed() {
    let limits = Limits { rows: 0, ..Limits::default() };
    let talk = Talk::started().client(&[query("TABLE t")]).server(&[columns(&[("a", 25)]), row(&[t("1")])]);
    let mut recorder = Recorder::default();
    let mut session = talk.play(origin(), limits, &mut recorder);
    let from = session.unwanted().unwrap().next;
    session.passed(Passed { range: (from, from + 100), messages: 7, astray: true }, Micros(9), &mut recorder);
    let end = from + 100;
    let closing = Close { ends: [talk.ends()[0], end], ..talk.closing(0) };
    session.close(closing, &mut recorder);
    assert_eq!((recorder.statements[0].status, recorder.statements[0].rows), (Status::Unknown, None));
    assert_eq!(recorder.end().bytes_out + recorder.end().gap_bytes, end);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_is_passed_over_the_record_is_the_same(
        steps in prop::collection::vec(
            prop::sample::select(vec![
                Act::Rows, Act::CopyOut, Act::Limited, Act::Several, Act::SeveralFail, Act::RunPrepared,
                Act::Notice, Act::LookAlike, Act::Big, Act::UnnamedAhead, Act::CopyIn,
            ]), 1..8),
        sizes in prop::collection::vec(1_usize..60, 1..8),
        asks in prop::collection::vec(any::<bool>(), 1..20),
        rows in 0_u64..3,
    ) {
        let talk = talk(&steps);
        let limits = Limits { rows, ..Limits::default() };
        let pieces = cut(&talk, &sizes);
        let (whole, none) = play(&talk, &pieces, limits, &[false]);
        let (recorder, _) = play(&talk, &pieces, limits, &asks);
        prop_assert_eq!(none, 0);
        prop_assert_eq!(&whole.rows, &recorder.rows);
        prop_assert_eq!(statements(&whole), statements(&recorder));
        prop_assert_eq!(format!("{:?}", whole.end()), format!("{:?}", recorder.end()));
        prop_assert!(recorder.gaps.is_empty());
    }
}
