//! Only PostgreSQL is read, and no session has an effect on another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use tests::wire::Wire;
use tests::{Agent, Server, capture, deps};

const CANARY: &str = "canary-of-a-stranger";

#[test]
fn other_processes_never_reach_user_space() -> anyhow::Result<()> {
    let mut events = (0, 0);
    let captured = capture(|server, agent| {
        server.psql("select 1")?;
        server.wait_idle()?;
        agent.wait_drained()?;
        events.0 = agent.kernel_events()?;
        strangers_talk()?;
        strangers_talk_over_unix()?;
        agent.wait_drained()?;
        events.1 = agent.kernel_events()?;
        Ok(())
    })?;
    assert!(events.0 > 0, "the counter counts nothing");
    assert_eq!(events.0, events.1, "strangers' traffic made events");
    assert_eq!(captured.record().sessions.len(), 1);
    nowhere(&captured.finished.data, &captured.finished.stderr)
}

/// A server that was not asked for is not read either.
#[test]
fn other_servers_are_not_read() -> anyhow::Result<()> {
    let other = Server::start()?;
    let captured = capture(|server, _| {
        other.psql(&format!("select '{CANARY}'"))?;
        server.psql("select 1").map(|_| ())
    })?;
    assert_eq!(captured.record().sessions.len(), 1);
    nowhere(&captured.finished.data, &captured.finished.stderr)?;
    captured.compare()?;
    Ok(())
}

/// A backend's other sockets are not its client's: here it is a client itself.
#[test]
fn a_backends_own_connections_are_not_its_clients() -> anyhow::Result<()> {
    let other = Server::start()?;
    let captured = capture(|server, _| {
        let remote = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", other.port());
        server.psql("create extension dblink")?;
        let mut wire = Wire::login(server, "dblink")?;
        // The text is put together on the server, so that it passes on the other socket only.
        wire.query(&format!(
            "select * from dblink('{remote}', 'select repeat(''{}'' || ''{}'', 1000), pg_sleep(0.01)') as t(a text, b text)",
            &CANARY[..6],
            &CANARY[6..]
        ))?;
        wire.query("select 'after'")?;
        wire.terminate()
    })?;
    let session = captured.record().session_named("dblink")?;
    assert_eq!(session.gap_bytes, 0);
    captured.compare()?;
    Ok(())
}

#[test]
fn hostile_sessions_have_no_effect_on_their_neighbours() -> anyhow::Result<()> {
    let mut neighbour_port = 0;
    let captured = capture(|server, _| {
        let mut neighbour = Wire::login(server, "neighbour")?;
        neighbour_port = neighbour.port()?.unwrap_or_default();
        for round in 0..200_u32 {
            hostile(server, round)?;
            neighbour.query(&format!("select 'neighbour {round}'"))?;
        }
        neighbour.terminate()
    })?;
    let record = captured.record();
    let session = record.session_from_port(neighbour_port)?;
    let statements = record.statements_of(session);
    assert_eq!(statements.len(), 200);
    for (round, statement) in statements.into_iter().enumerate() {
        assert_eq!(statement.sql.as_deref(), Some(format!("select 'neighbour {round}'").as_str()));
        assert_eq!((statement.status.as_str(), statement.complete), ("completed", true));
        assert_eq!(record.rows_of(statement), [[Some(format!("neighbour {round}"))]]);
    }
    record.check_totals()?;
    tests::oracle::compare(&captured.log, record)?;
    Ok(())
}

/// A session that breaks the protocol, in a way that depends on `round` alone.
fn hostile(server: &Server, round: u32) -> anyhow::Result<()> {
    let logged_in = !round.is_multiple_of(3);
    let mut wire = if logged_in { Wire::login(server, "hostile")? } else { Wire::tcp(server)? };
    let mut state = round.wrapping_mul(2_654_435_761).max(1);
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let length = random() % 3_000;
    let mut bytes: Vec<u8> = (0..length).map(|_| random().to_be_bytes()[0]).collect();
    if round.is_multiple_of(2) {
        // A type that exists, with a length that may be far too long, too short or right.
        let tag = b"QPBEDCSHXFpdcf"[(random() % 14) as usize];
        let claimed = [4, 5, length, length + 4, 0x7fff_ffff, 0xffff_ffff][(random() % 6) as usize];
        let mut lying = vec![tag];
        lying.extend(claimed.to_be_bytes());
        lying.append(&mut bytes);
        bytes = lying;
    }
    // The server may close first.
    let _ = wire.send(&bytes);
    wire.close()
}

/// Two processes that are no servers talk over TCP.
fn strangers_talk() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let program = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
                   for _ in range(200): s.sendall(sys.argv[2].encode() * 50); s.recv(65536)";
    let mut talker = Command::new(deps::python()?)
        .args(["-c", program, &listener.local_addr()?.port().to_string(), CANARY])
        .stdin(Stdio::null())
        .spawn()?;
    let (mut stream, _) = listener.accept()?;
    echo(&mut stream)?;
    anyhow::ensure!(talker.wait()?.success());
    Ok(())
}

/// The same between two ends that call themselves `postgres`, over a Unix socket pair.
fn strangers_talk_over_unix() -> anyhow::Result<()> {
    let program = "import socket, sys; open('/proc/self/comm', 'w').write('postgres'); a, b = socket.socketpair()\n\
                   for _ in range(200): a.sendall(sys.argv[1].encode() * 50); b.recv(65536)";
    deps::run(Command::new(deps::python()?).args(["-c", program, CANARY])).map(|_| ())
}

fn echo(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length])?,
        }
    }
}

fn nowhere(data: &std::path::Path, stderr: &str) -> anyhow::Result<()> {
    let found = tests::record::find(data, &[CANARY])?;
    assert!(found.is_empty(), "strangers' words are in {found:?}");
    assert!(!stderr.contains(CANARY));
    Ok(())
}

#[test]
fn an_agent_that_is_killed_leaves_the_server_alone() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = Agent::start(&server)?;
    let mut wire = Wire::login(&server, "survivor")?;
    wire.query("select 1")?;
    let _killed = agent.kill()?;
    let replies = wire.query("select 2")?;
    assert!(replies.iter().any(|message| message.tag == b'C'));
    wire.terminate()
}
