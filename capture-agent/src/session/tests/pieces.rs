//! Properties: what is recorded does not depend on how the streams are cut into events; what is lost is declared
//! and nothing false comes of it; and no bytes do harm.

use proptest::prelude::*;

use crate::session::testing::*;
use crate::session::*;
use crate::streams::Loss;

/// An event as the kernel side would make it.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    direction: Direction,
    offset: u64,
    bytes: Vec<u8>,
    end_of_call: bool,
    at: Micros,
    lost: bool,
}

impl Piece {
    pub(super) fn data(&self) -> Data<'_> {
        let Self { direction, offset, ref bytes, end_of_call, at, .. } = *self;
        Data { direction, offset, bytes, loss: Some(Loss::RingFull), end_of_call, plaintext: false, at }
    }
}

/// Cuts the calls of `talk` into events, of `sizes` bytes in turn.
pub(super) fn cut(talk: &Talk, sizes: &[usize]) -> Vec<Piece> {
    let mut sizes = sizes.iter().copied().cycle();
    let mut offsets = [0; 2];
    let mut pieces = Vec::new();
    for (index, call) in talk.0.iter().enumerate() {
        let mut rest = call.bytes.as_slice();
        while !rest.is_empty() {
            let size = sizes.next().unwrap_or(usize::MAX).clamp(1, rest.len());
            let (piece, after) = rest.split_at(size);
            rest = after;
            let offset = &mut offsets[call.direction as usize];
            pieces.push(Piece {
                direction: call.direction,
                offset: *offset,
                bytes: piece.to_vec(),
                end_of_call: rest.is_empty(),
                at: Micros(1_000 + index as i64),
                lost: false,
            });
            *offset += size as u64;
        }
    }
    pieces
}

fn play(talk: &Talk, pieces: &[Piece], partial: bool) -> Recorder {
    play_restored(talk, pieces, partial, Limits::default(), usize::MAX)
}

/// Like [`play`], within limits, and the session is saved and restored after every `every` events.
pub(super) fn play_restored(
    talk: &Talk,
    pieces: &[Piece],
    partial: bool,
    limits: Limits,
    every: usize,
) -> Recorder {
    let mut recorder = Recorder::default();
    let mut session = Session::new(Origin { partial, ..origin() }, limits);
    for (index, piece) in pieces.iter().filter(|piece| !piece.lost).enumerate() {
        session.data(piece.data(), &mut recorder);
        if (index + 1) % every == 0 {
            let (mut state, mut prepared) = (Vec::new(), Vec::new());
            session.save(&mut state);
            session.save_prepared(&mut prepared);
            session = Session::restore(&state, &prepared, limits).unwrap();
        }
    }
    session.close(talk.closing(0), &mut recorder);
    recorder
}

/// What client and server do next; all texts and values differ, so that a mix-up shows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Query,
    Several,
    SeveralFail,
    Pipelined,
    Prepare,
    RunPrepared,
    Unnamed,
    UnnamedAhead,
    PipelineFail,
    ParseFail,
    Limited,
    Rows,
    CopyIn,
    CopyOut,
    CopyFail,
    Function,
    Notice,
    LookAlike,
    Big,
}

fn act() -> impl Strategy<Value = Act> {
    use Act::*;
    prop::sample::select(vec![
        Query,
        Several,
        SeveralFail,
        Pipelined,
        Prepare,
        RunPrepared,
        Unnamed,
        UnnamedAhead,
        PipelineFail,
        ParseFail,
        Limited,
        Rows,
        CopyIn,
        CopyOut,
        CopyFail,
        Function,
        Notice,
        LookAlike,
        Big,
    ])
}

/// A conversation of these steps, as a real server would hold it.
pub(super) fn talk(steps: &[Act]) -> Talk {
    let mut talk = Talk::started();
    let mut prepared = None;
    for (index, act) in steps.iter().enumerate() {
        talk = take(talk, *act, index, &mut prepared);
    }
    talk
}

fn result(value: &str) -> Vec<u8> {
    [columns(&[("a", 25)]), row(&[t(value)]), done("SELECT 1")].concat()
}

