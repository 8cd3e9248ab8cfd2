//! The book against a model of what approvers may expect.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::approvals::grants;
use crate::approvals::request::Who;
use crate::policy::Approval;

const SECOND: u64 = 1_000_000_000;

fn session(n: u8) -> SessionId {
    SessionId(Uuid::from_u128(n.into()))
}

fn approver() -> Approver {
    Approver { uid: 1000, name: Some("alice".to_owned()) }
}

fn request(of: u8, sql: &str, deadline: u64) -> Request {
    Request {
        session: session(of),
        who: Who::default(),
        guardrail: Arc::from("ask"),
        message: None,
        exact: Some(sql.into()),
        sql: Some(sql.into()),
        params: Vec::new(),
        since: 0,
        deadline,
        approval: Approval { text: true, at_most: Some(Duration::from_secs(60)) },
        max_blocked: Some(2),
    }
}

fn approve(cover: Cover) -> Choice {
    Choice { answer: Answer::Approve(cover), reason: None }
}

fn deny() -> Choice {
    Choice { answer: Answer::Deny, reason: Some("no".to_owned()) }
}

#[test]
fn a_request_is_decided_once_and_whoever_comes_later_learns_by_whom() {
    let mut book = Book::new(0);
    let id = book.ask(request(1, "drop table t", SECOND)).unwrap();
    assert_eq!(book.waiting().len(), 1);
    book.decide(id, approver(), deny(), 1).unwrap();
    assert!(book.waiting().is_empty());
    let refused = book.decide(id, Approver { uid: 0, name: None }, approve(Cover::Statement), 2).unwrap_err();
    assert_eq!(refused.to_string(), format!("{id} is decided already: alice (uid 1000) denied it"));
    let [decided] = &book.take_decided()[..] else { panic!("one") };
    assert_eq!((decided.id, &decided.choice, decided.at), (id, &deny(), 1));
    assert!(book.take_decided().is_empty());
    assert_eq!(book.grants.len(), 0);
    let never = RequestId::of(77);
    assert_eq!(book.decide(never, approver(), deny(), 2), Err(Refusal::Unknown(never)));
}

#[test]
fn what_is_withdrawn_or_overdue_cannot_be_decided() {
    let mut book = Book::new(0);
    let [withdrawn, late, ended] = [1, 1, 2].map(|of| book.ask(request(of, "select 1", SECOND)).unwrap());
    book.withdraw(withdrawn);
    book.end_session(session(2));
    assert_eq!(book.decide(withdrawn, approver(), deny(), 1), Err(Refusal::Withdrawn(withdrawn)));
    assert_eq!(book.decide(ended, approver(), deny(), 1), Err(Refusal::Withdrawn(ended)));
    // Also before somebody has looked for what is overdue.
    assert_eq!(book.decide(late, approver(), deny(), SECOND), Err(Refusal::Overdue(late)));
    assert_eq!(book.overdue(SECOND - 1), []);
    assert_eq!(book.overdue(SECOND), [late]);
    assert_eq!(book.decide(late, approver(), deny(), SECOND), Err(Refusal::Overdue(late)));
    assert!(book.take_decided().is_empty());
}

#[test]
fn a_decision_that_nobody_took_yet_is_forgotten_with_its_session_and_grants_nothing() {
    let mut book = Book::new(0);
    let id = book.ask(request(1, "select 1", SECOND)).unwrap();
    book.decide(id, approver(), approve(Cover::Text), 1).unwrap();
    book.end_session(session(1));
    assert!(book.take_decided().is_empty());
    assert_eq!(book.granted(session(1), "ask", Some("select 1"), 2), None);
}

#[test]
fn an_approval_covers_no_more_than_its_guardrail_allows() {
    let mut book = Book::new(0);
    let mut strict = request(1, "select 1", SECOND);
    strict.approval = Approval::default();
    let id = book.ask(strict).unwrap();
    for cover in [Cover::Text, Cover::Everything(Duration::from_secs(1))] {
        let refused = book.decide(id, approver(), approve(cover), 1).unwrap_err().to_string();
        assert!(refused.ends_with("it allows statement"), "{refused}");
    }
    // It still waits.
    book.decide(id, approver(), approve(Cover::Statement), 1).unwrap();
    let id = book.ask(request(1, "select 1", SECOND)).unwrap();
    let refused = book.decide(id, approver(), approve(Cover::Everything(Duration::from_secs(61))), 1);
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("cover 61s; it allows statement, text, 1m"), "{refused}");
    let mut unknown = request(1, "", SECOND);
    unknown.sql = None;
    let id = book.ask(unknown).unwrap();
    assert!(book.decide(id, approver(), approve(Cover::Text), 1).is_err());
}

#[test]
fn there_is_an_end_to_what_waits_and_to_what_is_remembered() {
    let mut book = Book::new(u32::MAX - 5);
    let ids: Vec<_> = (0..MOST_WAITING).map(|_| book.ask(request(1, "select 1", SECOND)).unwrap()).collect();
    assert_eq!(book.ask(request(1, "select 1", SECOND)), Err(Full));
    book.decide(ids[0], approver(), approve(Cover::Text), 1).unwrap();
    assert_eq!(book.ask(request(1, "select 1", SECOND)), Err(Full), "what nobody took counts");
    book.take_decided();
    for _ in 0..3 * MOST_REMEMBERED {
        let id = book.ask(request(1, "select 1", SECOND)).unwrap();
        book.withdraw(id);
    }
    assert_eq!(book.gone.len(), MOST_REMEMBERED);
    for n in 0..u8::MAX {
        for text in 0..2 * grants::MOST_OF_SESSION {
            let id = book.ask(request(n, &text.to_string(), SECOND)).unwrap();
            book.decide(id, approver(), approve(Cover::Text), 1).unwrap();
            book.take_decided();
        }
    }
    assert!(book.grants.len() <= grants::MOST);
    assert_eq!(book.granted(session(7), "ask", Some("0"), 1), None, "the oldest went first");
}

