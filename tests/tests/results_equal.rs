//! Recorded rows are the rows that the client received, in text and in binary, for every supported type.

use std::process::Command;

use tests::captured::Captured;
use tests::record::Statement;
use tests::wire::{Wire, frontend};
use tests::{Record, Server, ServerOptions, capture_on, clients, deps, on_every_server};

on_every_server!(
    psql_prints_what_is_recorded,
    drivers_receive_what_is_recorded,
    copied_rows_are_recorded_in_both_directions,
    binary_extremes_read_as_the_server_prints_them,
    binary_parameters_read_as_the_server_prints_them,
);

// Over TLS, what differs is how the bytes come: in records, through another system call pattern.
tests::on_server!(
    tls,
    tests::ServerOptions::default().tls(),
    psql_prints_what_is_recorded,
    drivers_receive_what_is_recorded,
    copied_rows_are_recorded_in_both_directions
);

type Rows = Vec<Vec<Option<String>>>;

const SELECT: &str = "select * from every_type order by id";

fn psql_prints_what_is_recorded(options: ServerOptions) -> anyhow::Result<()> {
    let (captured, printed) = with_types(options, |server| {
        printed(server, "select * from extreme_values order by id")?;
        Ok(())
    })?;
    let statement = captured.record().statement_with(SELECT)?;
    same(captured.record(), statement, &printed)
}

fn drivers_receive_what_is_recorded(options: ServerOptions) -> anyhow::Result<()> {
    let (captured, printed) = with_types(options, |server| {
        for way in ["asyncpg", "psycopg-text", "psycopg-binary"] {
            run(server, way)?;
        }
        Ok(())
    })?;
    for way in ["asyncpg", "psycopg-text", "psycopg-binary"] {
        same(captured.record(), statement_of(captured.record(), way, SELECT)?, &printed)?;
    }
    Ok(())
}

fn copied_rows_are_recorded_in_both_directions(options: ServerOptions) -> anyhow::Result<()> {
    let mut binary = Rows::new();
    let (captured, printed) = with_types(options, |server| {
        for way in ["copy-text", "copy-csv", "copy-csv-options"] {
            run(server, way)?;
        }
        binary = serde_json::from_str(&run(server, "copy-binary")?)?;
        Ok(())
    })?;
    for direction in ["to stdout", "from stdin"] {
        for way in ["copy-text", "copy-csv", "copy-csv-options"] {
            same(captured.record(), statement_of(captured.record(), way, direction)?, &printed)?;
        }
        // COPY names no types: binary values stay as they are, in hexadecimal.
        same(captured.record(), statement_of(captured.record(), "copy-binary", direction)?, &binary)?;
    }
    Ok(())
}

fn binary_extremes_read_as_the_server_prints_them(options: ServerOptions) -> anyhow::Result<()> {
    for table in ["every_type", "extreme_values"] {
        let sql = format!("select * from {table} order by id");
        let mut expected = Rows::new();
        let (captured, _) = with_types(options.clone(), |server| {
            expected = printed(server, &format!("{sql} -- as text"))?;
            let mut wire = Wire::login(server, "binary")?;
            wire.send(&frontend::parse("", &sql, &[]))?;
            wire.send(&frontend::target(b'D', b'S', ""))?;
            wire.send(&frontend::bind("", "", &[], &[], &[1]))?;
            wire.send(&frontend::execute("", 0))?;
            wire.send(&frontend::message(b'S', &[]))?;
            wire.until_ready()?;
            wire.terminate()
        })?;
        same(captured.record(), statement_of(captured.record(), "binary", &sql)?, &expected)?;
    }
    Ok(())
}

fn binary_parameters_read_as_the_server_prints_them(options: ServerOptions) -> anyhow::Result<()> {
    for table in ["every_type", "extreme_values"] {
        let mut expected = Rows::new();
        let (captured, _) = with_types(options.clone(), |server| {
            expected = printed(server, &format!("select * from {table} order by id"))?;
            let oids = printed(
                server,
                &format!(
                    "select atttypid from pg_attribute where attrelid = '{table}'::regclass and attnum > 0 \
                     order by attnum"
                ),
            )?;
            let oids: Vec<u32> =
                oids.into_iter().flatten().flatten().map(|oid| oid.parse()).collect::<Result<_, _>>()?;
            send_back(server, table, &oids)
        })?;
        let record = captured.record();
        let session = record.session_named("send back")?;
        let executed: Vec<_> = record
            .statements_of(session)
            .into_iter()
            .filter(|statement| statement.sql.as_deref().is_some_and(|sql| sql.starts_with("select $1")))
            .collect();
        assert_eq!(executed.len(), expected.len());
        for (statement, row) in executed.into_iter().zip(&expected) {
            let params =
                statement.params.iter().flatten().map(|param| param.value.clone()).collect::<Vec<_>>();
            assert_eq!(&params, row, "parameters of {table}");
        }
    }
    Ok(())
}