fn run(text: &str, value: &str) -> Vec<u8> {
    [parse("", text, &[25]), bind("", "", &[t(value)]), describe(b'P', ""), execute("", 0)].concat()
}

fn ran(value: &str) -> Vec<u8> {
    [empty(b'1'), empty(b'2'), result(value)].concat()
}

fn take(talk: Talk, act: Act, index: usize, prepared: &mut Option<usize>) -> Talk {
    let text = |part: &str| format!("SELECT '{part}{index}'");
    let value = |part: &str| format!("value {part}{index}");
    let failed = error("ERROR", "22012", &format!("error {index}"));
    let name = |version: usize| format!("SELECT 'prepared {version}'");
    match act {
        Act::Query => talk.client(&[query(&text(""))]).server(&[result(&value("")), ready(b'I')]),
        Act::Several => talk
            .client(&[query(&[text("a"), text("b"), text("c")].join("; "))])
            .server(&[result(&value("a"))])
            .server(&[result(&value("b")), result(&value("c")), ready(b'I')]),
        Act::SeveralFail => talk.client(&[query(&[text("a"), text("b"), text("c")].join("; "))]).server(&[
            result(&value("a")),
            failed,
            ready(b'I'),
        ]),
        Act::Pipelined => {
            // The second query's end comes with another receive, after the first was answered.
            let second = query(&text("b"));
            let (front, back) = second.split_at(9);
            talk.client(&[query(&text("a")), front.to_vec()])
                .server(&[result(&value("a")), ready(b'I')])
                .client(&[back.to_vec()])
                .server(&[result(&value("b")), ready(b'I')])
        }
        Act::Prepare => {
            let mut requests = Vec::new();
            let mut replies = Vec::new();
            if prepared.is_some() {
                requests.push(close(b'S', "p"));
                replies.push(empty(b'3'));
            }
            *prepared = Some(index);
            requests.extend([parse("p", &name(index), &[]), describe(b'S', "p"), sync()]);
            replies.extend([empty(b'1'), parameters(&[25]), columns(&[("a", 25)]), ready(b'I')]);
            talk.client(&requests).server(&replies)
        }
        Act::RunPrepared => {
            let talk = talk.client(&[bind("", "p", &[t(&value(""))]), execute("", 0), sync()]);
            if prepared.is_some() {
                talk.server(&[empty(b'2'), row(&[t(&value(""))]), done("SELECT 1"), ready(b'I')])
            } else {
                talk.server(&[error("ERROR", "26000", "no such statement"), ready(b'I')])
            }
        }
        Act::Unnamed => {
            talk.client(&[run(&text(""), &value("")), sync()]).server(&[ran(&value("")), ready(b'I')])
        }
        Act::UnnamedAhead => {
            // Requests of the next cycle come with the Sync of this one; their replies come later.
            talk.client(&[run(&text("a"), &value("a")), sync(), run(&text("b"), &value("b"))])
                .server(&[ran(&value("a")), ready(b'I')])
                .client(&[run(&text("c"), &value("c")), sync()])
                .server(&[ran(&value("b")), ran(&value("c")), ready(b'I')])
        }
        Act::PipelineFail => talk
            .client(&[run(&text("a"), &value("a")), run(&text("b"), &value("b"))])
            .client(&[run(&text("c"), &value("c")), query(&text("d")), sync(), run(&text("e"), &value("e"))])
            .server(&[ran(&value("a")), empty(b'1'), failed, ready(b'I')])
            .client(&[sync()])
            .server(&[ran(&value("e")), ready(b'I')]),
        Act::ParseFail => talk
            .client(&[parse("p", &text("refused"), &[]), flush()])
            .server(&[failed])
            .client(&[run(&text("a"), &value("a"))])
            .client(&[sync()])
            .server(&[ready(b'I')]),
        Act::Limited => talk
            .client(&[parse("", &text(""), &[]), bind("", "", &[]), execute("", 1), execute("", 1), sync()])
            .server(&[empty(b'1'), empty(b'2'), row(&[t(&value("a"))]), empty(b's')])
            .server(&[row(&[t(&value("b"))]), done("SELECT 1"), ready(b'I')]),
        Act::Rows => {
            let rows: Vec<Vec<u8>> = (0..5).map(|n| row(&[t(&value(&n.to_string())), None])).collect();
            talk.client(&[query(&text(""))]).server(&[
                columns(&[("a", 25), ("b", 25)]),
                rows.concat(),
                done("SELECT 5"),
                ready(b'I'),
            ])
        }
        Act::CopyIn => talk
            .client(&[query(&format!("COPY t{index} FROM STDIN"))])
            .server(&[copy_response(b'G', false, 1)])
            .client(&[copy_data(value("a").as_bytes()), copy_data(b"\n")])
            .client(&[copy_data(format!("{}\n", value("b")).as_bytes()), copy_done()])
            .server(&[done("COPY 2"), ready(b'I')]),
        Act::CopyOut => talk
            .client(&[query(&format!("COPY t{index} TO STDOUT"))])
            .server(&[copy_response(b'H', false, 1), copy_data(format!("{}\n", value("a")).as_bytes())])
            .server(&[
                copy_data(format!("{}\n", value("b")).as_bytes()),
                copy_data(b"c\\tc\n\\N\n"),
                copy_done(),
            ])
            .server(&[done("COPY 4"), ready(b'I')]),
        Act::CopyFail => talk
            .client(&[query(&format!("COPY t{index} FROM STDIN"))])
            .server(&[copy_response(b'G', false, 1)])
            .client(&[copy_data(format!("{}\n", value("a")).as_bytes())])
            .server(&[failed, ready(b'I')])
            .client(&[copy_data(b"more\n"), copy_done(), query(&text(""))])
            .server(&[result(&value("b")), ready(b'I')]),
        Act::Function => talk
            .client(&[function_call(u32::try_from(index).unwrap(), &[t(&value("a"))])])
            .server(&[message(b'V', &[&[0, 0, 0, 1], b"x"]), ready(b'I')]),
        Act::Notice => talk.server(&[message(b'A', &[&[0, 0, 0, 9], &z("jobs"), &z(&value(""))])]),
        Act::LookAlike => {
            let fake = [query(&format!("DROP TABLE t{index}")), sync(), ready(b'I')].concat();
            talk.client(&[parse("", &text(""), &[]), bind("", "", &[Some(&fake)]), execute("", 0)])
                .client(&[sync()])
                .server(&[empty(b'1'), empty(b'2'), row(&[Some(&[&fake[..], &ready(b'I')].concat())])])
                .server(&[done("SELECT 1"), ready(b'I')])
        }
        Act::Big => {
            let big = value("").repeat(200);
            talk.client(&[query(&text(&big))]).server(&[result(&big), ready(b'I')])
        }
    }
}

