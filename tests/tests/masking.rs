//! What is masked reaches no file: canaries are planted wherever a value can be, and none is found.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use tests::agent::{Finished, QUICK_ROTATION};
use tests::canary::{canary, is_nowhere};
use tests::record::Statement;
use tests::wire::{Wire, frontend};
use tests::{Agent, AgentOptions, Server, clients, deps};

const RULES: &str = r#"
[[mask]]
name    = "people"
columns = ["public.customers.ssn", "customers.email", "customer_view.contact"]
"#;

const TABLES: &str = "create table customers (id int primary key, name text, ssn text unique, email text); \
    create table orders (id int primary key, customer int, total numeric); \
    create view customer_view as select id as number, email as contact from customers; \
    insert into orders select n, n, n * 10 from generate_series(1, 5) n";

fn masking(rules: &str) -> anyhow::Result<(Server, Agent)> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let agent = AgentOptions::default().server(&server).config(QUICK_ROTATION).config(rules).start()?;
    Ok((server, agent))
}

fn with<'f>(finished: &'f Finished, part: &str) -> anyhow::Result<&'f Statement> {
    finished
        .record
        .statements
        .iter()
        .find(|row| row.sql.as_deref().is_some_and(|sql| sql.contains(part)))
        .with_context(|| {
            let texts: Vec<_> = finished.record.statements.iter().map(|row| row.sql.as_deref()).collect();
            format!("no statement with {part:?} among {texts:?}")
        })
}

#[test]
fn a_masked_column_stays_masked_whatever_it_is_called_or_made_of() -> anyhow::Result<()> {
    let (server, agent) = masking(RULES)?;
    let canary = canary();
    let mut wire = Wire::login(&server, "masking")?;
    let insert = format!(
        "insert into customers (id, name, ssn, email) values (1, 'ann', '{canary}-1', '{canary}@x'), (2, 'bob', '{canary}-2', null)"
    );
    let texts = [
        insert.clone(),
        "select * from customers /* star */".to_owned(),
        "select id, ssn as harmless, name from customers order by id /* alias */".to_owned(),
        "select o.total, c.* from orders o join customers c on c.id = o.customer order by 1 /* join */"
            .to_owned(),
        "select upper(email), length(name) from customers /* expression */".to_owned(),
        "select x.b, x.a from (select id, ssn from customers) x(a, b) /* subquery */".to_owned(),
        "with x as (select * from customers) select ssn, id from x /* cte */".to_owned(),
        "select number, contact as c from customer_view /* view */".to_owned(),
        "select c from customers c /* row */".to_owned(),
        "table customers".to_owned(),
        format!("select id from customers where ssn = '{canary}-1' and name = 'ann'"),
        format!("update customers set email = '{canary}@y' where id = 2 returning id, email"),
        format!("explain select 1 from customers where ssn = '{canary}-9'"),
        "prepare p as select id, ssn from customers where ssn = $1".to_owned(),
        format!("execute p('{canary}-1')"),
        "begin; declare c cursor for select ssn, id from customers".to_owned(),
        "fetch 5 from c".to_owned(),
        "commit".to_owned(),
        insert,
        "select ssn::int from customers".to_owned(),
        format!("select garbage from customers where where ssn = '{canary}'"),
        format!(
            "do $$ begin perform 1 from customers where ssn = '{canary}'; raise exception 'no {canary}'; end $$"
        ),
        format!("update customers set ssn = '{canary}-1' where id = 2"),
        "select total from orders where id = 3".to_owned(),
        format!("create table copied as select * from customers where ssn <> '{canary}'"),
        "copy customers to stdout".to_owned(),
        "copy (select name, ssn from customers) to stdout (format csv, header)".to_owned(),
    ];
    for text in &texts {
        wire.query(text)?;
    }
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;

    let rows = |part: &str| -> anyhow::Result<Vec<Vec<String>>> {
        let rows = finished.record.rows_of(with(&finished, part)?);
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        Ok(rows.iter().map(|row| row.iter().map(text).collect()).collect())
    };
    const M: &str = "[masked]";
    ensure!(
        rows("/* star */")? == [["1", "ann", M, M], ["2", "bob", M, "NULL"]],
        "{:?}",
        rows("/* star */")?
    );
    ensure!(rows("/* alias */")? == [["1", M, "ann"], ["2", M, "bob"]], "{:?}", rows("/* alias */")?);
    ensure!(
        rows("/* join */")? == [["10", "1", "ann", M, M], ["20", "2", "bob", M, "NULL"]],
        "{:?}",
        rows("/* join */")?
    );
    ensure!(rows("/* expression */")? == [[M, "3"], ["NULL", "3"]], "{:?}", rows("/* expression */")?);
    ensure!(rows("/* subquery */")? == [[M, "1"], [M, "2"]], "{:?}", rows("/* subquery */")?);
    ensure!(rows("/* cte */")? == [[M, "1"], [M, "2"]], "{:?}", rows("/* cte */")?);
    ensure!(rows("/* view */")? == [["1", M], ["2", "NULL"]], "{:?}", rows("/* view */")?);
    ensure!(rows("/* row */")? == [[M], [M]], "{:?}", rows("/* row */")?);
    ensure!(rows("fetch 5")? == [[M, "1"], [M, "2"]], "{:?}", rows("fetch 5")?);
    ensure!(rows("from orders where id = 3")? == [["30"]], "{:?}", rows("from orders where id = 3")?);

    let first = with(&finished, "insert into customers (id, name")?;
    let expected = "insert into customers (id, name, ssn, email) values (1, 'ann', '[masked]', '[masked]'), (2, 'bob', '[masked]', null)";
    ensure!(first.sql.as_deref() == Some(expected) && first.masked == 3, "{first} {}", first.masked);
    ensure!(with(&finished, "/* star */")?.masked == 3 && with(&finished, "where id = 3")?.masked == 0);
    let found = with(&finished, "where ssn = '[masked]' and name = 'ann'")?;
    ensure!(found.rows == Some(1) && found.masked == 1, "{found}");
    finished.record.check_totals()?;
    finished.verify()?;
    Ok(())
}

