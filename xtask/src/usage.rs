//! What processes use, as `/proc` tells it.

use crate::shell;
use anyhow::{Context as _, Result};
use std::fs;
use std::ops::Sub;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// User and system time.
    pub(crate) processor: Duration,
    /// The memory that it has, in KiB.
    pub(crate) resident_kib: u64,
    /// The most that it ever had.
    pub(crate) peak_kib: u64,
}

impl Usage {
    /// Of one process, without its children.
    ///
    /// # Errors
    ///
    /// The process is gone.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))
            .with_context(|| format!("process {pid} is gone"))?;
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("/proc/{pid}/status has no {name}"))
        };
        let (resident_kib, peak_kib) = (kib("VmRSS:")?, kib("VmHWM:")?);
        Ok(Self { processor: of_threads(pid)?, resident_kib, peak_kib })
    }
}

/// Processor time of a process's threads, without those that have ended: in nanoseconds, where `stat` has hundredths of
/// seconds.
fn of_threads(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for thread in
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?
    {
        // One that ends meanwhile has no more to say.
        let said = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanos += said.split_whitespace().next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(Duration::from_nanos(nanos))
}

/// Processor time of a process and of all that it ever started, also of those that have ended. Children of its
/// children count once they have ended.
///
/// # Errors
///
/// The process is gone.
pub(crate) fn of_family(pid: u32) -> Result<Duration> {
    let stat = Stat::of(pid)?;
    let mut ticks = stat.own + stat.children;
    for entry in fs::read_dir("/proc")?.flatten() {
        let child = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // A process may end meanwhile. What it used is its parent's then, of which the next look tells.
        if let Some(child) = child.and_then(|child| Stat::of(child).ok()).filter(|child| child.parent == pid)
        {
            ticks += child.own + child.children;
        }
    }
    duration(ticks)
}

/// What `/proc/PID/stat` says, see proc(5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Ticks of its own, and of its children that it has waited for.
    own: u64,
    children: u64,
}

impl Stat {
    fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))
            .with_context(|| format!("process {pid} is gone"))?;
        Self::parse(&text).context("/proc reads other than proc(5) says")
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may hold anything.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number)?.parse::<u64>().ok();
        // The fields 4, and 14 to 17.
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            own: ticks(11)? + ticks(12)?,
            children: ticks(13)? + ticks(14)?,
        })
    }
}

fn duration(ticks: u64) -> Result<Duration> {
    static PER_SECOND: OnceLock<u64> = OnceLock::new();
    let per_second = match PER_SECOND.get() {
        Some(per_second) => *per_second,
        None => {
            let text = shell::read(Command::new("getconf").arg("CLK_TCK"))?;
            let ticks = text.trim().parse().with_context(|| format!("getconf printed {text}"))?;
            *PER_SECOND.get_or_init(|| ticks)
        }
    };
    Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
}

impl Sub for Usage {
    type Output = Self;

    /// What was used in between; memory is as it was later.
    fn sub(self, before: Self) -> Self {
        Self { processor: self.processor.saturating_sub(before.processor), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_also_when_the_name_holds_parentheses() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 7 3 20 0 1 0 1 2 3";
        assert_eq!(Stat::parse(stat), Some(Stat { parent: 1, own: 200, children: 10 }));
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn a_child_counts_while_it_runs_and_afterwards() {
        let own = std::process::id();
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let running = of_family(own).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_family(own).unwrap() >= running);
        assert!(running > Duration::from_millis(20), "{running:?}");
        let used = Usage::of(own).unwrap();
        assert!(used.peak_kib > 0 && used.processor > Duration::ZERO);
    }
}
