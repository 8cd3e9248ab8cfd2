//! `cargo xtask bench`: what capturing costs, measured on one server in one run, beside other ways to know what
//! clients did.
//!
//! Rounds with and without a contender alternate in pairs, so that a slow machine is slow for both; the order within
//! a pair alternates too. The ratio of each pair is what counts, its median and spread are what is told.

mod cases;
mod chart;
mod contender;
mod figures;
mod growth;
mod idle;
mod page;
mod programs;
mod report;
mod round;
mod targets;
mod work;

use crate::postgres::Server;
use crate::{build, setup, shell, test};
use anyhow::{Context as _, Result, ensure};
use cases::Case;
use clap::Args;
use contender::Contender;
use figures::{Compared, Figures, Pair, Program};
pub(crate) use figures::{KEPT, parse};
pub(crate) use page::{PLACES, render};
use programs::Counting;
use round::Round;
use std::cell::OnceCell;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use work::{Kind, Protocol, SCALE, Work};

/// Options of `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct Options {
    /// Pairs of rounds for each case
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Seconds of one round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only what has this in its name, such as `TLS`, `pgbouncer`, `programs`, `idle` or `growth`
    #[arg(long)]
    only: Option<String>,
    /// Only list what would be measured
    #[arg(long)]
    list: bool,
    /// Measure this agent instead of building the tree's
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// Also write the figures to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Renew the figures that the documentation tells
    #[arg(long)]
    write: bool,
}

