//! Every metric: its name, kind and meaning, and where its value stands while the agent runs.
//!
//! Rendered in the Prometheus text format (`run --metrics-file`, for node_exporter's textfile collector).

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that the agent publishes.
#[derive(Debug)]
pub struct Metric {
    /// `capture_<name>_<unit>[_total]`.
    pub name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: AtomicU64,
}

impl Metric {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "counter", help, value: AtomicU64::new(0) }
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, kind: "gauge", help, value: AtomicU64::new(0) }
    }

    /// Adds to the value.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.value.store(value, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

/// Events that the kernel side handed over.
pub static EVENTS: Metric =
    Metric::counter("capture_kernel_events_total", "Events handed over by the kernel");
/// Stream bytes that the kernel side handed over.
pub static BYTES: Metric =
    Metric::counter("capture_kernel_bytes_total", "Stream bytes handed over by the kernel");
/// Events that the kernel side could not hand over.
pub static LOST_EVENTS: Metric = Metric::counter(
    "capture_kernel_lost_events_total",
    "Events dropped in the kernel; each is a declared gap",
);
/// Stream bytes that the kernel side could not hand over.
pub static LOST_BYTES: Metric = Metric::counter(
    "capture_kernel_lost_bytes_total",
    "Stream bytes dropped in the kernel; declared in gaps",
);
/// Backends that were not followed because the table of processes was full.
pub static UNTRACKED: Metric = Metric::counter(
    "capture_untracked_sessions_total",
    "Sessions not recorded: the table of processes was full",
);
/// Holds for verdicts.
pub static GUARDED: Metric =
    Metric::counter("capture_guarded_events_total", "Times that a backend was stopped for a verdict");

/// Backends that should have been stopped and could not be.
pub static UNHELD: Metric = Metric::counter(
    "capture_unheld_events_total",
    "Times that a backend should have been stopped and could not be: its session was ended, or went on",
);
/// Backends that were stopped because the ring had no room for what must not be lost.
pub static HELD: Metric = Metric::counter(
    "capture_held_events_total",
    "Backends stopped because the ring had no room for a required recording",
);
/// Bytes that were fetched from the memory of stopped backends.
pub static FETCHED_BYTES: Metric = Metric::counter(
    "capture_fetched_bytes_total",
    "Stream bytes read from stopped backends instead of the ring",
);
/// Servers that are followed.
pub static SERVERS: Metric = Metric::gauge("capture_followed_servers", "Servers that are followed");
/// Sessions that are open.
pub static SESSIONS: Metric = Metric::gauge("capture_open_sessions", "Sessions that are open");

/// Sessions whose pod has no name in the record.
pub static UNNAMED_PODS: Metric = Metric::counter(
    "capture_unnamed_pod_sessions_total",
    "Sessions recorded without the name of their pod, because it was not known in time",
);
/// Requests to the API server of Kubernetes that failed.
pub static KUBERNETES_ERRORS: Metric = Metric::counter(
    "capture_kubernetes_errors_total",
    "Requests for the pods of this node that the API server of Kubernetes did not answer",
);

/// Notices that the webhook took.
pub static SENT_NOTICES: Metric =
    Metric::counter("capture_webhook_sent_notices_total", "Notices that the webhook took");
/// Notices that the webhook did not get.
pub static DROPPED_NOTICES: Metric = Metric::counter(
    "capture_webhook_dropped_notices_total",
    "Notices that the webhook did not get: too many waited, their time was over, or it refused them",
);
/// Attempts to send a notice that failed.
pub static WEBHOOK_ERRORS: Metric =
    Metric::counter("capture_webhook_errors_total", "Attempts to send a notice that failed");

/// Rows that stand in complete files.
pub static RECORDED_ROWS: Metric =
    Metric::counter("capture_recorded_rows_total", "Rows of the record in complete files");
/// Rows that were captured but could not be stored.
pub static LOST_ROWS: Metric = Metric::counter(
    "capture_lost_rows_total",
    "Rows of the record that could not be stored; declared in gaps with reason storage",
);
/// Complete files.
pub static RECORDED_FILES: Metric =
    Metric::counter("capture_recorded_files_total", "Files of the record that are complete");
/// Attempts to write the record that failed.
pub static STORAGE_ERRORS: Metric =
    Metric::counter("capture_storage_errors_total", "Attempts to write the record that failed");

/// Bytes that were written to the journal.
pub static JOURNAL_BYTES: Metric =
    Metric::counter("capture_journal_written_bytes_total", "Bytes written to the journal");
/// Segments of the journal that are needed.
pub static JOURNAL_SEGMENTS: Metric =
    Metric::gauge("capture_journal_segment_files", "Files of the journal that are still needed");
/// Rows that an earlier agent had captured and not completed.
pub static RECOVERED_ROWS: Metric =
    Metric::counter("capture_recovered_rows_total", "Rows taken over from an earlier agent's journal");
/// Attempts to write the journal that failed.
pub static JOURNAL_ERRORS: Metric =
    Metric::counter("capture_journal_errors_total", "Attempts to write the journal that failed");

/// Files that a rule of retention removed.
pub static EXPIRED_FILES: Metric =
    Metric::counter("capture_expired_files_total", "Files of the record that a rule of retention removed");
/// Files that were merged.
pub static MERGED_FILES: Metric =
    Metric::counter("capture_merged_files_total", "Files of the record that others took the place of");
/// Files that a rule of retention would remove.
pub static OVERDUE_FILES: Metric = Metric::gauge(
    "capture_overdue_files",
    "Files of the record that stay past their time: they are held, or not confirmed to be uploaded",
);
/// Rounds of keeping the record that failed.
pub static KEEP_ERRORS: Metric = Metric::counter(
    "capture_keep_errors_total",
    "Times that files of the record could not be removed or merged as configured",
);

/// All of them.
pub static ALL: &[&Metric] = &[
    &EVENTS,
    &BYTES,
    &LOST_EVENTS,
    &LOST_BYTES,
    &UNTRACKED,
    &HELD,
    &GUARDED,
    &UNHELD,
    &FETCHED_BYTES,
    &SERVERS,
    &SESSIONS,
    &UNNAMED_PODS,
    &KUBERNETES_ERRORS,
    &SENT_NOTICES,
    &DROPPED_NOTICES,
    &WEBHOOK_ERRORS,
    &RECORDED_ROWS,
    &LOST_ROWS,
    &RECORDED_FILES,
    &STORAGE_ERRORS,
    &JOURNAL_BYTES,
    &JOURNAL_SEGMENTS,
    &RECOVERED_ROWS,
    &JOURNAL_ERRORS,
    &EXPIRED_FILES,
    &MERGED_FILES,
    &OVERDUE_FILES,
    &KEEP_ERRORS,
];

/// All values in the Prometheus text format.
pub fn render() -> String {
    let mut text = String::new();
    for metric in ALL {
        let (name, kind, help, value) = (metric.name, metric.kind, metric.help, metric.value());
        // Writing to a String does not fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_prefixed() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| name.starts_with("capture_")));
        assert!(render().lines().count() == 3 * ALL.len());
    }
}
