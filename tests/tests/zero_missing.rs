//! Nothing that the server executed is missing from the record, and nothing is in it that the server did not
//! execute: the record against the server's own log, one by one.

use tests::captured::Captured;
use tests::{Server, ServerOptions, capture_on, clients, deps, on_every_server};

on_every_server!(
    psql_over_tcp_and_unix_sockets,
    pgbench_in_every_mode,
    psycopg,
    asyncpg,
    node_postgres,
    tokio_postgres,
    pg_dump_and_pg_restore,
);

fn psql_over_tcp_and_unix_sockets(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_on(options, |server, _| {
        server.psql("select 1; select 'it''s; fine' /* ; */ ;\n\n create table t (i int);")?;
        let script = "select 1;\nselect 2 \\; select 3;\n\\copy t from stdin\n1\n2\n\\.\nselect * from t \\gdesc\n\
                      select 1/0;\nselec;\nbegin;\nselect 1/0;\nselect 4;\nrollback;\n-- only a comment\n;\n\
                      create function f() returns int begin atomic select 1; select 2; end;\n\
                      select $$a;b$$, $x$c;$$;d$x$, E'e\\';f', U&'\\0061;';\n";
        let path = server.socket_folder().join("script.sql");
        std::fs::write(&path, script)?;
        for over_unix in [false, true] {
            let mut psql = server.program("psql")?;
            if over_unix {
                psql.env("PGHOST", server.socket_folder());
            }
            deps::run(psql.args(["-X", "-q", "-f"]).arg(&path))?;
        }
        Ok(())
    })?;
    equal(&captured, 25)?;
    let transports: Vec<_> =
        captured.record().sessions.iter().map(|session| session.transport.as_str()).collect();
    assert_eq!(transports, ["tcp", "tcp", "unix"]);
    Ok(())
}

fn pgbench_in_every_mode(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_on(options, |server, _| {
        deps::run(server.program("pgbench")?.args(["-i", "-q"]))?;
        for mode in ["simple", "extended", "prepared"] {
            let mut pgbench = server.program("pgbench")?;
            if mode == "prepared" {
                pgbench.env("PGHOST", server.socket_folder());
            }
            deps::run(pgbench.args(["-n", "-M", mode, "-c", "4", "-t", "100"]))?;
        }
        Ok(())
    })?;
    equal(&captured, 3 * 4 * 100 * 7)
}

fn psycopg(options: ServerOptions) -> anyhow::Result<()> {
    driver(options, "psycopg_workload.py", 130)
}

fn asyncpg(options: ServerOptions) -> anyhow::Result<()> {
    driver(options, "asyncpg_workload.py", 130)
}

fn node_postgres(options: ServerOptions) -> anyhow::Result<()> {
    driver(options, "node_workload.js", 150)
}

fn tokio_postgres(options: ServerOptions) -> anyhow::Result<()> {
    let captured = capture_on(options, |server, _| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(tokio_postgres_workload(server))
    })?;
    equal(&captured, 55)
}

fn pg_dump_and_pg_restore(options: ServerOptions) -> anyhow::Result<()> {
    let mut version = 0;
    let captured = capture_on(options, |server, _| {
        // pg_dump refuses servers that are newer than itself: then another server is dumped, and restored here.
        let older = if server.version() > deps::CLIENTS { Some(Server::start()?) } else { None };
        let source = older.as_ref().unwrap_or(server);
        let mut psql = source.program("psql")?;
        deps::run(psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(deps::client("objects.sql")?))?;
        let dump = server.socket_folder().join("objects.dump");
        deps::run(source.program("pg_dump")?.args(["-Fc", "-f"]).arg(&dump))?;
        version = server.version();
        server.psql("create database restored")?;
        deps::run(server.program("pg_restore")?.args(["-d", "restored", "--exit-on-error"]).arg(&dump))?;
        // The plain format with INSERTs, through psql.
        let plain = server.socket_folder().join("objects.sql");
        deps::run(source.program("pg_dump")?.args(["--inserts", "-f"]).arg(&plain))?;
        server.psql("create database replayed")?;
        deps::run(server.program("psql")?.args(["-X", "-q", "-d", "replayed", "-f"]).arg(&plain))?;
        Ok(())
    })?;
    // Without the dump itself, the two restores remain.
    equal(&captured, if version > deps::CLIENTS { 700 } else { 800 })
}

/// The record equals the log, which holds at least `least` statements: an oracle that saw nothing proves nothing.
fn equal(captured: &Captured, least: usize) -> anyhow::Result<()> {
    let compared = captured.compare()?;
    assert!(compared.executed >= least, "the workload did less than it should: {compared:?}");
    assert!(captured.record().gaps.is_empty(), "{:?}", captured.record().gaps);
    Ok(())
}

fn driver(options: ServerOptions, program: &str, least: usize) -> anyhow::Result<()> {
    let captured = capture_on(options, |server, _| {
        clients::run(server, program, &[])?;
        let mut over_unix = clients::command(program)?;
        server.point(&mut over_unix);
        deps::run(over_unix.env("PGHOST", server.socket_folder()))?;
        Ok(())
    })?;
    equal(&captured, 2 * least)?;
    let parameters = captured.compare()?.parameters;
    assert!(parameters >= least / 2, "only {parameters} parameters were compared");
    Ok(())
}

async fn tokio_postgres_workload(server: &Server) -> anyhow::Result<()> {
    let parameters =
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres application_name=tokio", server.port());
    let (client, connection) = tokio_postgres::connect(&parameters, tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    client
        .batch_execute("create table tokio_rows (id int primary key, name text); select 1; select 2")
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
    drop(client);
    connection.await??;
    Ok(())
}
