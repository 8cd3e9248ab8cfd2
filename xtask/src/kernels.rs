//! `cargo xtask kernels`: the core of the tests on Debian's own kernels, in an emulated machine.
//!
//! The guest sees the host's files, so that it runs the very same agent, tests, server and drivers.

mod guest;
mod package;
pub(crate) mod results;
mod suite;
pub(crate) mod table;

use crate::{build, setup, shell};
use anyhow::{Context as _, Result, ensure};
use clap::Args;
use guest::{Ended, Job};
use package::Series;
use results::Results;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use suite::{HOOKS, TOPICS, Topic};

/// Options of `cargo xtask kernels`.
#[derive(Args)]
pub(crate) struct Options {
    /// The kernels, such as 6.1 [default: all]
    kernels: Vec<String>,
    /// With these hooks only (repeatable): fexit, sock_length, sys_exit or tracepoints
    #[arg(long, value_name = "HOOKS")]
    hooks: Vec<String>,
    /// Keep the results, and renew the table of the README
    #[arg(long)]
    write: bool,
}

/// The kernel that CI boots in every run: that of Debian's stable release.
const OF_CI: &str = "6.12";

/// Boots the kernels one after the other, and prints the table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let chosen = chosen(&options.kernels)?;
    let hooks = if options.hooks.is_empty() { HOOKS.to_vec() } else { known(&options.hooks)? };
    ensure!(
        !options.write || hooks.len() == HOOKS.len(),
        "--write keeps whole results: run it without --hooks"
    );
    setup::ensure(setup::For::Kernels)?;
    let programs = Programs::build()?;
    let mut all = Vec::new();
    for series in chosen {
        all.push(examine(series, &hooks, &programs)?);
    }
    println!("\n{}", table::render(&all));
    if options.write {
        table::write(&results::write(&all)?)?;
        println!("kept in {} and {}", results::KEPT, table::PAGE);
    }
    judge(&all, !options.write)
}

/// What every run of CI does: one kernel, and nothing is worse than what is kept.
///
/// # Errors
///
/// A test fails, or one that passed is not among those that ran.
pub(crate) fn of_ci() -> Result<()> {
    let programs = Programs::build()?;
    let results = examine(chosen(&[OF_CI.to_owned()])?[0], &HOOKS, &programs)?;
    judge(&[results], true)
}

fn judge(all: &[Results], compared: bool) -> Result<()> {
    let mut wrong: Vec<String> = all.iter().flat_map(Results::failures).collect();
    if compared {
        let kept = results::read()?;
        for now in all {
            let before = kept.iter().find(|kept| kept.series == now.series);
            wrong.extend(before.map(|before| now.lost(before)).unwrap_or_default());
        }
    }
    wrong.sort();
    wrong.dedup();
    ensure!(
        wrong.is_empty(),
        "these tests fail, or passed when {} was written and no more; what they said stands above, and \
         `cargo xtask kernels KERNEL --hooks HOOKS` runs them again:\n  {}",
        results::KEPT,
        wrong.join("\n  ")
    );
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Series>> {
    let of_name = |name: &String| {
        let found = package::ALL.iter().find(|series| series.name == name);
        found.with_context(|| {
            format!("no kernel `{name}`: there are {}", package::ALL.map(|series| series.name).join(", "))
        })
    };
    if names.is_empty() { Ok(package::ALL.iter().collect()) } else { names.iter().map(of_name).collect() }
}

fn known(names: &[String]) -> Result<Vec<&'static str>> {
    let of_name = |name: &String| {
        let found = HOOKS.into_iter().find(|hooks| hooks == name);
        found.with_context(|| format!("no hooks `{name}`: there are {}", HOOKS.join(", ")))
    };
    names.iter().map(of_name).collect()
}

/// What the guest runs.
struct Programs {
    agent: PathBuf,
    /// The test programs, by name.
    tests: BTreeMap<String, PathBuf>,
}

