//! A recorder that tells receivers, and what happens to what they do not take.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::policy::Filter;
use crate::record::fixture::{MORNING, exchange, session, settings};
use crate::record::{Decision, DecisionKind, Outcome, Recorder};
use crate::session::Sink as _;

fn receiver(to: To) -> Receiver {
    Receiver {
        name: "log".to_owned(),
        to,
        what: What { activity: true, findings: true },
        filter: None,
        sql_bytes: 4_096,
        spool_bytes: 4 << 20,
        batch_events: 10,
        retry: (Duration::from_millis(5), Duration::from_millis(20)),
    }
}

fn recorder(data_dir: &Path, receiver: Receiver) -> Recorder {
    recorder_that_syncs(data_dir, receiver, None)
}

fn recorder_that_syncs(data_dir: &Path, receiver: Receiver, sync: Option<Duration>) -> Recorder {
    let settings = settings(data_dir);
    let feed = Feed::new(Settings {
        data_dir: data_dir.to_owned(),
        node: settings.node.clone(),
        sync,
        receivers: vec![receiver],
    });
    Recorder::with_tap(settings, Some(Box::new(feed))).unwrap().0
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn verdict(outcome: Outcome) -> Decision {
    Decision { verdict: Some(outcome), ..Decision::new(DecisionKind::Verdict, MORNING) }
}

#[test]
fn a_receiver_is_told_what_it_asked_for_once_it_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let filter = Filter::compile("\"select\" in stmt.kinds").unwrap();
    let receiver = Receiver { filter: Some(filter), ..receiver(To::File(path.clone())) };
    let mut recorder = recorder(folder.path(), receiver);
    let session = session(1, MORNING);
    recorder.statement(&session, &exchange(0, MORNING, "select 1"));
    recorder.statement(&session, &exchange(1, MORNING, "delete from t"));
    std::thread::park_timeout(Duration::from_millis(100));
    assert!(lines(&path).is_empty(), "nothing of it is committed");
    recorder.decision(Some(&session), &verdict(Outcome::Alerted));
    recorder.decision(Some(&session), &verdict(Outcome::Allowed));
    recorder.decision(None, &Decision::new(DecisionKind::PolicyLoaded, MORNING));
    recorder.commit(1);
    recorder.finish().unwrap();
    let told = lines(&path);
    let number = |value: &Value| value.as_u64().unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|event| (number(&event["metadata"]["sequence"]), number(&event["class_uid"])))
        .collect();
    assert_eq!(told, [(0, 6005), (1, 2004)]);
}

#[test]
fn what_a_receiver_does_not_take_waits_for_the_next_agent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/events.jsonl");
    let session = session(1, MORNING);
    for seq in 0..3 {
        let mut recorder = recorder(folder.path(), receiver(To::File(path.clone())));
        recorder.statement(&session, &exchange(seq, MORNING, "select 1"));
        recorder.commit(seq);
        recorder.finish().unwrap();
    }
    fs::create_dir(folder.path().join("later")).unwrap();
    recorder(folder.path(), receiver(To::File(path.clone()))).finish().unwrap();
    let told: Vec<_> = lines(&path).iter().map(|event| event["unmapped"]["seq"].as_u64().unwrap()).collect();
    assert_eq!(told, [0, 1, 2]);
}

#[test]
fn an_agent_that_ends_while_events_are_made_declares_no_loss() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("events.jsonl");
    let session = session(1, MORNING);
    // Each transaction is brought to the disk by itself: the thread is busy with the first when the last is committed.
    let mut first =
        recorder_that_syncs(folder.path(), receiver(To::File(path.clone())), Some(Duration::ZERO));
    for seq in 0..100 {
        first.statement(&session, &exchange(seq, MORNING, "select 1"));
        first.commit(seq);
    }
    // Nothing to be told, but the journal is longer.
    first.save_state(*b"the only session", b"open");
    first.suspend().unwrap();
    recorder(folder.path(), receiver(To::File(path.clone()))).finish().unwrap();
    let (told, losses): (Vec<_>, Vec<_>) =
        lines(&path).into_iter().partition(|event| event["class_uid"] == 6005);
    assert!(losses.is_empty(), "{losses:?}");
    assert_eq!(told.len(), 100);
}

#[test]
fn a_spool_that_is_full_declares_which_numbers_are_lost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/events.jsonl");
    let session = session(1, MORNING);
    let mut recorder = recorder(folder.path(), receiver(To::File(path.clone())));
    let sql = format!("select '{}'", "x".repeat(3_000));
    for seq in 0..3_000 {
        recorder.statement(&session, &exchange(seq, MORNING, &sql));
        if seq % 20 == 0 {
            recorder.commit(seq);
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    recorder.commit(3_000);
    fs::create_dir(folder.path().join("later")).unwrap();
    let last = |line: &Value| line["metadata"]["sequence"] == 2_999;
    for _ in 0..1_000 {
        std::thread::park_timeout(Duration::from_millis(20));
        // The last line may be half written.
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text
            .lines()
            .last()
            .and_then(|line| serde_json::from_str(line).ok())
            .is_some_and(|line| last(&line))
        {
            break;
        }
    }
    recorder.finish().unwrap();
    let told = lines(&path);
    let mut next = 0;
    let mut lost = 0;
    for event in &told {
        let number = event["metadata"]["sequence"].as_u64().unwrap();
        if event["class_uid"] == 1008 {
            assert_eq!(event["unmapped"]["lost_first"].as_u64(), Some(next), "{event}");
            lost += number + 1 - next;
        } else {
            assert_eq!(number, next, "a number is missing and not declared");
        }
        next = number + 1;
    }
    assert!(next == 3_000 && lost > 0, "{next} numbers, {lost} lost");
}

#[test]
fn a_folder_in_the_way_is_an_error_that_says_where() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".events-node-1"), "in the way").unwrap();
    let feed = Feed::new(Settings {
        data_dir: folder.path().to_owned(),
        node: "node-1".to_owned(),
        sync: None,
        receivers: vec![receiver(To::File("/nowhere".into()))],
    });
    let error = Recorder::with_tap(settings(folder.path()), Some(Box::new(feed))).unwrap_err().to_string();
    assert!(error.contains(".events-node-1/log") && error.contains("#events-spool"), "{error}");
}
