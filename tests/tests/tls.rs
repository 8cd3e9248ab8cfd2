//! Encrypted sessions: every byte of them, and every way to come by it. That the drivers' statements are all there is
//! `zero_missing`.

use std::collections::HashSet;

use tests::captured::Captured;
use tests::record::Session;
use tests::tls::{Counted, TlsClient};
use tests::{Agent, AgentOptions, Server, ServerOptions, capture_with, clients, deps, script};

tests::on_every_server!(
    a_thousand_sessions_that_connect_ask_and_leave,
    every_byte_of_the_protocol_and_of_the_socket_is_accounted_for,
    version_and_cipher_are_those_that_the_server_names,
);

fn a_thousand_sessions_that_connect_ask_and_leave(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_on(options, |server| {
        let script = server.socket_folder().join("one.sql");
        std::fs::write(&script, "select 'one of a thousand';\n")?;
        let mut pgbench = server.program("pgbench")?;
        pgbench.args(["-n", "-C", "-c", "8", "-j", "2", "-t", "125", "-f"]).arg(&script);
        deps::run(&mut pgbench).map(|_| ())
    })?;
    equal(&captured, 1_000)?;
    let record = captured.record();
    let asked: HashSet<_> = record
        .statements
        .iter()
        .filter(|row| row.sql.as_deref().is_some_and(|sql| sql.contains("thousand")) && row.complete)
        .map(|row| row.session_id.as_str())
        .collect();
    assert_eq!(asked.len(), 1_000);
    Ok(())
}

#[test]
fn a_proof_that_is_bound_to_the_channel_is_accepted_and_not_recorded() -> anyhow::Result<()> {
    let captured = capture_tls(|server| {
        // The statement that sets the password is in the record, like any other.
        server.psql(&script::ROLES.replace("canary-scram", "known"))?;
        let mut psql = server.program("psql")?;
        psql.args(["-X", "-A", "-t", "-c", "select 'bound to the channel'"]);
        let said = deps::run(
            psql.env("PGUSER", "by_scram").env("PGPASSWORD", "known").env("PGCHANNELBINDING", "require"),
        )?;
        anyhow::ensure!(said.trim() == "bound to the channel", "{said}");
        Ok(())
    })?;
    equal(&captured, 2)?;
    let statement = captured.record().statement_with("bound to the channel")?;
    let session = session_of(&captured, &statement.session_id)?;
    assert_eq!(session.auth_method.as_deref(), Some("scram-sha-256"));
    Ok(())
}

#[test]
fn large_results_and_copies_are_whole() -> anyhow::Result<()> {
    let captured = capture_tls(|server| {
        server.psql("create table bulk (i int, t text)")?;
        server.psql("select i, repeat('x', 1000) from generate_series(1, 8000) as i")?;
        server.psql("select repeat('y', 3000000)")?;
        server.psql(&format!("select length('{}')", "é, ".repeat(20_000)))?;
        let (rows, back) = (server.socket_folder().join("rows"), server.socket_folder().join("back"));
        let text: String = (0..9_000).map(|i| format!("{i}\t{}\n", "z".repeat(i % 700))).collect();
        std::fs::write(&rows, &text)?;
        server.psql(&format!("\\copy bulk from '{}'", rows.display()))?;
        server.psql(&format!("\\copy bulk to '{}'", back.display()))?;
        let back = std::fs::read_to_string(&back)?;
        anyhow::ensure!(back.len() == text.len(), "{} bytes came back of {}", back.len(), text.len());
        Ok(())
    })?;
    equal(&captured, 6)?;
    let record = captured.record();
    for (part, rows) in [("repeat('x'", 8_000), ("FROM STDIN", 9_000), ("TO STDOUT", 9_000)] {
        let statement = record
            .statements
            .iter()
            .find(|row| {
                row.sql.as_deref().is_some_and(|sql| sql.to_uppercase().contains(&part.to_uppercase()))
            })
            .ok_or_else(|| anyhow::anyhow!("no statement with {part}"))?;
        assert_eq!(
            (statement.rows, record.rows_of(statement).len() as u64),
            (Some(rows), rows),
            "{statement}"
        );
    }
    let statement = record.statement_with("repeat('y', 3000000)")?;
    assert_eq!(record.rows_of(statement)[0][0].as_ref().map(String::len), Some(3_000_000));
    Ok(())
}

