//! Events as the Open Cybersecurity Schema Framework has them, <https://schema.ocsf.io/1.5.0>: what all have in common.
//!
//! `docs/monitoring.md` says which fields there are. Rows and parameters are never among them.

mod activity;
mod finding;
mod loss;
mod parts;

pub(super) use loss::Loss;

use serde_json::{Map, Value, json};

use super::item::{Body, Item};
use super::spool::Event;
use crate::session::Micros;
use crate::telemetry;

/// What all events of one receiver share.
#[derive(Debug)]
pub(super) struct Context {
    /// This host's name in the record.
    pub(super) node: String,
    /// `<node>/<receiver>`: the log in which numbers are unique.
    pub(super) log: String,
    /// Bytes of a statement's text that are told.
    pub(super) sql_bytes: usize,
}

/// A class of events, and what of it happened.
struct Class {
    uid: u64,
    name: &'static str,
    category: &'static str,
    activity: (u64, String),
    severity: (u64, &'static str),
    profiles: &'static [&'static str],
}

impl Context {
    /// The event number `number`, about `item`, as one line of JSON without its end; none if there is nothing to tell.
    pub(super) fn event(&self, number: u64, item: &Item, now: Micros) -> Option<Vec<u8>> {
        let fields = match (&item.body, &item.session) {
            (Body::Statement(statement), Some(session)) => self.activity(number, session, statement, now),
            (Body::Statement(_), None) => return None,
            (Body::Decision(decision), session) => self.finding(number, session.as_ref(), decision, now),
        };
        Some(line(&fields))
    }

    /// An event as a syslog message, RFC 5424.
    pub(super) fn syslog(&self, event: &Event) -> Vec<u8> {
        let fields: Value = serde_json::from_slice(&event.json).unwrap_or_default();
        let severity = match fields["severity_id"].as_u64() {
            Some(4) => 3,
            Some(3) => 4,
            Some(2) => 5,
            _ => 6,
        };
        let id = match fields["class_uid"].as_u64() {
            Some(activity::CLASS) => "activity",
            Some(finding::CLASS) => "finding",
            _ => "lost",
        };
        let time = fields["time"].as_i64().and_then(|time| jiff::Timestamp::from_millisecond(time).ok());
        let time = time.map_or_else(|| "-".to_owned(), |time| time.to_string());
        // Printable ASCII without spaces.
        let host: String = self.node.chars().filter(char::is_ascii_graphic).take(255).collect();
        let host = if host.is_empty() { "-".to_owned() } else { host };
        // RFC 5424, section 7.3.1: 1 to 2147483647, then 1 again.
        let sequence = event.number % 2_147_483_647 + 1;
        let head = format!(
            "<{}>1 {time} {host} capture-agent {} {id} [meta sequenceId=\"{sequence}\"] ",
            FACILITY * 8 + severity,
            std::process::id()
        );
        let mut message = head.into_bytes();
        message.extend_from_slice(&event.json);
        message
    }

    fn base(&self, number: u64, class: Class, at: Micros, now: Micros) -> Map<String, Value> {
        let Class { uid, name, category, activity: (activity, activity_name), severity, profiles } = class;
        let fields = json!({
            "metadata": {
                "version": "1.5.0",
                "product": { "name": "Capture", "vendor_name": "Capture", "version": telemetry::version() },
                "uid": format!("{}/{number}", self.log),
                "sequence": number,
                "log_name": self.log,
                "log_provider": "capture-agent",
                "logged_time": now.0 / 1_000,
                "profiles": profiles,
            },
            "category_uid": uid / 1_000,
            "category_name": category,
            "class_uid": uid,
            "class_name": name,
            "type_uid": uid * 100 + activity,
            "type_name": format!("{name}: {activity_name}"),
            "activity_id": activity,
            "activity_name": activity_name,
            "severity_id": severity.0,
            "severity": severity.1,
            "time": at.0 / 1_000,
            "device": { "hostname": self.node, "type_id": 1, "type": "Server" },
        });
        match fields {
            Value::Object(fields) => fields,
            _ => Map::new(),
        }
    }
}

/// One line, without what is not known.
fn line(fields: &Map<String, Value>) -> Vec<u8> {
    // Texts and numbers are JSON.
    serde_json::to_vec(fields).unwrap_or_default()
}

/// Fields, without those that are null.
fn known<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let known = fields.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(known.map(|(key, value)| (key.to_owned(), value)).collect())
}

/// `log audit`, RFC 5424, section 6.2.1.
const FACILITY: u64 = 13;

const INFORMATIONAL: (u64, &str) = (1, "Informational");
const LOW: (u64, &str) = (2, "Low");
const MEDIUM: (u64, &str) = (3, "Medium");
const HIGH: (u64, &str) = (4, "High");

#[cfg(test)]
mod tests;