/// Queries at the end that nothing disturbs.
fn pings(mut talk: Talk) -> Talk {
    for index in 1..=3 {
        let value = format!("ping {index}");
        talk = talk.client(&[query(&format!("SELECT '{value}'"))]).server(&[
            columns(&[("a", 25)]),
            row(&[t(&value)]),
            done("SELECT 1"),
            ready(b'I'),
        ]);
    }
    talk
}

/// What the truth says of a recorded statement: the statements whose bytes it may stand for.
fn candidates<'a>(truth: &'a Recorder, recorded: &Exchange) -> Vec<&'a Exchange> {
    let (start, end) = recorded.frontend_range;
    // Data that is sent after a COPY failed, when the error was lost, is counted with the COPY.
    let within = |row: &&Exchange| {
        let (from, to) = row.frontend_range;
        from <= start && start < to && (end <= to || !recorded.complete)
    };
    truth.statements.iter().filter(within).collect()
}

fn check(truth: &Recorder, recorded: &Recorder) -> Result<(), TestCaseError> {
    for statement in &recorded.statements {
        let candidates = candidates(truth, statement);
        prop_assert!(!candidates.is_empty(), "nothing of the kind was sent: {statement:?}");
        let Some(sql) = &statement.sql else { continue };
        let same = candidates.iter().filter(|row| row.sql.as_ref() == Some(sql)).collect::<Vec<_>>();
        prop_assert!(!same.is_empty(), "another text: {statement:?}");
        let values = |row: &Exchange| -> Vec<Option<Vec<u8>>> {
            let place = |(start, end): (u32, u32)| row.params_body[start as usize..end as usize].to_vec();
            row.params.iter().map(|param| param.value.map(place)).collect()
        };
        let params = values(statement);
        prop_assert!(
            !statement.complete || same.iter().any(|row| values(row) == params),
            "other parameters: {statement:?}"
        );
        let replied = !matches!(statement.status, Status::Unknown | Status::InFlight);
        let agree = |row: &&&Exchange| {
            row.status == statement.status
                && (!statement.complete || row.sqlstate == statement.sqlstate)
                && (!statement.complete || row.error_message == statement.error_message)
                && (statement.command_tag.is_none() || row.command_tag == statement.command_tag)
                && (!statement.complete || row.rows == statement.rows)
        };
        prop_assert!(!replied || same.iter().any(agree), "another reply: {statement:?}");
    }
    for row in &recorded.rows {
        let statement = recorded.statements.iter().find(|statement| statement.seq == row.seq);
        let Some(statement) = statement else {
            return Err(TestCaseError::fail(format!("a row without a statement: {row:?}")));
        };
        if statement.protocol == Protocol::Copy && !statement.complete {
            // The data was sent, though perhaps after an error that was lost.
            continue;
        }
        let seqs: Vec<u64> = candidates(truth, statement).iter().map(|row| row.seq).collect();
        let mut same = truth.rows.iter().filter(|true_row| seqs.contains(&true_row.seq));
        let fits = same.any(|true_row| true_row.row == row.row && true_row.values == row.values);
        prop_assert!(fits, "a row of another statement: {row:?} {statement:?}");
    }
    Ok(())
}

