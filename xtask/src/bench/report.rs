//! The figures, for people: on a terminal, and in Markdown.

use super::cases::{self, Case};
use super::contender::Contender;
use super::figures::{Compared, Figures, Idle, Pair, Point, Program};
use super::{programs, targets};
use std::fmt::Write as _;

/// Rows of cells, the first of which are headings.
pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    fn new(headings: &[&str]) -> Self {
        Self(vec![headings.iter().map(|heading| (*heading).to_owned()).collect()])
    }

    /// In columns, which are as wide as need be.
    pub(super) fn text(&self) -> String {
        let columns = self.0.first().map_or(0, Vec::len);
        let width = |column: usize| {
            let cells = self.0.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:>width$}"));
            cells.collect::<Vec<_>>().join("  ") + "\n"
        };
        self.0.iter().map(line).collect()
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        for (number, row) in self.0.iter().enumerate() {
            // To a string, which takes everything.
            let _ = writeln!(text, "| {} |", row.join(" | "));
            if number == 0 {
                let _ = writeln!(text, "|{}", "---|".repeat(row.len()));
            }
        }
        text
    }
}

/// The cases that were measured, in their order.
pub(super) fn cases(figures: &Figures) -> Table {
    let mut table = Table::new(&CASES);
    for case in cases::all() {
        if let Some(compared) = figures.cases.get(&case.to_string()) {
            table.0.push(case_row(&case, compared));
        }
    }
    table
}

/// What they shall be.
pub(super) fn targets(figures: &Figures) -> Table {
    let mut table = Table::new(&["what", "aim", "measured", ""]);
    for target in targets::all(figures) {
        let verdict = match (&target.measured, target.met) {
            (None, _) => "",
            (Some(_), true) => "met",
            (Some(_), false) => "not met",
        };
        let measured = target.measured.unwrap_or_else(none);
        table.0.push(vec![target.what.to_owned(), target.aim.to_owned(), measured, verdict.to_owned()]);
    }
    table
}

/// What the README tells: the ratio to direct, and what Capture itself takes.
pub(super) fn summary(figures: &Figures) -> Table {
    let mut table = Table::new(&SUMMARY);
    for case in cases::all() {
        let shown = case.contender == Contender::Captured || case.work.clients == 8;
        let Some(compared) = figures.cases.get(&case.to_string()) else { continue };
        if case.against != Contender::Direct || !shown {
            continue;
        }
        let [low, median, high] = compared.ratio();
        let captured = case.contender.is_capture();
        let own = compared.some_median(|pair| pair.own_us).filter(|_| captured && compared.unit == "tps");
        table.0.push(vec![
            case.contender.to_string(),
            case.work.to_string(),
            rate(compared, |pair| pair.before.rate) + " " + &compared.unit,
            format!("{median:.2} ({low:.2} to {high:.2})"),
            own.map_or_else(none, |us| format!("{us:.1} µs")),
            compared.lost().filter(|_| captured).map_or_else(none, |lost| lost.to_string()),
        ]);
    }
    table
}

fn case_row(case: &Case, compared: &Compared) -> Vec<String> {
    let [low, median, high] = compared.ratio();
    let both = |of: fn(&Pair) -> [f64; 2]| {
        let [before, after] = [0, 1].map(|which: usize| compared.median(|pair| of(pair)[which]));
        if before * after == 0.0 { none() } else { format!("{} → {}", figure(before), figure(after)) }
    };
    let some = |of: fn(&Pair) -> Option<f64>| compared.some_median(of).map_or_else(none, figure);
    vec![
        case.contender.to_string(),
        case.against.to_string(),
        case.work.to_string(),
        format!("{} → {}", rate(compared, |pair| pair.before.rate), rate(compared, |pair| pair.after.rate)),
        format!("{median:.3} ({low:.3}–{high:.3})"),
        both(|pair| [pair.before.p50_us as f64, pair.after.p50_us as f64]),
        both(|pair| [pair.before.p95_us as f64, pair.after.p95_us as f64]),
        both(|pair| [pair.before.p99_us as f64, pair.after.p99_us as f64]),
        both(|pair| [pair.before.server_us, pair.after.server_us]),
        some(|pair| pair.own_us),
        compared.peak_mib().map_or_else(none, |mib| format!("{mib:.0}")),
        some(|pair| pair.bytes),
        compared.lost().map_or_else(none, |lost| lost.to_string()),
    ]
}

