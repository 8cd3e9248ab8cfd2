//! The agent may die: what it had captured is in the record, once, and the next agent goes on with its sessions.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tests::agent::{QUICK_ROTATION, SMALL_RING};
use tests::record::Counts;
use tests::wire::{Counted, Wire, frontend};
use tests::{Agent, AgentOptions, Server, ServerOptions, Transport, deps, wait};

/// pgbench runs again and again, prepared, on eight sessions, over TCP, Unix sockets and TLS in turn, and every statement of it is
/// counted; meanwhile the agent is killed at moments that are in step with nothing.
#[test]
fn an_agent_that_is_killed_again_and_again_loses_nothing_and_writes_nothing_twice() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let (executed, counts) = killed_under_load(data.path(), |_, options| options)?;
    println!("{} kills, {executed} statements executed, {counts:?}", kills());
    Ok(())
}

/// The same, and each agent is of another version than the one before it.
#[test]
fn an_agent_that_is_replaced_by_another_version_loses_nothing_and_writes_nothing_twice() -> anyhow::Result<()>
{
    let data = tempfile::tempdir()?;
    let (one, other) = (deps::agent()?, deps::other_agent()?);
    let (executed, counts) = killed_under_load(data.path(), |turn, options| {
        options.program(if turn.is_multiple_of(2) { &one } else { &other })
    })?;
    println!("{} kills, {executed} statements executed, {counts:?}", kills());
    ensure!(counts.writers.len() == 2, "all files were written by {:?}", counts.writers);
    Ok(())
}

/// Kills agents under pgbench; `choose` makes the options of each, by its turn. What was executed is in the record,
/// once. Returns how much that was, and what the record has.
fn killed_under_load(
    data: &Path,
    choose: impl Fn(u64, AgentOptions) -> AgentOptions,
) -> anyhow::Result<(u64, Counts)> {
    let server = ServerOptions::default().tls().start()?;
    deps::run(server.program("pgbench")?.args(["-i", "-q", "-s", "1"]))?;
    let start = |turn| {
        let options = AgentOptions::default().server(&server).data(data);
        choose(turn, options.config(LARGE_RING).config(QUICK_ROTATION)).start()
    };
    let agent = start(0)?;
    let over = AtomicBool::new(false);
    let (killed, rounds) = thread::scope(|scope| {
        let load = scope.spawn(|| rounds_of_pgbench(&server, &over));
        let killed = kill_repeatedly(agent, start);
        over.store(true, Ordering::Release);
        (killed, load.join())
    });
    let agent = killed?;
    let rounds = rounds.ok().context("the load panicked")??;
    server.wait_idle()?;
    agent.end()?;

    let executed = rounds * CLIENTS * TRANSACTIONS;
    let counts = Counts::read(data, "SELECT abalance FROM pgbench_accounts")?;
    ensure!(counts.statements == executed && counts.completed == executed, "{executed} executed: {counts:?}");
    ensure!(counts.distinct_statements == executed, "recorded twice: {counts:?}");
    ensure!(counts.results == executed && counts.distinct_results == executed, "rows: {counts:?}");
    ensure!(counts.gaps == 0 && counts.partial == 0 && counts.unknown == 0, "{counts:?}");
    ensure!(counts.ended == counts.ended_rows, "a session ended twice: {counts:?}");
    Ok((executed, counts))
}

/// Runs pgbench until it is over. Returns how often.
fn rounds_of_pgbench(server: &Server, over: &AtomicBool) -> anyhow::Result<u64> {
    let mut rounds = 0;
    for transport in Transport::ALL.into_iter().cycle().take_while(|_| !over.load(Ordering::Acquire)) {
        let (clients, transactions) = (CLIENTS.to_string(), TRANSACTIONS.to_string());
        let options = ["-n", "-S", "-M", "prepared", "-j", "2", "-c", &clients, "-t", &transactions];
        deps::run(transport.program(server, "pgbench")?.args(options))?;
        rounds += 1;
    }
    Ok(rounds)
}

