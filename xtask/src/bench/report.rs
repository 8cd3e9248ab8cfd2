//! The figures, for people and for programs.

use super::pgbench::{Mode, Round};
use serde_json::{Value, json};
use std::fmt;

/// All pairs of one kind.
pub(super) struct Case {
    pub(super) mode: Mode,
    pub(super) clients: u32,
    /// What is compared with what.
    pub(super) versus: Versus,
    pub(super) pairs: Vec<Pair>,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Versus {
    /// Captured with direct.
    Captured,
    /// Captured while a guardrail is about other sessions, with captured without any.
    Bystanding,
    /// Guarded, but settled when the statement was prepared, with captured without any guardrail.
    Settled,
    /// Held for a verdict at each statement, with captured without any guardrail.
    Held,
}

impl fmt::Display for Versus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Captured => "captured / direct",
            Self::Bystanding => "others guarded / captured",
            Self::Settled => "guarded / captured",
            Self::Held => "held / captured",
        })
    }
}

/// Two rounds, one right after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    /// What is compared with.
    pub(super) direct: Round,
    /// What is compared.
    pub(super) captured: Round,
    /// Processor time of the agent per statement, in microseconds.
    pub(super) agent_us: f64,
    /// The agent's peak memory in MiB.
    pub(super) peak_mib: f64,
    /// Transactions that pgbench counted and the record lacks.
    pub(super) lost: i64,
}

impl Case {
    /// Captured over direct throughput: lowest, median, highest.
    fn ratio(&self) -> [f64; 3] {
        spread(self.pairs.iter().map(|pair| pair.captured.tps / pair.direct.tps))
    }

    fn median(&self, of: impl Fn(&Pair) -> f64) -> f64 {
        spread(self.pairs.iter().map(of))[1]
    }

    fn lost(&self) -> i64 {
        self.pairs.iter().map(|pair| pair.lost).sum()
    }
}

/// One line per case.
pub(super) fn table(cases: &[Case]) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(cases.iter().map(row));
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default());
    let lines = rows.iter().map(|row| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:>width$}")).collect();
        cells.join("  ")
    });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

fn row(case: &Case) -> [String; COLUMNS] {
    let [low, median, high] = case.ratio();
    let both = |of: fn(&Round) -> u64| {
        let direct = case.median(|pair| of(&pair.direct) as f64);
        let captured = case.median(|pair| of(&pair.captured) as f64);
        format!("{direct:.0} -> {captured:.0}")
    };
    [
        case.versus.to_string(),
        case.mode.to_string(),
        case.clients.to_string(),
        format!("{:.0}", case.median(|pair| pair.direct.tps)),
        format!("{:.0}", case.median(|pair| pair.captured.tps)),
        format!("{median:.3} ({low:.3}-{high:.3})"),
        both(|round| round.p50_us),
        both(|round| round.p95_us),
        both(|round| round.p99_us),
        format!("{:.2}", case.median(|pair| pair.agent_us)),
        format!("{:.0}", spread(case.pairs.iter().map(|pair| pair.peak_mib))[2]),
        case.lost().to_string(),
    ]
}

const COLUMNS: usize = 12;

const HEADINGS: [&str; COLUMNS] = [
    "what",
    "protocol",
    "clients",
    "tps before",
    "tps",
    "ratio (spread)",
    "p50 us",
    "p95 us",
    "p99 us",
    "agent us/stmt",
    "peak MiB",
    "lost",
];

/// Everything that was measured, round by round.
pub(super) fn json(about: &str, cases: &[Case]) -> Value {
    let round = |round: &Round| json!({ "tps": round.tps, "transactions": round.transactions, "p50_us": round.p50_us, "p95_us": round.p95_us, "p99_us": round.p99_us });
    let pair = |pair: &Pair| {
        json!({
            "direct": round(&pair.direct),
            "captured": round(&pair.captured),
            "agent_us_per_statement": pair.agent_us,
            "agent_peak_mib": pair.peak_mib,
            "lost_statements": pair.lost,
        })
    };
    let cases: Vec<Value> = cases
        .iter()
        .map(|case| {
            let [low, median, high] = case.ratio();
            json!({
                "what": case.versus.to_string(),
                "protocol": case.mode.to_string(),
                "clients": case.clients,
                "ratio": { "median": median, "lowest": low, "highest": high },
                "pairs": case.pairs.iter().map(pair).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "about": about, "cases": cases })
}

/// Lowest, median and highest of some figures; zeros if there are none.
fn spread(figures: impl Iterator<Item = f64>) -> [f64; 3] {
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

    fn pair(direct: f64, captured: f64) -> Pair {
        let round = |tps| Round { tps, transactions: 10, p50_us: 80, p95_us: 120, p99_us: 150 };
        Pair { direct: round(direct), captured: round(captured), agent_us: 2.0, peak_mib: 40.0, lost: 1 }
    }

    #[test]
    fn the_median_is_taken_over_the_pairs() {
        let case = Case {
            mode: Mode::Simple,
            clients: 8,
            versus: Versus::Captured,
            pairs: vec![pair(100.0, 90.0), pair(50.0, 49.0), pair(80.0, 76.0)],
        };
        assert_eq!(case.ratio(), [0.9, 0.95, 0.98]);
        assert_eq!(case.lost(), 3);
        assert!(table(&[case]).contains("0.950 (0.900-0.980)"));
    }

    #[test]
    fn an_even_number_of_figures_has_a_median_between_the_middle_two() {
        assert_eq!(spread([4.0, 1.0, 3.0, 2.0].into_iter()), [1.0, 2.5, 4.0]);
        assert_eq!(spread(std::iter::empty()), [0.0; 3]);
    }
}
