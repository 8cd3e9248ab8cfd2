//! Servers that start while the agent runs, or start again: their encrypted sessions are read from the first on.

use std::collections::HashSet;
use std::time::Duration;

use tests::{Agent, AgentOptions, Record, Server, ServerOptions, wait};

/// The probes of packaged servers are there before one is started: nobody waits for them here.
#[test]
fn an_installed_server_is_read_from_its_first_session() -> anyhow::Result<()> {
    let (agent, port) = agent_before_the_server("server")?;
    let mut server = ServerOptions::default().tls().port(port).start()?;
    let texts: Vec<_> = (0..5).map(|start| format!("select 'at once, {start}'")).collect();
    for text in &texts {
        server.psql(text)?;
        server.restart()?;
    }
    server.wait_idle()?;
    whole(&agent.stop()?.record, &texts)
}

/// The kernel takes longer to attach the first probe of a file than a server takes to its first session. Once it has one, it stays
/// for a while.
#[test]
fn a_server_that_starts_again_after_a_while_is_read_from_its_first_session() -> anyhow::Result<()> {
    let busy = Server::start()?;
    let port = tests::server::free_port()?;
    let mut agent = AgentOptions::default().server(&busy).port(port).expecting(1).start()?;
    let mut server = ServerOptions::default().version(17).tls().port(port).start()?;
    agent.wait_for(&format!("will be read pid={} probes", server.pid()?))?;
    server.psql("select 'before'")?;
    // Longer than from one look at all processes to the next, while anything is said.
    server.restart_after(|| {
        for _ in 0..15 {
            busy.psql("select 'meanwhile'")?;
            wait::pause(Duration::from_millis(500));
        }
        Ok(())
    })?;
    server.psql("select 'after'")?;
    for server in [&busy, &server] {
        server.wait_idle()?;
    }
    whole(&agent.stop()?.record, &["select 'before'", "select 'meanwhile'", "select 'after'"])
}

/// Of a library, nobody knows before the server has mapped it.
#[test]
fn a_server_whose_library_is_probed_stays_so_through_a_restart() -> anyhow::Result<()> {
    let (mut agent, port) = agent_before_the_server("library")?;
    let mut server = ServerOptions::default().tls().port(port).start()?;
    agent.wait_for("encrypted sessions will be read")?;
    server.psql("select 'the first session'")?;
    server.restart()?;
    agent.wait_for(&format!("will be read pid={} probes", server.pid()?))?;
    server.psql("select 'after the restart'")?;
    server.wait_idle()?;
    whole(&agent.stop()?.record, &["select 'the first session'", "select 'after the restart'"])
}

fn agent_before_the_server(source: &str) -> anyhow::Result<(Agent, u16)> {
    let port = tests::server::free_port()?;
    Ok((AgentOptions::default().port(port).tls(source).expecting(0).start()?, port))
}

/// Exactly these texts were recorded, and nothing of their sessions is missing.
fn whole(record: &Record, texts: &[impl AsRef<str>]) -> anyhow::Result<()> {
    let recorded: HashSet<_> = record.statements.iter().filter_map(|row| row.sql.as_deref()).collect();
    let expected: HashSet<_> = texts.iter().map(AsRef::as_ref).collect();
    anyhow::ensure!(recorded == expected, "{recorded:?}");
    for session in &record.sessions {
        anyhow::ensure!(!session.partial && session.gap_bytes == 0, "{session:?}");
    }
    Ok(())
}
