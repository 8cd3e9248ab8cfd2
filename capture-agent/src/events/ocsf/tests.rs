//! Events, field by field.

use std::sync::Arc;

use super::*;
use crate::policy::Action;
use crate::record::fixture::{MORNING, exchange, session};
use crate::record::{Decision, DecisionKind, Outcome};
use crate::session::{Judged, SqlState, Status, Verdict};
use crate::sql::Analysis;

fn context() -> Context {
    Context { node: "db-1".to_owned(), log: "db-1/siem".to_owned(), sql_bytes: 20 }
}

fn told(item: &Item) -> Value {
    serde_json::from_slice(&context().event(41, item, Micros(MORNING.0 + 5_000)).unwrap()).unwrap()
}

#[test]
fn a_statement_is_datastore_activity() {
    let mut exchange = exchange(7, MORNING, "delete from orders where id in (select 1)");
    (exchange.rows, exchange.command_tag) = (Some(3), Some("DELETE 3".into()));
    let analysis = Analysis {
        kinds: vec!["delete".into(), "select".into()],
        tables_written: vec!["orders".into()],
        fingerprint: Some("f00d".into()),
        ..Analysis::default()
    };
    let event = told(&Item::statement(5, &session(1, MORNING), &exchange, Some(&Arc::new(analysis))));
    for (path, expected) in [
        ("/class_uid", json!(6005)),
        ("/category_uid", json!(6)),
        ("/activity_id", json!(7)),
        ("/type_uid", json!(600_507)),
        ("/type_name", json!("Datastore Activity: Delete")),
        ("/severity_id", json!(1)),
        ("/time", json!(MORNING.0 / 1_000)),
        ("/duration", json!(1)),
        ("/status_id", json!(1)),
        ("/status", json!("Success")),
        ("/message", json!("DELETE 3")),
        ("/metadata/version", json!("1.5.0")),
        ("/metadata/product/name", json!("Capture")),
        ("/metadata/uid", json!("db-1/siem/41")),
        ("/metadata/sequence", json!(41)),
        ("/metadata/logged_time", json!(MORNING.0 / 1_000 + 5)),
        ("/actor/user/name", json!("alice")),
        ("/actor/app_name", json!("psql")),
        ("/database/name", json!("shop")),
        ("/database/type_id", json!(1)),
        ("/src_endpoint/ip", json!("10.1.2.3")),
        ("/src_endpoint/port", json!(50_000)),
        ("/dst_endpoint/hostname", json!("db-1")),
        ("/dst_endpoint/port", json!(5432)),
        ("/dst_endpoint/container/name", json!("payments/orders-db-0")),
        ("/device/hostname", json!("db-1")),
        ("/query_info/query_string", json!("delete from orders w")),
        ("/query_info/uid", json!("f00d")),
        ("/unmapped/seq", json!(7)),
        ("/unmapped/kinds", json!(["delete", "select"])),
        ("/unmapped/tables_written", json!(["orders"])),
        ("/unmapped/rows", json!(3)),
        ("/unmapped/sql_truncated", json!(true)),
    ] {
        assert_eq!(event.pointer(path), Some(&expected), "{path} of {event:#}");
    }
    let session_id = event["actor"]["session"]["uid"].as_str().unwrap();
    assert_eq!(session_id, session(1, MORNING).origin.id.0.to_string());
    assert!(event.pointer("/status_code").is_none() && event.pointer("/action_id").is_none(), "{event:#}");
}

#[test]
fn a_statement_that_failed_and_one_that_was_stopped_say_so() {
    let mut failed = exchange(0, MORNING, "selec");
    failed.status = Status::Failed;
    failed.sqlstate = SqlState::new(b"42601");
    failed.error_message = Some(format!("syntax error {}", "x".repeat(5_000)));
    let event = told(&Item::statement(5, &session(1, MORNING), &failed, None));
    assert_eq!((&event["status_id"], &event["status_code"]), (&json!(2), &json!("42601")));
    assert!(event["status_detail"].as_str().unwrap().len() <= 512);
    assert_eq!(event["activity_id"], 0, "nobody has read it");
    let judged = Judged {
        verdict: Verdict::Blocked,
        guardrail: Some("no-ddl".into()),
        decided_by: Some("policy".into()),
        held_us: 80,
    };
    let stopped = Exchange { judged: Some(Arc::new(judged)), ..failed };
    let event = told(&Item::statement(5, &session(1, MORNING), &stopped, None));
    assert_eq!((&event["action_id"], &event["disposition_id"]), (&json!(2), &json!(2)));
    assert_eq!((&event["severity_id"], &event["unmapped"]["guardrail"]), (&json!(4), &json!("no-ddl")));
}

use crate::session::Exchange;

#[test]
fn a_verdict_is_a_detection_finding_with_its_evidence() {
    let decision = Decision {
        guardrail: Some("no-ddl".into()),
        action: Some(Action::Block),
        verdict: Some(Outcome::Blocked),
        reason: Some("its condition is true".into()),
        decided_by: Some("policy".into()),
        held_us: Some(90),
        sql: Some("drop table orders".into()),
        message: Some("schema changes go through migrations".into()),
        ..Decision::new(DecisionKind::Verdict, MORNING)
    };
    let event = told(&Item::decision(5, Some(&session(1, MORNING)), &decision));
    for (path, expected) in [
        ("/class_uid", json!(2004)),
        ("/category_uid", json!(2)),
        ("/type_uid", json!(200_401)),
        ("/severity", json!("High")),
        ("/is_alert", json!(true)),
        ("/finding_info/title", json!("guardrail no-ddl: a statement was blocked")),
        ("/finding_info/desc", json!("schema changes go through migrations")),
        ("/finding_info/analytic/type_id", json!(1)),
        ("/disposition", json!("Blocked")),
        ("/evidences/0/data/query_string", json!("drop table orders")),
        ("/evidences/0/actor/user/name", json!("alice")),
        ("/resources/0/name", json!("shop")),
        ("/unmapped/verdict", json!("blocked")),
        ("/unmapped/reason", json!("its condition is true")),
    ] {
        assert_eq!(event.pointer(path), Some(&expected), "{path} of {event:#}");
    }
    let observed = Decision { verdict: Some(Outcome::Observed), ..decision };
    assert_eq!(told(&Item::decision(5, None, &observed))["is_alert"], false);
}

#[test]
fn a_loss_names_the_numbers_that_nobody_gets() {
    let loss = Loss { first: Some(3), events: Some(7), reason: "the spool was full" };
    let json = context().lost(9, &loss);
    let event: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&event["class_uid"], &event["metadata"]["sequence"]), (&json!(1008), &json!(9)));
    let lost = &event["unmapped"];
    assert_eq!(
        (&lost["lost_first"], &lost["lost_last"], &lost["lost_events"]),
        (&json!(3), &json!(9), &json!(7))
    );
    assert!(context().is_loss(&[Event { number: 9, json }]));
}

#[test]
fn a_syslog_message_has_its_head_and_the_event() {
    let json = context().event(
        41,
        &Item::statement(5, &session(1, MORNING), &exchange(0, MORNING, "x"), None),
        MORNING,
    );
    let message = context().syslog(&Event { number: 41, json: json.unwrap() });
    let message = String::from_utf8(message).unwrap();
    let pid = std::process::id();
    let head = format!(
        "<110>1 2026-07-25T10:00:00Z db-1 capture-agent {pid} activity [meta sequenceId=\"42\"] {{\""
    );
    assert!(message.starts_with(&head), "{message}");
}