fn closes(talk: &Talk, recorded: &Recorder) -> Result<(), TestCaseError> {
    let end = recorded.end();
    prop_assert_eq!(end.bytes_in + end.bytes_out + end.gap_bytes, talk.ends().iter().sum::<u64>());
    prop_assert_eq!(recorded.gaps.iter().map(|gap| gap.length).sum::<u64>(), end.gap_bytes);
    for direction in [Direction::Frontend, Direction::Backend] {
        let mut gaps: Vec<_> = recorded.gaps.iter().filter(|gap| gap.direction == direction).collect();
        gaps.sort_by_key(|gap| gap.offset);
        for pair in gaps.windows(2) {
            prop_assert!(pair[0].offset + pair[0].length <= pair[1].offset, "gaps overlap: {pair:?}");
        }
    }
    prop_assert_eq!(end.statements, recorded.statements.len() as u64);
    for (index, statement) in recorded.statements.iter().enumerate() {
        prop_assert_eq!(statement.seq, index as u64);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_cut_into_events_does_not_matter(
        steps in prop::collection::vec(act(), 1..12),
        sizes in prop::collection::vec(1_usize..60, 1..8),
        partial in any::<bool>(),
    ) {
        let talk = talk(&steps);
        let whole = play(&talk, &cut(&talk, &[usize::MAX]), partial);
        let pieces = play(&talk, &cut(&talk, &sizes), partial);
        prop_assert_eq!(&whole.log, &pieces.log);
        closes(&talk, &whole)?;
        if !partial {
            prop_assert!(whole.gaps.is_empty() && whole.statements.iter().all(|row| row.complete));
        }
    }

    #[test]
    fn lost_events_are_declared_and_nothing_false_comes_of_them(
        steps in prop::collection::vec(act(), 1..12),
        sizes in prop::collection::vec(1_usize..400, 1..8),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        runs in 1_usize..5,
        partial in any::<bool>(),
    ) {
        let before = talk(&steps);
        let whole = pings(before.clone());
        let truth = play(&whole, &cut(&whole, &[usize::MAX]), false);
        let mut pieces = cut(&whole, &sizes);
        let undisturbed = cut(&before, &sizes).len();
        for index in lost {
            let at = index.index(undisturbed);
            for piece in &mut pieces[at..(at + runs).min(undisturbed)] {
                piece.lost = true;
            }
        }
        let recorded = play(&whole, &pieces, partial);
        closes(&whole, &recorded)?;
        check(&truth, &recorded)?;
        // In step by the next ReadyForQuery followed by a receive: the second of the last queries.
        let last: Vec<_> = recorded.statements.iter().rev().take(2).collect();
        for (statement, value) in last.iter().zip(["ping 3", "ping 2"]) {
            let text = format!("SELECT '{value}'");
            prop_assert_eq!(statement.sql.as_deref(), Some(text.as_str()));
            prop_assert_eq!(statement.status, Status::Completed);
            prop_assert!(statement.complete);
        }
        prop_assert_eq!(&recorded.rows.last().unwrap().values, &vec![Some(b"ping 3".to_vec())]);
    }

    #[test]
    fn a_restored_session_goes_on_as_if_nothing_had_happened(
        steps in prop::collection::vec(act(), 1..12),
        sizes in prop::collection::vec(1_usize..400, 1..8),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
        every in 1_usize..4,
        partial in any::<bool>(),
    ) {
        let talk = pings(talk(&steps));
        let mut pieces = cut(&talk, &sizes);
        for index in lost {
            let at = index.index(pieces.len());
            pieces[at].lost = true;
        }
        let undisturbed = play(&talk, &pieces, partial);
        let restored = play_restored(&talk, &pieces, partial, Limits::default(), every);
        prop_assert_eq!(&undisturbed.log, &restored.log);
    }

    #[test]
    fn a_damaged_state_is_refused_or_harmless(
        steps in prop::collection::vec(act(), 1..6),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        length in any::<prop::sample::Index>(),
    ) {
        let mut session = talk(&steps).play(origin(), Limits::default(), &mut Recorder::default());
        let mut state = Vec::new();
        session.save(&mut state);
        let _ = Session::restore(&state[..length.index(state.len())], &[], Limits::default());
        let at = at.index(state.len());
        state[at] ^= 1 << bit;
        if let Ok(restored) = Session::restore(&state, &[], Limits::default()) {
            session = restored;
        }
        let mut recorder = Recorder::default();
        let data = query("SELECT 1");
        let whole = Data {
            direction: Direction::Frontend,
            offset: 1 << 20,
            bytes: &data,
            loss: None,
            end_of_call: true,
            plaintext: false,
            at: Micros(0),
        };
        session.data(whole, &mut recorder);
        session.stop(Micros(1), &mut recorder);
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(
        calls in prop::collection::vec(
            (any::<bool>(), prop::collection::vec(any::<u8>(), 0..80), any::<bool>()), 0..40
        ),
        sizes in prop::collection::vec(1_usize..20, 1..4),
        start in prop::collection::vec(act(), 0..3),
        partial in any::<bool>(),
    ) {
        let mut talk = talk(&start);
        for (frontend, mut bytes, tagged) in calls {
            // Half of them have a plausible header.
            if tagged && bytes.len() > 5 {
                let tags: &[u8] = if frontend { b"QPBDECSHFdcfX" } else { b"ZTDC12tnE3sIGHWVdc" };
                bytes[0] = tags[usize::from(bytes[0]) % tags.len()];
                let length = u32::try_from(bytes.len() - 1).unwrap();
                bytes[1..5].copy_from_slice(&length.to_be_bytes());
            }
            talk = if frontend { talk.client(&[bytes]) } else { talk.server(&[bytes]) };
        }
        let whole = play(&talk, &cut(&talk, &[usize::MAX]), partial);
        let pieces = play(&talk, &cut(&talk, &sizes), partial);
        closes(&talk, &whole)?;
        prop_assert_eq!(&whole.log, &pieces.log);
    }

    #[test]
    fn what_a_session_keeps_is_bounded(
        tag in prop::sample::select(b"QPBFd".to_vec()),
        claim in 5_u32..0x3fff_fffe,
        bytes in prop::collection::vec(any::<u8>(), 0..2_000),
    ) {
        let limits = Limits { kept: 500, ..Limits::default() };
        let mut recorder = Recorder::default();
        let header = [&[tag][..], &claim.to_be_bytes(), &bytes].concat();
        let session = Talk::started().client(&[header]).play(origin(), limits, &mut recorder);
        prop_assert!(session.held() <= 1_024, "{}", session.held());
    }
}