#[test]
fn drivers_that_prepare_and_speak_binary_leave_no_canary() -> anyhow::Result<()> {
    let (server, agent) = masking(RULES)?;
    let canary = canary();
    clients::run(&server, "masking_drivers.py", &[&canary])?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;
    let prepared = with(&finished, "ssn as harmless from customers where ssn = $1")?;
    let values: Vec<_> = prepared.params.iter().flatten().map(|param| param.value.as_deref()).collect();
    ensure!(values == [Some("[masked]")] && prepared.masked == 2, "{prepared} {}", prepared.masked);
    let name = &finished.record.rows_of(prepared)[0];
    ensure!(name[1].as_deref() == Some("name 10") && name[2].as_deref() == Some("[masked]"), "{name:?}");
    Ok(())
}

#[test]
fn a_killed_agent_leaves_no_canary_in_its_journal_and_the_next_one_goes_on() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let canary = canary();
    let data = tempfile::tempdir()?;
    let metrics = tempfile::tempdir()?;
    let metrics_file = metrics.path().join("metrics");
    let start = || {
        let options = AgentOptions::default().server(&server).data(data.path()).metrics_file(&metrics_file);
        options.config(RULES).start()
    };
    let agent = start()?;
    let mut wire = Wire::login(&server, "killed")?;
    wire.query(&format!("insert into customers (id, ssn, email) values (1, '{canary}-1', '{canary}@x')"))?;
    wire.query("select * from customers")?;
    // A statement that is prepared, a portal that waits, a message that is cut in half.
    let sql = format!("select id, ssn from customers where ssn = $1 or email = '{canary}'");
    let value = [Some(format!("{canary}-1").into_bytes())];
    let messages = [
        frontend::parse("kept", &sql, &[]),
        frontend::bind("", "kept", &[], &value, &[]),
        frontend::target(b'D', b'P', ""),
        frontend::execute("", 0),
        frontend::message(b'S', &[]),
    ];
    wire.send(&messages.concat())?;
    wire.until_ready()?;
    let mut halfway = Wire::login(&server, "halfway")?;
    let long = frontend::query(&format!("insert into customers (id, ssn) values (7, '{canary}-half')"));
    halfway.send(&long[..long.len() - 9])?;
    let mut copying = Wire::login(&server, "copying")?;
    copying.send(&frontend::query("copy customers (id, ssn) from stdin"))?;
    ensure!(copying.expect()?.tag == b'G', "no COPY");
    copying.send(&frontend::message(b'd', format!("8\t{canary}-first\n9\t{canary}-sec").as_bytes()))?;
    tests::wait::pause(std::time::Duration::from_millis(500));
    agent.wait_drained()?;
    is_nowhere(&canary, data.path(), &agent.stderr())?;
    let left = agent.kill()?;
    is_nowhere(&canary, data.path(), &left.stderr)?;

    let agent = start()?;
    left.adopted();
    wire.send(
        &[
            frontend::bind("", "kept", &[], &value, &[]),
            frontend::execute("", 0),
            frontend::message(b'S', &[]),
        ]
        .concat(),
    )?;
    wire.until_ready()?;
    halfway.send(&long[long.len() - 9..])?;
    halfway.until_ready()?;
    copying.send(&frontend::message(b'd', b"ond\n"))?;
    copying.send(&frontend::message(b'c', &[]))?;
    copying.until_ready()?;
    for mut wire in [wire, halfway, copying] {
        wire.terminate()?;
    }
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;
    ensure!(!std::fs::read_to_string(&metrics_file)?.contains(&canary));
    let record = &finished.record;
    let session = record.session_named("killed")?;
    let statements = record.statements_of(session);
    ensure!(
        statements.len() == 4 && statements.iter().all(|row| row.complete && row.masked > 0),
        "{statements:?}"
    );
    ensure!(
        statements[2].sql == statements[3].sql && record.rows_of(statements[3]).len() == 1,
        "{statements:?}"
    );
    let copied = record.statements_of(record.session_named("copying")?);
    ensure!(
        copied.len() == 1 && copied[0].masked == 2 && copied[0].rows == Some(2),
        "{} {}",
        copied[0],
        copied[0].masked
    );
    ensure!(record.gaps.is_empty(), "{:?}", record.gaps);
    Ok(())
}

