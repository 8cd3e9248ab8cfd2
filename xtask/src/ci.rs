//! `cargo xtask ci`: the tests, on another kernel as well, and what takes longer, counts instructions or looks at dependencies.

use crate::{instructions, kernels, setup, shell, test};
use anyhow::{Context as _, Result};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs everything that `.ci/run` runs.
pub(crate) fn run() -> Result<()> {
    setup::ensure(setup::For::All)?;
    // Advisories are left out on purpose: they need today's database from the network, and a check of the same
    // commit must not change its result overnight. `cargo deny check advisories` is for people.
    shell::step(
        "cargo deny: bans, licenses, sources",
        deny().args(["check", "bans", "licenses", "sources"]),
    )?;
    test::run()?;
    println!("\ninstructions");
    instructions::run(&instructions::Options::default())?;
    println!("\nanother kernel");
    kernels::of_ci()?;
    let targets = fuzz_targets(shell::root())?;
    for target in &targets {
        shell::step(&format!("fuzzing {target}"), &mut fuzz(target, FUZZ_TIME)?)?;
    }
    println!("ci: everything passed, {} fuzz targets among it", targets.len());
    Ok(())
}

fn deny() -> Command {
    let mut command = shell::cargo();
    command.args(["deny", "--locked"]);
    command
}

/// One fuzz target, from its kept corpus alone and with a fixed seed: the result of a commit must not change
/// overnight. People fuzz longer and with other seeds (`cargo fuzz run --sanitizer none TARGET`). What is found
/// anew stays out of the kept corpus: a run must not change the work tree.
fn fuzz(target: &str, time: Duration) -> Result<Command> {
    let found = shell::target_dir()?.join("fuzz-found").join(target);
    let kept = shell::root().join("fuzz/corpus").join(target);
    // What an earlier run left would lead this one elsewhere. It may not be there.
    let _ = std::fs::remove_dir_all(&found);
    std::fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
    let mut command = shell::cargo();
    command
        // No sanitizer: the rooms under fuzz hold no unsafe code, and so a stable compiler will do.
        .args(["fuzz", "run", "--sanitizer", "none", target])
        .args([&found, &kept])
        .args(["--", "-max_len=65536", "-rss_limit_mb=1024", "-print_final_stats=1", "-seed=1"])
        .arg(format!("-max_total_time={}", time.as_secs()));
    Ok(command)
}

/// The names of the fuzz targets, sorted.
fn fuzz_targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("fuzz/fuzz_targets");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("no fuzz targets in {}", folder.display()))?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_string_lossy().strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    anyhow::ensure!(!names.is_empty(), "no fuzz targets in {}", folder.display());
    Ok(names)
}

const FUZZ_TIME: Duration = Duration::from_secs(60);
