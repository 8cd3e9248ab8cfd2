//! What Prometheus' clients in all languages tell of their process.

use std::fs;
use std::sync::OnceLock;

use super::{clock, health, metrics};

/// Reads the values that nobody keeps up to date. What cannot be read stays as it was.
pub(super) fn refresh() {
    metrics::CPU.set(clock::processor());
    metrics::START.set(*START.get_or_init(clock::unix));
    metrics::COMMIT_AGE.set(health::COMMIT.age());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    let kibibytes = |name| number(name).map(|size| size * 1024);
    for (metric, value) in [
        (&metrics::RESIDENT, kibibytes("VmRSS")),
        (&metrics::VIRTUAL, kibibytes("VmSize")),
        (&metrics::THREADS, number("Threads")),
        (&metrics::OPEN_FDS, fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as u64)),
        (&metrics::MAX_FDS, rustix::process::getrlimit(rustix::process::Resource::Nofile).current),
    ] {
        if let Some(value) = value {
            metric.set(value);
        }
    }
}

/// The agent begins now.
pub(super) fn begin() {
    START.get_or_init(clock::unix);
}

static START: OnceLock<u64> = OnceLock::new();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_descriptors() {
        refresh();
        for metric in
            [&metrics::CPU, &metrics::RESIDENT, &metrics::THREADS, &metrics::OPEN_FDS, &metrics::MAX_FDS]
        {
            assert!(metric.value() > 0, "{}", metric.name);
        }
        assert!(metrics::START.value() > 1_700_000_000_000_000);
    }
}