/// Kills an agent and starts the next, again and again. Returns the last.
fn kill_repeatedly(mut agent: Agent, start: impl Fn(u64) -> anyhow::Result<Agent>) -> anyhow::Result<Agent> {
    for kill in 0..kills() {
        // From the first moment after the start to about a third of a second later.
        wait::pause(Duration::from_millis(5 * (kill * 37 % 61)));
        let left = agent.kill()?;
        agent = start(kill + 1)
            .with_context(|| format!("after kill {kill} of an agent that said:\n{}", left.stderr))?;
        left.adopted();
    }
    Ok(agent)
}

/// Every state that a session can be in when the agent dies, with nothing lost of it.
#[test]
fn sessions_go_on_in_the_middle_of_anything() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let agent = AgentOptions::default().server(&server).data(data.path()).start()?;

    let mut prepared = Wire::login(&server, "prepared")?;
    prepared
        .send(&[frontend::parse("named", "select $1::text", &[]), frontend::message(b'S', &[])].concat())?;
    prepared.until_ready()?;
    let mut halfway = Wire::login(&server, "halfway")?;
    let long = frontend::query(&format!("select length('{}')", "x".repeat(30_000)));
    halfway.send(&long[..20_000])?;
    let mut copying = Wire::login(&server, "copying")?;
    copying.query("create table copied (line text)")?;
    copying.send(&frontend::query("copy copied from stdin"))?;
    ensure!(copying.expect()?.tag == b'G', "no COPY");
    copying.send(&frontend::message(b'd', b"first\nsec"))?;
    let mut running = Wire::login(&server, "running")?;
    running.query("begin")?;
    running.send(&frontend::query("select pg_sleep(3), 'slept'"))?;
    wait::pause(Duration::from_millis(300));

    let _left = agent.kill()?;
    // Nobody reads, but the kernel side captures.
    let bind = |value: &str| {
        let value = Some(value.as_bytes().to_vec());
        [
            frontend::bind("", "named", &[], &[value], &[]),
            frontend::execute("", 0),
            frontend::message(b'S', &[]),
        ]
        .concat()
    };
    prepared.send(&bind("while it was dead"))?;
    prepared.until_ready()?;
    let mut unseen = Wire::login(&server, "unseen")?;
    unseen.query("select 'a session of its own'")?;
    unseen.terminate()?;

    let agent = AgentOptions::default().server(&server).data(data.path()).start()?;
    prepared.send(&bind("to the next agent"))?;
    prepared.until_ready()?;
    prepared.terminate()?;
    halfway.send(&long[20_000..])?;
    halfway.until_ready()?;
    halfway.terminate()?;
    copying.send(&frontend::message(b'd', b"ond\n"))?;
    copying.send(&frontend::message(b'c', &[]))?;
    copying.until_ready()?;
    copying.terminate()?;
    running.until_ready()?;
    running.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;

    record.check_totals()?;
    for session in &record.sessions {
        ensure!(session.gap_bytes == 0 && !session.partial, "{session:?}");
        ensure!(session.end_reason.as_deref() == Some("terminate"), "{session:?}");
    }
    for statement in &record.statements {
        ensure!(statement.status == "completed" && statement.complete, "{statement}");
    }
    let texts = |name: &str| -> anyhow::Result<Vec<String>> {
        let statements = record.statements_of(record.session_named(name)?);
        Ok(statements.iter().map(|row| row.sql.clone().unwrap_or_default()).collect())
    };
    ensure!(texts("prepared")? == ["select $1::text", "select $1::text"]);
    ensure!(texts("unseen")? == ["select 'a session of its own'"]);
    ensure!(texts("running")? == ["begin", "select pg_sleep(3), 'slept'"]);
    let long = record.statement_with("select length(")?;
    ensure!(long.sql.as_ref().is_some_and(|sql| sql.len() == 30_000 + "select length('')".len()));
    let copied = record.statement_with("copy copied")?;
    ensure!(record.rows_of(copied) == [[Some("first".to_owned())], [Some("second".to_owned())]]);
    Ok(())
}

