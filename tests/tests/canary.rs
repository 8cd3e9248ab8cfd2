//! One secret, sent in every way that a client has, while everything is on by which the agent can tell anybody anything:
//! it is nowhere, and a word beside it that may be told is everywhere, which shows that the search finds what is there.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::canary::{canary, is_nowhere};
use tests::wire::{Message, Wire, frontend};
use tests::{Agent, AgentOptions, Rights, Server, certificates, clients, deps, record, shim, wait};

const TABLES: &str = "create table customers (id int primary key, name text, ssn text unique); \
    insert into customers values (1, 'first', 'nothing')";

const RULES: &str = r#"
[[mask]]
name    = "people"
columns = ["public.customers.ssn"]

[[guardrail]]
name    = "watch"
when    = '"update" in stmt.kinds || "execute" in stmt.kinds'
action  = "alert"

[[guardrail]]
name    = "stop"
when    = '"delete" in stmt.kinds'
action  = "block"
message = "nothing is deleted here"

[[guardrail]]
name    = "ask"
when    = 'stmt.text.contains("ask somebody")'
action  = "approve"
timeout = "60s"
"#;

#[test]
fn what_is_told_and_what_is_written_is_without_the_canary() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql(TABLES)?;
    let (secret, plain) = (canary(), canary());
    let data = tempfile::tempdir()?;
    let outside = Outside::start()?;
    let agent = outside.agent(&server, data.path())?;
    let mut wire = Wire::login(&server, "canary")?;
    // Where a word is to be found, and where the secret is not.
    let written = |agent: &Agent| -> anyhow::Result<Vec<String>> {
        is_nowhere(&secret, data.path(), &agent.stderr())?;
        is_nowhere(&secret, outside.folder.path(), "")?;
        let mut found = record::find(data.path(), &[&plain])?;
        found.extend(record::find(outside.folder.path(), &[&plain])?);
        Ok(found)
    };

    talk(&mut wire, &secret, &plain)?;
    held(&agent, &server, &secret, &plain)?;
    // A statement that stays prepared, a message that is cut in half, rows that are under way.
    wire.send(&kept(&secret).concat())?;
    wire.until_ready()?;
    let mut halfway = Wire::login(&server, "halfway")?;
    let half = frontend::query(&format!("insert into customers values (80, '{plain}', '{secret}-half')"));
    halfway.send(&half[..half.len() - 6])?;
    let mut copying = Wire::login(&server, "copying")?;
    copying.send(&frontend::query("copy customers (id, name, ssn) from stdin"))?;
    ensure!(copying.expect()?.tag == b'G', "no COPY");
    copying.send(&frontend::message(b'd', format!("90\t{plain}\t{secret}-90\n91\t{secret}").as_bytes()))?;

    wait::pause(Duration::from_millis(300));
    agent.wait_drained()?;
    let found = wait::until("the events", SOON, || {
        let found = written(&agent)?;
        Ok(found.iter().any(|line| line.ends_with("events.jsonl")).then_some(found))
    })?;
    for place in [".seg", "events.jsonl", "notices"] {
        ensure!(found.iter().any(|line| line.ends_with(place)), "the word is not in {place}: {found:?}");
    }
    let left = agent.kill()?;
    is_nowhere(&secret, data.path(), &left.stderr)?;
    is_nowhere(&secret, outside.folder.path(), "")?;

    let agent = outside.agent(&server, data.path())?;
    left.adopted();
    wire.send(&kept(&secret)[1..].concat())?;
    wire.until_ready()?;
    halfway.send(&half[half.len() - 6..])?;
    halfway.until_ready()?;
    copying.send(&frontend::message(b'd', b"-91\n"))?;
    copying.send(&frontend::message(b'c', &[]))?;
    copying.until_ready()?;
    for mut wire in [wire, halfway, copying] {
        wire.terminate()?;
    }
    server.wait_idle()?;
    written(&agent)?;
    let finished = agent.stop()?;
    is_nowhere(&secret, data.path(), &finished.stderr)?;
    is_nowhere(&secret, outside.folder.path(), "")?;
    let found = record::find(data.path(), &[&plain])?;
    for table in ["statements/", "results/", "decisions/"] {
        ensure!(found.iter().any(|line| line.contains(table)), "the word is not in {table}: {found:?}");
    }
    counted(&finished.record)?;
    finished.verify()?;
    Ok(())
}

