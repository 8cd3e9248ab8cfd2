//! The host loses its power: what was said longer ago than the journal's interval is in the record, once, every published file
//! can be read, and the seals fit.
//!
//! The record lies on a file system of its own ([`Disk::cut_power`]): every dirty page is dropped. The server's disk stays.
#![expect(clippy::disallowed_types, reason = "the longest lost interval needs a clock")]

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tests::agent::{QUICK_ROTATION, UNPINNED};
use tests::wire::Wire;
use tests::{Agent, AgentOptions, Disk, Record, Server, wait};

#[test]
fn what_was_said_before_the_journals_interval_survives_a_failure_of_power() -> anyhow::Result<()> {
    let server = Server::start()?;
    let disk = Disk::make("mkfs.ext4", 512 << 20)?;
    let data = disk.folder().join("data");
    let mut said = Vec::new();
    let (mut lost, mut longest) = (0, Duration::ZERO);
    for turn in 0..cuts() {
        disk.mount()?;
        let agent = start(&server, &data)?;
        let (statements, cut) = work_until_the_cut(&server, &disk, agent, turn, said.len())?;
        // What the disk has: every published file can be read, before anybody mends anything.
        disk.unmount()?;
        disk.mount()?;
        if data.is_dir() {
            Record::read(&data).with_context(|| format!("after failure {turn}"))?;
        }
        disk.unmount()?;
        said.extend(statements.into_iter().map(|at| cut.saturating_duration_since(at)));
    }
    disk.mount()?;
    // The last agent completes what the ones before it left.
    let finished = start(&server, &data)?.stop()?;
    finished.verify()?;
    let mut found: HashMap<usize, usize> = HashMap::new();
    for row in &finished.record.statements {
        let number = row.sql.as_deref().and_then(|sql| sql.strip_prefix("select ")?.parse().ok());
        *found.entry(number.context("a statement that nobody sent")?).or_default() += 1;
    }
    for (number, before_the_cut) in said.iter().enumerate() {
        match found.remove(&number).unwrap_or(0) {
            0 => (lost, longest) = (lost + 1, longest.max(*before_the_cut)),
            1 => {}
            times => anyhow::bail!("statement {number} is recorded {times} times"),
        }
    }
    println!(
        "{} failures of power, {} statements answered, {lost} of them lost, all answered within {} ms of the failure; \
         the journal's interval is {} ms",
        cuts(),
        said.len(),
        longest.as_millis(),
        SYNC.as_millis()
    );
    ensure!(said.len() as u64 > 20 * cuts(), "the load was too low to tell");
    ensure!(longest <= SYNC + wait::patient(SLACK), "lost {longest:?} before the power failed");
    drop(finished);
    disk.unmount()
}

/// Sends numbered statements, from `next` on, until the power fails. Yields when each was answered, and when it failed.
fn work_until_the_cut(
    server: &Server,
    disk: &Disk,
    agent: Agent,
    turn: u64,
    next: usize,
) -> anyhow::Result<(Vec<Instant>, Instant)> {
    let dark = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| -> anyhow::Result<Vec<Instant>> {
            let mut wire = Wire::login(server, "numbered")?;
            let mut answered = Vec::new();
            // Whoever is answered after that has been talking to a host without power.
            while !dark.load(Ordering::Acquire) {
                wire.query(&format!("select {}", next + answered.len()))?;
                answered.push(Instant::now());
                wait::pause(Duration::from_micros(300));
            }
            wire.terminate()?;
            Ok(answered)
        });
        // In step with nothing, from the first moments on to some rotations later.
        wait::pause(Duration::from_millis(50 + turn * 7_919 % LONGEST_LIFE_MS));
        let cut = disk.cut_power().map(|()| Instant::now());
        dark.store(true, Ordering::Release);
        agent.kill()?.adopted();
        let answered = load.join().ok().context("the load panicked")??;
        Ok((answered, cut?))
    })
}

fn start(server: &Server, data: &Path) -> anyhow::Result<Agent> {
    let journal = format!("journal = {{ sync_ms = {} }}", SYNC.as_millis());
    let options = AgentOptions::default().server(server).data(data).config(QUICK_ROTATION);
    // The host's memory is gone, so nothing of the kernel side is left either.
    options.config(UNPINNED).config(&journal).config("[compaction]\nfiles = 4").start()
}

/// How often the power fails; `CAPTURE_POWER_CUTS` for a longer run.
fn cuts() -> u64 {
    std::env::var("CAPTURE_POWER_CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// The journal is brought to the disk as often.
const SYNC: Duration = Duration::from_millis(200);

/// What passes beside: until the agent looks at the ring and commits, and until a disk that others use has taken it.
const SLACK: Duration = Duration::from_millis(500);

/// How long an agent works at most.
const LONGEST_LIFE_MS: u64 = 1_800;
