//! What the figures shall be, and what they are.

use super::figures::{Compared, Figures};

/// One aim.
pub(super) struct Target {
    pub(super) what: &'static str,
    /// In words.
    pub(super) aim: &'static str,
    /// In words; none if it was not measured.
    pub(super) measured: Option<String>,
    pub(super) met: bool,
}

/// All of them.
pub(super) fn all(figures: &Figures) -> Vec<Target> {
    let mut targets: Vec<Target> =
        RATIOS.iter().map(|(what, case, least)| ratio(figures, what, case, *least)).collect();
    let case = |name: &str| figures.cases.get(name);
    let captured = || figures.cases.iter().filter(|(name, _)| name.starts_with("captured / direct"));

    let added = case("captured / direct, prepared, 1")
        .map(|compared| compared.median(|pair| pair.after.p50_us as f64 - pair.before.p50_us as f64));
    targets
        .push(most("added latency, 1 client, p50", "3 µs or less", added, 3.0, |us| format!("{us:.0} µs")));
    let own =
        case("captured / direct, prepared, 8").and_then(|compared| compared.some_median(|pair| pair.own_us));
    let two = |us: f64| format!("{us:.2} µs");
    targets.push(most(
        "the agent's processor time per statement, prepared, 8",
        "3 µs or less",
        own,
        3.0,
        two,
    ));
    let lost = captured().filter_map(|(_, compared)| compared.lost()).reduce(|a, b| a + b);
    let lost = lost.map(|lost| lost as f64);
    targets.push(most("statements and rows lost, in all cases", "0", lost, 0.0, |lost| format!("{lost:.0}")));

    let mib = |mib: f64| format!("{mib:.0} MiB");
    let idle = figures.idle;
    let without = idle.map(|idle| idle.without_mib);
    targets.push(most("the agent's memory, without sessions", "64 MB", without, 61.0, mib));
    let peak = captured().filter_map(|(_, compared)| compared.peak_mib()).reduce(f64::max);
    targets.push(most("the same at most, in all cases", "256 MB", peak, 244.0, mib));
    let with = idle.map(|idle| idle.peak_mib);
    targets.push(most("the same with 1,000 sessions that do nothing", "256 MB", with, 244.0, mib));
    let percent = idle.map(|idle| idle.processor_percent);
    let of_core = |percent: f64| format!("{percent:.2} %");
    targets.push(most("processor time then", "under 0.1 % of a core", percent, 0.1, of_core));
    targets
}

fn ratio(figures: &Figures, what: &'static str, case: &str, least: f64) -> Target {
    let ratio = figures.cases.get(case).map(Compared::ratio);
    Target {
        what,
        aim: match least {
            0.98 => "0.98 or better",
            0.95 => "0.95 or better",
            0.93 => "0.93 or better",
            _ => "0.90 or better",
        },
        measured: ratio.map(|[low, median, high]| format!("{median:.3} ({low:.3}–{high:.3})")),
        met: ratio.is_some_and(|[_, median, _]| median >= least),
    }
}

fn most(
    what: &'static str,
    aim: &'static str,
    measured: Option<f64>,
    most: f64,
    words: impl Fn(f64) -> String,
) -> Target {
    Target {
        what,
        aim,
        measured: measured.map(words),
        met: measured.is_some_and(|measured| measured <= most),
    }
}

/// Throughput against direct: what, the case, and the least that it shall be.
const RATIOS: [(&str, &str, f64); 7] = [
    ("pgbench -S prepared, 8 clients", "captured / direct, prepared, 8", 0.95),
    ("the same, simple protocol", "captured / direct, simple, 8", 0.95),
    ("the same over TLS", "captured / direct, TLS prepared, 8", 0.93),
    ("TPC-B, 8 clients", "captured / direct, TPC-B, 8", 0.98),
    ("a SELECT of 1,000,000 rows", "captured / direct, 1,000,000 rows, 1", 0.90),
    ("COPY of 1 GB to the client", "captured / direct, COPY 1 GB out, 1", 0.90),
    ("COPY of 1 GB from the client", "captured / direct, COPY 1 GB in, 1", 0.90),
];

#[cfg(test)]
mod tests {
    use super::super::cases;
    use super::super::figures::Pair;
    use super::super::round::Round;
    use super::*;

    #[test]
    fn each_ratio_is_of_a_case_that_is_measured() {
        let names: Vec<String> = cases::all().iter().map(ToString::to_string).collect();
        assert!(RATIOS.iter().all(|(_, case, _)| names.iter().any(|name| name == case)));
    }

    #[test]
    fn what_was_not_measured_is_not_met() {
        assert!(all(&Figures::default()).iter().all(|target| !target.met && target.measured.is_none()));
    }

    #[test]
    fn a_median_that_reaches_the_aim_meets_it() {
        let round = |rate| Round { rate, ..Round::default() };
        let pair = Pair { before: round(100.0), after: round(96.0), own_us: Some(3.5), ..Pair::default() };
        let mut figures = Figures::default();
        let compared = Compared { pairs: vec![pair], ..Compared::default() };
        figures.cases.insert("captured / direct, prepared, 8".into(), compared);
        let targets = all(&figures);
        let target = |what: &str| targets.iter().find(|target| target.what.contains(what)).unwrap();
        assert!(target("pgbench -S prepared").met);
        let own = target("processor time per statement");
        assert!(!own.met && own.measured.as_deref() == Some("3.50 µs"));
    }
}