/// Measures, and prints tables.
pub(crate) fn run(options: &Options) -> Result<()> {
    let plan = Plan::of(options);
    if options.list {
        plan.names().iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    setup::ensure(setup::For::Bench)?;
    test::machine()?;
    nobody_captures()?;
    let agent = options.agent.clone().map_or_else(build::agent, Ok)?;
    let bench = Bench::start(agent)?;
    let figures = measure(&bench, &plan, options)?;
    print(&figures);
    if let Some(file) = &options.json {
        figures.write(file)?;
        println!("figures: {}", file.display());
    }
    if options.write {
        let mut kept = Figures::kept()?;
        kept.renew(figures);
        page::write(&kept)?;
    }
    Ok(())
}

/// Makes sure that no agent's hooks are attached already: all rounds would carry them, those without a contender too.
fn nobody_captures() -> Result<()> {
    let pinned = fs::read_dir(PINS).into_iter().flatten().flatten();
    let pinned: Vec<_> = pinned.map(|entry| entry.path().display().to_string()).collect();
    ensure!(
        pinned.is_empty(),
        "agents' hooks are attached, which would slow all that is measured: {}; stop the agents, and \
         `capture-agent detach --all` removes what dead ones left",
        pinned.join(", ")
    );
    Ok(())
}

/// Where agents pin their hooks unless they are told otherwise.
const PINS: &str = "/sys/fs/bpf/capture";

/// What shall be measured.
struct Plan {
    cases: Vec<Case>,
    programs: Vec<Work>,
    idle: bool,
    growth: Vec<&'static str>,
}

impl Plan {
    fn of(options: &Options) -> Self {
        let wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
        let select = |protocol, tls| Work { tls, ..Work::new(Kind::Select(protocol), 8) };
        let programs = [
            select(Protocol::Prepared, false),
            select(Protocol::Simple, false),
            select(Protocol::Prepared, true),
        ];
        Self {
            cases: cases::all().into_iter().filter(|case| wanted(&case.to_string())).collect(),
            programs: programs.into_iter().filter(|work| wanted(&format!("programs, {work}"))).collect(),
            idle: wanted("idle"),
            growth: growth::names().filter(|name| wanted(&format!("growth, {name}"))).collect(),
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.cases.iter().map(Case::to_string).collect();
        names.extend(self.programs.iter().map(|work| format!("programs, {work}")));
        names.extend(self.idle.then(|| "idle".to_owned()));
        names.extend(self.growth.iter().map(|name| format!("growth, {name}")));
        names
    }
}

fn measure(bench: &Bench, plan: &Plan, options: &Options) -> Result<Figures> {
    let mut figures = Figures::default();
    let on = bench.on()?;
    for case in &plan.cases {
        let pairs = bench.pairs(case, options)?;
        let unit = case.work.unit().to_owned();
        let compared = Compared { on: on.clone(), seconds: options.seconds, unit, pairs };
        figures.cases.insert(case.to_string(), compared);
    }
    figures.programs = growth::programs(bench, &plan.programs, options.seconds)?;
    if plan.idle {
        figures.idle = Some(shell::stage("idle sessions", || idle::run(bench, IDLE_SECONDS))?);
    }
    for name in &plan.growth {
        let points = growth::run(bench, name, options.pairs.min(3), options.seconds)?;
        figures.growth.insert((*name).to_owned(), points);
    }
    Ok(figures)
}

fn print(figures: &Figures) {
    if let Some(compared) = figures.cases.values().next() {
        println!("\n{}; {} s a round\n\n{}", compared.on, compared.seconds, report::cases(figures).text());
    }
    if !figures.programs.is_empty() {
        println!("{}", report::programs(figures).text());
    }
    if let Some(idle) = &figures.idle {
        println!("{}\n", report::idle(idle));
    }
    for (name, points) in &figures.growth {
        println!("{}", report::growth(name, points).text());
    }
}

/// What is measured with.
struct Bench {
    program: PathBuf,
    server: Server,
    /// One that has loaded pgaudit.
    auditing: OnceCell<Server>,
}

impl Bench {
    fn start(program: PathBuf) -> Result<Self> {
        Ok(Self { program, server: filled(&[])?, auditing: OnceCell::new() })
    }

    /// The same agent with another server.
    fn anew(&self) -> Result<Self> {
        Self::start(self.program.clone())
    }

    /// The server of a contender.
    fn of(&self, contender: Contender) -> Result<&Server> {
        if contender != Contender::PgAudit {
            return Ok(&self.server);
        }
        if self.auditing.get().is_none() {
            let server = filled(&["shared_preload_libraries=pgaudit"])?;
            return Ok(self.auditing.get_or_init(|| server));
        }
        self.auditing.get().context("the second server is gone")
    }

    fn pairs(&self, case: &Case, options: &Options) -> Result<Vec<Pair>> {
        // Caches, the servers' and the processor's, are warm before the first figure counts.
        for contender in [case.against, case.contender] {
            let server = self.of(contender)?;
            let via = round::Via { port: server.port(), options: "" };
            round::run(server, &case.work, &via, options.seconds.min(2))?;
        }
        let pair = |number: usize| {
            let what = format!("{case}, pair {} of {}", number + 1, options.pairs);
            shell::stage(&what, || self.pair(case, options.seconds, number % 2 == 1))
        };
        (0..options.pairs).map(pair).collect()
    }

    fn pair(&self, case: &Case, seconds: u64, contender_first: bool) -> Result<Pair> {
        let before = || Ok::<Round, anyhow::Error>(self.watched(case.against, &case.work, seconds)?.after);
        if contender_first {
            let pair = self.watched(case.contender, &case.work, seconds)?;
            return Ok(Pair { before: before()?, ..pair });
        }
        let before = before()?;
        Ok(Pair { before, ..self.watched(case.contender, &case.work, seconds)? })
    }

    /// One round with a contender; there is nothing yet to compare it with.
    fn watched(&self, contender: Contender, work: &Work, seconds: u64) -> Result<Pair> {
        Ok(self.observed(contender, work, seconds, false)?.0)
    }

    /// The same, and if so asked, what the kernel side's programs took, which the kernel counts meanwhile.
    fn observed(
        &self,
        contender: Contender,
        work: &Work,
        seconds: u64,
        programs: bool,
    ) -> Result<(Pair, Vec<Program>)> {
        let running = contender.start(self)?;
        let counting = running.pid().filter(|_| programs).map(Counting::start).transpose()?;
        let before = running.usage()?;
        let after = round::run(self.of(contender)?, work, &running.via(), seconds)?;
        if before.is_some() {
            // The last batch is still on its way; its cost belongs to the round.
            thread::sleep(SETTLE);
        }
        let used = running.usage()?.zip(before).map(|(after, before)| after - before);
        let programs = counting.map(|counting| counting.end(after.transactions)).transpose()?;
        let kept = running.end(work, &after)?;
        let transactions = after.transactions.max(1) as f64;
        let pair = Pair {
            before: Round::default(),
            after,
            own_us: used.map(|used| used.processor.as_secs_f64() * 1e6 / transactions),
            peak_mib: used.map(|used| used.peak_kib as f64 / 1_024.0),
            bytes: kept.bytes.map(|bytes| bytes as f64 / transactions),
            lost: kept.lost,
        };
        Ok((pair, programs.unwrap_or_default()))
    }

    /// The machine and the server.
    fn on(&self) -> Result<String> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel has no version")?;
        let cores = thread::available_parallelism()?;
        Ok(format!("{}, scale {SCALE}; Linux {}, {cores} cores", self.server.version()?, kernel.trim()))
    }
}

/// A server with pgbench's tables.
fn filled(settings: &[&str]) -> Result<Server> {
    let settings = [&["shared_buffers=512MB", "max_connections=1100"], settings].concat();
    let server = shell::stage("starting a PostgreSQL server", || Server::start_with_tls(&settings))?;
    let mut fill = server.pgbench();
    shell::step("filling pgbench's tables", fill.args(["-i", "-q", "-s", &SCALE.to_string(), "postgres"]))?;
    Ok(server)
}

/// A batch of rows is at most half a second old when it is encoded.
const SETTLE: Duration = Duration::from_millis(700);

const IDLE_SECONDS: u64 = 30;
