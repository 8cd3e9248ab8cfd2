//! What came of the tests on each kernel, and the file that keeps it.

use super::guest::Ended;
use crate::shell;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;

/// The results that are kept, relative to the project's folder.
pub(crate) const KEPT: &str = "docs/kernels.json";

/// One kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Results {
    /// Such as `6.1`.
    pub(crate) series: String,
    /// The release of Debian that ships it.
    pub(crate) suite: String,
    /// Debian's version of the package.
    pub(crate) version: String,
    /// By the hooks' name.
    pub(crate) hooks: BTreeMap<String, Hooks>,
    /// What `capture-agent doctor` misses on it: the check, and what it found.
    pub(crate) lacks: BTreeMap<String, String>,
}

/// One family of hooks: its tests, by topic.
pub(crate) type Hooks = BTreeMap<String, Outcome>;

/// The tests of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Those that passed.
    pub(crate) passed: Vec<String>,
    /// Those that failed or never ended.
    pub(crate) failed: Vec<String>,
}

impl Outcome {
    /// Adds what a test program said of `tests`.
    pub(super) fn add(&mut self, program: &str, tests: &[&str], ended: &Ended) {
        for test in tests {
            let name = format!("{program}::{test}");
            let ok = format!("test {test} ... ok");
            if ended.said.lines().any(|line| line == ok) {
                self.passed.push(name);
            } else {
                self.failed.push(name);
            }
        }
    }
}

impl Results {
    /// Every test that failed, with the hooks that it ran with.
    pub(super) fn failures(&self) -> Vec<String> {
        self.each(|outcome| &outcome.failed)
    }

    /// What `kept` has as passed and this has not, of the hooks that this was run with.
    pub(super) fn lost(&self, kept: &Self) -> Vec<String> {
        let passed = self.each(|outcome| &outcome.passed);
        let run = |name: &String| self.hooks.keys().any(|hooks| name.contains(&format!(" {hooks} ")));
        let mut lost = kept.each(|outcome| &outcome.passed);
        lost.retain(|name| run(name) && !passed.contains(name));
        lost
    }

    fn each(&self, list: impl Fn(&Outcome) -> &Vec<String>) -> Vec<String> {
        let of_hooks = |(hooks, topics): (&String, &Hooks)| -> Vec<String> {
            let tests = topics.values().flat_map(&list);
            tests.map(|test| format!("{} with {hooks} hooks: {test}", self.series)).collect()
        };
        self.hooks.iter().flat_map(of_hooks).collect()
    }
}

/// The notes and failures among the checks that `capture-agent doctor --json` printed: the name, and what was found.
///
/// # Errors
///
/// It printed no such thing.
pub(super) fn lacks(said: &str) -> Result<BTreeMap<String, String>> {
    let json = said.lines().find(|line| line.starts_with('{')).context("doctor printed no JSON")?;
    let report: serde_json::Value = serde_json::from_str(json)?;
    let checks = report["checks"].as_array().context("doctor's report has no checks")?;
    let mut lacks: BTreeMap<String, String> = BTreeMap::new();
    for check in checks.iter().filter(|check| check["verdict"] != "ok" && check["name"] != "servers") {
        let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
        // Several families of hooks may be missing.
        let found = lacks.entry(word("name")).or_default();
        *found = if found.is_empty() { word("found") } else { format!("{found}; {}", word("found")) };
    }
    Ok(lacks)
}

/// The results that are kept.
///
/// # Errors
///
/// The file is missing or is none.
pub(super) fn read() -> Result<Vec<Results>> {
    let path = shell::root().join(KEPT);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text)
}

/// Reads the text of the file.
///
/// # Errors
///
/// It is not what [`write`] writes.
pub(crate) fn parse(text: &str) -> Result<Vec<Results>> {
    serde_json::from_str(text)
        .with_context(|| format!("{KEPT} is none of ours: make it anew with `cargo xtask kernels --write`"))
}

/// Replaces what is kept of the kernels in `new`.
///
/// # Errors
///
/// The file cannot be written.
pub(super) fn write(new: &[Results]) -> Result<Vec<Results>> {
    // Nothing is kept yet the first time.
    let mut all = read().unwrap_or_default();
    all.retain(|kept| new.iter().all(|new| new.series != kept.series));
    all.extend_from_slice(new);
    let place =
        |results: &Results| super::package::ALL.iter().position(|series| series.name == results.series);
    all.sort_by_key(place);
    let path = shell::root().join(KEPT);
    fs::write(&path, serde_json::to_string_pretty(&all)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn said(text: &str) -> Ended {
        Ended { said: text.to_owned(), status: Some(0), time: Duration::ZERO }
    }

    #[test]
    fn a_test_that_does_not_say_that_it_passed_has_failed() {
        let mut outcome = Outcome::default();
        outcome.add("tls", &["a", "b", "c"], &said("test a ... ok\ntest b ... FAILED\ntest cc ... ok\n"));
        assert_eq!(
            (outcome.passed, outcome.failed),
            (vec!["tls::a".into()], vec!["tls::b".into(), "tls::c".into()])
        );
    }

    #[test]
    fn a_test_that_passed_before_and_no_more_is_named() {
        let results = |tests: &[&str]| {
            let passed = tests.iter().map(|test| (*test).to_owned()).collect();
            let topics = BTreeMap::from([("plain".to_owned(), Outcome { passed, failed: Vec::new() })]);
            let hooks = BTreeMap::from([("fexit".to_owned(), topics)]);
            let [series, suite, version] = ["6.1", "bookworm", "6.1.1-1"].map(str::to_owned);
            Results { series, suite, version, hooks, lacks: BTreeMap::new() }
        };
        let (kept, now) = (results(&["a", "b"]), results(&["b"]));
        assert_eq!(now.lost(&kept), ["6.1 with fexit hooks: a"]);
        // What was not run is not lost.
        let mut none = now;
        none.hooks.clear();
        assert!(none.lost(&kept).is_empty());
    }

    #[test]
    fn what_doctor_misses_is_what_a_kernel_lacks() {
        let said = r#"log line
{"ready":true,"checks":[{"name":"BTF","verdict":"ok","found":"there"},{"name":"TLS probes","verdict":"note","found":"no cookies"},{"name":"servers","verdict":"note","found":"none"}]}"#;
        let expected = BTreeMap::from([("TLS probes".to_owned(), "no cookies".to_owned())]);
        assert_eq!(lacks(said).unwrap(), expected);
        assert!(lacks("").is_err());
    }
}