fn every_byte_of_the_protocol_and_of_the_socket_is_accounted_for(
    options: ServerOptions,
) -> anyhow::Result<()> {
    let mut counted = Vec::new();
    let captured = capture_on(options, |server| {
        // Encryption from the first byte on came with 17.
        let direct = (server.version() >= 17).then_some(&["direct"][..]);
        for arguments in [&[][..], &["max=1.2"]].into_iter().chain(direct) {
            for rounds in [0, 1, 30] {
                let mut client = TlsClient::connect(server, arguments)?;
                for round in 0..rounds {
                    client.query("select 1")?;
                    client.query(&format!("select repeat('x', {})", 1 << (round % 22)))?;
                    client.query(&format!("select length('{}')", "y".repeat(1 << (round % 20))))?;
                    client.query("select 1/0")?;
                }
                counted.push(client.leave()?);
            }
        }
        Ok(())
    })?;
    for counted in counted {
        let session = captured.record().session_from_port(counted.port)?;
        closes(session, &counted);
    }
    captured.compare()?;
    Ok(())
}

fn version_and_cipher_are_those_that_the_server_names(options: ServerOptions) -> anyhow::Result<()> {
    const SQL: &str = "select version || ' ' || cipher from pg_stat_ssl where pid = pg_backend_pid()";
    let mut named = Vec::new();
    let captured = capture_on(options, |server| {
        for arguments in [&[][..], &["max=1.2"]] {
            let mut client = TlsClient::connect(server, arguments)?;
            let name = client.query(SQL)?;
            named.push((client.leave()?.port, name));
        }
        // A client that gives up in the handshake is no gap.
        let mut psql = server.program("psql")?;
        psql.args(["-X", "-c", "select 1"]).env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", "system");
        let refused = psql.env("PGSSLROOTCERT", server.socket_folder().join("server.key")).output()?;
        anyhow::ensure!(!refused.status.success());
        Ok(())
    })?;
    for (port, name) in named {
        let session = captured.record().session_from_port(port)?;
        let recorded = session.tls_version.clone().zip(session.tls_cipher.clone());
        assert_eq!(recorded.map(|(version, cipher)| format!("{version} {cipher}")), name);
    }
    assert!(captured.record().gaps.is_empty(), "{:?}", captured.record().gaps);
    Ok(())
}

/// As in `discovery`, for clear sessions: one that waits is read from its first request on.
#[test]
fn a_session_that_was_open_before_is_picked_up() -> anyhow::Result<()> {
    let server = ServerOptions::default().tls().start()?;
    let mut waiting = TlsClient::connect(&server, &[])?;
    waiting.query("select 'before'")?;
    let agent = Agent::start(&server)?;
    waiting.query("select 'the first that is seen'")?;
    waiting.query("select 'the second'")?;
    waiting.leave()?;
    server.wait_idle()?;
    let record = agent.stop()?.record;
    assert!(record.statement_with("'before'").is_err());
    for part in ["'the first that is seen'", "'the second'"] {
        let statement = record.statement_with(part)?;
        assert_eq!((statement.status.as_str(), statement.complete), ("completed", true), "{statement}");
    }
    let [session] = record.sessions.as_slice() else { anyhow::bail!("{:?}", record.sessions) };
    assert!(session.partial && session.tls);
    assert_eq!(
        (session.pg_user.as_deref(), session.end_reason.as_deref()),
        (Some("postgres"), Some("terminate"))
    );
    record.check_totals()
}

#[test]
fn where_the_server_has_no_site_its_library_is_probed() -> anyhow::Result<()> {
    let mut counted = None;
    let library = AgentOptions::default().tls("library");
    let captured = capture_with(ServerOptions::default().tls(), library, |server, _| {
        deps::run(server.program("pgbench")?.args(["-i", "-q"]))?;
        deps::run(server.program("pgbench")?.args(["-n", "-c", "4", "-t", "50"]))?;
        clients::run(server, "psycopg_workload.py", &[])?;
        let mut client = TlsClient::connect(server, &[])?;
        client.query("select repeat('x', 300000)")?;
        counted = Some(client.leave()?);
        Ok(())
    })?;
    assert!(captured.finished.stderr.contains("libssl"), "{}", captured.finished.stderr);
    equal(&captured, 4 * 50 * 7)?;
    let counted = counted.ok_or_else(|| anyhow::anyhow!("nothing was counted"))?;
    closes(captured.record().session_from_port(counted.port)?, &counted);
    Ok(())
}