fn rate(compared: &Compared, of: fn(&Pair) -> f64) -> String {
    figure(compared.median(of))
}

/// The kernel side's programs.
pub(super) fn programs(figures: &Figures) -> Table {
    let mut table =
        Table::new(&["clients' work", "program", "runs / transaction", "ns / run", "µs / transaction"]);
    for (work, programs) in &figures.programs {
        let row = |program: &Program| {
            let us = program.runs * program.ns / 1e3;
            let cells = [program.name.clone(), format!("{:.2}", program.runs), format!("{:.0}", program.ns)];
            [vec![work.clone()], cells.to_vec(), vec![format!("{us:.2}")]].concat()
        };
        let shown = programs.iter().filter(|program| program.runs >= SELDOM);
        table.0.extend(shown.map(row));
        let sum = format!("{:.2}", programs::sum_us(programs));
        table.0.push([work, "all", "", "", &sum].map(str::to_owned).to_vec());
    }
    table
}

/// One scale.
pub(super) fn growth(name: &str, points: &[Point]) -> Table {
    let mut table = Table::new(&[name, "tps", "agent µs", "kernel side µs", "bytes", "peak MiB", "lost"]);
    let row = |point: &Point| {
        vec![
            figure(point.at),
            figure(point.rate),
            format!("{:.2}", point.agent_us),
            format!("{:.2}", point.kernel_us),
            figure(point.bytes),
            format!("{:.0}", point.peak_mib),
            point.lost.to_string(),
        ]
    };
    table.0.extend(points.iter().map(row));
    table
}

/// In a sentence.
pub(super) fn idle(idle: &Idle) -> String {
    format!(
        "{} sessions that do nothing, for {} s: {:.2} % of a core; memory {:.0} MiB, at most {:.0} MiB; before the first session {:.0} MiB.",
        figure(f64::from(idle.sessions)),
        idle.seconds,
        idle.processor_percent,
        idle.resident_mib,
        idle.peak_mib,
        idle.without_mib
    )
}

/// Three digits or so, thousands apart.
fn figure(number: f64) -> String {
    if number.abs() < 100.0 {
        let digits = if number.abs() < 10.0 { 2 } else { 1 };
        let text = format!("{number:.digits$}");
        return text.strip_suffix(".00").or(text.strip_suffix(".0")).unwrap_or(&text).to_owned();
    }
    let whole = format!("{number:.0}");
    let mut text = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn none() -> String {
    "–".to_owned()
}

const CASES: [&str; 13] = [
    "contender",
    "against",
    "clients' work",
    "rate",
    "ratio (spread)",
    "p50 µs",
    "p95 µs",
    "p99 µs",
    "server µs",
    "own µs",
    "peak MiB",
    "bytes",
    "lost",
];

const SUMMARY: [&str; 6] =
    ["", "clients' work", "direct", "ratio to direct", "agent, processor time per transaction", "lost"];

/// Runs a transaction below which a program is not worth a line.
const SELDOM: f64 = 0.01;

#[cfg(test)]
mod tests {
    use super::super::round::Round;
    use super::*;

    #[test]
    fn a_case_has_a_line_in_both_tables() {
        let round =
            |rate| Round { rate, transactions: 10, p50_us: 80, p95_us: 120, p99_us: 1_500, server_us: 20.0 };
        let pair = Pair {
            before: round(50_000.0),
            after: round(45_000.0),
            own_us: Some(2.5),
            peak_mib: Some(80.0),
            bytes: Some(13.0),
            lost: Some(0),
        };
        let compared = Compared { unit: "tps".into(), pairs: vec![pair], ..Compared::default() };
        let mut figures = Figures::default();
        figures.cases.insert("captured / direct, prepared, 8".into(), compared);
        let line = cases(&figures).text();
        assert!(line.contains("50,000 → 45,000") && line.contains("0.900 (0.900–0.900)"), "{line}");
        let line = summary(&figures).markdown();
        assert!(
            line.ends_with("| captured | prepared, 8 | 50,000 tps | 0.90 (0.90 to 0.90) | 2.5 µs | 0 |\n"),
            "{line}"
        );
    }

    #[test]
    fn figures_have_three_digits_or_thousands_apart() {
        assert_eq!(figure(0.5), "0.50");
        assert_eq!(figure(12.34), "12.3");
        assert_eq!(figure(8.0), "8");
        assert_eq!(figure(1_234_567.0), "1,234,567");
        assert_eq!(figure(123.0), "123");
    }
}
