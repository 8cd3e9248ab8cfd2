//! How the cost of a statement grows: with the rate, sessions, bytes, distinct texts and cores.

use super::Bench;
use super::contender::Contender;
use super::figures::{Point, Program, spread};
use super::programs;
use super::work::{Kind, Protocol, Work};
use crate::shell;
use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeMap;

/// A scale, and the work at each of its points.
struct Scale {
    name: &'static str,
    points: &'static [u32],
    work: fn(u32) -> Work,
}

/// The names of all.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SCALES.iter().map(|scale| scale.name).chain([CORES])
}

/// Measures the scale of this name, `laps` times at each point.
pub(super) fn run(bench: &Bench, name: &str, laps: usize, seconds: u64) -> Result<Vec<Point>> {
    if name == CORES {
        return cores(bench, laps, seconds);
    }
    let scale = SCALES.iter().find(|scale| scale.name == name).context("no such scale")?;
    let point = |at: &u32| {
        shell::stage(&format!("{name}: {at}"), || point(bench, *at, &(scale.work)(*at), laps, seconds))
    };
    scale.points.iter().map(point).collect()
}

/// The median of some rounds.
fn point(bench: &Bench, at: u32, work: &Work, laps: usize, seconds: u64) -> Result<Point> {
    let laps = (0..laps).map(|_| once(bench, work, seconds)).collect::<Result<Vec<Point>>>()?;
    let median = |of: fn(&Point) -> f64| spread(laps.iter().map(of))[1];
    Ok(Point {
        at: f64::from(at),
        rate: median(|lap| lap.rate),
        agent_us: median(|lap| lap.agent_us),
        kernel_us: median(|lap| lap.kernel_us),
        bytes: median(|lap| lap.bytes),
        peak_mib: laps.iter().map(|lap| lap.peak_mib).fold(0.0, f64::max),
        lost: laps.iter().map(|lap| lap.lost).sum(),
    })
}

fn once(bench: &Bench, work: &Work, seconds: u64) -> Result<Point> {
    let (pair, programs) = bench.observed(Contender::Captured, work, seconds, true)?;
    Ok(Point {
        at: 0.0,
        rate: pair.after.rate,
        agent_us: pair.own_us.unwrap_or_default(),
        kernel_us: programs::sum_us(&programs),
        bytes: pair.bytes.unwrap_or_default(),
        peak_mib: pair.peak_mib.unwrap_or_default(),
        lost: pair.lost.unwrap_or_default(),
    })
}

/// With everything, the server and its clients too, on fewer cores. What this thread starts stays on its cores.
fn cores(bench: &Bench, laps: usize, seconds: u64) -> Result<Vec<Point>> {
    let all = sched_getaffinity(None)?;
    let numbers: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| all.is_set(*cpu)).collect();
    let mut points = Vec::new();
    let mut count = 1;
    while count <= numbers.len() {
        let mut some = CpuSet::new();
        numbers.iter().take(count).for_each(|cpu| some.set(*cpu));
        sched_setaffinity(None, &some)?;
        let measured = shell::stage(&format!("{CORES}: {count}"), || {
            let bench = bench.anew()?;
            point(&bench, u32::try_from(count)?, &select(8, None), laps, seconds)
        });
        sched_setaffinity(None, &all)?;
        points.push(measured?);
        count *= 2;
    }
    Ok(points)
}

fn select(clients: u32, rate: Option<u32>) -> Work {
    let text =
        "\\set aid random(1, 1000000)\nSELECT abalance FROM pgbench_accounts WHERE aid = :aid /* bench */;\n";
    script("select", text.to_owned(), Protocol::Prepared, clients, rate)
}

fn script(name: &str, text: String, protocol: Protocol, clients: u32, rate: Option<u32>) -> Work {
    Work::new(Kind::Script { name: name.to_owned(), text, protocol, rate }, clients)
}

const SCALES: [Scale; 4] = [
    Scale {
        name: "statements a second",
        points: &[300, 1_000, 3_000, 10_000, 30_000],
        work: |rate| select(8, Some(rate)),
    },
    Scale { name: "sessions", points: &[1, 8, 64, 256, 1_000], work: |clients| select(clients, Some(5_000)) },
    Scale {
        name: "bytes of a row",
        points: &[10, 100, 1_000, 10_000, 100_000],
        work: |bytes| {
            let text = format!("SELECT repeat('x', {bytes}) /* bench */;\n");
            script("row", text, Protocol::Prepared, 8, Some(1_000))
        },
    },
    Scale {
        name: "distinct texts",
        points: &[1, 10, 100, 1_000, 10_000, 100_000],
        work: |count| {
            let text = format!("\\set n random(1, {count})\nSELECT 1 AS c:n /* bench */;\n");
            script("texts", text, Protocol::Simple, 8, Some(5_000))
        },
    },
];

const CORES: &str = "cores";

/// The programs' own names as keys of what they took at each kind of work.
pub(super) fn programs(
    bench: &Bench,
    works: &[Work],
    seconds: u64,
) -> Result<BTreeMap<String, Vec<Program>>> {
    let each = |work: &Work| {
        let what = format!("the kernel side's programs: {work}");
        let observed = || bench.observed(Contender::Captured, work, seconds, true);
        Ok((work.to_string(), shell::stage(&what, observed)?.1))
    };
    works.iter().map(each).collect()
}