/// Each way to say something, with the secret in it, and the word that may be told.
fn talk(wire: &mut Wire, secret: &str, plain: &str) -> anyhow::Result<()> {
    for text in [
        format!("select '{plain}' as visible"),
        format!("insert into customers (id, name, ssn) values (2, '{plain}', '{secret}-2')"),
        format!("insert into customers (id, name, ssn) values (3, '{plain}', '{secret}-2') /* detail */"),
        "select name, ssn as harmless from customers where id = 2".to_owned(),
        "select ssn::int from customers where id = 2 /* quoted */".to_owned(),
        format!(
            "do $$ begin raise notice 'notice {secret}'; update customers set name = name; raise exception 'raised {secret}'; end $$"
        ),
        format!("update customers set ssn = '{secret}-3', name = '{plain}' where id = 2"),
        format!("delete from customers where name = '{plain}' and ssn = '{secret}-3'"),
        "prepare found(text) as select id from customers where ssn = $1".to_owned(),
        format!("select '{plain}'; execute found('{secret}-3')"),
        format!("explain select * from customers where ssn = '{secret}-3'"),
        format!("alter role nobody password '{secret}'"),
        "copy customers (id, name, ssn) to stdout".to_owned(),
        "copy (select name, ssn from customers) to stdout (format csv)".to_owned(),
    ] {
        wire.query(&text)?;
    }
    let delete = frontend::once("delete from customers where name = $1 and ssn = $2", &[plain, secret]);
    wire.send(&delete.concat())?;
    wire.until_ready()?;
    wire.send(&frontend::query("copy customers (id, name, ssn) from stdin"))?;
    ensure!(wire.expect()?.tag == b'G', "no COPY");
    wire.send(&frontend::message(b'd', format!("20\t{plain}\t{secret}-20\n").as_bytes()))?;
    // A row with too many values: the server repeats all of it.
    wire.send(&frontend::message(b'd', format!("21\t{plain}\t{secret}\t{secret}\n").as_bytes()))?;
    wire.send(&frontend::message(b'c', &[]))?;
    wire.until_ready().map(drop)
}

/// Statements that wait for a person, who sees them on the command line.
fn held(agent: &Agent, server: &Server, secret: &str, plain: &str) -> anyhow::Result<()> {
    let simple = format!(
        "insert into customers (id, name, ssn) values (4, '{plain}', '{secret}-4') /* ask somebody */"
    );
    let extended = "insert into customers (id, name, ssn) values (5, $1, $2) /* ask somebody */";
    let extended = frontend::once(extended, &[plain, &format!("{secret}-5")]).concat();
    for (sent, word) in [(frontend::query(&simple), "approve"), (extended, "deny")] {
        let mut asking = Wire::login(server, "asking")?;
        let query = thread::spawn(move || -> anyhow::Result<(Wire, Vec<Message>)> {
            asking.send(&sent)?;
            let replies = asking.until_ready()?;
            Ok((asking, replies))
        });
        let list = wait::until("a statement to wait", SOON, || {
            let list = approvals(agent, &["list", "--json"])?;
            Ok((!list.is_empty()).then_some(list))
        })?;
        let read = approvals(agent, &["list"])?;
        ensure!(list.contains(plain), "the word is not in {list}");
        ensure!(!list.contains(secret) && !read.contains(secret), "the secret is in {list}, or {read}");
        let request: Value = serde_json::from_str(list.lines().next().context("no request")?)?;
        let id = request["id"].as_str().context("no id")?;
        let more: &[&str] = if word == "deny" { &["--reason", "not today"] } else { &[] };
        let said = approvals(agent, &[&[word, id], more].concat())?;
        ensure!(!said.contains(secret), "the secret is in {said}");
        let (mut asking, replies) = query.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
        ensure!(replies.iter().any(|reply| reply.tag == b'E') == (word == "deny"), "{word}: {replies:?}");
        asking.terminate()?;
    }
    Ok(())
}

fn approvals(agent: &Agent, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(deps::agent()?);
    deps::run(command.arg("approvals").args(arguments).arg("--data-dir").arg(agent.data()))
}

