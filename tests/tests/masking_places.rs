//! What is masked where no column is named beside it: parameters by their numbers, and values by their places in a row.

use std::process::Command;

use anyhow::{Context as _, ensure};
use tests::agent::{Finished, QUICK_ROTATION};
use tests::canary::{canary, is_nowhere};
use tests::record::Statement;
use tests::wire::{Wire, frontend};
use tests::{Agent, AgentOptions, Server, deps};

const COLUMNS: &str = r#"
[[mask]]
name    = "people"
columns = ["public.customers.ssn", "customers.email", "doubled.ssn"]
"#;

const NUMBERS: &str = r#"
[[mask]]
name     = "logins"
params   = [2]
when     = '"app_login" in stmt.function_names'
strategy = "hash"
"#;

const TABLES: &str = "create table customers (id int primary key, name text, ssn text, email text); \
    create table doubled (id int, twice int generated always as (id * 2) stored, ssn text); \
    create function app_login(text, text) returns int language sql as 'select length($1 || $2)'";

fn start(server: &Server, rules: &str) -> anyhow::Result<Agent> {
    AgentOptions::default().server(server).config(QUICK_ROTATION).config(rules).start()
}

/// Binds and executes a prepared statement, with parameters in these formats.
fn execute(wire: &mut Wire, name: &str, formats: &[u16], values: &[&[u8]]) -> anyhow::Result<()> {
    let values: Vec<_> = values.iter().map(|value| Some(value.to_vec())).collect();
    let messages = [
        frontend::bind("", name, formats, &values, &[]),
        frontend::execute("", 0),
        frontend::message(b'S', &[]),
    ];
    wire.send(&messages.concat())?;
    let replies = wire.until_ready()?;
    ensure!(replies.iter().all(|reply| reply.tag != b'E'), "{replies:?}");
    Ok(())
}

fn prepare(wire: &mut Wire, name: &str, sql: &str, types: &[u32]) -> anyhow::Result<()> {
    wire.send(&[frontend::parse(name, sql, types), frontend::message(b'S', &[])].concat())?;
    wire.until_ready().map(drop)
}

fn params(statement: &Statement) -> Vec<String> {
    let params = statement.params.iter().flatten();
    params.map(|param| param.value.clone().unwrap_or_else(|| "NULL".to_owned())).collect()
}

#[test]
fn parameters_are_masked_by_number_in_text_and_binary_however_often_they_are_bound() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let canary = canary();
    // Prepared before anybody looks: nobody will know its text.
    let mut before = Wire::login(&server, "before")?;
    prepare(&mut before, "old", "select app_login($1, $2)", &[TEXT, TEXT])?;
    let agent = start(&server, NUMBERS)?;
    execute(&mut before, "old", &[0, 0], &[b"bob", canary.as_bytes()])?;
    let mut wire = Wire::login(&server, "numbered")?;
    prepare(&mut wire, "login", "select app_login($1, $2)", &[TEXT, TEXT])?;
    for formats in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        execute(&mut wire, "login", &formats, &[b"bob", canary.as_bytes()])?;
    }
    prepare(&mut wire, "other", "select length($1 || $2)", &[TEXT, TEXT])?;
    execute(&mut wire, "other", &[1, 1], &[b"bob", b"harmless"])?;
    wire.query("prepare again as select app_login($1::text, $2::text)")?;
    wire.query(&format!("execute again('bob', '{canary}')"))?;
    wire.query(&format!("explain execute again('bob', '{canary}')"))?;
    before.terminate()?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;

    let record = &finished.record;
    let statements = record.statements_of(record.session_named("numbered")?);
    let logins: Vec<_> =
        statements.iter().filter(|row| row.sql.as_deref() == Some("select app_login($1, $2)")).collect();
    ensure!(logins.len() == 4 && logins.iter().all(|row| row.masked == 1), "{logins:?}");
    let first = params(logins[0]);
    ensure!(first[0] == "bob" && first[1].starts_with("hmac:"), "{first:?}");
    ensure!(logins.iter().all(|row| params(row) == first), "{logins:?}");
    let other = record.statement_with("select length")?;
    ensure!(params(other) == ["bob", "harmless"] && other.masked == 0, "{other}");
    let executed: Vec<_> = statements.iter().filter(|row| with(row, "execute again")).collect();
    ensure!(executed.len() == 2 && executed.iter().all(|row| row.masked == 1 && with(row, "'bob'")));
    let unseen = record.statements.iter().find(|row| row.sql.is_none()).context("no unseen statement")?;
    ensure!(params(unseen) == first && unseen.masked == 1, "{unseen}");
    Ok(())
}