/// Reads a table in binary and sends each row back as the parameters of a statement.
fn send_back(server: &Server, table: &str, oids: &[u32]) -> anyhow::Result<()> {
    let mut wire = Wire::login(server, "send back")?;
    wire.send(&frontend::parse("", &format!("select * from {table} order by id"), &[]))?;
    wire.send(&frontend::bind("", "", &[], &[], &[1]))?;
    wire.send(&frontend::execute("", 0))?;
    wire.send(&frontend::message(b'S', &[]))?;
    let rows: Vec<_> = wire.until_ready()?.into_iter().filter(|message| message.tag == b'D').collect();
    let marks: Vec<String> = (1..=oids.len()).map(|number| format!("${number}")).collect();
    wire.send(&frontend::parse("back", &format!("select {}", marks.join(", ")), oids))?;
    for row in rows {
        wire.send(&frontend::bind("", "back", &[1], &row.values(), &[1]))?;
        wire.send(&frontend::execute("", 0))?;
    }
    wire.send(&frontend::message(b'S', &[]))?;
    let replies = wire.until_ready()?;
    anyhow::ensure!(replies.iter().all(|message| message.tag != b'E'), "the server refused: {replies:?}");
    wire.terminate()
}

/// A captured server with the tables of `every_type.sql`, and how psql prints [`SELECT`].
fn with_types(
    options: ServerOptions,
    workload: impl FnOnce(&Server) -> anyhow::Result<()>,
) -> anyhow::Result<(Captured, Rows)> {
    let mut expected = Rows::new();
    let captured = capture_on(options, |server, _| {
        server.psql(&std::fs::read_to_string(deps::client("every_type.sql")?)?)?;
        expected = printed(server, SELECT)?;
        workload(server)
    })?;
    captured.compare()?;
    Ok((captured, expected))
}

/// What psql prints for `sql`, cut at separators that no value holds.
fn printed(server: &Server, sql: &str) -> anyhow::Result<Rows> {
    let mut psql: Command = server.program("psql")?;
    let text = deps::run(psql.args([
        "-X",
        "-q",
        "-A",
        "-t",
        "-F",
        "\x01",
        "-R",
        "\x02",
        "-P",
        "null=\x03",
        "-c",
        sql,
    ]))?;
    let value = |text: &str| (text != "\x03").then(|| text.to_owned());
    let rows = text.trim_end_matches('\n').split('\x02');
    Ok(rows.map(|row| row.split('\x01').map(value).collect()).collect())
}

fn run(server: &Server, way: &str) -> anyhow::Result<String> {
    let mut command = clients::command("receive_rows.py")?;
    server.point(&mut command);
    deps::run(command.env("PGAPPNAME", way).arg(way))
}

/// The statement of a client whose text contains `part`.
fn statement_of<'r>(record: &'r Record, application: &str, part: &str) -> anyhow::Result<&'r Statement> {
    let session = record.session_named(application)?;
    let mut found = record
        .statements_of(session)
        .into_iter()
        .filter(|statement| statement.sql.as_deref().is_some_and(|sql| sql.contains(part)));
    let statement =
        found.next().ok_or_else(|| anyhow::anyhow!("{application} has no statement with {part}"))?;
    anyhow::ensure!(found.next().is_none(), "{application} has several statements with {part}");
    Ok(statement)
}

/// Compares value by value, so that a failure names the column.
fn same(record: &Record, statement: &Statement, expected: &Rows) -> anyhow::Result<()> {
    let recorded = record.rows_of(statement);
    let what = format!("{:?} by {:?}", statement.sql, statement.application_name);
    let mut wrong = Vec::new();
    for (row, (recorded, expected)) in recorded.iter().zip(expected).enumerate() {
        assert_eq!(recorded.len(), expected.len(), "columns of row {row} of {what}");
        for (column, (recorded, expected)) in recorded.iter().zip(expected).enumerate() {
            if recorded != expected {
                let name = statement.columns.as_ref().and_then(|columns| columns.get(column));
                let name = name.map_or("", |column| &column.name);
                wrong.push(format!("row {row}, column {column} {name}: {recorded:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    assert_eq!(recorded.len(), expected.len(), "rows of {what}");
    assert_eq!(statement.rows, Some(expected.len() as u64), "row count of {what}");
    Ok(())
}