/// A backend that is itself a client of an encrypted server: its other connection is none of its client's.
#[test]
fn the_librarys_other_connections_are_no_part_of_the_session() -> anyhow::Result<()> {
    for source in ["library", "server"] {
        let agent = AgentOptions::default().tls(source);
        let captured = capture_with(ServerOptions::default().tls(), agent, |server, _| {
            server.psql("create extension dblink")?;
            let inner =
                format!("host=127.0.0.1 port={} user=postgres sslmode=require sslcert=/none", server.port());
            let sql = "select * from dblink('INNER', 'select ''through dblink''') as t(v text), \
                       dblink('INNER', 'select repeat(''x'', 100000)') as u(w text)";
            server.psql(&sql.replace("INNER", &inner)).map(|_| ())
        })?;
        equal(&captured, 4)?;
        assert_eq!(captured.record().sessions.len(), 4);
    }
    Ok(())
}

#[test]
fn without_a_probe_the_session_is_declared_as_encrypted() -> anyhow::Result<()> {
    let mut counted = None;
    let off = AgentOptions::default().tls("off");
    let captured = capture_with(ServerOptions::default().tls(), off, |server, _| {
        let mut client = TlsClient::connect(server, &[])?;
        client.query("select repeat('never seen', 50000)")?;
        counted = Some(client.leave()?);
        Ok(())
    })?;
    assert!(captured.finished.stderr.contains("no-tls-probes"), "{}", captured.finished.stderr);
    let counted = counted.ok_or_else(|| anyhow::anyhow!("nothing was counted"))?;
    let record = captured.record();
    let session = record.session_from_port(counted.port)?;
    assert_eq!((session.tls, session.statements), (true, 0));
    assert_eq!((session.bytes_in, session.bytes_out), (8, 1));
    let socket = (session.socket_bytes_in, session.socket_bytes_out);
    assert_eq!(socket, (counted.socket_in, counted.socket_out));
    assert_eq!(session.bytes_in + session.bytes_out + session.gap_bytes, socket.0 + socket.1);
    assert!(record.gaps_of(session).iter().all(|gap| gap.reason == "encrypted"));
    assert!(session.tls_cipher.is_some());
    record.check_totals()
}

#[test]
fn a_server_under_a_seccomp_filter_that_refuses_survives() -> anyhow::Result<()> {
    survives_a_filter("errno")
}

#[test]
fn a_server_under_a_seccomp_filter_that_kills_survives() -> anyhow::Result<()> {
    survives_a_filter("kill")
}

/// Attaching, capturing and detaching, with a session that is open throughout.
fn survives_a_filter(denied: &str) -> anyhow::Result<()> {
    let filter = [deps::python()?, deps::client("seccomp.py")?, denied.into()];
    let server = ServerOptions::default().tls().under(filter).start()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid()?))?;
    anyhow::ensure!(status.contains("Seccomp:\t2"), "no filter is in force: {status}");
    let mut early = TlsClient::connect(&server, &[])?;
    for source in ["server", "library"] {
        let agent = AgentOptions::default().server(&server).tls(source).start()?;
        early.query("select 'across the probes'")?;
        let script = server.socket_folder().join("one.sql");
        std::fs::write(&script, "select 1;\n")?;
        let bench = ["-n", "-C", "-c", "4", "-t", "25", "-f"];
        deps::run(server.program("pgbench")?.args(bench).arg(&script))?;
        let record = agent.stop()?.record;
        record.statement_with("across the probes")?;
        early.query("select 'without probes'")?;
    }
    early.leave()?;
    let log = server.stop()?;
    anyhow::ensure!(
        !log.entries.iter().any(|entry| entry.message.contains("was terminated by signal")),
        "a backend was killed"
    );
    Ok(())
}