/// Without the key, as after a failure of power, nobody reads what the killed agent knew; its session has a row all the same.
#[test]
fn a_session_whose_key_is_gone_keeps_its_row_and_begins_anew() -> anyhow::Result<()> {
    let server = Server::start()?;
    let data = tempfile::tempdir()?;
    let start = || AgentOptions::default().server(&server).data(data.path()).start();
    let agent = start()?;
    let mut wire = Wire::login(&server, "keyless")?;
    wire.query("select 'before'")?;
    agent.wait_drained()?;
    tests::wait::pause(std::time::Duration::from_millis(300));
    let left = agent.kill()?;
    let key = state_key(data.path())?;
    let mode = std::fs::metadata(&key)?.permissions().mode() & 0o777;
    ensure!(mode == 0o600, "{mode:o}");
    std::fs::remove_file(&key)?;
    let agent = start()?;
    left.adopted();
    // Until a message is seen to begin, nothing of it can be told.
    for number in 1..=3 {
        wire.query(&format!("select 'after {number}'"))?;
    }
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    ensure!(finished.stderr.contains("#state-key"), "{}", finished.stderr);
    ensure!(!key.exists(), "a stopped agent leaves nothing to a next one");
    let record = &finished.record;
    let first = record.session_named("keyless")?;
    ensure!(first.ended_at.is_none() && first.statements == 1 && !first.partial, "{first:?}");
    let after = record.statement_with("'after 3'")?;
    let second = record.sessions.iter().find(|session| session.session_id == after.session_id);
    ensure!(second.is_some_and(|session| session.partial && session.ended_at.is_some()), "{second:?}");
    Ok(())
}

