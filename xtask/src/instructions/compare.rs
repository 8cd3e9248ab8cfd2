//! What was counted, beside what was committed to.

use super::callgrind::Counted;
use super::committed::{Committed, Compiler};

/// The outcome of a comparison.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    /// Everything that is on either side.
    pub(super) lines: Vec<Line>,
    /// What is worth knowing.
    pub(super) notes: Vec<String>,
    /// What must not be.
    pub(super) failures: Vec<String>,
}

/// Something that is counted.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    name: String,
    /// Instructions per item now; none if it is not counted any more.
    now: Option<f64>,
    /// Instructions per item that were committed to; none if it was not counted before.
    before: Option<f64>,
}

impl Comparison {
    /// Compares what was counted with `compiler`.
    pub(super) fn new(counted: &[Counted], committed: &Committed, compiler: &Compiler) -> Self {
        let mut comparison = Self { lines: lines(counted, committed), ..Self::default() };
        if !compiler.is_like(&committed.compiler) {
            comparison.notes.push(format!(
                "this is {compiler}, what was committed to was counted with {}: the differences say nothing about this commit, \
                 and so none of them fails",
                committed.compiler
            ));
            return comparison;
        }
        for line in &comparison.lines {
            let name = &line.name;
            match (line.now, line.before, line.change()) {
                (Some(now), Some(before), Some(change)) if change > TOLERANCE => comparison
                    .failures
                    .push(format!("{name}: {now} instructions, {change:.1} % more than the {before} committed to")),
                (.., Some(change)) if change < -TOLERANCE => comparison.notes.push(format!(
                    "{name}: {:.1} % fewer instructions than committed to; keep that with `cargo xtask instructions --write`",
                    -change
                )),
                (Some(_), None, _) => comparison.failures.push(format!("{name} was not counted before")),
                (None, Some(_), _) => comparison.failures.push(format!("{name} is not counted any more")),
                _ => {}
            }
        }
        comparison
    }
}

impl Line {
    /// By how many per cent it grew.
    fn change(&self) -> Option<f64> {
        Some((self.now? / self.before? - 1.0) * 100.0)
    }
}

/// What is on either side: first what was counted, in its order.
pub(super) fn lines(counted: &[Counted], committed: &Committed) -> Vec<Line> {
    let mut lines: Vec<Line> = counted
        .iter()
        .map(|Counted { name, each }| Line {
            name: name.clone(),
            now: Some(*each),
            before: committed.instructions.get(name).copied(),
        })
        .collect();
    for (name, before) in &committed.instructions {
        if counted.iter().all(|counted| counted.name != *name) {
            lines.push(Line { name: name.clone(), now: None, before: Some(*before) });
        }
    }
    lines
}

/// For people.
pub(super) fn table(lines: &[Line]) -> String {
    let figure = |figure: Option<f64>| figure.map_or_else(|| "–".to_owned(), |figure| format!("{figure:.2}"));
    let mut text = format!("{:<WIDTH$} {:>14} {:>14} {:>8}\n", "instructions of", "counted", "committed", "");
    for line in lines {
        let change = line.change().map_or_else(String::new, |change| format!("{change:+.1} %"));
        text += &format!(
            "{:<WIDTH$} {:>14} {:>14} {change:>8}\n",
            line.name,
            figure(line.now),
            figure(line.before)
        );
    }
    text
}

/// What to do about failures.
pub(super) const ADVICE: &str = "Find out what grew: count function by function as CONTRIBUTING.md says, before and after. \
     If it was on purpose, `cargo xtask instructions --write` commits to the new numbers; say in the commit why.";

/// By how many per cent something may grow unnoticed.
const TOLERANCE: f64 = 3.0;

const WIDTH: usize = 52;

#[cfg(test)]
mod tests {
    use super::*;

    fn compiler(rustc: &str) -> Compiler {
        Compiler { rustc: rustc.to_owned(), llvm: "22.1.2".to_owned(), host: "x86_64".to_owned() }
    }

    fn counted(all: &[(&str, f64)]) -> Vec<Counted> {
        all.iter().map(|(name, each)| Counted { name: (*name).to_owned(), each: *each }).collect()
    }

    fn compare(now: &[(&str, f64)], before: &[(&str, f64)], rustc: &str) -> Comparison {
        let committed = Committed::new(compiler("1.95.0"), &counted(before));
        Comparison::new(&counted(now), &committed, &compiler(rustc))
    }

    #[test]
    fn more_than_three_per_cent_more_fails_and_says_what_grew() {
        let grown =
            compare(&[("frames", 103.1), ("rows", 102.9)], &[("frames", 100.0), ("rows", 100.0)], "1.95.0");
        assert_eq!(grown.failures, ["frames: 103.1 instructions, 3.1 % more than the 100 committed to"]);
        assert!(grown.notes.is_empty());
    }

    #[test]
    fn fewer_instructions_are_to_be_kept_and_do_not_fail() {
        let shrunk =
            compare(&[("frames", 96.0), ("rows", 97.5)], &[("frames", 100.0), ("rows", 100.0)], "1.95.2");
        assert!(shrunk.failures.is_empty(), "{shrunk:?}");
        let note = "frames: 4.0 % fewer instructions than committed to; keep that with `cargo xtask instructions --write`";
        assert_eq!(shrunk.notes, [note]);
    }

    #[test]
    fn what_is_missing_on_either_side_fails() {
        let changed = compare(&[("new", 1.0)], &[("old", 1.0)], "1.95.0");
        assert_eq!(changed.failures, ["new was not counted before", "old is not counted any more"]);
    }

    #[test]
    fn another_compiler_is_compared_with_and_fails_nothing() {
        let other = compare(&[("frames", 200.0), ("new", 1.0)], &[("frames", 100.0)], "1.96.0");
        assert!(other.failures.is_empty(), "{other:?}");
        assert!(other.notes[0].starts_with("this is rustc 1.96.0 with LLVM 22.1.2"), "{other:?}");
        assert!(table(&other.lines).contains("+100.0 %"), "{}", table(&other.lines));
    }

    #[test]
    fn the_table_shows_what_is_on_one_side_only() {
        let lines = compare(&[("new", 1.5)], &[("old", 20.0)], "1.95.0").lines;
        let rows: Vec<String> =
            table(&lines).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(rows, ["instructions of counted committed", "new 1.50 –", "old – 20.00"]);
    }
}
