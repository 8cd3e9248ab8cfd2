//! Connections between their acceptance and the fork that serves them, with each family of hooks that loads everywhere.

use std::fs::Permissions;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tests::wire::{Wire, frontend};
use tests::{AgentOptions, Server, ServerOptions, capture_with, deps};

const FAMILIES: [&str; 2] = ["sock_length", "sys_exit"];

/// The server receives what such a client had sent.
#[test]
fn a_client_that_resets_its_connection_before_it_is_served_has_a_session() -> anyhow::Result<()> {
    for family in FAMILIES {
        let mut clients = Vec::new();
        let agent = AgentOptions::default().hooks(family);
        let captured = capture_with(ServerOptions::default(), agent, |server, _| {
            clients = (0..3).map(|_| reset_before_the_fork(server)).collect::<anyhow::Result<_>>()?;
            server.psql("select 1")?;
            Ok(())
        })?;
        for (port, sent) in clients {
            let session = captured.record().session_from_port(port)?;
            assert_eq!((session.bytes_in, session.gap_bytes), (sent, 0), "{family}: {session:?}");
        }
        captured.compare()?;
    }
    Ok(())
}

/// The client's port, and how many bytes it sent.
fn reset_before_the_fork(server: &Server) -> anyhow::Result<(u16, u64)> {
    let postmaster = Pid::from_raw(server.pid()?.cast_signed()).context("no process")?;
    kill_process(postmaster, Signal::STOP)?;
    let sent = (|| {
        // The kernel accepts for the server.
        let mut client = TcpStream::connect(("127.0.0.1", server.port()))?;
        let mut said = frontend::startup(VERSION_3, &[("user", "postgres"), ("database", "postgres")]);
        said.extend(frontend::query("select 'somebody who is gone'"));
        client.write_all(&said)?;
        let port = client.local_addr()?.port();
        rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO))?;
        anyhow::Ok((port, said.len() as u64))
    })();
    kill_process(postmaster, Signal::CONT)?;
    sent
}

const VERSION_3: u32 = 3 << 16;

/// A server has what its starter left open, and forks workers for which nothing was accepted.
#[test]
fn sockets_that_a_server_inherited_are_no_sessions() -> anyhow::Result<()> {
    for family in FAMILIES {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let inheriting = [
            deps::python()?.into_os_string(),
            deps::client("inherit_sockets.py")?.into_os_string(),
            folder.path().as_os_str().to_owned(),
        ];
        let server = ServerOptions::default().under(inheriting);
        let mut ports = Vec::new();
        let captured = capture_with(server, AgentOptions::default().hooks(family), |server, _| {
            for _ in 0..3 {
                let mut wire = Wire::login(server, "has workers")?;
                wire.query("set force_parallel_mode = on")?;
                wire.query("explain analyze select count(*) from pg_class")?;
                ports.extend(wire.port()?);
                wire.terminate()?;
                server.psql("select 'over a Unix socket'")?;
            }
            Ok(())
        })?;
        let record = captured.record();
        for port in ports {
            let plan = record.rows_of(record.statements_of(record.session_from_port(port)?)[1]);
            let mut lines = plan.iter().flat_map(|row| row.iter().flatten());
            assert!(lines.any(|line| line.contains("Workers Launched: 1")), "{plan:?}");
        }
        assert_eq!(record.sessions.len(), 6, "{family}: {:?}", record.sessions);
        captured.compare()?;
    }
    Ok(())
}
