//! Lost bytes, and how a session is found again.

use crate::session::testing::*;
use crate::session::*;
use crate::streams::Loss;

/// Plays `talk` without the calls of these numbers.
fn without(talk: &Talk, lost: &[usize]) -> Recorder {
    let mut recorder = Recorder::default();
    let mut session = Session::new(origin(), Limits::default());
    let mut offsets = [0; 2];
    for (index, call) in talk.0.iter().enumerate() {
        let offset = offsets[call.direction as usize];
        offsets[call.direction as usize] += call.bytes.len() as u64;
        if !lost.contains(&index) {
            let data = Data {
                direction: call.direction,
                offset,
                bytes: &call.bytes,
                loss: Some(Loss::RingFull),
                end_of_call: true,
                plaintext: false,
                at: Micros(1_000 + index as i64),
            };
            session.data(data, &mut recorder);
        }
    }
    session.close(talk.closing(0), &mut recorder);
    let end = recorder.end();
    assert_eq!(end.bytes_in + end.bytes_out + end.gap_bytes, talk.ends().iter().sum::<u64>());
    assert_eq!(recorder.gaps.iter().map(|gap| gap.length).sum::<u64>(), end.gap_bytes);
    recorder
}

fn select(talk: Talk, value: &str) -> Talk {
    talk.client(&[query(&format!("SELECT {value}"))]).server(&[
        columns(&[("a", 23)]),
        row(&[t(value)]),
        done("SELECT 1"),
        ready(b'I'),
    ])
}

fn selects() -> Talk {
    ["1", "2", "3", "4"].iter().fold(Talk::started(), |talk, value| select(talk, value))
}

#[test]
fn a_lost_receive_costs_its_statement_and_no_more_than_the_next() {
    let recorder = without(&selects(), &[2]);
    assert_eq!(recorder.texts(), ["SELECT 3", "SELECT 4"]);
    assert_eq!(recorder.statuses(), [Status::Completed; 2]);
    assert!(recorder.statements.iter().all(|row| row.complete));
    assert_eq!(recorder.rows.len(), 2);
    let reasons: Vec<_> = recorder.gaps.iter().map(|gap| gap.reason).collect();
    assert_eq!(reasons, [GapReason::RingFull, GapReason::Resync]);
}

#[test]
fn a_lost_send_leaves_its_statement_unknown() {
    let recorder = without(&selects(), &[3]);
    assert_eq!(recorder.texts(), ["SELECT 1", "SELECT 2", "SELECT 3", "SELECT 4"]);
    use Status::{Completed, Unknown};
    assert_eq!(recorder.statuses()[2..], [Completed, Completed]);
    assert_eq!(recorder.statuses()[0], Unknown);
    assert!(!recorder.statements[0].complete);
    assert!(recorder.statements[3].complete);
}

#[test]
fn a_hole_inside_a_row_costs_that_row() {
    let mut recorder = Recorder::default();
    let mut session =
        Talk::started().client(&[query("TABLE t")]).play(origin(), Limits::default(), &mut recorder);
    let started = Talk::started().ends()[1];
    let long = "x".repeat(1_000);
    let reply =
        [columns(&[("a", 25)]), row(&[t("1")]), row(&[t(&long)]), done("SELECT 2"), ready(b'I')].concat();
    let hole = 200..700;
    let data = |offset: usize, bytes| Data {
        direction: Direction::Backend,
        offset: started + offset as u64,
        bytes,
        loss: Some(Loss::Unreadable),
        end_of_call: true,
        plaintext: false,
        at: Micros(5_000),
    };
    session.data(data(0, &reply[..hole.start]), &mut recorder);
    session.data(data(hole.end, &reply[hole.end..]), &mut recorder);
    session.stop(Micros(6_000), &mut recorder);
    let statement = &recorder.statements[0];
    assert_eq!((statement.status, statement.rows), (Status::Completed, Some(2)));
    assert!(!statement.complete && statement.results_truncated);
    assert_eq!(recorder.rows.len(), 1);
    assert_eq!(recorder.gaps.len(), 1);
    assert_eq!(recorder.gaps[0].reason, GapReason::Unreadable);
}