#[test]
fn who_blocks_too_many_is_told() {
    let mut book = Book::new(0);
    let id = book.ask(request(1, "select 1", SECOND)).unwrap();
    assert!(!book.set_blocked(id, 2));
    assert!(book.set_blocked(id, 3));
    assert_eq!(book.waiting()[0].1.blocked, Some(3));
}

/// What can happen, with small numbers so that things meet.
#[derive(Clone, Debug)]
enum Step {
    Ask(u8, u8, u64),
    Approve(usize, u8),
    Deny(usize),
    Withdraw(usize),
    Take,
    Overdue,
    End(u8),
    Pass(u64),
    Granted(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, 0..3u8, 1..40u64).prop_map(|(of, text, time)| Step::Ask(of, text, time)),
        4 => (0..40usize, 0..4u8).prop_map(|(at, cover)| Step::Approve(at, cover)),
        1 => (0..40usize).prop_map(Step::Deny),
        1 => (0..40usize).prop_map(Step::Withdraw),
        3 => Just(Step::Take),
        1 => Just(Step::Overdue),
        1 => (0..3u8).prop_map(Step::End),
        2 => (1..20u64).prop_map(Step::Pass),
        6 => (0..3u8, 0..3u8).prop_map(|(of, text)| Step::Granted(of, text)),
    ]
}

/// A grant in the model: the session, its text if it is for one, and its end.
type ModelGrant = (u8, Option<u8>, Option<u64>);

proptest! {
    #[test]
    fn every_request_ends_once_and_grants_cover_what_was_said(steps in proptest::collection::vec(step(), 0..60)) {
        let mut book = Book::new(0);
        let mut now = 0;
        // Of each request: its session, text, and whether it has ended.
        let mut asked: Vec<(RequestId, u8, u8, bool)> = Vec::new();
        let mut pending: Vec<(RequestId, Option<ModelGrant>)> = Vec::new();
        let mut granted: Vec<ModelGrant> = Vec::new();
        for step in steps {
            match step {
                Step::Ask(of, text, time) => {
                    let id = book.ask(request(of, &text.to_string(), now + time * SECOND)).unwrap();
                    asked.push((id, of, text, false));
                }
                Step::Approve(at, cover) => {
                    let Some((id, of, text, ended)) = asked.get_mut(at) else { continue };
                    let (cover, grant, allowed) = match cover {
                        0 => (Cover::Statement, None, true),
                        1 => (Cover::Text, Some((*of, Some(*text), None)), true),
                        2 => {
                            let grant = (*of, None, Some(now + 9 * SECOND));
                            (Cover::Everything(Duration::from_secs(9)), Some(grant), true)
                        }
                        _ => (Cover::Everything(Duration::from_secs(61)), None, false),
                    };
                    let done = book.decide(*id, approver(), approve(cover), now).is_ok();
                    prop_assert!(!done || (allowed && !*ended));
                    if done {
                        *ended = true;
                        pending.push((*id, grant));
                    }
                }
                Step::Deny(at) => {
                    let Some((id, _, _, ended)) = asked.get_mut(at) else { continue };
                    if book.decide(*id, approver(), deny(), now).is_ok() {
                        prop_assert!(!std::mem::replace(ended, true));
                        pending.push((*id, None));
                    }
                }
                Step::Withdraw(at) => {
                    let Some((id, _, _, ended)) = asked.get_mut(at) else { continue };
                    book.withdraw(*id);
                    *ended = true;
                    pending.retain(|(of, _)| of != id);
                }
                Step::Take => {
                    let taken: Vec<_> = book.take_decided().iter().map(|decided| decided.id).collect();
                    prop_assert_eq!(taken, pending.iter().map(|(id, _)| *id).collect::<Vec<_>>());
                    granted.extend(pending.drain(..).filter_map(|(_, grant)| grant));
                }
                Step::Overdue => {
                    for id in book.overdue(now) {
                        let ended = asked.iter_mut().find(|(of, ..)| *of == id).map(|(.., ended)| ended);
                        prop_assert!(!std::mem::replace(ended.unwrap(), true));
                    }
                }
                Step::End(of) => {
                    book.end_session(session(of));
                    granted.retain(|(session, ..)| *session != of);
                    for (id, _, _, ended) in asked.iter_mut().filter(|(_, session, ..)| *session == of) {
                        *ended = true;
                        pending.retain(|(of, _)| of != id);
                    }
                }
                Step::Pass(time) => now += time * SECOND,
                Step::Granted(of, text) => {
                    let sql = text.to_string();
                    let covered = granted.iter().any(|(session, only, until)| {
                        *session == of
                            && only.is_none_or(|only| only == text)
                            && until.is_none_or(|until| now < until)
                    });
                    prop_assert_eq!(book.granted(session(of), "ask", Some(&sql), now).is_some(), covered);
                    prop_assert_eq!(book.granted(session(of), "another", Some(&sql), now), None);
                }
            }
            let waiting = asked.iter().filter(|(.., ended)| !ended).count();
            prop_assert_eq!(book.waiting().len(), waiting);
        }
    }
}