/// The journal is gone, and the states of the sessions with it: what is not known is not guessed.
#[test]
fn a_session_whose_state_is_lost_is_partial_and_never_false() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || AgentOptions::default().server(&server).data(data.path()).start();
    let agent = start()?;
    let mut wire = Wire::login(&server, "forgotten")?;
    wire.query("select 'before'")?;
    agent.wait_drained()?;
    let _left = agent.kill()?;
    for entry in std::fs::read_dir(data.path())? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".journal")) {
            std::fs::remove_dir_all(path)?;
        }
    }
    let agent = start()?;
    for number in 0..3 {
        wire.query(&format!("select 'after {number}'"))?;
    }
    let backend = wire.key.as_ref().map_or(0, |(pid, _)| *pid);
    let counted = leave(wire)?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let session = record.session_of_backend(backend)?;
    ensure!(session.partial, "{session:?}");
    let accounted = session.bytes_in + session.bytes_out + session.gap_bytes;
    ensure!(accounted == counted.sent + counted.received, "{session:?} {counted:?}");
    for statement in record.statements_of(session) {
        let known = |sql: &str| sql.starts_with("select 'after ");
        ensure!(statement.sql.as_deref().is_none_or(known), "{statement}");
    }
    ensure!(record.statement_with("'after 2'")?.complete);
    Ok(())
}

/// The ring overflows while no agent runs.
#[test]
fn what_found_no_room_while_no_agent_ran_is_declared() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || AgentOptions::default().server(&server).config(SMALL_RING).data(data.path()).start();
    let agent = start()?;
    let mut across = Wire::login(&server, "across")?;
    across.query("select 'before'")?;
    let _left = agent.kill()?;
    let mut during = Wire::login(&server, "during")?;
    for wire in [&mut across, &mut during] {
        for _ in 0..10 {
            wire.query("select repeat('x', 400000)")?;
        }
    }
    let during_port = during.port()?.unwrap_or_default();
    let during_counted = leave(during)?;
    let agent = start()?;
    wait::pause(Duration::from_millis(500));
    across.query("select 'after 1'")?;
    across.query("select 'after 2'")?;
    let across_port = across.port()?.unwrap_or_default();
    let across_counted = leave(across)?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    for (port, counted) in [(across_port, across_counted), (during_port, during_counted)] {
        let session = record.session_from_port(port)?;
        let accounted = session.bytes_in + session.bytes_out + session.gap_bytes;
        ensure!(accounted == counted.sent + counted.received, "{session:?} {counted:?}");
        ensure!(session.gap_bytes > 0, "the ring did not overflow: {session:?}");
    }
    record.statement_with("'before'")?;
    ensure!(record.statement_with("'after 2'")?.complete);
    Ok(())
}

/// `kernel.on_stop = "stay"`: a stop is no break either.
#[test]
fn an_agent_that_is_replaced_hands_over() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = |on_stop| {
        let config = format!("kernel = {{ on_stop = '{on_stop}' }}");
        AgentOptions::default().server(&server).config(&config).data(data.path()).start()
    };
    let first = start("stay")?;
    let mut wire = Wire::login(&server, "across")?;
    wire.query("select 'first agent'")?;
    let before = first.stop()?.record;
    let open = before.session_named("across")?;
    ensure!((open.ended_at.as_deref(), open.statements) == (None, 1), "{open:?}");
    wire.query("select 'between two agents'")?;
    let second = start("detach")?;
    wire.query("select 'second agent'")?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = second.stop()?.record;
    // Of rows with the same id, the harness reads the one that counts.
    let session = record.session_named("across")?;
    ensure!(session.session_id == open.session_id && session.ended_at.is_some(), "{session:?}");
    ensure!(session.statements == 3 && session.gap_bytes == 0 && !session.partial, "{session:?}");
    let texts: Vec<_> = record.statements_of(open).iter().filter_map(|row| row.sql.clone()).collect();
    ensure!(
        texts == ["select 'first agent'", "select 'between two agents'", "select 'second agent'"],
        "{texts:?}"
    );
    Ok(())
}

