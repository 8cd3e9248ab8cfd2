//! One round of pgbench.

use crate::postgres::Server;
use crate::shell;
use anyhow::{Context as _, Result, ensure};
use std::{fmt, fs};

/// How pgbench sends its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Extended protocol, statements prepared once.
    Prepared,
    /// Simple protocol.
    Simple,
    /// Extended protocol, statements prepared once, over TLS.
    TlsPrepared,
}

impl Mode {
    /// pgbench's own name for the protocol.
    fn protocol(self) -> &'static str {
        match self {
            Self::Prepared | Self::TlsPrepared => "prepared",
            Self::Simple => "simple",
        }
    }

    /// As libpq's `sslmode`.
    fn sslmode(self) -> &'static str {
        match self {
            Self::Prepared | Self::Simple => "disable",
            Self::TlsPrepared => "require",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepared => "prepared",
            Self::Simple => "simple",
            Self::TlsPrepared => "TLS prepared",
        })
    }
}

/// What one round measured.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Round {
    /// Transactions per second, without the time to connect.
    pub(super) tps: f64,
    /// Transactions in all.
    pub(super) transactions: u64,
    /// Median latency in microseconds, of a sample.
    pub(super) p50_us: u64,
    /// 95th percentile of the latency in microseconds, of a sample.
    pub(super) p95_us: u64,
    /// 99th percentile, likewise.
    pub(super) p99_us: u64,
}

/// Runs `pgbench -S` for some seconds.
pub(super) fn run(server: &Server, mode: Mode, clients: u32, seconds: u64) -> Result<Round> {
    let folder = tempfile::tempdir()?;
    let mut pgbench = server.pgbench();
    pgbench.env("PGSSLMODE", mode.sslmode());
    pgbench.current_dir(folder.path()).args(["-n", "-S", "-M", mode.protocol(), "-c", &clients.to_string()]);
    pgbench.args(["-j", &clients.min(2).to_string(), "-T", &seconds.to_string(), "--log"]);
    let printed = shell::read(pgbench.args([&format!("--sampling-rate={SAMPLE}"), "postgres"]))?;
    let number = |label: &str| -> Result<f64> {
        let line = printed.lines().find_map(|line| line.strip_prefix(label));
        let word = line.and_then(|rest| rest.split(['/', ' ']).find(|word| !word.is_empty()));
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("pgbench printed no `{label}`:\n{printed}"))
    };
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder.path())? {
        latencies.extend(fs::read_to_string(entry?.path())?.lines().filter_map(latency));
    }
    ensure!(!latencies.is_empty(), "pgbench logged no transaction");
    latencies.sort_unstable();
    Ok(Round {
        tps: number("tps = ")?,
        transactions: number("number of transactions actually processed: ")? as u64,
        p50_us: percentile(&latencies, 50),
        p95_us: percentile(&latencies, 95),
        p99_us: percentile(&latencies, 99),
    })
}

/// The third field of a line in pgbench's log: microseconds that the transaction took.
fn latency(line: &str) -> Option<u64> {
    line.split(' ').nth(2)?.parse().ok()
}

/// The value that `percent` of a sorted, non-empty sample do not exceed.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

/// Share of transactions whose latency is logged: enough for a 99th percentile, too few to cost throughput.
const SAMPLE: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_of_the_sample() {
        let sorted: Vec<u64> = (1..=100).collect();
        assert_eq!(percentile(&sorted, 50), 50);
        assert_eq!(percentile(&sorted, 95), 95);
        assert_eq!(percentile(&[7], 95), 7);
    }

    #[test]
    fn a_log_line_yields_its_latency() {
        assert_eq!(latency("0 199 2241 0 1175850568 995598"), Some(2_241));
        assert_eq!(latency("nonsense"), None);
    }
}