/// A library in a mount namespace of the server's own, and one that was replaced by a package upgrade.
#[test]
fn a_library_that_its_path_does_not_lead_to_is_probed_all_the_same() -> anyhow::Result<()> {
    let copy = "cp -L /lib/x86_64-linux-gnu/libssl.so.* /lib/x86_64-linux-gnu/libcrypto.so.* \"$D\"";
    let go = "exec env LD_LIBRARY_PATH=\"$D\" \"$@\"";
    for hidden in [true, false] {
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let mount = if hidden { "mount -t tmpfs none \"$D\" &&" } else { "" };
        let script = format!("D={}; {mount} {copy} && {go}", folder.path().display());
        let under = ["unshare", "--mount", "sh", "-c", &script, "sh"];
        let server = ServerOptions::default().tls().under(under).start()?;
        let seen = std::fs::read_dir(folder.path())?.count();
        assert_eq!(seen == 0, hidden, "{seen} files");
        for entry in std::fs::read_dir(folder.path())? {
            std::fs::remove_file(entry?.path())?;
        }
        let agent = AgentOptions::default().server(&server).tls("library").start()?;
        let path = folder.path().display().to_string();
        assert!(agent.stderr().contains(&path), "another library was probed: {}", agent.stderr());
        server.psql("select 'through a hidden library'")?;
        server.wait_idle()?;
        equal_record(&agent.stop()?.record, "a hidden library")?;
    }
    Ok(())
}

/// A package upgrade: servers that run keep the file that was replaced, those that start have the new one.
#[test]
fn a_replaced_library_is_probed_beside_the_one_that_running_servers_keep() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let install = || {
        // As dpkg does: a new file takes the old one's name.
        let script = "cp -L /lib/x86_64-linux-gnu/libssl.so.* new && mv new \"$(basename /lib/x86_64-linux-gnu/libssl.so.*)\"";
        deps::run(std::process::Command::new("sh").args(["-c", script]).current_dir(folder.path()))
    };
    let path = format!("LD_LIBRARY_PATH={}", folder.path().display());
    let options = || ServerOptions::default().tls().under(["env", &path]);
    let library = |server: &Server| -> anyhow::Result<String> {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", server.pid()?))?;
        let line = maps.lines().find(|line| line.contains(folder.path().to_string_lossy().as_ref()));
        let fields: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
        Ok(fields.get(4..).unwrap_or_default().join(" "))
    };
    install()?;
    let mut one = options().start()?;
    let other_port = tests::server::free_port()?;
    let agent = AgentOptions::default().server(&one).port(other_port).tls("library").expecting(1);
    let mut agent = agent.start()?;
    one.psql("select 'the old library'")?;
    install()?;
    let other = options().port(other_port).start()?;
    let (old, new) = (library(&one)?, library(&other)?);
    anyhow::ensure!(old.ends_with("(deleted)") && !new.ends_with("(deleted)"), "{old}, {new}");
    // On a busy host, a probe takes the kernel longer than a server takes to its first session.
    let probed =
        |server: &Server| Ok::<_, anyhow::Error>(format!("will be read pid={} probes", server.pid()?));
    agent.wait_for(&probed(&other)?)?;
    one.psql("select 'the old library, after the upgrade'")?;
    other.psql("select 'the new library'")?;
    one.restart()?;
    anyhow::ensure!(library(&one)? == new, "{} is not {new}", library(&one)?);
    agent.wait_for(&probed(&one)?)?;
    one.psql("select 'the new library, after a restart'")?;
    for server in [&one, &other] {
        server.wait_idle()?;
    }
    let record = agent.stop()?.record;
    record.check_totals()?;
    let texts: HashSet<_> = record.statements.iter().filter_map(|row| row.sql.as_deref()).collect();
    let wanted = [
        "select 'the old library'",
        "select 'the old library, after the upgrade'",
        "select 'the new library'",
        "select 'the new library, after a restart'",
    ];
    assert_eq!(texts, HashSet::from(wanted));
    for session in &record.sessions {
        assert!(session.tls && !session.partial && session.gap_bytes == 0, "{session:?}");
    }
    Ok(())
}

#[test]
fn a_stalled_agent_loses_nothing_silently() -> anyhow::Result<()> {
    let mut counted = None;
    let small = AgentOptions::default().config(tests::agent::SMALL_RING);
    let captured = capture_with(ServerOptions::default().tls(), small, |server, agent| {
        let mut client = TlsClient::connect(server, &[])?;
        for phase in ["before", "during", "after"] {
            if phase == "during" {
                agent.stall()?;
            }
            for round in 0..40 {
                client.query(&format!("select '{phase} {round}', repeat('x', 50000)"))?;
            }
            if phase == "during" {
                agent.resume()?;
                agent.wait_drained()?;
            }
        }
        counted = Some(client.leave()?);
        Ok(())
    })?;
    let counted = counted.ok_or_else(|| anyhow::anyhow!("nothing was counted"))?;
    let record = captured.record();
    let session = record.session_from_port(counted.port)?;
    assert!(session.gap_bytes > 0, "the ring did not overflow: {session:?}");
    let streams = session.bytes_in + session.bytes_out + session.gap_bytes;
    assert_eq!(streams, counted.sent + counted.received, "{session:?}");
    let socket = (session.socket_bytes_in, session.socket_bytes_out);
    assert_eq!(socket, (counted.socket_in, counted.socket_out));
    let after = record.statements_of(session).into_iter().filter(|statement| {
        statement.complete && statement.sql.as_deref().is_some_and(|sql| sql.contains("'after "))
    });
    let after = after.count();
    assert!(after >= 39, "{after} statements after the gap");
    record.check_totals()
}