/// Where an agent keeps the key of its data directory.
fn state_key(data: &Path) -> anyhow::Result<PathBuf> {
    let data = std::fs::canonicalize(data)?;
    // FNV-1a, as the names of its pins.
    let hash = data.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(PathBuf::from(format!("/dev/shm/capture-states-{hash:016x}")))
}

#[test]
fn passwords_in_statements_are_masked_without_any_rule() -> anyhow::Result<()> {
    let server = Server::start()?;
    let agent = Agent::start(&server)?;
    let canary = canary();
    let mut wire = Wire::login(&server, "passwords")?;
    for text in [
        format!("create role anna login password '{canary}'"),
        format!("alter user anna with encrypted password E'{canary}' valid until '2040-01-01'"),
        format!("create role broken passwort password '{canary}' nonsense"),
        format!("alter role anna password '{canary}"),
        format!("alter role nobody password '{canary}'"),
        format!("do $$ begin execute 'alter role anna password ''{canary}'''; end $$"),
        format!("create subscription s connection 'host=127.0.0.1 port=1 password={canary}' publication p"),
        format!("select dblink_connect('postgresql://anna:{canary}@127.0.0.1/x')"),
        format!("create user mapping for anna server nowhere options (user 'anna', password '{canary}')"),
        format!("prepare q as select 'host=a password={canary}'"),
        "select 'nothing of it'".to_owned(),
    ] {
        wire.query(&text)?;
    }
    let value = [Some(format!("host=a password={canary}").into_bytes())];
    let messages = [
        frontend::parse("", "select length($1::text)", &[]),
        frontend::bind("", "", &[], &value, &[]),
        frontend::execute("", 0),
        frontend::message(b'S', &[]),
    ];
    wire.send(&messages.concat())?;
    wire.until_ready()?;
    wire.terminate()?;
    // psql's own way sends a hash, which is as good as a password.
    let mut psql = server.program("psql")?;
    deps::run(psql.args([
        "-X",
        "-q",
        "-c",
        &format!("alter role anna password 'SCRAM-SHA-256$4096:{canary}'"),
    ]))?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;
    let altered = with(&finished, "alter user anna")?;
    let expected = "alter user anna with encrypted password '[masked]' valid until '2040-01-01'";
    ensure!(altered.sql.as_deref() == Some(expected) && altered.masked == 1, "{altered}");
    let failed = with(&finished, "alter role nobody")?;
    ensure!(failed.error_message.as_deref() == Some("role \"nobody\" does not exist"), "{failed}");
    ensure!(with(&finished, "nothing of it")?.masked == 0);
    Ok(())
}

