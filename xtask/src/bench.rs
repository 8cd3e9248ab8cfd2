//! `cargo xtask bench`: what capturing costs, measured with pgbench on one server in one run.
//!
//! Direct and captured rounds alternate in pairs, so that a slow machine is slow for both; the order within a
//! pair alternates too. The ratio of each pair is what counts, its median and spread are what is printed.

mod pgbench;
mod report;

use crate::agent::Agent;
use crate::postgres::Server;
use crate::{build, setup, shell, test};
use anyhow::{Context as _, Result};
use clap::Args;
use pgbench::{Mode, Round};
use report::{Case, Pair, Versus};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Pairs of rounds for each case
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of one round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// pgbench's scale: 100,000 rows each
    #[arg(long, default_value_t = 10)]
    scale: u32,
    /// Only cases whose name has this in it, such as `TLS` or `held`
    #[arg(long)]
    only: Option<String>,
    /// Also write the figures to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures every case and prints a table.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(setup::For::Demo)?;
    test::machine()?;
    let program = build::agent()?;
    let server =
        shell::stage("starting a PostgreSQL server", || Server::start_with_tls(&["shared_buffers=512MB"]))?;
    shell::step(
        "filling pgbench's tables",
        server.pgbench().args(["-i", "-q", "-s", &options.scale.to_string(), "postgres"]),
    )?;
    let bench = Bench { program, server, seconds: options.seconds, ticks_per_second: ticks_per_second()? };

    let mut cases = Vec::new();
    for (versus, mode, clients) in CASES {
        let name = format!("{versus}, {mode}, {clients}");
        if options.only.as_ref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let mut case = Case { mode, clients, versus, pairs: Vec::new() };
        // Caches, the server's and the processor's, are warm before the first figure counts.
        bench.direct(mode, clients)?;
        for number in 0..options.pairs {
            let what =
                format!("{versus}, {mode}, {clients} client(s), pair {} of {}", number + 1, options.pairs);
            case.pairs.push(shell::stage(&what, || bench.pair(versus, mode, clients, number % 2 == 1))?);
        }
        cases.push(case);
    }
    let about = format!(
        "{}, pgbench -S, scale {}, {} s a round",
        bench.server.version()?,
        options.scale,
        options.seconds
    );
    println!("\n{about}\n\n{}", report::table(&cases));
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&report::json(&about, &cases))?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        println!("figures: {}", file.display());
    }
    Ok(())
}

struct Bench {
    program: PathBuf,
    server: Server,
    seconds: u64,
    ticks_per_second: u64,
}

impl Bench {
    /// A round to compare with, and one to compare.
    fn pair(&self, versus: Versus, mode: Mode, clients: u32, captured_first: bool) -> Result<Pair> {
        let before = || match versus {
            Versus::Captured => self.direct(mode, clients),
            Versus::Bystanding | Versus::Settled | Versus::Held => {
                Ok(self.captured(mode, clients, None)?.captured)
            }
        };
        let rules = match versus {
            Versus::Captured => None,
            Versus::Bystanding => Some(format!("match = 'session.user == \"another\"'\n{RULE}")),
            Versus::Settled | Versus::Held => Some(RULE.to_owned()),
        };
        if captured_first {
            let mut pair = self.captured(mode, clients, rules.as_deref())?;
            pair.direct = before()?;
            return Ok(pair);
        }
        let direct = before()?;
        Ok(Pair { direct, ..self.captured(mode, clients, rules.as_deref())? })
    }

    fn direct(&self, mode: Mode, clients: u32) -> Result<Round> {
        pgbench::run(&self.server, mode, clients, self.seconds)
    }

    fn captured(&self, mode: Mode, clients: u32, rule: Option<&str>) -> Result<Pair> {
        let folder = tempfile::Builder::new().prefix("capture-bench-").tempdir()?;
        let config = folder.path().join("capture.toml");
        std::fs::write(&config, rule.map_or_else(String::new, |rule| format!("[[guardrail]]\n{rule}")))?;
        let agent = Agent::start_with(&self.program, folder.path(), self.server.port(), Some(&config))?;
        let before = agent.usage()?;
        let captured = self.direct(mode, clients)?;
        // The last batch is still on its way; its cost belongs to the round.
        thread::sleep(SETTLE);
        let after = agent.usage()?;
        agent.stop()?;
        let ticks = after.ticks - before.ticks;
        let agent_seconds = Duration::from_millis(ticks * 1_000 / self.ticks_per_second).as_secs_f64();
        Ok(Pair {
            agent_us: agent_seconds * 1e6 / captured.transactions as f64,
            peak_mib: after.peak_kib as f64 / 1_024.0,
            lost: captured.transactions as i64 - recorded(folder.path())?,
            direct: Round::default(),
            captured,
        })
    }
}

/// How many of pgbench's statements are in the record, counted by DuckDB rather than by our own reader.
fn recorded(data_dir: &Path) -> Result<i64> {
    let mut python = Command::new(setup::python());
    let text = shell::read(python.args(["-c", COUNT]).arg(data_dir.join("statements")))?;
    text.trim().parse().with_context(|| format!("DuckDB counted {text}"))
}

fn ticks_per_second() -> Result<u64> {
    let text = shell::read(Command::new("getconf").arg("CLK_TCK"))?;
    text.trim().parse().with_context(|| format!("getconf printed {text}"))
}

/// What is compared, how pgbench speaks, and with how many clients.
const CASES: [(Versus, Mode, u32); 9] = [
    (Versus::Captured, Mode::Prepared, 1),
    (Versus::Captured, Mode::Prepared, 8),
    (Versus::Captured, Mode::Simple, 1),
    (Versus::Captured, Mode::Simple, 8),
    (Versus::Captured, Mode::TlsPrepared, 8),
    (Versus::Bystanding, Mode::Prepared, 8),
    (Versus::Settled, Mode::Prepared, 8),
    (Versus::Held, Mode::Simple, 1),
    (Versus::Held, Mode::Simple, 8),
];

/// Lets everything pass that pgbench sends.
const RULE: &str = "name = 'no-drop'\nwhen = '\"drop\" in stmt.kinds'\naction = 'block'\n";

const SETTLE: Duration = Duration::from_millis(300);

const COUNT: &str = "
import duckdb, sys
files = sys.argv[1] + '/*/*.parquet'
query = 'SELECT count(*) FROM read_parquet(?) WHERE sql LIKE ?'
print(duckdb.execute(query, [files, 'SELECT abalance FROM pgbench_accounts%']).fetchone()[0])
";