#[test]
fn the_next_agent_reads_on() -> anyhow::Result<()> {
    let server = ServerOptions::default().tls().start()?;
    let agent = Agent::start(&server)?;
    let kernel = agent.kernel_side()?;
    let mut client = TlsClient::connect(&server, &[])?;
    client.query("select 'the first agent'")?;
    let killed = agent.kill()?;
    let second = AgentOptions::default().server(&server).data(&killed.data).start()?;
    client.query("select 'the second agent'")?;
    client.query("select 'the second agent again'")?;
    client.leave()?;
    // The probes serve a server that starts now, too.
    let other = ServerOptions::default().tls().start()?;
    let third = AgentOptions::default().server(&other).start()?;
    other.psql("select 'another server'")?;
    other.wait_idle()?;
    equal_record(&third.stop()?.record, "another server")?;
    server.wait_idle()?;
    let record = second.stop()?.record;
    equal_record(&record, "'the second agent again'")?;
    tests::wait::until("the probes to go", std::time::Duration::from_secs(10), || {
        Ok((kernel.programs_left()? == 0).then_some(()))
    })?;
    drop(killed);
    Ok(())
}

#[test]
fn doctor_names_the_sites_and_their_cost() -> anyhow::Result<()> {
    let server = ServerOptions::default().tls().start()?;
    let doctor = std::process::Command::new(deps::agent()?)
        .args(["doctor", "--server", &server.port().to_string()])
        .output()?;
    let said = String::from_utf8(doctor.stdout)?;
    let line = said.lines().find(|line| line.contains("be_tls_read")).unwrap_or_default();
    assert!(line.contains("/bin/postgres") && line.contains("emulated"), "{said}");
    Ok(())
}

fn capture_tls(workload: impl FnOnce(&Server) -> anyhow::Result<()>) -> anyhow::Result<Captured> {
    capture_on(ServerOptions::default(), workload)
}

fn capture_on(
    options: ServerOptions,
    workload: impl FnOnce(&Server) -> anyhow::Result<()>,
) -> anyhow::Result<Captured> {
    capture_with(options.tls(), AgentOptions::default(), |server, _| workload(server))
}

/// The record equals the log, which holds at least `least` statements, and every session was encrypted and is whole.
fn equal(captured: &Captured, least: usize) -> anyhow::Result<()> {
    let compared = captured.compare()?;
    assert!(compared.executed >= least, "the workload did less than it should: {compared:?}");
    let record = captured.record();
    assert!(record.gaps.is_empty(), "{:?}", record.gaps);
    for session in &record.sessions {
        let whole = session.tls && !session.partial && session.gap_bytes == 0 && session.ended_at.is_some();
        assert!(whole && session.tls_version.is_some() && session.tls_cipher.is_some(), "{session:?}");
    }
    Ok(())
}

fn equal_record(record: &tests::Record, part: &str) -> anyhow::Result<()> {
    let statement = record.statement_with(part)?;
    anyhow::ensure!(statement.complete && statement.status == "completed", "{statement}");
    record.check_totals()
}

/// What the client counted is what is recorded: of the protocol in both directions, and of the socket.
fn closes(session: &Session, counted: &Counted) {
    let recorded = (session.bytes_in, session.bytes_out, session.gap_bytes);
    assert_eq!(recorded, (counted.sent, counted.received, 0), "{session:?}");
    let socket = (session.socket_bytes_in, session.socket_bytes_out);
    assert_eq!(socket, (counted.socket_in, counted.socket_out), "{session:?}");
}

fn session_of<'r>(captured: &'r Captured, id: &str) -> anyhow::Result<&'r Session> {
    let mut sessions = captured.record().sessions.iter();
    sessions.find(|session| session.session_id == id).ok_or_else(|| anyhow::anyhow!("no session {id}"))
}
