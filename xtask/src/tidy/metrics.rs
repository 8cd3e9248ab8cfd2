//! Names of metrics: one table, one form.

use super::Finding;
use super::source::Source;

/// A metric is named `capture_<name>_<unit>[_total]`, and only `telemetry` names any.
pub(super) fn well_named(tree: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.iter().filter(|source| source.path.starts_with("capture-agent/src/")) {
        for (at, name) in metric_literals(source.text_without_tests()) {
            let advice = if !source.path.starts_with("capture-agent/src/telemetry/") {
                format!(
                    "metric `{name}` is named here: name it in the table of `telemetry` and use the constant"
                )
            } else if !is_well_named(name) {
                format!(
                    "metric `{name}` has not the form capture_<name>_<unit>[_total], unit one of {}",
                    UNITS.join(", ")
                )
            } else {
                continue;
            };
            findings.push(Finding { path: source.path.clone(), line: source.line(at), advice });
        }
    }
    findings
}

/// String literals that begin like a metric and are no name of a crate.
fn metric_literals(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("\"capture_").filter_map(|(at, _)| {
        let name = text[at + 1..].split('"').next()?;
        let is_name =
            name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        (is_name && !CRATES.contains(&name)).then_some((at, name))
    })
}

fn is_well_named(name: &str) -> bool {
    let base = name.strip_suffix("_total").unwrap_or(name);
    let Some((rest, unit)) = base.rsplit_once('_') else { return false };
    UNITS.contains(&unit) && rest.len() > "capture_".len()
}

const CRATES: [&str; 3] = ["capture_agent", "capture_common", "capture_ebpf"];

/// Base units and the things that are counted.
const UNITS: [&str; 16] = [
    "bytes",
    "seconds",
    "events",
    "sessions",
    "statements",
    "rows",
    "files",
    "errors",
    "batches",
    "frames",
    "servers",
    "notices",
    "values",
    "ratio",
    "requests",
    // Says what its labels say: Prometheus' own word.
    "info",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, literal: &str) -> usize {
        well_named(&[Source::new(path, &format!("const A: &str = \"{literal}\";"))]).len()
    }

    #[test]
    fn a_metric_without_a_unit_is_found() {
        assert_eq!(findings("capture-agent/src/telemetry/metrics.rs", "capture_ring_drops"), 1);
        assert_eq!(findings("capture-agent/src/telemetry/metrics.rs", "capture_bytes"), 1);
        assert_eq!(
            findings("capture-agent/src/telemetry/metrics.rs", "capture_ring_dropped_events_total"),
            0
        );
    }

    #[test]
    fn a_metric_named_outside_its_table_is_found_and_a_crate_is_not_taken_for_one() {
        assert_eq!(findings("capture-agent/src/record/mod.rs", "capture_written_bytes_total"), 1);
        assert_eq!(findings("capture-agent/src/record/mod.rs", "capture_agent"), 0);
    }
}