#[test]
fn after_lost_requests_no_name_is_trusted() {
    let run = [bind("", "p", &[]), execute("", 0), sync()];
    let ran = [empty(b'2'), done("SELECT 0"), ready(b'I')];
    let talk = Talk::started()
        .client(&[parse("p", "SELECT 1", &[]), sync()])
        .server(&[empty(b'1'), ready(b'I')])
        .client(&run)
        .server(&ran)
        .client(&[query("DEALLOCATE p; PREPARE p AS DROP TABLE t")])
        .server(&[done("DEALLOCATE"), done("PREPARE"), ready(b'I')])
        .client(&run)
        .server(&ran)
        .client(&run)
        .server(&ran);
    let recorder = without(&talk, &[6]);
    assert_eq!(recorder.texts(), ["SELECT 1", "?"]);
    assert_eq!(text(&recorder.statements[1].statement_name), Some("p"));
}

#[test]
fn replies_to_lost_requests_are_given_to_none() {
    // The server answers a request that was lost before the one that was seen: their replies look alike.
    let run = |text: &str| [parse("", text, &[]), bind("", "", &[]), execute("", 0)].concat();
    let ran = |value: &str| [empty(b'1'), empty(b'2'), row(&[t(value)]), done("SELECT 1")].concat();
    let talk = select(Talk::started(), "0").client(&[run("lost")]).client(&[run("seen"), sync()]).server(&[
        ran("secret of lost"),
        ran("seen"),
        ready(b'I'),
    ]);
    let recorder = without(&select(select(talk.clone(), "8"), "9"), &[4]);
    assert!(!recorder.texts().contains(&"lost"));
    assert!(recorder.rows.iter().all(|row| row.values != [Some(b"secret of lost".to_vec())]));
    assert_eq!(recorder.texts().last(), Some(&"SELECT 9"));
    // The request that cannot be read yet is answered after ReadyForQuery, in the cycle of the one that can.
    let talk = Talk::started()
        .client(&[query("SELECT 5")])
        .server(&[done("SELECT 0"), ready(b'I')])
        .client(&[query("SELECT 6"), run("stray")])
        .server(&[done("SELECT 0"), ready(b'I')])
        .client(&[run("seen"), sync()])
        .server(&[ran("stray"), ran("seen"), ready(b'I')]);
    let recorder = without(&talk, &[2]);
    let seen: Vec<_> = recorder.statements.iter().filter(|row| row.sql.as_deref() == Some("seen")).collect();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].status, seen[0].complete), (Status::Unknown, false));
    assert!(recorder.rows.is_empty());
}

#[test]
fn bytes_that_only_look_like_messages_are_not_taken_for_some() {
    // The rest of a long Bind holds a whole Query: after the hole it stands at the front of a receive.
    let fake = query("DROP TABLE accounts");
    let long = bind("", "p", &[Some(&[&[b'x'; 100][..], &fake, &[b'y'; 100]].concat())]);
    let at = long.windows(fake.len()).position(|window| window == fake).unwrap();
    let talk = Talk::started()
        .client(&[query("SELECT 1"), long[..50].to_vec()])
        .server(&[done("SELECT 0"), ready(b'I')])
        .client(&[long[50..at].to_vec()])
        .client(&[long[at..].to_vec(), execute("", 0), sync()])
        .server(&[empty(b'2'), done("SELECT 0"), ready(b'I')]);
    let talk = select(select(talk, "8"), "9");
    for lost in [vec![2], vec![4], vec![2, 4], vec![2, 3], vec![3]] {
        let recorder = without(&talk, &lost);
        assert!(!recorder.texts().contains(&"DROP TABLE accounts"), "{lost:?}");
        assert_eq!(recorder.texts().last(), Some(&"SELECT 9"), "{lost:?}");
    }
}

#[test]
fn a_row_that_looks_like_ready_for_query_is_none() {
    let lookalike = row(&[Some(b"Z\0\0\0\x05I")]);
    let talk = Talk::started()
        .client(&[query("TABLE t")])
        .server(&[columns(&[("a", 17)])])
        .server(&[lookalike])
        .server(&[done("SELECT 1"), ready(b'I')]);
    let recorder = without(&select(select(talk, "8"), "9"), &[3]);
    assert_eq!(recorder.texts(), ["TABLE t", "SELECT 8", "SELECT 9"]);
    assert_eq!(recorder.statuses(), [Status::Unknown, Status::Completed, Status::Completed]);
    assert!(recorder.rows.iter().all(|row| row.seq != 0));
}

