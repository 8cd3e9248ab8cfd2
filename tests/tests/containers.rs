//! Servers in containers: file system, processes and network of their own, seen from the host.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use tests::container::unused_id;
use tests::server::free_port;
use tests::wire::Wire;
use tests::{Agent, AgentOptions, Container, ControlGroup, Network, Server, ServerOptions, deps, oracle};

#[test]
fn a_server_in_a_container_is_recorded_as_its_own_log_says() -> anyhow::Result<()> {
    for version in [14, 16, 17, 18] {
        let id = unused_id();
        let server = in_docker(version, &id)?.start()?;
        let agent = Agent::start(&server)?;
        workload(&server)?;
        // The host's process ids, while the session lives.
        let mut wire = Wire::unix(&server)?;
        wire.start(&[("user", "postgres"), ("application_name", "from the host")])?;
        let host_pids = server.sessions()?;
        wire.query("select pg_backend_pid()")?;
        wire.terminate()?;
        server.wait_idle()?;
        let postmaster = server.pid()?;
        let record = agent.stop()?.record;
        record.check_totals()?;
        // The log names backends as the container does.
        let compared = oracle::compare(&server.stop()?, &record)?;
        assert_eq!((compared.sessions, compared.executed), (3, 5));
        assert!(record.gaps.is_empty(), "{:?}", record.gaps);
        for session in &record.sessions {
            assert_eq!(session.container_id.as_deref(), Some(id.as_str()));
            assert_eq!((session.server_pid, &session.pod_uid), (Some(postmaster), &None));
            assert_ne!(session.host_pid, session.backend_pid, "{session:?}");
        }
        let session = record.session_named("from the host")?;
        let (pid, _) = wire.key.clone().unwrap_or_default();
        assert!(host_pids.contains(&session.host_pid), "{session:?}, not one of {host_pids:?}");
        assert_eq!(session.backend_pid, pid);
        assert_eq!(session.peer_pid, Some(std::process::id()));
        let said = record.rows_of(record.statement_with("pg_backend_pid")?)[0][0].clone();
        assert_eq!(said, Some(pid.to_string()));
    }
    Ok(())
}

/// A port is a port in whichever network namespace: it selects all servers that listen on it.
#[test]
fn servers_on_the_same_port_in_different_networks_are_told_apart() -> anyhow::Result<()> {
    let port = free_port()?;
    let ids = [unused_id(), unused_id()];
    let servers = [
        in_docker(18, &ids[0])?.port(port).start()?,
        in_docker(16, &ids[1])?.port(port).start()?,
        ServerOptions::default().port(port).start()?,
    ];
    let other = Server::start()?;
    let agent = AgentOptions::default().port(port).expecting(3).start()?;
    for server in &servers {
        workload(server)?;
        server.psql(&format!("select 'postmaster {}'", server.pid()?))?;
    }
    other.psql("select 'another port'")?;
    servers.iter().try_for_each(Server::wait_idle)?;
    let record = agent.stop()?.record;
    assert_eq!(record.sessions.len(), 9);
    let wanted = [Some(ids[0].clone()), Some(ids[1].clone()), None];
    for (server, container) in servers.into_iter().zip(wanted) {
        let pid = server.pid()?;
        let own = record.of_server(pid);
        assert_eq!(own.sessions.len(), 3);
        assert!(own.sessions.iter().all(|session| session.container_id == container), "{:?}", own.sessions);
        assert!(own.sessions.iter().all(|session| session.server_port == Some(port)));
        own.statement_with(&format!("postmaster {pid}"))?;
        oracle::compare(&server.stop()?, &own)?;
    }
    Ok(())
}

#[test]
fn a_client_in_yet_another_network_is_named_by_its_address_there() -> anyhow::Result<()> {
    let (network, clients) = (Network::new()?, Network::new()?);
    network.link("10.123.0.1/24", &clients, "10.123.0.2/24")?;
    let container = Arc::new(Container::new(18, &network, None)?);
    let server = ServerOptions::default()
        .version(18)
        .container(&container)
        .setting("listen_addresses", "*")
        .start()?;
    let agent = Agent::start(&server)?;
    let mut psql = clients.command(&deps::client_program("psql")?);
    server.point(&mut psql);
    deps::run(psql.env("PGHOST", "10.123.0.1").args(["-X", "-c", "select 'across'"]))?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let statement = record.statement_with("'across'")?;
    assert_eq!(statement.client_addr.as_deref(), Some("10.123.0.2"));
    let session = &record.sessions[0];
    assert_eq!(session.transport, "tcp");
    // Namespaces alone are no container: nobody named one.
    assert_eq!(session.container_id, None);
    oracle::compare(&server.stop()?, &record)?;
    Ok(())
}

