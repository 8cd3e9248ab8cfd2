//! Events that a receiver does not get: Event Log Activity, class 1008.

use serde_json::{Value, json};

use super::super::spool::Event;
use super::{Class, Context, HIGH, known, line};
use crate::probes::{monotonic_now, unix_offset};
use crate::session::Micros;

/// Event Log Activity.
const CLASS: u64 = 1_008;

/// What is lost.
#[derive(Clone, Copy, Debug)]
pub(in crate::events) struct Loss<'a> {
    /// The first of the numbers that nobody gets; the last is that of this event itself. None if what is lost had no
    /// numbers yet.
    pub(in crate::events) first: Option<u64>,
    /// How many; at most so many if they had no numbers; none if that is not known.
    pub(in crate::events) events: Option<u64>,
    /// Why.
    pub(in crate::events) reason: &'a str,
}

impl Context {
    /// The event number `number`, which says that others are lost.
    pub(in crate::events) fn lost(&self, number: u64, loss: &Loss<'_>) -> Vec<u8> {
        let now =
            Micros(i64::try_from(monotonic_now().wrapping_add(unix_offset()) / 1_000).unwrap_or(i64::MAX));
        let class = Class {
            uid: CLASS,
            name: "Event Log Activity",
            category: "System Activity",
            activity: (2, "Delete".to_owned()),
            severity: HIGH,
            profiles: &["host"],
        };
        let mut fields = self.base(number, class, now, now);
        let message = match (loss.first, loss.events) {
            (Some(first), _) => format!("events {first} to {number} of this log are lost: {}", loss.reason),
            (None, Some(events)) => {
                format!("up to {events} events are missing before this one: {}", loss.reason)
            }
            (None, None) => format!("events may be missing before this one: {}", loss.reason),
        };
        fields.insert("message".to_owned(), message.into());
        fields.insert("actor".to_owned(), json!({ "app_name": "capture-agent" }));
        fields.insert("log_name".to_owned(), self.log.as_str().into());
        fields.insert("log_provider".to_owned(), "capture-agent".into());
        fields.insert("status_id".to_owned(), 2.into());
        fields.insert("status".to_owned(), "Failure".into());
        let last = loss.first.map(|_| number);
        fields.insert(
            "unmapped".to_owned(),
            known([
                ("lost_first", loss.first.into()),
                ("lost_last", last.into()),
                ("lost_events", loss.events.map_or(Value::Null, Value::from)),
                ("reason", loss.reason.into()),
            ]),
        );
        line(&fields)
    }

    /// Whether this is one event that says what is lost.
    pub(in crate::events) fn is_loss(&self, events: &[Event]) -> bool {
        let [event] = events else { return false };
        serde_json::from_slice(&event.json).is_ok_and(|fields: Value| fields["class_uid"] == CLASS)
    }
}
