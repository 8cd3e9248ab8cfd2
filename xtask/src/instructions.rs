//! `cargo xtask instructions`: how many instructions the agent's core takes, compared with what is committed.
//!
//! Wall time depends on what else a machine does; instructions hardly do. Valgrind's callgrind counts those of a benchmark
//! that does some work so often and then twice as often: the difference is free of everything that happens once. Valgrind
//! shows every program the same processor, so the variants of `memcpy` and the like that are chosen by it are the
//! same on all that have AVX2.

mod callgrind;
mod committed;
mod compare;

use crate::{setup, shell};
use anyhow::{Result, bail};
use callgrind::Program;
use clap::Args;
use committed::{Committed, Compiler};
use compare::Comparison;

/// Options of `cargo xtask instructions`.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Commit to what is counted: write it to the file that later runs are compared with
    #[arg(long)]
    write: bool,
}

/// Counts, prints a table, and fails if something takes more than before.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::ensure(setup::For::Build)?;
    setup::ensure_valgrind()?;
    let compiler = Compiler::in_use()?;
    let program = Program::build()?;
    let mut counted = Vec::new();
    for work in program.works()? {
        counted.extend(shell::stage(&format!("counting: {}", work.name), || program.count(&work))?);
    }
    if options.write {
        // What was committed to before may be missing, or of another version of this program.
        let before = Committed::read().unwrap_or_else(|_| Committed::none(&compiler));
        println!("\n{}", compare::table(&compare::lines(&counted, &before)));
        Committed::new(compiler, &counted).write()?;
        println!("written to {}", committed::FILE);
        return Ok(());
    }
    let committed = Committed::read()?;
    let comparison = Comparison::new(&counted, &committed, &compiler);
    println!("\n{}", compare::table(&comparison.lines));
    for note in &comparison.notes {
        println!("note: {note}");
    }
    if !comparison.failures.is_empty() {
        bail!("{}\n{}", comparison.failures.join("\n"), compare::ADVICE);
    }
    Ok(())
}
