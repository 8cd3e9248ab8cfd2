//! Events for the SIEM, told by a real agent to real receivers that are down, refuse, and come back; while the agent is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::agent::QUICK_ROTATION;
use tests::server::free_port;
use tests::wire::Wire;
use tests::{Agent, AgentOptions, Record, Server, certificates, clients, deps, wait};

/// The receivers' certificates, what they have received, and where they listen if they do.
struct Place {
    folder: tempfile::TempDir,
    syslog: u16,
    webhook: u16,
}

/// A receiver that runs.
struct Receiver(Child);

impl Place {
    fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        certificates::make(folder.path())?;
        fs::write(folder.path().join("secret"), "s3cret\n")?;
        Ok(Self { folder, syslog: free_port()?, webhook: free_port()? })
    }

    /// Three receivers of everything, with pauses that are a hundredth of the usual ones.
    fn config(&self) -> String {
        let folder = self.folder.path().display();
        let Self { syslog, webhook, .. } = self;
        format!(
            "[[events]]\nto = 'syslog'\nwhat = ['activity', 'findings']\naddress = 'tls://127.0.0.1:{syslog}'\n\
             ca_file = '{folder}/ca.crt'\ncertificate_file = '{folder}/api.crt'\nkey_file = '{folder}/api.key'\nretry_ms = [10, 300]\n\
             [[events]]\nto = 'webhook'\nwhat = ['activity', 'findings']\nurl = 'https://127.0.0.1:{webhook}/events'\n\
             secret_file = '{folder}/secret'\nca_file = '{folder}/ca.crt'\nretry_ms = [10, 300]\n\
             [[events]]\nto = 'file'\nwhat = ['activity', 'findings']\npath = '{folder}/file.jsonl'\nretry_ms = [10, 300]\n"
        )
    }

    fn receiver(&self, kind: &str, codes: &[&str]) -> anyhow::Result<Receiver> {
        let port = if kind == "syslog" { self.syslog } else { self.webhook };
        let mut command = clients::command("event_receiver.py")?;
        command.args([kind, &port.to_string()]).arg(self.folder.path()).arg("s3cret").args(codes);
        let stderr = fs::File::options().append(true).create(true).open(self.folder.path().join("stderr"))?;
        let mut process = command.stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let ready = BufReader::new(process.stdout.take().context("no stdout")?).lines().next();
        let receiver = Receiver(process);
        ensure!(ready.transpose()?.as_deref() == Some("ready"), "the receiver has ended: {}", self.said());
        Ok(receiver)
    }

    /// What receivers objected to.
    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// The events that a receiver has, by number, and how many came more than once.
    fn received(&self, kind: &str) -> anyhow::Result<(BTreeMap<u64, Value>, u64)> {
        received(&self.folder.path().join(format!("{kind}.jsonl")))
    }

    /// Waits until each receiver has `events`.
    fn wait(&self, events: usize) -> anyhow::Result<()> {
        let all = || -> anyhow::Result<Option<()>> {
            for kind in KINDS {
                if self.received(kind)?.0.len() < events {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        wait::until(&format!("each receiver to have {events} events"), Duration::from_secs(60), all)
            .with_context(|| self.said())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn received(path: &Path) -> anyhow::Result<(BTreeMap<u64, Value>, u64)> {
    let mut events = BTreeMap::new();
    let mut twice = 0;
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last one may be half written.
    let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
    for line in whole.lines() {
        let event: Value = serde_json::from_str(line)?;
        let number = event["metadata"]["sequence"].as_u64().context("no number")?;
        if let Some(before) = events.insert(number, event.clone()) {
            ensure!(before == event, "number {number} was used twice:\n{before}\n{event}");
            twice += 1;
        }
    }
    Ok((events, twice))
}

/// Every statement and verdict of the record is there, with numbers that have no hole.
fn compare(events: &BTreeMap<u64, Value>, record: &Record) -> anyhow::Result<()> {
    for (expected, number) in (0..).zip(events.keys()) {
        ensure!(*number == expected, "number {expected} is missing");
    }
    let mut told = BTreeSet::new();
    let mut findings = 0;
    for event in events.values() {
        match event["class_uid"].as_u64() {
            Some(6005) => {
                let session = event["actor"]["session"]["uid"].as_str().unwrap_or_default().to_owned();
                let seq = event["unmapped"]["seq"].as_u64().context("no seq")?;
                ensure!(told.insert((session, seq)), "told with two numbers: {event}");
            }
            Some(2004) => findings += 1,
            _ => anyhow::bail!("{event}"),
        }
    }
    let recorded: BTreeSet<_> =
        record.statements.iter().map(|statement| (statement.session_id.clone(), statement.seq)).collect();
    let missing: Vec<_> = recorded.difference(&told).collect();
    let invented: Vec<_> = told.difference(&recorded).collect();
    ensure!(missing.is_empty() && invented.is_empty(), "missing {missing:?}, invented {invented:?}");
    let verdicts = record.decisions.iter().filter(|decision| decision.kind == "verdict").count();
    ensure!(findings == verdicts, "{findings} findings of {verdicts} verdicts");
    Ok(())
}

fn agent(server: &Server, place: &Place, data: &Path, rules: &str) -> anyhow::Result<Agent> {
    let options = AgentOptions::default().server(server).data(data).config(QUICK_ROTATION);
    options.config(&place.config()).config(rules).start()
}

#[test]
fn receivers_that_are_down_while_the_agent_is_killed_get_everything_in_order() -> anyhow::Result<()> {
    let place = Place::new()?;
    let data = tempfile::tempdir()?;
    let server = Server::start()?;
    let mut wire = Wire::login(&server, "told")?;
    let mut running = agent(&server, &place, data.path(), TELL)?;
    let mut round = 0;
    let mut receivers = Vec::new();
    for turn in 0..6 {
        for _ in 0..100 {
            round += 1;
            wire.query(&format!("select {round}"))?;
        }
        wire.query("select 'alarm'")?;
        match turn {
            // Nobody has listened so far.
            2 => receivers.push(place.receiver("webhook", &["500", "503", "429", "503"])?),
            3 => receivers.push(place.receiver("syslog", &[])?),
            4 => receivers.clear(),
            _ => {}
        }
        wait::pause(Duration::from_millis(150));
        let killed = running.kill()?;
        running = agent(&server, &place, data.path(), TELL)?;
        killed.adopted();
    }
    receivers.push(place.receiver("webhook", &[])?);
    receivers.push(place.receiver("syslog", &[])?);
    wire.query("select 'the last one'")?;
    wire.terminate()?;
    server.wait_idle()?;
    wait::until("the last statement to be told", Duration::from_secs(60), || {
        let last = |event: &Value| event["query_info"]["query_string"] == "select 'the last one'";
        Ok(place.received("file")?.0.values().any(last).then_some(()))
    })?;
    let events = place.received("file")?.0.len();
    place.wait(events).with_context(|| running.stderr())?;
    let record = running.stop()?.record;
    ensure!(record.statements.len() > 600, "{} statements", record.statements.len());
    let mut again = 0;
    for kind in KINDS {
        let (events, twice) = place.received(kind)?;
        compare(&events, &record).with_context(|| kind)?;
        again += twice;
    }
    ensure!(place.said().is_empty(), "{}", place.said());
    println!("{events} events to each of three receivers, {again} of them more than once");
    Ok(())
}

#[test]
fn a_statement_and_a_verdict_are_told_with_who_where_and_what() -> anyhow::Result<()> {
    let place = Place::new()?;
    let data = tempfile::tempdir()?;
    let server = Server::start()?;
    server.psql("create table ledger (id int, note text)")?;
    let _receivers = [place.receiver("webhook", &[])?, place.receiver("syslog", &[])?];
    let agent = agent(&server, &place, data.path(), &format!("{TELL}{NO_DROP}"))?;
    let mut wire = Wire::login(&server, "analyst")?;
    wire.query("insert into ledger values (1, 'a row that stays here')")?;
    wire.query("select note from ledger")?;
    wire.query("select 'alarm'")?;
    wire.query("drop table ledger -- forbidden")?;
    wire.query("selec")?;
    wire.terminate()?;
    server.wait_idle()?;
    let finished = agent.stop()?;
    for kind in KINDS {
        let (events, _) = place.received(kind)?;
        compare(&events, &finished.record).with_context(|| kind)?;
        let find = |class: u64, text: &str| {
            let mut found = events.values().filter(|event| event["class_uid"] == class);
            found
                .find(|event| event.to_string().contains(text))
                .with_context(|| format!("no {text}"))
                .cloned()
        };
        let insert = find(6005, "insert into ledger")?;
        for (path, expected) in [
            ("/activity_name", "Write"),
            ("/status", "Success"),
            ("/actor/user/name", "postgres"),
            ("/actor/app_name", "analyst"),
            ("/database/name", "postgres"),
            ("/message", "INSERT 0 1"),
        ] {
            ensure!(insert.pointer(path) == Some(&expected.into()), "{path} of {insert:#}");
        }
        ensure!(insert["unmapped"]["tables_written"] == serde_json::json!(["ledger"]), "{insert:#}");
        ensure!(find(6005, "selec\"")?["status_code"] == "42601");
        let blocked = find(2004, "no-drop")?;
        ensure!(blocked["disposition"] == "Blocked" && blocked["severity"] == "High", "{blocked:#}");
        ensure!(
            blocked["evidences"][0]["data"]["query_string"] == "drop table ledger -- forbidden",
            "{blocked:#}"
        );
        ensure!(find(2004, "tell")?["disposition"] == "Alert");
        let rows =
            events.values().filter(|event| event.to_string().contains("a row that stays here")).count();
        ensure!(rows == 1, "the row's value is told beyond the text that wrote it");
    }
    Ok(())
}

#[test]
fn a_configuration_that_sends_statements_in_clear_is_refused() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("capture.toml");
    fs::write(&path, "[[events]]\nto = 'syslog'\nwhat = ['activity']\naddress = 'tcp://10.0.0.1:514'\n")?;
    let checked = Command::new(deps::agent()?).arg("check").arg(&path).output()?;
    let said =
        String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    ensure!(!checked.status.success() && said.contains("must not travel in clear"), "{said}");
    Ok(())
}

const KINDS: [&str; 3] = ["file", "webhook", "syslog"];

const TELL: &str = "\
[[guardrail]]
name = 'tell'
when = 'stmt.text.contains(\"alarm\")'
action = 'alert'
";

const NO_DROP: &str = "\
[[guardrail]]
name = 'no-drop'
when = '\"drop\" in stmt.kinds'
action = 'block'
";
