//! `cargo xtask <verb>`: one file per verb.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    reason = "the bans guard the agent's rooms; tasks print, measure and wait for other programs"
)]

mod agent;
mod bench;
mod build;
mod ci;
mod demo;
mod instructions;
mod kernels;
mod marked;
mod postgres;
mod setup;
mod shell;
mod test;
mod tidy;
mod usage;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Capture's tasks.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    after_help = "A fresh machine needs `cargo xtask demo` only: it sets up what is missing."
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what is missing on this machine
    Setup(setup::Options),
    /// Build the agent for release, eBPF object included
    Build,
    /// Record a short workload on a throwaway server and show what was recorded
    Demo(demo::Options),
    /// Prove it: format, lints, unit tests, real servers and clients, docs, source rules
    Test,
    /// Measure what capturing costs, beside other ways to know what clients did
    Bench(bench::Options),
    /// Count the instructions of the agent's core, and compare them with what is committed
    Instructions(instructions::Options),
    /// Run the core of the tests on Debian's own kernels, in an emulated machine
    Kernels(kernels::Options),
    /// Check the source rules
    Tidy,
    /// `test`, and what takes longer: dependencies' licenses and sources, fuzzing
    Ci,
}

fn main() -> ExitCode {
    match perform(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without a backtrace, whatever the environment says: these are errors of the machine or of the tree.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Setup(options) => setup::run(&options),
        Verb::Build => build::run(),
        Verb::Demo(options) => demo::run(&options),
        Verb::Test => test::run(),
        Verb::Bench(options) => bench::run(&options),
        Verb::Instructions(options) => instructions::run(&options),
        Verb::Kernels(options) => kernels::run(&options),
        Verb::Tidy => tidy::run(),
        Verb::Ci => ci::run(),
    }
}