#[test]
fn parameters_that_a_masked_column_takes_are_masked_in_binary_and_others_are_not() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let agent = start(&server, COLUMNS)?;
    let canary = canary();
    let mut wire = Wire::login(&server, "columns")?;
    for (name, sql) in [
        ("insert", "insert into customers (id, name, ssn) values ($1, $2, $3) on conflict do nothing"),
        ("update", "update customers set name = $2, ssn = $3 where id = $1"),
        ("select", "select id from customers where id = $1 and name = $2 and ssn = $3"),
    ] {
        prepare(&mut wire, name, sql, &[INT4, TEXT, TEXT])?;
        for formats in [[1, 0, 0], [1, 0, 1], [1, 1, 1]] {
            execute(&mut wire, name, &formats, &[&7i32.to_be_bytes(), b"ann", canary.as_bytes()])?;
        }
    }
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;
    let statements = finished.record.statements_of(finished.record.session_named("columns")?);
    ensure!(statements.len() == 9, "{statements:?}");
    for row in statements {
        ensure!(params(row) == ["7", "ann", "[masked]"] && row.masked == 1, "{row} {}", row.masked);
    }
    Ok(())
}

#[test]
fn rows_that_name_no_columns_are_masked_by_places_once_the_session_has_seen_the_table() -> anyhow::Result<()>
{
    let server = Server::start()?;
    server.psql(TABLES)?;
    let agent = start(&server, COLUMNS)?;
    let canary = canary();
    let mut wire = Wire::login(&server, "places")?;
    let copy = |wire: &mut Wire, sql: &str, data: &str| -> anyhow::Result<()> {
        wire.send(&frontend::query(sql))?;
        ensure!(wire.expect()?.tag == b'G', "no COPY");
        wire.send(&frontend::message(b'd', data.as_bytes()))?;
        wire.send(&frontend::message(b'c', &[]))?;
        wire.until_ready().map(drop)
    };
    wire.query(&format!("insert into customers values (1, 'unseen', '{canary}', null)"))?;
    wire.query("select * from customers /* seen */")?;
    wire.query(&format!("insert into customers values (2, 'seen', '{canary}', '{canary}')"))?;
    wire.query(&format!("insert into customers values (3, 'short', '{canary}')"))?;
    copy(&mut wire, "copy customers from stdin", &format!("4\tcopied\t{canary}\t\\N\n"))?;
    wire.query("copy customers to stdout")?;
    // COPY passes over what is generated.
    wire.query(&format!("insert into doubled (id, ssn) values (5, '{canary}')"))?;
    wire.query("select * from doubled")?;
    copy(&mut wire, "copy doubled from stdin", &format!("6\t{canary}\n"))?;
    wire.query("alter table customers add column note text")?;
    wire.query(&format!("insert into customers values (7, 'altered', '{canary}', null, null)"))?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;

    let has = |text: &str| finished.record.statements.iter().any(|row| row.sql.as_deref() == Some(text));
    ensure!(has("insert into customers values ('[masked]', '[masked]', '[masked]', null)"));
    ensure!(has("insert into customers values (2, 'seen', '[masked]', '[masked]')"));
    ensure!(has("insert into customers values ('[masked]', '[masked]', '[masked]')"));
    ensure!(has("insert into customers values ('[masked]', '[masked]', '[masked]', null, null)"));
    let rows = |sql: &str| rows(&finished, sql);
    ensure!(rows("copy customers from stdin")? == ["4 copied [masked] NULL"]);
    let out = rows("copy customers to stdout")?;
    ensure!(out.len() == 4 && out.contains(&"2 seen [masked] [masked]".to_owned()), "{out:?}");
    ensure!(rows("copy doubled from stdin")? == ["[masked] [masked]"]);
    finished.record.check_totals()
}

#[test]
fn check_says_which_parameters_of_a_text_are_masked() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("capture.toml");
    std::fs::write(&file, format!("{COLUMNS}{NUMBERS}"))?;
    let mut check = Command::new(deps::agent()?);
    let sql = "select app_login($1, $2) from customers where ssn = $3";
    let said = deps::run(check.arg("check").arg(&file).args(["--sql", sql]))?;
    ensure!(said.contains("parameters masked: $2, $3"), "{said}");
    Ok(())
}

/// The rows of the one statement with this text, each as a line.
fn rows(finished: &Finished, sql: &str) -> anyhow::Result<Vec<String>> {
    let statement = finished.record.statements.iter().find(|row| row.sql.as_deref() == Some(sql));
    let rows = finished.record.rows_of(statement.with_context(|| format!("no {sql:?}"))?);
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
    Ok(rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>().join(" ")).collect())
}

fn with(statement: &Statement, part: &str) -> bool {
    statement.sql.as_deref().is_some_and(|sql| sql.contains(part))
}

/// `int4` and `text`.
const INT4: u32 = 23;
const TEXT: u32 = 25;
