//! The webhook over HTTPS, told by a real agent of statements that a real server really waits with.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tests::wire::Wire;
use tests::{Agent, AgentOptions, Server, certificates, clients, deps, wait};

/// Who takes notices, with a certificate that an authority of its own has signed.
struct Receiver {
    folder: tempfile::TempDir,
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Receiver {
    fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        certificates::make(folder.path())?;
        fs::write(folder.path().join("secret"), "s3cret\n")?;
        let mut command = clients::command("webhook_server.py")?;
        let mut process =
            command.arg(folder.path()).arg("s3cret").stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("no stdout")?).lines();
        let port = lines.next().context("no port")??.parse()?;
        Ok(Self { folder, process, lines, port })
    }

    /// An agent that tells it, and trusts this authority.
    fn agent(&self, server: &Server, authority: &str) -> anyhow::Result<Agent> {
        let (port, folder) = (self.port, self.folder.path().display());
        let webhook = format!(
            "[approvals.webhook]\nurl = 'https://127.0.0.1:{port}/capture'\nsecret_file = '{folder}/secret'\n\
             ca_file = '{folder}/{authority}'\n"
        );
        AgentOptions::default().server(server).config(RULES).config(&webhook).start()
    }

    /// The next notice.
    fn notice(&mut self) -> anyhow::Result<Value> {
        let notice: Value = serde_json::from_str(&self.lines.next().context("the receiver has ended")??)?;
        ensure!(notice["genuine"] == true, "{notice}");
        Ok(notice["body"].clone())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_notice_of_a_held_statement_is_all_that_an_approver_needs() -> anyhow::Result<()> {
    let server = Server::start()?;
    server.psql("create table ledger (id int)")?;
    let mut receiver = Receiver::start()?;
    let agent = receiver.agent(&server, "ca.crt")?;
    let mut wire = Wire::login(&server, "asking")?;
    wire.query("select 'alarm'")?;
    let alert = receiver.notice()?;
    ensure!(alert["event"] == "alert" && alert["guardrail"] == "tell", "{alert}");
    ensure!(alert["sql"] == "select 'alarm'", "{alert}");

    let query = thread::spawn(move || {
        let replies = wire.query("insert into ledger values (1) -- ask");
        (wire, replies)
    });
    let asked = receiver.notice()?;
    ensure!(asked["event"] == "approval" && asked["guardrail"] == "ask-first", "{asked}");
    ensure!(asked["sql"] == "insert into ledger values (1) -- ask", "{asked}");
    let landed = || server.psql("select count(*) from ledger");
    ensure!(landed()?.trim() == "0" && !query.is_finished(), "it did not wait");
    let mut approve = Command::new(deps::agent()?);
    let id = asked["id"].as_str().context("no id")?;
    deps::run(approve.args(["approvals", "approve", id, "--data-dir"]).arg(agent.data()))?;
    let (mut wire, replies) = query.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
    ensure!(replies?.iter().all(|reply| reply.tag != b'E'), "it was approved");
    ensure!(landed()?.trim() == "1");
    wire.terminate()?;
    server.wait_idle()?;
    agent.stop()?.record.check_totals()
}

/// Who cannot prove to be the one who is configured is told nothing, and the statement is decided all the same.
#[test]
fn a_receiver_that_another_authority_has_signed_is_told_nothing() -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut receiver = Receiver::start()?;
    let mut agent = receiver.agent(&server, "other.crt")?;
    let mut wire = Wire::login(&server, "asking")?;
    wire.query("select 'alarm'")?;
    agent.wait_for("certificate")?;
    wire.terminate()?;
    wait::pause(Duration::from_millis(300));
    server.wait_idle()?;
    agent.stop()?.record.statement_with("'alarm'")?;
    receiver.process.kill()?;
    ensure!(receiver.lines.next().is_none(), "it was told");
    Ok(())
}

const RULES: &str = "\
[[guardrail]]
name = 'tell'
when = 'stmt.text.contains(\"alarm\")'
action = 'alert'
[[guardrail]]
name = 'ask-first'
when = 'stmt.text.contains(\"-- ask\")'
action = 'approve'
timeout = '60s'
";
