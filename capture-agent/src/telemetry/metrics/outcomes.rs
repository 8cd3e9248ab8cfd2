//! What became of statements, and what guardrails decided.

use super::Metric;

const fn statements(labels: &'static str) -> Metric {
    Metric::counter("capture_recorded_statements_total", "Statements recorded, by what became of them")
        .of(labels)
}
/// Statements that ended well.
pub static COMPLETED: Metric = statements("status=\"completed\"");
/// Statements that failed.
pub static FAILED: Metric = statements("status=\"failed\"");
/// Statements that guardrails stopped.
pub static BLOCKED: Metric = statements("status=\"blocked\"");
/// Statements that were canceled.
pub static CANCELED: Metric = statements("status=\"canceled\"");
/// All others: skipped, suspended, without an end that was seen.
pub static OTHER_STATEMENTS: Metric = statements("status=\"other\"");

const fn verdicts(labels: &'static str) -> Metric {
    Metric::counter(
        "capture_verdict_statements_total",
        "What guardrails decided about statements that they caught",
    )
    .of(labels)
}
/// Verdicts, by what came of them.
pub static OBSERVED: Metric = verdicts("verdict=\"observed\"");
/// See [`OBSERVED`].
pub static ALERTED: Metric = verdicts("verdict=\"alerted\"");
/// See [`OBSERVED`].
pub static VERDICT_BLOCKED: Metric = verdicts("verdict=\"blocked\"");
/// See [`OBSERVED`].
pub static TERMINATED: Metric = verdicts("verdict=\"terminated\"");
/// See [`OBSERVED`].
pub static APPROVED: Metric = verdicts("verdict=\"approved\"");
/// See [`OBSERVED`].
pub static DENIED: Metric = verdicts("verdict=\"denied\"");
/// See [`OBSERVED`].
pub static FAILED_OPEN: Metric = verdicts("verdict=\"failed_open\"");
/// See [`OBSERVED`].
pub static FAILED_CLOSED: Metric = verdicts("verdict=\"failed_closed\"");