#[test]
fn a_session_that_was_open_before_is_found_at_the_first_proven_point() {
    let mut before = Talk::started();
    let talk = ["1", "2", "3"].iter().fold(Talk::default(), |talk, value| select(talk, value));
    before.0.clear();
    let partial =
        Origin { partial: true, user: Some("ann".into()), database: Some("shop".into()), ..origin() };
    let recorder = talk.record_with(partial, Limits::default());
    assert_eq!(recorder.texts(), ["SELECT 2", "SELECT 3"]);
    assert_eq!(recorder.statuses(), [Status::Completed; 2]);
    assert_eq!(recorder.rows.len(), 2);
    assert_eq!(text(&recorder.info().user), Some("ann"));
    assert!(recorder.gaps.iter().all(|gap| gap.reason == GapReason::Resync));
}

#[test]
fn a_hole_in_copied_data_touches_the_copy_alone() {
    let data: Vec<_> = (0..20).map(|_| copy_data(b"1\n")).collect();
    let big = copy_data(&[b'x'; 600]);
    let talk = Talk::started()
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy_response(b'G', false, 1)])
        .client(&data)
        .client(&[big[..100].to_vec()])
        .client(&[big[100..300].to_vec()])
        .client(&[big[300..].to_vec(), copy_done()])
        .server(&[done("COPY 21"), ready(b'I')]);
    let recorder = without(&select(talk, "9"), &[6]);
    assert_eq!(recorder.texts(), ["COPY t FROM STDIN", "SELECT 9"]);
    assert_eq!(recorder.statuses(), [Status::Completed; 2]);
    assert!(!recorder.statements[0].complete && recorder.statements[1].complete);
    assert_eq!(recorder.statements[0].rows, Some(21));
}

#[test]
fn the_kernel_s_own_count_closes_the_ledger() {
    let talk = selects();
    let mut recorder = Recorder::default();
    let mut session = talk.play(origin(), Limits::default(), &mut recorder);
    let [_, backend] = talk.ends();
    session.advance_to(Direction::Backend, backend + 50, Some(Loss::Oversize), Micros(7_000), &mut recorder);
    let [frontend, _] = talk.ends();
    let close = Close {
        ends: [frontend + 7, backend + 60],
        socket: [frontend + 7, backend + 60],
        losses: [Some(Loss::Unreadable), None],
        exit_status: 0,
        at: Micros(8_000),
    };
    session.close(close, &mut recorder);
    let gaps: Vec<_> = recorder.gaps.iter().map(|gap| (gap.length, gap.reason)).collect();
    let expected = [(50, GapReason::Oversize), (7, GapReason::Unreadable), (10, GapReason::RingFull)];
    assert_eq!(gaps, expected);
    assert_eq!(recorder.end().gap_bytes, 67);
}

/// Nobody captured for a while, and the kernel side counts anew from there.
#[test]
fn a_session_goes_on_behind_what_nobody_captured() {
    let before = selects();
    let mut recorder = Recorder::default();
    let mut session = before.play(origin(), Limits::default(), &mut recorder);
    let [frontend, backend] = before.ends();
    assert!(!session.resume_at([frontend - 1, backend], Micros(5_000), &mut recorder), "it was further");
    assert!(session.resume_at([frontend + 30, backend + 70], Micros(5_000), &mut recorder));
    let after = ["5", "6", "7"].iter().fold(Talk(Vec::new()), |talk, value| select(talk, value));
    let mut offsets = [0; 2];
    for (index, call) in after.0.iter().enumerate() {
        let offset = offsets[call.direction as usize];
        offsets[call.direction as usize] += call.bytes.len() as u64;
        let at = Micros(6_000 + index as i64);
        let (direction, bytes) = (call.direction, call.bytes.as_slice());
        let data = Data { direction, offset, bytes, loss: None, end_of_call: true, plaintext: false, at };
        session.data(data, &mut recorder);
    }
    session.close(after.closing(0), &mut recorder);
    let unseen: Vec<_> = recorder.gaps.iter().filter(|gap| gap.reason == GapReason::AgentStopped).collect();
    let places: Vec<_> = unseen.iter().map(|gap| (gap.direction, gap.offset, gap.length)).collect();
    assert_eq!(places, [(Direction::Frontend, frontend, 30), (Direction::Backend, backend, 70)]);
    assert_eq!(recorder.texts().last(), Some(&"SELECT 7"));
    let end = recorder.end();
    let passed = frontend + 30 + backend + 70 + offsets.iter().sum::<u64>();
    assert_eq!(end.bytes_in + end.bytes_out + end.gap_bytes, passed);
    assert_eq!(recorder.gaps.iter().map(|gap| gap.length).sum::<u64>(), end.gap_bytes);
}
