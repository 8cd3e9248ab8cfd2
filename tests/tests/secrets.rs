//! What proves an identity never reaches the disk: passwords, their hashes, SASL messages, cancel keys.

use tests::wire::{Wire, frontend};
use tests::{Agent, Server, ServerOptions, clients, deps, on_every_server, record, script};

on_every_server!(no_credential_is_in_any_file_or_log);

fn no_credential_is_in_any_file_or_log(options: ServerOptions) -> anyhow::Result<()> {
    let server = options.start()?;
    // Before the agent: the statement that sets a password is a statement like any other.
    server.psql(script::ROLES)?;
    let agent = Agent::start(&server)?;
    let mut secrets = vec!["canary".to_owned()];
    for (user, password) in
        [("by_password", "canary-password"), ("by_md5", "canary-md5"), ("by_scram", "canary-scram")]
    {
        let mut wire = Wire::tcp(&server)?;
        wire.start_with_password(&[("user", user), ("database", "postgres")], password)?;
        wire.query("select 1")?;
        wire.terminate()?;
        assert!(!wire.secrets.is_empty());
        secrets.append(&mut wire.secrets);
        if let Some((_, key)) = &wire.key {
            secrets.push(key.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        let mut wrong = Wire::tcp(&server)?;
        let refused = wrong.start_with_password(&[("user", user), ("database", "postgres")], "canary-wrong");
        assert!(refused.is_err());
        secrets.append(&mut wrong.secrets);
        deps::run(
            server
                .program("psql")?
                .args(["-X", "-c", "select 1"])
                .env("PGUSER", user)
                .env("PGPASSWORD", password),
        )?;
    }
    unasked_password(&server)?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    assert_eq!(finished.record.sessions.len(), 10);
    let words: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let found = record::find(&finished.data, &words)?;
    assert!(found.is_empty(), "credentials on disk: {found:?}");
    for secret in words {
        assert!(!finished.stderr.contains(secret), "a credential in the log: {}", finished.stderr);
    }
    Ok(())
}

/// The judge must be able to find what is there: in compressed values, and in plain bytes.
#[test]
fn the_search_finds_what_is_recorded() -> anyhow::Result<()> {
    let captured = tests::capture(|server, _| server.psql("select 'canary-to-be-found'").map(|_| ()))?;
    std::fs::write(captured.finished.data.join("note"), "another-canary")?;
    let found = record::find(&captured.finished.data, &["canary-to-be-found", "another-canary", "nowhere"])?;
    assert!(found.iter().any(|line| line.contains("statements/")), "{found:?}");
    assert!(found.iter().any(|line| line.contains("results/")), "{found:?}");
    assert!(found.iter().any(|line| line.ends_with("note")), "{found:?}");
    assert!(!found.iter().any(|line| line.contains("nowhere")));
    Ok(())
}

/// A client that sends a password nobody asked for, in the middle of its session.
fn unasked_password(server: &Server) -> anyhow::Result<()> {
    let mut wire = Wire::login(server, "unasked")?;
    wire.send(&frontend::text(b'p', "canary-unasked"))?;
    wire.close()
}

#[test]
fn drivers_passwords_stay_out_as_well() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(script::ROLES)?;
    server.psql("grant all on schema public to by_scram")?;
    let agent = Agent::start(&server)?;
    for program in ["asyncpg_workload.py", "psycopg_workload.py", "node_workload.js"] {
        let mut command = clients::command(program)?;
        server.point(&mut command);
        deps::run(command.env("PGUSER", "by_scram").env("PGPASSWORD", "canary-scram"))?;
    }
    server.wait_idle()?;
    let finished = agent.stop()?;
    assert!(
        finished
            .record
            .sessions
            .iter()
            .all(|session| session.auth_method.as_deref() == Some("scram-sha-256"))
    );
    let found = record::find(&finished.data, &["canary"])?;
    assert!(found.is_empty(), "credentials on disk: {found:?}");
    Ok(())
}
