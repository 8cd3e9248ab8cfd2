//! Every metric: its name, kind and meaning, and where its value stands while the agent runs.
//!
//! Rendered in the Prometheus text format, for whoever asks over HTTP ([`super::http`]) and for node_exporter's textfile
//! collector (`run --metrics-file`). `docs/monitoring.md` documents them; a test compares the two.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

mod outcomes;
mod process;
mod siem;

pub use outcomes::*;
pub use process::*;
pub use siem::*;

/// A number that the agent publishes.
#[derive(Debug)]
pub struct Metric {
    /// `capture_<name>_<unit>[_total]`; what Prometheus' clients in all languages tell of their process, as they name it.
    pub name: &'static str,
    /// What tells it from others of the same name: `label="value"`.
    pub labels: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it says.
    pub help: &'static str,
    /// How many of what [`Metric::value`] counts make one of its unit.
    scale: u64,
    value: AtomicU64,
}

impl Metric {
    const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "counter", help)
    }

    const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "gauge", help)
    }

    const fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, labels: "", kind, help, scale: 1, value: AtomicU64::new(0) }
    }

    /// One of several with this name, which follow each other in [`ALL`].
    const fn of(self, labels: &'static str) -> Self {
        Self { labels, ..self }
    }

    /// The value is in microseconds, and told in seconds.
    const fn in_micros(self) -> Self {
        Self { scale: 1_000_000, ..self }
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
/// Bytes of rows that nobody wanted.
pub static PASSED_BYTES: Metric = Metric::counter(
    "capture_kernel_passed_bytes_total",
    "Stream bytes of rows that no rule wants, counted in the kernel and not handed out",
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

/// Values that were masked before they were recorded.
pub static MASKED_VALUES: Metric =
    Metric::counter("capture_masked_values_total", "Values masked before they were recorded");

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

/// Files that the object storage has.
pub static UPLOADED_FILES: Metric = Metric::counter(
    "capture_uploaded_files_total",
    "Files that were uploaded, and found in the storage as they were sealed",
);
/// Their bytes.
pub static UPLOADED_BYTES: Metric =
    Metric::counter("capture_uploaded_bytes_total", "Bytes of the files that were uploaded");
/// Files that wait to be uploaded.
pub static UPLOAD_BACKLOG_FILES: Metric =
    Metric::gauge("capture_upload_backlog_files", "Published files that wait to be uploaded");
/// Their bytes.
pub static UPLOAD_BACKLOG_BYTES: Metric =
    Metric::gauge("capture_upload_backlog_bytes", "Bytes of the files that wait to be uploaded");
/// How long the oldest of them has waited.
pub static UPLOAD_BACKLOG_SECONDS: Metric =
    Metric::gauge("capture_upload_backlog_seconds", "Age of the oldest file that waits to be uploaded");
/// The limit of the backlog.
pub static UPLOAD_LIMIT: Metric = Metric::gauge(
    "capture_upload_limit_bytes",
    "Bytes that may wait before that is an error (upload.backlog_bytes); 0 for any number",
);
/// Attempts to upload that failed.
pub static UPLOAD_ERRORS: Metric =
    Metric::counter("capture_upload_errors_total", "Attempts to upload that failed and are repeated");
/// Files that cannot be uploaded.
pub static UPLOAD_SKIPPED: Metric = Metric::counter(
    "capture_upload_skipped_files_total",
    "Sealed files that are not uploaded, because they are gone or not what was sealed",
);

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

/// Size of the ring between kernel and agent.
pub static RING_SIZE: Metric =
    Metric::gauge("capture_ring_size_bytes", "Size of the ring between kernel and agent");
/// What of the ring is not read yet.
pub static RING_USED: Metric =
    Metric::gauge("capture_ring_used_bytes", "Bytes of the ring that the agent has not read yet");
/// How long ago the last commit was.
pub static COMMIT_AGE: Metric =
    Metric::gauge("capture_commit_age_seconds", "Time since what was captured became permanent last")
        .in_micros();
/// How long the last commit took.
pub static COMMIT_TIME: Metric =
    Metric::gauge("capture_commit_duration_seconds", "Time that the last commit took").in_micros();
/// Bytes of the journal that are needed.
pub static JOURNAL_WAITING: Metric = Metric::gauge(
    "capture_journal_waiting_bytes",
    "Bytes of the journal whose rows are in no complete file yet",
);
/// Whether the journal is written.
pub static JOURNAL_OFF: Metric = Metric::gauge(
    "capture_journal_off_ratio",
    "1 while the journal cannot be written and recording goes on without it, else 0",
);
/// Whether the record is written.
pub static STORAGE_FAILING: Metric = Metric::gauge(
    "capture_storage_failing_ratio",
    "1 while the record cannot be written and rows wait in memory, else 0",
);

/// Rows that statements returned and that were recorded.
pub static RESULT_ROWS: Metric =
    Metric::counter("capture_result_rows_total", "Rows of results handed to the recorder");
/// Declared gaps.
pub static GAPS: Metric =
    Metric::counter("capture_gap_events_total", "Gaps declared in the streams of sessions");

/// Statements that wait for an approver.
pub static WAITING: Metric =
    Metric::gauge("capture_waiting_statements", "Statements that wait for somebody to approve them");

/// All of them.
pub static ALL: &[&Metric] = &[
    &EVENTS,
    &BYTES,
    &LOST_EVENTS,
    &LOST_BYTES,
    &PASSED_BYTES,
    &UNTRACKED,
    &HELD,
    &GUARDED,
    &UNHELD,
    &FETCHED_BYTES,
    &SERVERS,
    &SESSIONS,
    &MASKED_VALUES,
    &UNNAMED_PODS,
    &KUBERNETES_ERRORS,
    &SENT_NOTICES,
    &DROPPED_NOTICES,
    &WEBHOOK_ERRORS,
    &RECORDED_ROWS,
    &LOST_ROWS,
    &RECORDED_FILES,
    &STORAGE_ERRORS,
    &UPLOADED_FILES,
    &UPLOADED_BYTES,
    &UPLOAD_BACKLOG_FILES,
    &UPLOAD_BACKLOG_BYTES,
    &UPLOAD_BACKLOG_SECONDS,
    &UPLOAD_LIMIT,
    &UPLOAD_ERRORS,
    &UPLOAD_SKIPPED,
    &JOURNAL_BYTES,
    &JOURNAL_SEGMENTS,
    &RECOVERED_ROWS,
    &JOURNAL_ERRORS,
    &EXPIRED_FILES,
    &MERGED_FILES,
    &OVERDUE_FILES,
    &KEEP_ERRORS,
    &RING_SIZE,
    &RING_USED,
    &COMMIT_AGE,
    &COMMIT_TIME,
    &JOURNAL_WAITING,
    &JOURNAL_OFF,
    &STORAGE_FAILING,
    &COMPLETED,
    &FAILED,
    &BLOCKED,
    &CANCELED,
    &OTHER_STATEMENTS,
    &RESULT_ROWS,
    &GAPS,
    &OBSERVED,
    &ALERTED,
    &VERDICT_BLOCKED,
    &TERMINATED,
    &APPROVED,
    &DENIED,
    &FAILED_OPEN,
    &FAILED_CLOSED,
    &WAITING,
    &SIEM_SENT,
    &SIEM_DROPPED,
    &SIEM_MISSED,
    &SIEM_ERRORS,
    &SIEM_WAITING,
    &SIEM_SPOOL,
    &HTTP_REQUESTS,
    &HTTP_ERRORS,
    &CPU,
    &RESIDENT,
    &VIRTUAL,
    &OPEN_FDS,
    &MAX_FDS,
    &THREADS,
    &START,
];

/// Which build this is: the only one with a value of its own per build.
pub const BUILD: &str = "capture_build_info";

/// All values in the Prometheus text format, those of the process as they are now.
pub fn render() -> String {
    super::process::refresh();
    let mut text = format!(
        "# HELP {BUILD} Which build of the agent this is\n# TYPE {BUILD} gauge\n{BUILD}{{version=\"{}\"}} 1\n",
        super::version().replace(['\\', '"', '\n'], "_")
    );
    let mut before = "";
    for metric in ALL {
        let (name, labels, kind, help, scale) =
            (metric.name, metric.labels, metric.kind, metric.help, metric.scale);
        // Writing to a String does not fail.
        if name != before {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        before = name;
        let _ = match labels {
            "" => write!(text, "{name} "),
            labels => write!(text, "{name}{{{labels}}} "),
        };
        let value = metric.value();
        let _ = match scale {
            1 => writeln!(text, "{value}"),
            scale => writeln!(text, "{}.{:06}", value / scale, value % scale),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_prefixed() {
        let mut names: Vec<_> = ALL.iter().map(|metric| (metric.name, metric.labels)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|(name, _)| name.starts_with("capture_") || name.starts_with("process_")));
    }

    #[test]
    fn each_name_is_explained_once_and_has_a_value_for_each_of_its_labels() {
        let text = render();
        let lines = |prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
        for metric in ALL {
            assert_eq!(lines(&format!("# TYPE {} ", metric.name)), 1, "{}", metric.name);
        }
        assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), ALL.len() + 1);
        assert!(text.contains("capture_recorded_statements_total{status=\"completed\"} "), "{text}");
        assert!(text.contains("capture_build_info{version=\""), "{text}");
    }

    #[test]
    fn times_are_told_in_seconds() {
        let line = |text: &str| {
            text.lines().find(|line| line.starts_with("capture_commit_duration")).map(str::to_owned)
        };
        COMMIT_TIME.set(1_002_003);
        assert_eq!(line(&render()).as_deref(), Some("capture_commit_duration_seconds 1.002003"));
    }
}
