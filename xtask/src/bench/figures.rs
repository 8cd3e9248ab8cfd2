//! What was measured, as it is kept.

use super::round::Round;
use crate::shell;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The figures that are kept, relative to the project's folder.
pub(crate) const KEPT: &str = "docs/performance.json";

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// By name, such as `captured / direct, prepared, 8`.
    pub(super) cases: BTreeMap<String, Compared>,
    /// The kernel side's programs, by the work that they watched.
    pub(super) programs: BTreeMap<String, Vec<Program>>,
    /// With many sessions that do nothing.
    pub(super) idle: Option<Idle>,
    /// By what grows.
    pub(super) growth: BTreeMap<String, Vec<Point>>,
}

/// One case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Compared {
    /// The machine and the server.
    pub(super) on: String,
    /// Seconds of one round.
    pub(super) seconds: u64,
    /// What a second's worth of is the rate.
    pub(super) unit: String,
    pub(super) pairs: Vec<Pair>,
}

/// Two rounds, one right after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pair {
    /// What is compared with.
    pub(super) before: Round,
    /// What is compared.
    pub(super) after: Round,
    /// Processor time of the contender's own process for a transaction, in microseconds.
    pub(super) own_us: Option<f64>,
    /// The most memory that its process ever had, in MiB.
    pub(super) peak_mib: Option<f64>,
    /// Bytes on the disk for a transaction.
    pub(super) bytes: Option<f64>,
    /// What it lacks of what happened.
    pub(super) lost: Option<i64>,
}

/// One program of the kernel side at some work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) name: String,
    /// How often it runs for a transaction, of all processes' doing.
    pub(super) runs: f64,
    /// Nanoseconds of a run.
    pub(super) ns: f64,
}

/// Sessions that do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Idle {
    pub(super) sessions: u32,
    pub(super) seconds: u64,
    /// Of one core.
    pub(super) processor_percent: f64,
    /// The agent's memory at most, and as it is with them, and before them.
    pub(super) peak_mib: f64,
    pub(super) resident_mib: f64,
    pub(super) without_mib: f64,
}

/// What a statement costs at one point of a scale.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    /// Where: statements a second, sessions, bytes of a row, distinct texts, cores.
    pub(super) at: f64,
    /// Transactions a second that were reached.
    pub(super) rate: f64,
    /// Processor time of the agent for a transaction, in microseconds.
    pub(super) agent_us: f64,
    /// Of the kernel side's programs.
    pub(super) kernel_us: f64,
    /// Bytes on the disk.
    pub(super) bytes: f64,
    pub(super) peak_mib: f64,
    /// Statements that the record lacks.
    pub(super) lost: i64,
}

impl Figures {
    /// Those that are kept; none if there are none yet.
    pub(super) fn kept() -> Result<Self> {
        let path = shell::root().join(KEPT);
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        parse(&text)
    }

    /// Takes over what was measured anew.
    pub(super) fn renew(&mut self, newer: Self) {
        self.cases.extend(newer.cases);
        self.programs.extend(newer.programs);
        self.growth.extend(newer.growth);
        self.idle = newer.idle.or(self.idle);
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Reads the file that is kept.
///
/// # Errors
///
/// It is none.
pub(crate) fn parse(text: &str) -> Result<Figures> {
    serde_json::from_str(text).with_context(|| format!("{KEPT} is not as `cargo xtask bench` writes it"))
}

impl Compared {
    /// Throughput, compared: lowest, median, highest.
    pub(super) fn ratio(&self) -> [f64; 3] {
        spread(self.pairs.iter().map(|pair| pair.after.rate / pair.before.rate))
    }

    pub(super) fn median(&self, of: impl Fn(&Pair) -> f64) -> f64 {
        spread(self.pairs.iter().map(of))[1]
    }

    /// The median of what only some contenders have.
    pub(super) fn some_median(&self, of: impl Fn(&Pair) -> Option<f64>) -> Option<f64> {
        let figures: Vec<f64> = self.pairs.iter().filter_map(of).collect();
        (!figures.is_empty()).then(|| spread(figures.into_iter())[1])
    }

    pub(super) fn lost(&self) -> Option<i64> {
        self.pairs.iter().map(|pair| pair.lost).sum()
    }

    pub(super) fn peak_mib(&self) -> Option<f64> {
        self.pairs.iter().filter_map(|pair| pair.peak_mib).reduce(f64::max)
    }
}

/// Lowest, median and highest of some figures; zeros if there are none.
pub(super) fn spread(figures: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(&low), Some(&high)) = (sorted.first(), sorted.last()) else { return [0.0; 3] };
    let middle = sorted.len() / 2;
    let median = match (
        sorted.len() % 2,
        middle.checked_sub(1).and_then(|below| sorted.get(below)),
        sorted.get(middle),
    ) {
        (0, Some(below), Some(above)) => f64::midpoint(*below, *above),
        (_, _, Some(exact)) => *exact,
        _ => low,
    };
    [low, median, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(before: f64, after: f64) -> Pair {
        let round = |rate| Round { rate, ..Round::default() };
        Pair { before: round(before), after: round(after), lost: Some(1), ..Pair::default() }
    }

    #[test]
    fn the_median_is_taken_over_the_pairs() {
        let pairs = vec![pair(100.0, 90.0), pair(50.0, 49.0), pair(80.0, 76.0)];
        let case = Compared { pairs, ..Compared::default() };
        assert_eq!(case.ratio(), [0.9, 0.95, 0.98]);
        assert_eq!(case.lost(), Some(3));
        assert_eq!(case.some_median(|pair| pair.own_us), None);
    }

    #[test]
    fn an_even_number_of_figures_has_a_median_between_the_middle_two() {
        assert_eq!(spread([4.0, 1.0, 3.0, 2.0].into_iter()), [1.0, 2.5, 4.0]);
        assert_eq!(spread(std::iter::empty()), [0.0; 3]);
    }

    #[test]
    fn what_is_measured_anew_replaces_what_was_kept_and_nothing_else() {
        let case = |unit: &str| Compared { unit: unit.to_owned(), ..Compared::default() };
        let figures = |cases: &[(&str, &str)]| Figures {
            cases: cases.iter().map(|(name, unit)| ((*name).to_owned(), case(unit))).collect(),
            ..Figures::default()
        };
        let mut kept = figures(&[("a", "old"), ("b", "old")]);
        kept.renew(figures(&[("b", "new")]));
        assert_eq!(kept, figures(&[("a", "old"), ("b", "new")]));
    }
}