impl Programs {
    fn build() -> Result<Self> {
        ensure!(
            std::env::consts::ARCH == "x86_64",
            "the kernels to boot are those of x86-64; this is another machine"
        );
        let agent = build::agent()?;
        let mut command = shell::cargo();
        command.args(["test", "--locked", "--no-run", "-p", "tests", "--message-format=json"]);
        let said = shell::stage("building the tests", || shell::read(&mut command))?;
        let artifact = |line: &str| -> Option<(String, PathBuf)> {
            let message: serde_json::Value = serde_json::from_str(line).ok()?;
            let program = message["executable"].as_str()?;
            Some((message["target"]["name"].as_str()?.to_owned(), program.into()))
        };
        Ok(Self { agent, tests: said.lines().filter_map(artifact).collect() })
    }

    fn test(&self, name: &str) -> Result<&Path> {
        self.tests
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("there is no test program `{name}`"))
    }
}

/// Runs the suite on one kernel.
fn examine(series: &'static Series, hooks: &[&'static str], programs: &Programs) -> Result<Results> {
    let kernel = package::ensure(series)?;
    let hooks: Vec<_> = hooks.iter().copied().filter(|hooks| !series.lacks.contains(hooks)).collect();
    let plan = plan(&hooks);
    let jobs = jobs(&plan, programs)?;
    let visit = guest::run(&format!("Linux {} with {}", series.name, hooks.join(", ")), &kernel, &jobs)?;
    let doctor = visit.jobs.first().map(|job| job.said.as_str()).unwrap_or_default();
    let lacks = results::lacks(doctor).with_context(|| format!("on Linux {}: {doctor}", visit.release))?;
    let mut of_hooks: BTreeMap<String, results::Hooks> = BTreeMap::new();
    for (step, ended) in plan.iter().zip(visit.jobs.iter().skip(1)) {
        let missing = step.topic.needs.and_then(|check| lacks.get(check));
        report(step, ended, missing);
        if missing.is_none() {
            let topics = of_hooks.entry(step.hooks.to_owned()).or_default();
            topics.entry(step.topic.name.to_owned()).or_default().add(step.program, step.tests, ended);
        }
    }
    Ok(Results {
        series: series.name.to_owned(),
        suite: series.suite.to_owned(),
        version: kernel.version,
        hooks: of_hooks,
        lacks,
    })
}

/// One test program's part of a topic, with one family of hooks.
struct Step {
    hooks: &'static str,
    topic: &'static Topic,
    program: &'static str,
    tests: &'static [&'static str],
}

fn plan(hooks: &[&'static str]) -> Vec<Step> {
    let mut steps = Vec::new();
    for (number, hooks) in hooks.iter().copied().enumerate() {
        for topic in TOPICS.iter().filter(|topic| topic.each || number == 0) {
            let step = |(program, tests): &(&'static str, &'static [&'static str])| Step {
                hooks,
                topic,
                program,
                tests,
            };
            steps.extend(topic.tests.iter().map(step));
        }
    }
    steps
}

/// Doctor, then the steps.
fn jobs(plan: &[Step], programs: &Programs) -> Result<Vec<Job>> {
    let agent = programs.agent.display().to_string();
    let mut jobs = vec![Job {
        name: "doctor".to_owned(),
        command: vec![agent.clone(), "doctor".to_owned(), "--json".to_owned()],
        environment: Vec::new(),
    }];
    for step in plan {
        let mut command = vec![programs.test(step.program)?.display().to_string(), "--exact".to_owned()];
        command.extend(step.tests.iter().map(|test| (*test).to_owned()));
        jobs.push(Job {
            name: format!(
                "{}.{}.{}",
                step.hooks,
                step.topic.name.replace(' ', "-").replace(':', ""),
                step.program
            ),
            command,
            environment: vec![("CAPTURE_AGENT", agent.clone()), ("CAPTURE_HOOKS", step.hooks.to_owned())],
        });
    }
    Ok(jobs)
}

/// Says how long a step took, and all that was said where something failed, unless the kernel lacks what it needs.
fn report(step: &Step, ended: &Ended, missing: Option<&String>) {
    let (verdict, words) = match (missing, ended.status) {
        (Some(missing), _) => (missing.as_str(), ""),
        (None, Some(0)) => ("passed", ""),
        (None, Some(_)) => ("FAILED", ended.said.as_str()),
        (None, None) => ("did not end", ended.said.as_str()),
    };
    let what = format!("{}: {} ({})", step.hooks, step.topic.name, step.program);
    println!("    {what:<50} {:>9}  {verdict}", shell::human(ended.time));
    if !words.is_empty() {
        println!("{words}");
    }
}
