//! `cargo xtask tidy`: rules about the source that no compiler checks, each with the line and what to do.

mod anchors;
mod figures;
mod kernels;
mod length;
mod metrics;
mod names;
mod rooms;
mod source;
mod unsafety;

use crate::shell;
use anyhow::{Context as _, Result, bail};
use source::Source;
use std::fmt;
use std::path::Path;
use std::process::Command;

/// Checks every rule and says so.
pub(crate) fn run() -> Result<()> {
    let files = check()?;
    println!("tidy: {files} files follow {} rules", RULES.len());
    Ok(())
}

/// Checks every rule on every file under version control, and yields how many files that were.
///
/// # Errors
///
/// All findings at once.
pub(crate) fn check() -> Result<usize> {
    let tree = read_tree(shell::root())?;
    let findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    if !findings.is_empty() {
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        bail!("{} findings:\n{}", lines.len(), lines.join("\n"));
    }
    Ok(tree.len())
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    /// Relative to the project's folder.
    path: String,
    /// Counted from 1.
    line: usize,
    /// What is wrong, and what to do.
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// A rule sees the whole tree, because some rules compare files.
type Rule = fn(&[Source]) -> Vec<Finding>;

const RULES: [Rule; 10] = [
    rooms::sans_io,
    rooms::order,
    unsafety::confined,
    length::files_are_short,
    anchors::exist,
    kernels::table_is_of_the_results,
    figures::pages_are_of_the_measurements,
    metrics::well_named,
    names::no_getters,
    names::no_home_paths,
];

/// Text files that git tracks, or would.
fn read_tree(root: &Path) -> Result<Vec<Source>> {
    let mut git = Command::new("git");
    git.current_dir(root).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = shell::read(&mut git).context("the source rules look at the files that git tracks")?;
    let mut tree = Vec::new();
    for path in listed.split('\0').filter(|path| !path.is_empty()) {
        // Gone from the work tree, or not text: nothing to read.
        if let Ok(text) = std::fs::read_to_string(root.join(path)) {
            tree.push(Source::new(path, &text));
        }
    }
    Ok(tree)
}
