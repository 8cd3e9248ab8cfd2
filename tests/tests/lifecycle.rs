//! How the agent starts and stops, and what it leaves behind.

use std::process::Command;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tests::agent::detach;
use tests::wire::Wire;
use tests::{Agent, AgentOptions, Server, deps, oracle, wait};

#[test]
fn a_stop_under_load_drains_and_leaves_no_hook() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = Agent::start(&server)?;
    let kernel = agent.kernel_side()?;
    assert!(!kernel.programs.is_empty());
    let mut wire = Wire::login(&server, "loaded")?;
    for number in 0..2_000 {
        wire.query(&format!("select {number}"))?;
    }
    let finished = agent.stop()?;
    let session = finished.record.session_named("loaded")?;
    assert_eq!(finished.record.statements_of(session).len(), 2_000);
    assert_eq!(session.ended_at, None, "the session is still open");
    assert_eq!(hooks_left(&kernel)?, [""; 0]);
    gone(&kernel)?;
    // The server and its session never noticed.
    wire.query("select 'still here'")?;
    wire.terminate()
}

#[test]
fn a_killed_agent_leaves_its_hooks_until_they_are_detached() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = Agent::start(&server)?;
    let kernel = agent.kernel_side()?;
    let refused = detach(agent.data()).unwrap_err().to_string();
    assert!(refused.contains(&format!("in use by process {}", agent.pid()?)), "{refused}");
    let killed = agent.kill()?;
    assert!(kernel.programs_left()? > 0);
    // Not that of this test alone: others kill agents too.
    let doctor = deps::run(Command::new(deps::agent()?).arg("doctor"))?;
    assert!(doctor.contains("hooks are attached whose agent does not run: /sys/fs/bpf/capture/"), "{doctor}");
    let said = detach(&killed.data)?;
    assert!(said.contains("detached"), "{said}");
    assert_eq!(hooks_left(&kernel)?, [""; 0]);
    gone(&kernel)?;
    assert!(detach(&killed.data)?.contains("nothing is attached"));
    Ok(())
}

#[test]
fn an_agent_that_pins_nothing_takes_its_hooks_with_it() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = AgentOptions::default().server(&server).config(tests::agent::UNPINNED).start()?;
    let kernel = agent.kernel_side()?;
    assert!(kernel.programs_left()? > 0);
    let _killed = agent.kill()?;
    gone(&kernel)
}

#[test]
fn a_later_row_supersedes_that_of_a_session_that_was_open_at_the_stop() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || AgentOptions::default().server(&server).data(data.path()).start();
    let first = start()?;
    let mut wire = Wire::login(&server, "across")?;
    wire.query("select 'first agent'")?;
    let before = first.stop()?.record;
    let open = before.session_named("across")?;
    assert_eq!((open.ended_at.as_deref(), open.statements), (None, 1));
    // Nobody watches.
    wire.query("select 'nobody'")?;
    let second = start()?;
    wire.query("select 'second agent'")?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = second.stop()?.record;
    record.statement_with("'first agent'")?;
    let statement = record.statement_with("'second agent'")?;
    let session = record.sessions.iter().find(|session| session.session_id == statement.session_id);
    assert!(session.is_some_and(|session| session.partial && session.ended_at.is_some()), "{session:?}");
    // It was idle when the second agent came: that reads it from its first statement on.
    assert!(session.is_some_and(|session| (session.statements, session.gap_bytes) == (1, 0)), "{session:?}");
    assert_eq!((statement.status.as_str(), statement.complete), ("completed", true), "{statement}");
    assert!(record.statement_with("'nobody'").is_err());
    Ok(())
}

#[test]
fn a_statement_that_runs_at_the_stop_is_in_flight() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = Agent::start(&server)?;
    let mut wire = Wire::login(&server, "in flight")?;
    wire.send(&tests::wire::frontend::query("select pg_sleep(60)"))?;
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    wait::until("the statement to run", Duration::from_secs(10), || {
        Ok((server.psql(asleep)?.trim() == "1").then_some(()))
    })?;
    let record = agent.stop()?.record;
    let statement = record.statement_with("pg_sleep(60)")?;
    assert_eq!((statement.status.as_str(), statement.duration_us), ("in_flight", None));
    Ok(())
}

#[test]
fn an_interrupt_stops_it_as_well() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = Agent::start(&server)?;
    server.psql("select 'interrupted'")?;
    server.wait_idle()?;
    let pid = Pid::from_raw(i32::try_from(agent.pid()?)?).ok_or_else(|| anyhow::anyhow!("no process"))?;
    kill_process(pid, Signal::INT)?;
    agent.stopped()?.record.statement_with("'interrupted'")?;
    Ok(())
}

#[test]
fn agents_can_share_a_server() -> anyhow::Result<()> {
    let server = Server::start()?;
    let (one, two) = (Agent::start(&server)?, Agent::start(&server)?);
    server.psql("select 'seen twice'")?;
    server.wait_idle()?;
    let (one, two) = (one.stop()?, two.stop()?);
    let log = server.stop()?;
    oracle::compare(&log, &one.record)?;
    oracle::compare(&log, &two.record)?;
    Ok(())
}

#[test]
fn a_wrong_command_line_is_refused_with_words() -> anyhow::Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "data_dir = 7\nno_such_setting = 1\n")?;
    let config = file.path().display().to_string();
    for arguments in [
        vec!["run", "--server", "everything"],
        vec!["run", "--config", "/nowhere/capture.toml"],
        vec!["run", "--config", &config],
        vec!["run", "--data-dir", "/proc/capture"],
    ] {
        let output = Command::new(deps::agent()?).args(&arguments).output()?;
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?} was accepted");
        assert!(!words.contains("panicked") && words.len() > 20, "{arguments:?}: {words}");
    }
    Ok(())
}

#[test]
fn doctor_reports_on_this_machine() -> anyhow::Result<()> {
    let server = Server::start()?;
    let said = deps::run(Command::new(deps::agent()?).arg("doctor"))?;
    for word in ["kernel", "BTF", &server.port().to_string()] {
        assert!(said.contains(word), "no word of {word}:\n{said}");
    }
    Ok(())
}

/// The programs that were attached and have not been removed yet. Those for encrypted sessions were not: no server had any.
fn hooks_left(kernel: &tests::kernel::KernelSide) -> anyhow::Result<Vec<String>> {
    let names = kernel.verified()?.into_iter().map(|(name, _)| name);
    Ok(names.filter(|name| !name.starts_with("tls_")).collect())
}

/// The kernel frees programs a moment after their last descriptor is closed.
fn gone(kernel: &tests::kernel::KernelSide) -> anyhow::Result<()> {
    wait::until("the kernel to drop the hooks", Duration::from_secs(10), || {
        Ok((kernel.programs_left()? == 0).then_some(()))
    })
}
