//! What dashboard, alert rules and documentation say about metrics is what the agent has.
#![expect(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use capture_agent::telemetry::metrics;

/// A file of the repository.
fn read(path: &str) -> String {
    // Of this run, not of the build: checkouts that share a target folder share the compiled tests.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..");
    fs::read_to_string(root.join(path)).unwrap()
}

fn known() -> BTreeSet<&'static str> {
    metrics::ALL.iter().map(|metric| metric.name).chain([metrics::BUILD]).collect()
}

/// Names that look like the agent's metrics.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let units = [
        "_total",
        "_bytes",
        "_seconds",
        "_ratio",
        "_sessions",
        "_servers",
        "_statements",
        "_events",
        "_files",
        "_info",
        "_fds",
        "_threads",
    ];
    words
        .filter(|word| word.starts_with("capture_") || word.starts_with("process_"))
        .filter(|word| units.iter().any(|unit| word.ends_with(unit)))
        .collect()
}

#[test]
fn the_dashboard_shows_metrics_that_exist() {
    let text = read("deploy/grafana-dashboard.json");
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut expressions = String::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            balanced(expression);
            assert!(!named(expression).is_empty(), "no metric in {expression}");
            expressions.push_str(expression);
            expressions.push('\n');
        }
    }
    let unknown: Vec<_> = named(&expressions).difference(&known()).copied().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(named(&expressions).len() > 30, "the dashboard shows little");
    assert!(text.contains("label_values(capture_build_info, instance)"));
}

#[test]
fn each_alert_has_an_expression_over_metrics_that_exist_and_says_what_to_do() {
    let text = read("deploy/alerts.yaml");
    let alerts: Vec<&str> = text.split("      - alert: ").skip(1).collect();
    assert!(alerts.len() >= 15);
    let mut names = BTreeSet::new();
    let errors = read("docs/errors.md");
    for alert in alerts {
        let key = |key: &str| alert.lines().find_map(|line| line.trim().strip_prefix(key)).map(str::trim);
        let name = alert.lines().next().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        let expression = key("expr:").unwrap();
        balanced(expression);
        let metrics = named(expression);
        let unknown: Vec<_> = metrics.difference(&known()).copied().collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
        assert!(!metrics.is_empty() || expression.starts_with("up{"), "{name}");
        assert!(matches!(key("labels:"), Some("{ severity: warning }" | "{ severity: critical }")), "{name}");
        assert!(key("summary:").is_some_and(|text| text.starts_with('"') && text.ends_with('"')), "{name}");
        let description = key("description:").unwrap();
        assert!(description.starts_with('"') && description.ends_with('"'), "{name}");
        if let Some((_, anchor)) = description.split_once("docs/errors.md#") {
            let anchor: String =
                anchor.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
            assert!(errors.contains(&format!("id=\"{anchor}\"")), "{name}: {anchor}");
        }
    }
}

#[test]
fn every_metric_is_documented_and_nothing_else() {
    let page = read("docs/monitoring.md");
    let mut expected = Vec::new();
    let mut before = "";
    for metric in
        metrics::ALL.iter().filter(|metric| std::mem::replace(&mut before, metric.name) != metric.name)
    {
        let label =
            metric.labels.split_once('=').map(|(label, _)| format!("{{{label}}}")).unwrap_or_default();
        expected.push(format!("| `{}{label}` | {} | {} |", metric.name, metric.kind, metric.help));
    }
    let table = expected.join("\n");
    assert!(page.contains(&table), "docs/monitoring.md: the table of metrics is not\n{table}");
    let unknown: Vec<_> = named(&page).difference(&known()).copied().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn balanced(expression: &str) {
    for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
        let count = |wanted: char| expression.chars().filter(|c| *c == wanted).count();
        assert_eq!(count(open), count(close), "{expression}");
    }
}
