//! Servers that start while the agent runs, or start again: their encrypted sessions are read from the first on.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use tests::{Agent, AgentOptions, Record, Server, ServerOptions, deps, wait};

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

/// `initdb` tells that a server will start, wherever its program lies.
#[test]
fn a_server_for_which_a_data_directory_is_made_is_read_from_its_first_session() -> anyhow::Result<()> {
    const VERSION: u32 = 16;
    let (agent, port) = agent_before_the_server("server")?;
    let program = deps::server_program(VERSION, "postgres")?;
    ensure!(probes_of(&program)? == 0, "somebody has probes in {} already", program.display());
    tests::server::run_initdb(VERSION)?;
    wait::until("the probes of a server that does not run yet", Duration::from_secs(10), || {
        Ok((probes_of(&program)? >= 2).then_some(()))
    })?;
    let server = ServerOptions::default().version(VERSION).tls().port(port).start()?;
    server.psql("select 'at once'")?;
    server.wait_idle()?;
    whole(&agent.stop()?.record, &["select 'at once'"])
}

/// Of a library, nobody knows before the server has mapped it.
#[test]
fn a_server_whose_library_is_probed_stays_so_through_a_restart() -> anyhow::Result<()> {
    let (mut agent, port) = agent_before_the_server("library")?;
    let mut server = ServerOptions::default().tls().port(port).start()?;
    agent.wait_for("encrypted sessions will be read")?;
    agent.wait_for("server found")?;
    server.psql("select 'the first session'")?;
    server.restart()?;
    agent.wait_for(&format!("will be read pid={} probes", server.pid()?))?;
    server.psql("select 'after the restart'")?;
    server.wait_idle()?;
    whole(&agent.stop()?.record, &["select 'the first session'", "select 'after the restart'"])
}

/// How many probes stand in `file`, by the names under which agents pin them.
fn probes_of(file: &Path) -> anyhow::Result<usize> {
    let inode = format!("_{:x}_", fs::metadata(file)?.ino());
    let mut probes = 0;
    for folder in fs::read_dir("/sys/fs/bpf/capture").into_iter().flatten() {
        // Another agent's may go meanwhile.
        let pins = fs::read_dir(folder?.path()).into_iter().flatten().filter_map(Result::ok);
        let names = pins.map(|pin| pin.file_name().to_string_lossy().into_owned());
        probes += names.filter(|name| name.starts_with("link_tls_") && name.contains(&inode)).count();
    }
    Ok(probes)
}

fn agent_before_the_server(source: &str) -> anyhow::Result<(Agent, u16)> {
    let port = tests::server::free_port()?;
    Ok((AgentOptions::default().port(port).tls(source).expecting(0).start()?, port))
}

/// Exactly these texts were recorded, and nothing of their sessions is missing.
fn whole(record: &Record, texts: &[impl AsRef<str>]) -> anyhow::Result<()> {
    let recorded: HashSet<_> = record.statements.iter().filter_map(|row| row.sql.as_deref()).collect();
    let expected: HashSet<_> = texts.iter().map(AsRef::as_ref).collect();
    ensure!(recorded == expected, "{recorded:?}");
    for session in &record.sessions {
        ensure!(!session.partial && session.gap_bytes == 0, "{session:?}");
    }
    Ok(())
}
