//! Sessions that GSSAPI encrypts, with tickets of a real Kerberos realm.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

use anyhow::{Context as _, ensure};
use tests::record::{Session, find};
use tests::{Agent, Kerberos, Record, Server, ServerOptions, capture_on, deps, oracle};

#[test]
fn everything_that_an_encrypted_session_says_is_recorded() -> anyhow::Result<()> {
    let realm = Kerberos::start(&["postgres"])?;
    let captured = capture_on(realm.server(ServerOptions::default()), |server, _| {
        let run = |program: &str, arguments: &[&str]| {
            deps::run(realm.program(server, program, "postgres", true)?.args(arguments))
        };
        let psql = |sql: &str| run("psql", &["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]);
        let encrypted =
            psql("select gss_authenticated, encrypted from pg_stat_gssapi where pid = pg_backend_pid()")?;
        ensure!(encrypted.trim() == "t|t", "{encrypted}");
        psql("create table bulk (line text)")?;
        // Larger than one packet of GSSAPI's, 16 KiB (`src/backend/libpq/be-secure-gssapi.c`), in both directions.
        psql("select repeat('x', 3000000)")?;
        psql(&format!("select length('{}')", "é, ".repeat(20_000)))?;
        let rows = server.socket_folder().join("rows");
        let text: String = (0..9_000).map(|i| format!("{}\n", "z".repeat(i % 700))).collect();
        std::fs::write(&rows, text)?;
        psql(&format!("\\copy bulk from '{}'", rows.display()))?;
        psql(&format!("\\copy bulk to '{}'", rows.display()))?;
        ensure!(psql("select 1/0").is_err());
        run("pgbench", &["-i", "-q"])?;
        for mode in ["simple", "extended", "prepared"] {
            run("pgbench", &["-n", "-M", mode, "-c", "4", "-t", "25"])?;
        }
        Ok(())
    })?;
    let compared = captured.compare()?;
    ensure!(compared.executed >= 3 * 4 * 25 * 7, "the workload did less than it should: {compared:?}");
    ensure!(captured.finished.stderr.contains("be_gssapi_read"), "{}", captured.finished.stderr);
    let record = captured.record();
    ensure!(record.gaps.is_empty(), "{:?}", record.gaps);
    for session in &record.sessions {
        ensure!(is_encrypted(session) && !session.partial, "{session:?}");
        ensure!(session.auth_method.as_deref() == Some("gss"), "{session:?}");
    }
    for (part, rows) in [("FROM STDIN", 9_000), ("TO STDOUT", 9_000)] {
        let statement = record.statement_with(part)?;
        ensure!(record.rows_of(statement).len() == rows, "{statement}");
    }
    let long = record.statement_with("repeat('x', 3000000)")?;
    ensure!(record.rows_of(long)[0][0].as_ref().map(String::len) == Some(3_000_000));
    Ok(())
}

/// What is said is the same in clear and encrypted, but for the request to encrypt and its answer.
#[test]
fn every_byte_is_accounted_for() -> anyhow::Result<()> {
    const ROUNDS: u32 = 20;
    let realm = Kerberos::start(&["postgres"])?;
    let captured = capture_on(realm.server(ServerOptions::default()), |server, _| {
        for encrypted in [false, true] {
            let mut psql = realm.program(server, "psql", "postgres", encrypted)?;
            psql.env("PGAPPNAME", if encrypted { "crypt" } else { "clear" }).args(["-X", "-q"]);
            for round in 0..ROUNDS {
                psql.args(["-c", &format!("select repeat('x', {})", 1 << round)]);
                psql.args(["-c", &format!("select length('{}')", "y".repeat(1 << (round % 16)))]);
            }
            deps::run(&mut psql)?;
        }
        Ok(())
    })?;
    captured.compare()?;
    let [clear, crypt] = ["clear", "crypt"].map(|name| captured.record().session_named(name));
    let (clear, crypt) = (clear?, crypt?);
    ensure!(is_encrypted(crypt) && !is_encrypted(clear));
    // GSSENCRequest, and `G`.
    let wanted = (clear.bytes_in + 8, clear.bytes_out + 1, 0);
    ensure!((crypt.bytes_in, crypt.bytes_out, crypt.gap_bytes) == wanted, "{clear:?} {crypt:?}");
    ensure!(crypt.statements == u64::from(2 * ROUNDS), "{crypt:?}");
    Ok(())
}

/// The client proves itself by GSSAPI and goes on in clear; and one that GSSAPI encrypts proves itself by a password.
#[test]
fn to_prove_oneself_and_to_encrypt_are_two_things() -> anyhow::Result<()> {
    let realm = Kerberos::start(&["by_gss", "by_scram"])?;
    let options =
        realm.server(ServerOptions::default().access("hostgssenc all by_scram 127.0.0.1/32 scram-sha-256"));
    let captured = capture_on(options, |server, _| {
        server.psql("create role by_gss login; create role by_scram login password 'canary'")?;
        for (client, encrypted) in [("by_gss", false), ("by_gss", true), ("by_scram", true)] {
            let mut psql = realm.program(server, "psql", client, encrypted)?;
            psql.env("PGPASSWORD", "canary").env("PGAPPNAME", format!("{client} {encrypted}"));
            deps::run(psql.args(["-X", "-c", "select 'logged in'"]))?;
        }
        Ok(())
    })?;
    captured.compare()?;
    for (name, method, encrypted) in [
        ("by_gss false", "gss", false),
        ("by_gss true", "gss", true),
        ("by_scram true", "scram-sha-256", true),
    ] {
        let session = captured.record().session_named(name)?;
        ensure!(session.auth_method.as_deref() == Some(method), "{session:?}");
        ensure!(is_encrypted(session) == encrypted && session.gap_bytes == 0, "{session:?}");
    }
    // The OID of Kerberos, with which every token begins (RFC 4121, section 4.1).
    let found = find(&captured.finished.data, &["x'06092a864886f712010202'"])?;
    ensure!(found.is_empty(), "a token is in the record: {found:?}");
    Ok(())
}

#[test]
fn an_encrypted_session_that_was_open_before_is_picked_up() -> anyhow::Result<()> {
    let realm = Kerberos::start(&["postgres"])?;
    let server = realm.server(ServerOptions::default()).start()?;
    let mut psql = Psql::start(&realm, &server)?;
    psql.ask("select 'before'")?;
    let agent = Agent::start(&server)?;
    for number in 0..5 {
        psql.ask(&format!("select 'after {number}'"))?;
    }
    psql.leave()?;
    server.wait_idle()?;
    let record: Record = agent.stop()?.record;
    record.check_totals()?;
    let [session] = record.sessions.as_slice() else { anyhow::bail!("{:?}", record.sessions) };
    ensure!(session.partial && is_encrypted(session) && session.gap_bytes == 0, "{session:?}");
    ensure!(session.pg_user.as_deref() == Some("postgres"), "{session:?}");
    let texts: Vec<_> = record.statements.iter().filter_map(|row| row.sql.clone()).collect();
    let wanted: Vec<_> = (0..5).map(|number| format!("select 'after {number}';")).collect();
    ensure!(texts == wanted && record.statements.iter().all(|row| row.complete), "{texts:?}");
    let executed = oracle::sessions(&server.stop()?)[0].executed.len();
    ensure!(executed == 6, "{executed}");
    Ok(())
}

fn is_encrypted(session: &Session) -> bool {
    let streams = session.bytes_in + session.bytes_out;
    let socket = session.socket_bytes_in + session.socket_bytes_out;
    session.gss_encrypted && !session.tls && session.tls_version.is_none() && socket > streams
}

/// A psql that does as it is told, line by line.
struct Psql {
    process: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Psql {
    fn start(realm: &Kerberos, server: &Server) -> anyhow::Result<Self> {
        let mut command = realm.program(server, "psql", "postgres", true)?;
        command.args(["-X", "-q", "-A", "-t"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let answers = BufReader::new(process.stdout.take().context("no stdout")?);
        Ok(Self { process, answers })
    }

    fn ask(&mut self, sql: &str) -> anyhow::Result<String> {
        writeln!(self.process.stdin.as_mut().context("no stdin")?, "{sql};")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "psql ended");
        Ok(line)
    }

    fn leave(&mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        ensure!(self.process.wait()?.success());
        Ok(())
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
