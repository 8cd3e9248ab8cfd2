//! What the kernel side's programs cost, as the kernel counts it.

use super::figures::Program;
use anyhow::{Context as _, Result};
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;

/// While it lives, the kernel counts how often each program runs, and for how long. That itself takes some tens of
/// nanoseconds a run, which are not in what it counts.
pub(super) struct Counting {
    _on: OwnedFd,
    pid: u32,
    before: BTreeMap<u32, Runs>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Runs {
    count: u64,
    ns: u64,
}

impl Counting {
    /// Of the programs that `pid` has loaded.
    pub(super) fn start(pid: u32) -> Result<Self> {
        let on = enable_stats(Stats::RunTime).context("the kernel does not count what programs take")?;
        Ok(Self { _on: on, pid, before: runs(pid)? })
    }

    /// What they took since the start, for each of so many transactions; what never ran is left out.
    pub(super) fn end(self, transactions: u64) -> Result<Vec<Program>> {
        let names = names();
        let mut programs = Vec::new();
        for (id, now) in runs(self.pid)? {
            let before = self.before.get(&id).copied().unwrap_or_default();
            let (count, ns) = (now.count - before.count, now.ns - before.ns);
            if count > 0 {
                programs.push(Program {
                    name: names.get(&id).cloned().unwrap_or_else(|| id.to_string()),
                    runs: count as f64 / transactions.max(1) as f64,
                    ns: ns as f64 / count as f64,
                });
            }
        }
        programs.sort_by(|a, b| f64::total_cmp(&(b.runs * b.ns), &(a.runs * a.ns)));
        Ok(programs)
    }
}

/// Microseconds of all programs for a transaction.
pub(super) fn sum_us(programs: &[Program]) -> f64 {
    programs.iter().map(|program| program.runs * program.ns / 1e3).sum()
}

fn runs(pid: u32) -> Result<BTreeMap<u32, Runs>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut runs = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {folder}"))?.flatten() {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry.path()).unwrap_or_default();
        runs.extend(parse(&text));
    }
    Ok(runs)
}

/// What `fdinfo` says of a program's descriptor.
fn parse(text: &str) -> Option<(u32, Runs)> {
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
    let runs = Runs { count: field("run_cnt:")?, ns: field("run_time_ns:")? };
    Some((u32::try_from(field("prog_id:")?).ok()?, runs))
}

/// Names of loaded programs. One that is gone when it is asked about has none.
fn names() -> BTreeMap<u32, String> {
    let named = |program: aya::programs::ProgramInfo| Some((program.id(), program.name_as_str()?.to_owned()));
    loaded_programs().flatten().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_programs_descriptor_tells_its_runs() {
        let text = "pos:\t0\nprog_type:\t26\nprog_id:\t17\nrun_time_ns:\t900\nrun_cnt:\t3\n";
        assert_eq!(parse(text), Some((17, Runs { count: 3, ns: 900 })));
        assert_eq!(parse("pos:\t0\nlink_type:\ttracing\nprog_id:\t17\n"), None);
    }
}