#[test]
fn values_are_known_by_their_form_wherever_they_stand() -> anyhow::Result<()> {
    const PATTERNS: &str =
        "[[mask]]\nname = 'forms'\npatterns = ['card', 'iban', 'ssn', 'email', 'jwt', 'pem', 'cloud_key']\n";
    let (server, agent) = masking(PATTERNS)?;
    let (card, iban, ssn) = ("4111111111111111", "DE89370400440532013000", "123-45-6789");
    let mail = format!("{}@example.com", canary());
    let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    let key = ["AKIA", "IOSFODNN7EXAMPLE"].concat();
    let pem = "-----BEGIN PRIVATE KEY-----\nb25lIGNhbmFyeSBrZXkgYm9keQ\n-----END PRIVATE KEY-----";
    let mut wire = Wire::login(&server, "forms")?;
    let values = [card, iban, ssn, &mail, token, &key, pem];
    for value in values {
        wire.query(&format!("select 'text {value} text' as t, 1 as one /* {value} */"))?;
        let given = [Some(format!("{{\"k\": \"{value}\"}}").replace('\n', "\\n").into_bytes())];
        let messages = [
            frontend::parse("", "select $1::json ->> 'k', $1::text::bytea", &[]),
            frontend::bind("", "", &[], &given, &[1, 0]),
            frontend::target(b'D', b'P', ""),
            frontend::execute("", 0),
            frontend::message(b'S', &[]),
        ];
        wire.send(&messages.concat())?;
        wire.until_ready()?;
        wire.query(&format!("select '{value}'::int"))?;
    }
    wire.query(&format!("select {card}::bigint, array[{card}::bigint]"))?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    for value in [card, iban, ssn, &mail, token, &key, "b25lIGNhbmFyeSBrZXkgYm9keQ"] {
        is_nowhere(value, &finished.data, &finished.stderr)?;
    }
    let first = with(&finished, "as one")?;
    ensure!(
        first.sql.as_deref() == Some("select 'text [masked] text' as t, 1 as one /* [masked] */"),
        "{first}"
    );
    let row = finished.record.rows_of(first)[0];
    ensure!(row[0].as_deref() == Some("text [masked] text") && row[1].as_deref() == Some("1"), "{row:?}");
    ensure!(first.masked == 3, "{}", first.masked);
    Ok(())
}

#[test]
fn equal_values_keep_equal_hashes_in_texts_parameters_and_rows() -> anyhow::Result<()> {
    let (server, agent) = masking(&RULES.replace("columns", "strategy = 'hash'\ncolumns"))?;
    let canary = canary();
    let mut wire = Wire::login(&server, "hashed")?;
    wire.query(&format!("insert into customers (id, ssn) values (1, '{canary}')"))?;
    wire.query("select ssn from customers /* rows */")?;
    let value = [Some(canary.clone().into_bytes())];
    let messages = [
        frontend::parse("", "select 1 from customers where ssn = $1", &[]),
        frontend::bind("", "", &[], &value, &[]),
        frontend::execute("", 0),
        frontend::message(b'S', &[]),
    ];
    wire.send(&messages.concat())?;
    wire.until_ready()?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;
    let row = finished.record.rows_of(with(&finished, "/* rows */")?)[0][0].clone().context("NULL")?;
    ensure!(row.starts_with("hmac:") && row.len() == 37, "{row}");
    ensure!(with(&finished, "insert into customers")?.sql.as_deref().is_some_and(|sql| sql.contains(&row)));
    let given = with(&finished, "where ssn = $1")?.params.clone().unwrap_or_default();
    ensure!(given[0].value.as_deref() == Some(&*row), "{given:?} {row}");
    Ok(())
}

#[test]
fn decisions_tell_statements_without_what_is_masked() -> anyhow::Result<()> {
    let rules = format!(
        "{RULES}[[guardrail]]\nname = 'watch'\nwhen = '\"update\" in stmt.kinds'\naction = 'observe'\n\
         [[guardrail]]\nname = 'stop'\nwhen = '\"delete\" in stmt.kinds'\naction = 'block'\n"
    );
    let (server, agent) = masking(&rules)?;
    let canary = canary();
    let mut wire = Wire::login(&server, "judged")?;
    wire.query(&format!("update customers set ssn = '{canary}' where id = 1"))?;
    wire.query(&format!("delete from customers where ssn = '{canary}' and id = 2"))?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    is_nowhere(&canary, &finished.data, &finished.stderr)?;
    let verdicts = finished.record.decisions_of("verdict");
    let texts: Vec<_> = verdicts.iter().filter_map(|row| row.sql.as_deref()).collect();
    let expected = [
        "update customers set ssn = '[masked]' where id = 1",
        "delete from customers where ssn = '[masked]' and id = 2",
    ];
    ensure!(texts == expected, "{texts:?}");
    Ok(())
}
