//! Nothing that the server executed is missing from the record, and nothing is in it that the server did not
//! execute: the record against the server's own log, one by one, whichever way the client came.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tests::captured::Captured;
use tests::{Server, ServerOptions, Transport, capture_on, deps, on_every_server};
use tokio_postgres::NoTls;
use tokio_postgres_rustls::MakeRustlsConnect;

on_every_server!(psql, pgbench_in_every_mode, drivers_of_four_languages, pg_dump_and_pg_restore);

fn psql(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_each(options, |server, transport| {
        let sql = "select 1; select 'it''s; fine' /* ; */ ;\n\n create table if not exists t (i int);";
        deps::run(transport.program(server, "psql")?.args(["-X", "-q", "-c", sql]))?;
        let script = "select 1;\nselect 2 \\; select 3;\n\\copy t from stdin\n1\n2\n\\.\nselect * from t \\gdesc\n\
                      select 1/0;\nselec;\nbegin;\nselect 1/0;\nselect 4;\nrollback;\n-- only a comment\n;\n\
                      create function f() returns int begin atomic select 1; select 2; end;\n\
                      select $$a;b$$, $x$c;$$;d$x$, E'e\\';f', U&'\\0061;';\n";
        let path = server.socket_folder().join("script.sql");
        std::fs::write(&path, script)?;
        deps::run(transport.program(server, "psql")?.args(["-X", "-q", "-f"]).arg(&path)).map(|_| ())
    })?;
    equal(&captured, 13)
}

fn pgbench_in_every_mode(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_each(options, |server, transport| {
        let pgbench = |arguments: &[&str]| deps::run(transport.program(server, "pgbench")?.args(arguments));
        pgbench(&["-i", "-q"])?;
        for mode in ["simple", "extended", "prepared"] {
            pgbench(&["-n", "-M", mode, "-c", "4", "-t", "25"])?;
        }
        Ok(())
    })?;
    equal(&captured, 3 * 4 * 25 * 7)
}

/// psycopg, asyncpg, node-postgres and tokio-postgres, each with what it does differently from the others.
fn drivers_of_four_languages(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_each(options, |server, transport| {
        for program in ["psycopg_workload.py", "asyncpg_workload.py", "node_workload.js"] {
            transport.run(server, program)?;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio_postgres_session(server, transport))
    })?;
    equal(&captured, 465)?;
    let parameters = captured.compare()?.parameters;
    assert!(parameters >= 3 * 300, "only {parameters} parameters were compared");
    Ok(())
}

fn pg_dump_and_pg_restore(options: ServerOptions) -> anyhow::Result<()> {
    // pg_dump refuses servers that are newer than itself: then another server is dumped, and restored here.
    let newer = options.major() > deps::CLIENTS;
    let older = if newer { Some(ServerOptions::default().tls().start()?) } else { None };
    if let Some(older) = &older {
        make_objects(older)?;
    }
    let captured = capture_each(options, |server, transport| {
        if !newer && transport == Transport::Tcp {
            make_objects(server)?;
        }
        let source = older.as_ref().unwrap_or(server);
        let run = |server: &Server, program: &str, arguments: &[&str]| {
            deps::run(transport.program(server, program)?.args(arguments))
        };
        let (restored, replayed) = (format!("restored_{transport}"), format!("replayed_{transport}"));
        let file = |name: &str| server.socket_folder().join(name).display().to_string();
        let (dump, plain) = (file("objects.dump"), file("objects.sql"));
        run(source, "pg_dump", &["-Fc", "-f", &dump])?;
        server.psql(&format!("create database {restored}"))?;
        run(server, "pg_restore", &["-d", &restored, "--exit-on-error", &dump])?;
        // The plain format with INSERTs, through psql.
        run(source, "pg_dump", &["--inserts", "-f", &plain])?;
        server.psql(&format!("create database {replayed}"))?;
        run(server, "psql", &["-X", "-q", "-d", &replayed, "-f", &plain]).map(|_| ())
    })?;
    // Without the dump itself, the two restores remain.
    equal(&captured, if newer { 700 } else { 790 })
}

