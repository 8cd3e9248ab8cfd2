//! Events for receivers elsewhere, and requests for metrics and health.

use super::Metric;

/// Events that receivers of `[[events]]` took.
pub static SIEM_SENT: Metric =
    Metric::counter("capture_siem_sent_events_total", "Events that the receivers of [[events]] have taken");
/// Events that no receiver will get.
pub static SIEM_DROPPED: Metric = Metric::counter(
    "capture_siem_dropped_events_total",
    "Events that their receiver will not get: the spool's limit was reached, or it refused them; declared to it",
);
/// Events that were lost before they had a number.
pub static SIEM_MISSED: Metric = Metric::counter(
    "capture_siem_missed_events_total",
    "Statements and verdicts that came faster than events could be made of them; declared to the receivers",
);
/// Attempts to deliver events that failed.
pub static SIEM_ERRORS: Metric =
    Metric::counter("capture_siem_errors_total", "Attempts to deliver or to spool events that failed");
/// Events that wait for their receivers.
pub static SIEM_WAITING: Metric = Metric::gauge(
    "capture_siem_waiting_events",
    "Events in the spools that their receivers have not taken yet",
);
/// Bytes of all spools.
pub static SIEM_SPOOL: Metric = Metric::gauge("capture_siem_spool_bytes", "Bytes of the spools of events");

/// Requests for metrics and health that were answered.
pub static HTTP_REQUESTS: Metric = Metric::counter(
    "capture_http_answered_requests_total",
    "Requests for metrics and health that were answered",
);
/// Connections of clients that were too slow or broke the protocol.
pub static HTTP_ERRORS: Metric = Metric::counter(
    "capture_http_errors_total",
    "Connections for metrics and health that were too slow, too large, or not HTTP",
);