/// A statement that is prepared, bound and executed.
fn kept(secret: &str) -> [Vec<u8>; 4] {
    let value = [Some(format!("{secret}-3").into_bytes())];
    [
        frontend::parse("kept", &format!("select id, ssn from customers where ssn in ($1, '{secret}')"), &[]),
        frontend::bind("", "kept", &[1], &value, &[1]),
        frontend::execute("", 0),
        frontend::message(b'S', &[]),
    ]
}

/// Every statement says how many values of it were masked.
fn counted(record: &tests::Record) -> anyhow::Result<()> {
    for (part, masked) in [
        // The text and the row.
        ("as visible", 0),
        ("values (2, ", 1),
        ("as harmless", 1),
        // The value that the server quotes.
        ("/* quoted */", 1),
        ("/* detail */", 1),
        ("update customers set ssn", 1),
        ("delete from customers where name = $1", 1),
        ("values (4, ", 1),
        ("values (5, $1", 1),
    ] {
        let row = record.statement_with(part)?;
        ensure!(row.masked == masked, "{part}: {} of {row}", row.masked);
    }
    let kept: Vec<_> =
        record.statements.iter().filter(|row| row.statement_name.as_deref() == Some("kept")).collect();
    // It names no columns.
    let halfway = record.statements_of(record.session_named("halfway")?);
    ensure!(halfway.len() == 1 && halfway[0].masked == 3, "{halfway:?}");
    // The constant, the parameter, and the one row.
    ensure!(kept.len() == 2 && kept.iter().all(|row| row.masked == 3), "{kept:?}");
    ensure!(record.gaps.is_empty(), "{:?}", record.gaps);
    Ok(())
}

/// Who is told: a webhook of approvers, and receivers of events, each of which keeps what it gets in a file.
struct Outside {
    folder: tempfile::TempDir,
    certificates: tempfile::TempDir,
    process: Child,
    port: u16,
}

impl Outside {
    fn start() -> anyhow::Result<Self> {
        let (folder, authority) = (tempfile::tempdir()?, tempfile::tempdir()?);
        certificates::make(authority.path())?;
        fs::write(authority.path().join("secret"), "s3cret\n")?;
        let notices = folder.path().join("notices");
        let mut command = clients::command("webhook_server.py")?;
        let process = command.arg(authority.path()).arg("s3cret").stdout(File::create(&notices)?);
        let process = process.stderr(Stdio::null()).spawn()?;
        let port = wait::until("the webhook to listen", SOON, || {
            let said = fs::read_to_string(&notices)?;
            Ok(said.split_once('\n').map(|(port, _)| port.parse()).transpose()?)
        })?;
        Ok(Self { folder, certificates: authority, process, port })
    }

    fn agent(&self, server: &Server, data: &Path) -> anyhow::Result<Agent> {
        let (folder, authority) = (self.folder.path().display(), self.certificates.path().display());
        let told = format!(
            "[approvals.webhook]\nurl = 'https://127.0.0.1:{}/capture'\nsecret_file = '{authority}/secret'\n\
             ca_file = '{authority}/ca.crt'\n\
             [[events]]\nto = 'file'\nwhat = ['activity', 'findings']\npath = '{folder}/events.jsonl'\n\
             [[events]]\nto = 'syslog'\nwhat = ['activity', 'findings']\naddress = 'tls://127.0.0.1:9'\n\
             ca_file = '{authority}/ca.crt'\n",
            self.port
        );
        let options = AgentOptions::default().server(server).data(data).config(RULES).config(&told);
        // It starts its shim itself, which says what it has to say in the same log.
        options.rights(Rights::Own).metrics_file(&self.folder.path().join("metrics")).start()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// In memory nothing is masked yet: whatever the host does with cores, it gets none of the agent's or the shim's.
#[test]
fn no_core_of_agent_or_shim_can_be_written() -> anyhow::Result<()> {
    let server = Server::start()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("agent");
    let script = format!("#!/bin/sh\nulimit -c unlimited\nexec {} \"$@\"\n", deps::agent()?.display());
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700))?;
    let agent = AgentOptions::default().server(&server).program(&program).config(RULES).start()?;
    for pid in [agent.pid()?, shim::of(agent.data())?.pid()] {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).context("no limit")?;
        let words: Vec<_> = line.split_whitespace().skip(4).take(2).collect();
        ensure!(words == ["1", "1"], "{line}");
    }
    agent.stop().map(drop)
}

const SOON: Duration = Duration::from_secs(20);
