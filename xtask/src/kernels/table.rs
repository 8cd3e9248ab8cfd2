//! The table of the README, made of the results that are kept.

use super::results::{Outcome, Results};
use super::suite::{HOOKS, TOPICS};
use crate::{marked, shell};
use anyhow::{Context as _, Result};
use std::fs;

/// The file that has the table, relative to the project's folder.
pub(crate) const PAGE: &str = "README.md";

/// The table, in Markdown.
pub(crate) fn render(all: &[Results]) -> String {
    let mut text = String::from("| kernel, from Debian |");
    for topic in &TOPICS {
        text += &format!(" {} |", topic.name);
    }
    text += " what it lacks |\n|---|";
    text += &"---|".repeat(TOPICS.len() + 1);
    text.push('\n');
    for results in all {
        text += &format!("| {} ({} {}) |", results.series, results.suite, results.version);
        for topic in &TOPICS {
            text += &format!(" {} |", cell(results, topic.name));
        }
        // The other columns say which hooks there are.
        let lacks = results.lacks.iter().filter(|(check, _)| *check != "hooks");
        let lacks: Vec<&str> = lacks.map(|(_, found)| found.as_str()).collect();
        let lacks = if lacks.is_empty() { "nothing".to_owned() } else { lacks.join("; ") };
        text += &format!(" {} |\n", lacks.replace('|', "\\|"));
    }
    text
}

/// The hooks with which every test of a topic passed, and what failed with others.
fn cell(results: &Results, topic: &str) -> String {
    let outcomes = HOOKS.iter().filter_map(|hooks| Some((*hooks, results.hooks.get(*hooks)?.get(topic)?)));
    let of = |(hooks, outcome): (&str, &Outcome)| {
        if outcome.failed.is_empty() { hooks.to_owned() } else { format!("{hooks} **fails**") }
    };
    let cells: Vec<String> = outcomes.map(of).collect();
    if cells.is_empty() { "–".to_owned() } else { cells.join(", ") }
}

/// `page` with the table in its place; none if there is no such place.
pub(crate) fn replaced(page: &str, table: &str) -> Option<String> {
    marked::replaced(page, "kernels", table)
}

/// Brings the README up to date.
///
/// # Errors
///
/// It lacks the markers or cannot be written.
pub(super) fn write(all: &[Results]) -> Result<()> {
    let path = shell::root().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, &render(all))
        .with_context(|| format!("{PAGE} has no place `<!-- kernels: … -->` for the table"))?;
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))
}

/// A page that has a place for the table, and nothing else.
#[cfg(test)]
pub(crate) const EMPTY: &str =
    concat!("<!-- kernels: written by `cargo xtask kernels --write` -->\n", "<!-- /kernels -->\n");

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_cell_names_the_hooks_that_passed_and_marks_those_that_did_not() {
        let outcome = |failed: &[&str]| {
            let failed = failed.iter().map(|test| (*test).to_owned()).collect();
            BTreeMap::from([("plain".to_owned(), Outcome { passed: vec!["a".into()], failed })])
        };
        let hooks = BTreeMap::from([("fexit".into(), outcome(&[])), ("tracepoints".into(), outcome(&["b"]))]);
        let [series, suite, version] = ["6.1", "bookworm", "6.1.1-1"].map(str::to_owned);
        let results = Results { series, suite, version, hooks, lacks: BTreeMap::new() };
        assert_eq!(cell(&results, "plain"), "fexit, tracepoints **fails**");
        assert_eq!(cell(&results, "TLS"), "–");
    }
}
