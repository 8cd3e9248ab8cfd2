//! One round: clients that work for some seconds, and what was seen of it.

use super::work::{COPIES, Kind, Work};
use crate::postgres::Server;
use crate::{shell, usage};
use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

/// What one round measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Round {
    /// Units a second, without the time to connect.
    pub(super) rate: f64,
    /// Transactions in all.
    pub(super) transactions: u64,
    /// Median latency of a transaction in microseconds, of a sample.
    pub(super) p50_us: u64,
    /// 95th percentile, likewise.
    pub(super) p95_us: u64,
    /// 99th percentile, likewise.
    pub(super) p99_us: u64,
    /// Processor time of the server and all its backends for a transaction, in microseconds; 0 if it is not known.
    pub(super) server_us: f64,
}

/// How the clients reach the server.
#[derive(Clone, Debug)]
pub(super) struct Via {
    /// The port, on 127.0.0.1.
    pub(super) port: u16,
    /// What the clients ask the server to set, as in `PGOPTIONS`.
    pub(super) options: &'static str,
}

/// Has the clients work.
pub(super) fn run(server: &Server, work: &Work, via: &Via, seconds: u64) -> Result<Round> {
    let folder = tempfile::tempdir()?;
    let before = usage::of_family(server.pid())?;
    let mut round = match work.kind {
        Kind::CopyOut | Kind::CopyIn => copy(server, work, via)?,
        _ => pgbench(server, work, via, seconds, folder.path())?,
    };
    // What a backend used is its postmaster's once that has waited for it.
    thread::sleep(REAP_TIME);
    let used = usage::of_family(server.pid())?.saturating_sub(before);
    round.server_us = used.as_secs_f64() * 1e6 / round.transactions.max(1) as f64;
    Ok(round)
}

fn pgbench(server: &Server, work: &Work, via: &Via, seconds: u64, folder: &Path) -> Result<Round> {
    let mut pgbench = server.pgbench();
    pgbench.env("PGSSLMODE", if work.tls { "require" } else { "disable" }).env("PGOPTIONS", via.options);
    pgbench.current_dir(folder).args([
        "-p",
        &via.port.to_string(),
        "-n",
        "-T",
        &seconds.to_string(),
        "--log",
    ]);
    pgbench.args(["-c", &work.clients.to_string(), "-j", &work.clients.min(2).to_string()]);
    // Enough of them for a 99th percentile, too few to cost throughput.
    let mut sample = SAMPLE;
    match &work.kind {
        Kind::Select(protocol) => {
            pgbench.args(["-S", "-M", protocol.name()]);
        }
        Kind::TpcB => {
            pgbench.args(["-M", "prepared"]);
        }
        Kind::Connects => {
            pgbench.args(["-S", "-C"]);
        }
        Kind::Rows => {
            sample = 1.0;
            fs::write(folder.join("script"), "SELECT * FROM pgbench_accounts\n")?;
            pgbench.args(["-f", "script"]);
        }
        Kind::Script { text, protocol, rate, .. } => {
            fs::write(folder.join("script"), text)?;
            pgbench.args(["-f", "script", "-M", protocol.name()]);
            if let Some(rate) = rate {
                pgbench.args(["-R", &rate.to_string()]);
            }
        }
        Kind::CopyOut | Kind::CopyIn => {}
    }
    let printed = shell::read(pgbench.args([&format!("--sampling-rate={sample}"), "postgres"]))?;
    let number = |label: &str| -> Result<f64> {
        let line = printed.lines().find_map(|line| line.strip_prefix(label));
        let word = line.and_then(|rest| rest.split(['/', ' ']).find(|word| !word.is_empty()));
        word.and_then(|word| word.parse().ok())
            .with_context(|| format!("pgbench printed no `{label}`:\n{printed}"))
    };
    let mut latencies = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("pgbench_log") {
            latencies.extend(fs::read_to_string(entry.path())?.lines().filter_map(latency));
        }
    }
    ensure!(!latencies.is_empty(), "pgbench logged no transaction");
    let transactions = number("number of transactions actually processed: ")? as u64;
    Ok(of_latencies(number("tps = ")? * work.units(), transactions, latencies))
}

/// A gigabyte once, however long it takes.
fn copy(server: &Server, work: &Work, via: &Via) -> Result<Round> {
    let mut psql = server.psql("postgres", "postgres");
    psql.args(["-h", "127.0.0.1", "-p", &via.port.to_string()]);
    psql.env("PGSSLMODE", "disable").env("PGOPTIONS", via.options);
    let file = copied(server);
    if work.kind == Kind::CopyOut {
        psql.args(["-c", &format!("COPY ({}) TO STDOUT", accounts())]);
        psql.stdin(Stdio::null()).stdout(Stdio::null());
    } else {
        if !file.is_file() {
            let mut make = server.psql("postgres", "postgres");
            make.args(["-c", &format!("COPY ({}) TO STDOUT", accounts())]);
            shell::run(make.stdout(fs::File::create(&file)?))?;
        }
        let mut empty = server.psql("postgres", "postgres");
        shell::run(empty.args(["-c", &format!("{COPY_TABLE}; TRUNCATE bench_copy")]))?;
        // From memory: the disk is not what is measured.
        io::copy(&mut fs::File::open(&file)?, &mut io::sink())?;
        psql.args(["-c", "COPY bench_copy FROM STDIN"]).stdin(fs::File::open(&file)?);
    }
    let began = Instant::now();
    shell::run(&mut psql)?;
    let took = began.elapsed();
    let us = u64::try_from(took.as_micros())?;
    Ok(of_latencies(work.units() / took.as_secs_f64(), 1, vec![us]))
}

/// The accounts, as often as makes a gigabyte.
fn accounts() -> String {
    format!("SELECT a.* FROM generate_series(1, {COPIES}), pgbench_accounts AS a")
}

fn copied(server: &Server) -> std::path::PathBuf {
    server.socket_dir().join("copied")
}

fn of_latencies(rate: f64, transactions: u64, mut latencies: Vec<u64>) -> Round {
    latencies.sort_unstable();
    let [p50_us, p95_us, p99_us] = [50, 95, 99].map(|percent| percentile(&latencies, percent));
    Round { rate, transactions, p50_us, p95_us, p99_us, server_us: 0.0 }
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

const REAP_TIME: Duration = Duration::from_millis(300);

/// Share of transactions whose latency is logged.
const SAMPLE: f64 = 0.02;

const COPY_TABLE: &str = "SET client_min_messages = warning; \
    CREATE UNLOGGED TABLE IF NOT EXISTS bench_copy (aid int, bid int, abalance int, filler char(84))";

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
