//! What the webhook tells.

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::book::Waiting;
use super::message::Listed;
use super::request::{Request, RequestId};
use crate::session::Micros;

/// One message to somebody elsewhere. `docs/approvals.md` documents its keys.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Its name: that of all attempts to deliver it.
    pub delivery: Uuid,
    /// What it says.
    pub(super) body: Value,
    /// When it is of no use any more, in nanoseconds of `CLOCK_MONOTONIC`.
    pub(super) until: u64,
}

impl Notice {
    /// A statement waits on `node` since `at`, for an approver's word.
    pub fn approval(node: &str, at: Micros, id: RequestId, request: &Request, now: u64) -> Self {
        let until = request.deadline;
        Self::of("approval", node, at, fields(id, request, now), until)
    }

    /// A guardrail with `alert` has caught a statement on `node`, for this reason. Of `request`, what only those that
    /// wait have does not matter.
    pub fn alert(node: &str, at: Micros, request: &Request, reason: &str, now: u64) -> Self {
        let mut fields = fields(RequestId::of(0), request, now);
        for key in ["id", "waited_ms", "left_ms", "covers", "blocked", "max_blocked"] {
            fields.remove(key);
        }
        fields.insert("reason".to_owned(), reason.into());
        Self::of("alert", node, at, fields, now.saturating_add(ALERT_NS))
    }

    fn of(event: &str, node: &str, at: Micros, fields: Map<String, Value>, until: u64) -> Self {
        let at = Timestamp::from_microsecond(at.0).map(|at| at.to_string()).unwrap_or_default();
        let head = [("event", event.into()), ("node", node.into()), ("at", Value::from(at))];
        let mut body = Map::from_iter(head.map(|(key, value)| (key.to_owned(), value)));
        body.extend(fields);
        Self { delivery: Uuid::now_v7(), body: Value::Object(body), until }
    }

    /// The same without the statement's text and parameters, for those who must not see them.
    #[must_use]
    pub fn without_texts(mut self) -> Self {
        if let Value::Object(body) = &mut self.body {
            body.remove("sql");
            body.remove("params");
        }
        self
    }
}

fn fields(id: RequestId, request: &Request, now: u64) -> Map<String, Value> {
    let waiting = Waiting { request: request.clone(), blocked: None };
    match serde_json::to_value(Listed::of(id, &waiting, now)) {
        Ok(Value::Object(fields)) => fields,
        // A structure becomes an object.
        _ => Map::new(),
    }
}

/// An alert that nobody has taken after an hour is told by the record alone.
const ALERT_NS: u64 = 3_600_000_000_000;
