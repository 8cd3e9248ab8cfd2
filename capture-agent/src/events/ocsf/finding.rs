//! Verdicts of guardrails: Detection Finding, class 2004.

use serde_json::{Map, Value, json};

use super::{Class, Context, HIGH, INFORMATIONAL, LOW, MEDIUM, known};
use crate::record::{Decision, Outcome};
use crate::session::{Micros, SessionInfo};

/// Detection Finding.
pub(super) const CLASS: u64 = 2_004;

impl Context {
    pub(super) fn finding(
        &self,
        number: u64,
        session: Option<&SessionInfo>,
        decision: &Decision,
        now: Micros,
    ) -> Map<String, Value> {
        let outcome = decision.verdict.unwrap_or(Outcome::Observed);
        let Judged { severity, action, disposition, words } = judged(outcome);
        let class = Class {
            uid: CLASS,
            name: "Detection Finding",
            category: "Findings",
            activity: (1, "Create".to_owned()),
            severity,
            profiles: &["host", "security_control"],
        };
        let guardrail = decision.guardrail.as_deref().unwrap_or("unknown");
        let mut fields = self.base(number, class, decision.at, now);
        let mut set = |key: &str, value: Value| {
            if !value.is_null() {
                fields.insert(key.to_owned(), value);
            }
        };
        let title = format!("guardrail {guardrail}: {words}");
        let session_id = session.map(|session| session.origin.id.0.to_string());
        set(
            "finding_info",
            known([
                // The same in each log and each time that it is told.
                (
                    "uid",
                    format!("{}/{}/{guardrail}", session_id.as_deref().unwrap_or(&self.node), decision.at.0)
                        .into(),
                ),
                ("title", title.as_str().into()),
                ("desc", decision.message.as_deref().or(decision.reason.as_deref()).into()),
                ("types", json!(["guardrail"])),
                ("created_time", (decision.at.0 / 1_000).into()),
                ("analytic", json!({ "name": guardrail, "uid": guardrail, "type_id": 1, "type": "Rule" })),
            ]),
        );
        set("message", title.into());
        set("status_id", 1.into());
        set("status", "New".into());
        set("is_alert", (outcome != Outcome::Observed && outcome != Outcome::Approved).into());
        set("action_id", action.0.into());
        set("action", action.1.into());
        set("disposition_id", disposition.0.into());
        set("disposition", disposition.1.into());
        let (sql, cut) = self.text(decision.sql.as_deref().unwrap_or_default());
        if let Some(session) = session {
            let evidence = known([
                ("actor", self.actor(session)),
                ("database", self.database(session)),
                ("src_endpoint", self.source(session)),
                ("dst_endpoint", self.destination(session)),
                ("data", json!({ "query_string": sql, "truncated": cut })),
            ]);
            set("actor", self.actor(session));
            set("evidences", json!([evidence]));
            let database = &self.database(session)["name"];
            set("resources", json!([{ "name": database, "type": "database" }]));
        }
        set(
            "unmapped",
            known([
                ("session_id", session_id.into()),
                ("seq", decision.seq.into()),
                ("guardrail", guardrail.into()),
                ("guardrail_action", decision.action.map(|action| action.to_string()).into()),
                ("verdict", outcome.name().into()),
                ("reason", decision.reason.as_deref().into()),
                ("decided_by", decision.decided_by.as_deref().into()),
                ("held_us", decision.held_us.into()),
            ]),
        );
        fields
    }
}

/// What OCSF says of an outcome.
struct Judged {
    severity: (u64, &'static str),
    action: (u64, &'static str),
    disposition: (u64, &'static str),
    words: &'static str,
}

fn judged(outcome: Outcome) -> Judged {
    let of = |severity, action, disposition, words| Judged { severity, action, disposition, words };
    let (allowed, denied) = ((1, "Allowed"), (2, "Denied"));
    match outcome {
        Outcome::Allowed => of(INFORMATIONAL, allowed, (1, "Allowed"), "a statement was allowed"),
        Outcome::Observed => of(LOW, allowed, (17, "Logged"), "a statement was observed"),
        Outcome::Alerted => of(MEDIUM, allowed, (19, "Alert"), "a statement raised an alert"),
        Outcome::Blocked => of(HIGH, denied, (2, "Blocked"), "a statement was blocked"),
        Outcome::Approved => of(INFORMATIONAL, allowed, (8, "Approved"), "a statement was approved"),
        Outcome::Denied => of(HIGH, denied, (25, "Rejected"), "a statement was denied by an approver"),
        Outcome::Terminated => {
            of(HIGH, denied, (24, "Access Revoked"), "a session was ended before its statement ran")
        }
        Outcome::FailedOpen => of(HIGH, allowed, (1, "Allowed"), "nobody could decide, and a statement ran"),
        Outcome::FailedClosed => {
            of(HIGH, denied, (2, "Blocked"), "nobody could decide, and a statement did not run")
        }
    }
}