/// Without pins the hooks end with the agent. The next one goes on with its sessions over TCP, and declares what passed
/// in between, to the byte; of a Unix socket the kernel does not say, so there a partial session begins.
#[test]
fn where_nothing_is_pinned_the_break_shows() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || {
        let options = AgentOptions::default().server(&server).data(data.path());
        options.config(tests::agent::UNPINNED).start()
    };
    let agent = start()?;
    let mut tcp = Wire::login(&server, "over tcp")?;
    let mut still = Wire::login(&server, "still")?;
    let mut local = Wire::unix(&server)?;
    local.start(&[("user", "postgres"), ("application_name", "local")])?;
    for wire in [&mut tcp, &mut still, &mut local] {
        wire.query("select 'first agent'")?;
    }
    agent.wait_drained()?;
    let kernel = agent.kernel_side()?;
    let _left = agent.kill()?;
    wait::until("the kernel to drop the hooks", wait::SOON, || {
        Ok((kernel.programs_left()? == 0).then_some(()))
    })?;
    let before = (tcp.sent, tcp.received);
    for wire in [&mut tcp, &mut local] {
        wire.query("select 'nobody'")?;
    }
    let unseen = [tcp.sent - before.0, tcp.received - before.1];
    let agent = start()?;
    for wire in [&mut tcp, &mut still, &mut local] {
        wire.query("select 'second agent'")?;
        wire.query("select 'second agent', 'again'")?;
    }
    let ports = [tcp.port()?.unwrap_or_default(), still.port()?.unwrap_or_default()];
    let counted = [leave(tcp)?, leave(still)?];
    local.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    record.check_totals()?;
    ensure!(record.statement_with("'nobody'").is_err(), "nobody can have seen it");

    for (port, counted) in ports.into_iter().zip(counted) {
        let session = record.session_from_port(port)?;
        let accounted = session.bytes_in + session.bytes_out + session.gap_bytes;
        ensure!(accounted == counted.sent + counted.received, "{session:?} {counted:?}");
        ensure!(session.ended_at.is_some() && !session.partial, "{session:?}");
        let statements = record.statements_of(session);
        let has = |part: &str| {
            statements
                .iter()
                .any(|row| row.complete && row.sql.as_deref().is_some_and(|sql| sql.contains(part)))
        };
        ensure!(has("'first agent'") && has("'again'"), "{statements:?}");
    }
    let gaps = |name: &str| -> anyhow::Result<Vec<_>> {
        let gaps = record.gaps_of(record.session_named(name)?).into_iter();
        let unwatched = gaps.filter(|gap| gap.reason == "agent_stopped");
        Ok(unwatched.map(|gap| (gap.direction.clone(), gap.length.unwrap_or_default())).collect())
    };
    let [sent, received] = unseen;
    ensure!(
        gaps("over tcp")? == [("backend".to_owned(), received), ("frontend".to_owned(), sent)],
        "{:?}, but {unseen:?} passed",
        gaps("over tcp")?
    );
    // Of a session on which nothing passed nothing is missing.
    let still = record.session_named("still")?;
    ensure!(still.gap_bytes == 0 && still.statements == 3, "{still:?}");

    let of_local: Vec<_> = record.sessions.iter().filter(|session| session.transport == "unix").collect();
    let [first, second] = of_local.as_slice() else { anyhow::bail!("{of_local:?}") };
    ensure!(first.ended_at.is_none() && !first.partial, "the first agent saw no end: {first:?}");
    ensure!(second.partial && second.ended_at.is_some(), "{second:?}");
    Ok(())
}

fn leave(mut wire: Wire) -> anyhow::Result<Counted> {
    let counted = wire.counted()?;
    let before = wire.sent;
    wire.terminate()?;
    Ok(Counted { sent: counted.sent + wire.sent - before, ..counted })
}

/// How often the agent is killed; `CAPTURE_KILLS` for a shorter or longer run.
fn kills() -> u64 {
    std::env::var("CAPTURE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

const CLIENTS: u64 = 8;
const TRANSACTIONS: u64 = 2_000;
/// Room for what eight sessions say while no agent runs.
const LARGE_RING: &str = "ring_size = 134217728";
