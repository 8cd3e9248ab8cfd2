//! What a statement costs the capture thread: `cargo bench -p capture-agent --bench statement` prints nanoseconds of
//! processor time per prepared pgbench statement, from its bytes to the recorder's columns, with eight sessions that
//! are saved and committed as the agent does. `cargo xtask instructions` counts instructions of the same.
#![expect(clippy::print_stdout, reason = "a benchmark's output is its result")]
#![expect(clippy::unwrap_used, reason = "a benchmark")]

mod streams;

use streams::processor_time;
use streams::work::{Statements, Work as _};

const ROUNDS: usize = 5;
/// How often each of the sessions tells its recording in a round: 200,000 statements.
const PASSES: u64 = 98;

fn main() {
    let mut rounds: Vec<u64> = (0..ROUNDS).map(|_| round()).collect();
    rounds.sort_unstable();
    println!("{} ns per statement ({} to {})", rounds[ROUNDS / 2], rounds[0], rounds[ROUNDS - 1]);
}

/// Nanoseconds of this thread per statement.
fn round() -> u64 {
    let mut work = Statements::new();
    let from = processor_time();
    let statements: u64 = (0..PASSES).map(|_| work.pass()).sum();
    (processor_time() - from) / statements
}