/// Runs `workload` in each way in which a client can come, against one server.
fn capture_each(
    options: ServerOptions,
    workload: impl Fn(&Server, Transport) -> anyhow::Result<()>,
) -> anyhow::Result<Captured> {
    capture_on(options.tls(), |server, _| {
        Transport::ALL.into_iter().try_for_each(|transport| workload(server, transport))
    })
}

/// The record equals the log, in which clients of each kind executed at least `least` statements: an oracle that saw
/// nothing proves nothing. Nothing is a gap, and every encrypted session tells how it was encrypted.
fn equal(captured: &Captured, least: u64) -> anyhow::Result<()> {
    captured.compare()?;
    let record = captured.record();
    assert!(record.gaps.is_empty(), "{:?}", record.gaps);
    for transport in Transport::ALL {
        let sessions = || record.sessions.iter().filter(|session| transport.is_of(session));
        let executed: u64 = sessions().map(|session| session.statements).sum();
        assert!(executed >= least, "only {executed} statements over {transport}");
        for session in sessions() {
            let named = session.tls_version.is_some() && session.tls_cipher.is_some();
            let whole = !session.partial && session.gap_bytes == 0 && session.ended_at.is_some();
            assert!(whole && named == (transport == Transport::Tls), "{session:?}");
        }
    }
    Ok(())
}

fn make_objects(server: &Server) -> anyhow::Result<()> {
    let mut psql = server.program("psql")?;
    deps::run(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(deps::client("objects.sql")?))?;
    Ok(())
}

async fn tokio_postgres_session(server: &Server, transport: Transport) -> anyhow::Result<()> {
    let host = match transport {
        Transport::Unix => server.socket_folder().display().to_string(),
        Transport::Tcp | Transport::Tls => "127.0.0.1".to_owned(),
    };
    let sslmode = if transport == Transport::Tls { "require" } else { "disable" };
    let parameters = format!(
        "host={host} port={} user=postgres dbname=postgres application_name=tokio sslmode={sslmode}",
        server.port()
    );
    let (client, connection) = match transport {
        Transport::Tls => {
            let (client, connection) = tokio_postgres::connect(&parameters, rustls_client(server)?).await?;
            (client, tokio::spawn(connection))
        }
        Transport::Tcp | Transport::Unix => {
            let (client, connection) = tokio_postgres::connect(&parameters, NoTls).await?;
            (client, tokio::spawn(connection))
        }
    };
    tokio_postgres_workload(&client).await?;
    drop(client);
    connection.await??;
    Ok(())
}

/// A client that trusts this server's certificate and no other.
fn rustls_client(server: &Server) -> anyhow::Result<MakeRustlsConnect> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_file(server.certificate())?)?;
    let config = ClientConfig::builder().with_root_certificates(Arc::new(trusted)).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

async fn tokio_postgres_workload(client: &tokio_postgres::Client) -> anyhow::Result<()> {
    client
        .batch_execute(
            "drop table if exists tokio_rows; create table tokio_rows (id int primary key, name text); select 1",
        )
        .await?;
    let insert = client.prepare("insert into tokio_rows values ($1, $2)").await?;
    for id in 0..50_i32 {
        client.execute(&insert, &[&id, &format!("it's row {id}")]).await?;
    }
    // Futures that are polled together travel as one pipeline.
    let select = client.prepare("select name from tokio_rows where id = $1").await?;
    let (a, b, c) = tokio::join!(
        client.query(&select, &[&1_i32]),
        client.query(&select, &[&2_i32]),
        client.query("select $1::text", &[&None::<&str>]),
    );
    assert_eq!((a?.len(), b?.len(), c?.len()), (1, 1, 1));
    let failing = client.prepare("select 1 / $1::int").await?;
    assert!(client.query(&failing, &[&0_i32]).await.is_err());
    assert!(client.query("select * from nowhere where id = $1", &[&1_i32]).await.is_err());
    assert!(client.simple_query("select 1; select 1/0; select 2").await.is_err());
    client.query("select id from tokio_rows order by id", &[]).await?;
    Ok(())
}