#[test]
fn a_session_in_a_container_that_was_open_before_the_agent_is_found() -> anyhow::Result<()> {
    let id = unused_id();
    let server = in_docker(17, &id)?.start()?;
    let mut wire = Wire::unix(&server)?;
    wire.start(&[("user", "postgres"), ("database", "template1")])?;
    // By the process id that the host gave it.
    let agent = AgentOptions::default().selector(&format!("pid:{}", server.pid()?)).start()?;
    wire.query("select 'the first that the agent sees'")?;
    wire.terminate()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    let (pid, _) = wire.key.clone().unwrap_or_default();
    let session = record.session_of_backend(pid)?;
    assert!(session.partial);
    assert_eq!(
        (session.pg_user.as_deref(), session.database.as_deref()),
        (Some("postgres"), Some("template1"))
    );
    assert_eq!((session.statements, session.gap_bytes), (1, 0));
    assert_eq!(session.container_id, Some(id));
    assert_ne!(session.host_pid, pid);
    Ok(())
}

#[test]
fn a_container_that_starts_after_the_agent_is_recorded_from_its_first_session() -> anyhow::Result<()> {
    let port = free_port()?;
    let agent = AgentOptions::default().port(port).expecting(0).start()?;
    let id = unused_id();
    let server = in_docker(18, &id)?.port(port).start()?;
    // At once, without waiting for anything.
    server.psql("select 'first'")?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    oracle::compare(&server.stop()?, &record)?;
    assert_eq!(record.sessions[0].container_id, Some(id));
    assert!(!record.sessions[0].partial);
    Ok(())
}

#[test]
fn a_kubernetes_pod_is_named_as_the_host_knows_it() -> anyhow::Result<()> {
    let id = unused_id();
    let uid = format!("8dbc1f4e-7b1a-4f0e-9d1c-{}", &id[52..]);
    let group = ControlGroup::new(&format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice/cri-containerd-{id}.scope",
        uid.replace('-', "_")
    ))?;
    let _logs = Folder::new(Path::new("/var/log/pods").join(format!("payments_orders-db-0_{uid}")))?;
    let container = Arc::new(Container::new(18, &Network::new()?, Some(group))?);
    let server = ServerOptions::default().version(18).container(&container).start()?;
    let said = deps::run(Command::new(deps::agent()?).arg("doctor"))?;
    assert!(said.contains(&format!("pid {}, container {}", server.pid()?, &id[..12])), "{said}");
    let agent = Agent::start(&server)?;
    server.psql("select 1")?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    let session = &finished.record.sessions[0];
    let mut show = Command::new(deps::agent()?);
    let shown = deps::run(show.args(["show", &session.session_id, "--data-dir"]).arg(&finished.data))?;
    assert!(shown.contains(&format!("{id}, pod orders-db-0 in payments")), "{shown}");
    assert_eq!(session.container_id, Some(id));
    assert_eq!(session.pod_uid, Some(uid));
    assert_eq!(
        (session.pod.as_deref(), session.namespace.as_deref()),
        (Some("orders-db-0"), Some("payments"))
    );
    Ok(())
}

/// A server on its own network, in the control group that Docker would make.
fn in_docker(version: u32, id: &str) -> anyhow::Result<ServerOptions> {
    let group = ControlGroup::new(&format!("system.slice/docker-{id}.scope"))?;
    let container = Arc::new(Container::new(version, &Network::new()?, Some(group))?);
    Ok(ServerOptions::default().version(version).container(&container))
}

/// Two sessions over TCP, from inside the server's network.
fn workload(server: &Server) -> anyhow::Result<()> {
    server.psql("select 1; select 'it''s two'")?;
    let mut psql = server.program("psql")?;
    let script = "select 'first';\nselect 1/0;\nselect 'last'\n;";
    let path = server.socket_folder().join("script.sql");
    std::fs::write(&path, script)?;
    deps::run(psql.args(["-X", "-q", "-f"]).arg(&path))?;
    Ok(())
}

/// A folder, gone when it goes out of scope, with the ones above it that were missing.
struct Folder {
    made: Vec<PathBuf>,
}

impl Folder {
    fn new(path: PathBuf) -> anyhow::Result<Self> {
        let missing = path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned).collect();
        let folder = Self { made: missing };
        std::fs::create_dir_all(path)?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for folder in &self.made {
            let _ = std::fs::remove_dir(folder);
        }
    }
}
