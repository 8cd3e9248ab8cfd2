//! Whatever dies while a backend is held for a verdict: it goes on or ends within its deadline, as its guardrail says, the
//! server never restarts because of it, and nothing stays frozen.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tests::agent::SMALL_RING;
use tests::kernel::KernelSide;
use tests::tls::TlsClient;
use tests::wire::Wire;
use tests::{Agent, AgentOptions, Server, ServerOptions, shim, wait};

/// What must not run says so; the rest may.
fn rules(on_failure: &str) -> String {
    format!(
        "[[guardrail]]\nname = 'gate'\nmatch = 'session.user == \"postgres\"'\nwhen = 'stmt.text.contains(\"deny\")'\n\
         action = 'block'\non_failure = '{on_failure}'\n"
    )
}

/// One cell: a server, an agent, and a session that is guarded.
struct Cell {
    server: Server,
    agent: Option<Agent>,
    data: tempfile::TempDir,
    closed: bool,
    /// A session that no guardrail is about, which is known from the start: a later one's user could be anybody to the
    /// kernel side while there is no agent.
    other: std::cell::RefCell<Wire>,
    client: Option<Client>,
    postmaster: u32,
}

enum Client {
    Plain(Wire),
    Tls(TlsClient),
}

impl Client {
    fn connect(server: &Server, tls: bool) -> anyhow::Result<Self> {
        Ok(if tls {
            Self::Tls(TlsClient::connect(server, &[])?)
        } else {
            Self::Plain(Wire::login(server, "guarded")?)
        })
    }

    /// Sends a statement and does not wait for the answer.
    fn ask(&mut self, sql: &str) -> anyhow::Result<()> {
        match self {
            Self::Plain(wire) => wire.send(&tests::wire::frontend::query(sql)),
            Self::Tls(client) => client.ask(sql),
        }
    }

    /// Whether the statement ran; an error if the session is over.
    fn runs(&mut self, sql: &str) -> anyhow::Result<bool> {
        match self {
            Self::Plain(wire) => Ok(!wire.query(sql)?.iter().any(|reply| reply.tag == b'E')),
            // Five characters are an SQLSTATE.
            Self::Tls(client) => match client.query(sql)?.as_deref() {
                Some("57P01") => anyhow::bail!("the session is over"),
                Some(state) => Ok(state.len() != 5),
                None => Ok(true),
            },
        }
    }
}

impl Cell {
    fn new(on_failure: &str, tls: bool, config: &str) -> anyhow::Result<Self> {
        let options = ServerOptions::default();
        let server = if tls { options.tls() } else { options }.start()?;
        server.psql("create table ledger (id int); create role other superuser login")?;
        let data = tempfile::tempdir()?;
        let agent = start(&server, data.path(), &format!("{config}\n{}", rules(on_failure)))?;
        let mut client = Client::connect(&server, tls)?;
        ensure!(client.runs("insert into ledger values (0)")?, "nothing is stopped yet");
        let mut other = Wire::tcp(&server)?;
        other.start(&[("user", "other"), ("database", "postgres")])?;
        other.query("select 1")?;
        let (postmaster, other) = (server.pid()?, other.into());
        let (agent, client) = (Some(agent), Some(client));
        Ok(Self { server, agent, data, closed: on_failure == "closed", other, client, postmaster })
    }

    fn agent(&self) -> anyhow::Result<&Agent> {
        self.agent.as_ref().context("the agent is gone")
    }

    /// Sends a statement on a thread of its own, and waits until its backend is stopped.
    fn hold(
        &mut self,
        sql: &'static str,
    ) -> anyhow::Result<thread::JoinHandle<(Client, anyhow::Result<bool>)>> {
        let mut client = self.client.take().context("the client is busy")?;
        let query = thread::spawn(move || {
            let ran = client.runs(sql);
            (client, ran)
        });
        self.wait_stopped()?;
        Ok(query)
    }

    fn wait_stopped(&self) -> anyhow::Result<()> {
        wait::until("the backend to be stopped", Duration::from_secs(5), || {
            Ok(self.any_stopped()?.then_some(()))
        })
    }

    fn any_stopped(&self) -> anyhow::Result<bool> {
        Ok(self.server.sessions()?.into_iter().any(is_stopped))
    }

    fn signal_server(&self, signal: Signal) -> anyhow::Result<()> {
        kill(self.postmaster, signal)
    }

    fn landed(&self) -> anyhow::Result<u64> {
        let replies = self.other.borrow_mut().query("select count(*) from ledger where id > 0")?;
        let row = replies.iter().find(|reply| reply.tag == b'D').context("no row")?;
        let value = row.values().into_iter().next().flatten().context("no value")?;
        Ok(String::from_utf8(value)?.parse()?)
    }

    /// The rule has decided: the statement has run, or its session is over and it has not.
    fn failed_as_the_rule_says(&self, ran: &anyhow::Result<bool>) -> anyhow::Result<()> {
        if self.closed {
            ensure!(ran.is_err(), "{ran:?}");
            ensure!(self.landed()? == 0, "it ran");
        } else {
            ensure!(matches!(ran, Ok(true)), "{ran:?}");
            ensure!(self.landed()? == 1, "it did not run");
        }
        Ok(())
    }

    /// Nothing is stopped, the server is the one that it was, and killed nobody.
    fn unharmed(mut self) -> anyhow::Result<()> {
        ensure!(!self.any_stopped()?, "a backend is still stopped");
        ensure!(self.server.pid()? == self.postmaster, "the server is another one");
        self.client = None;
        self.other.borrow_mut().terminate()?;
        if let Some(agent) = self.agent.take() {
            self.server.wait_idle()?;
            agent.end()?;
        }
        tests::agent::detach(self.data.path())?;
        let log = self.server.stop()?;
        let killed = log.entries.iter().find(|entry| entry.message.contains("was terminated by signal"));
        ensure!(killed.is_none(), "{killed:?}");
        Ok(())
    }
}

/// Runs a cell for each way to fail, over plain and encrypted connections, all at once.
fn everywhere(cell: impl Fn(&str, bool) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let cells: Vec<_> = [("open", false), ("closed", false), ("open", true), ("closed", true)]
            .into_iter()
            .map(|(on_failure, tls)| {
                let cell = &cell;
                let name = format!("{on_failure}, {}", if tls { "TLS" } else { "plain" });
                scope.spawn(move || cell(on_failure, tls).context(name))
            })
            .collect();
        cells.into_iter().try_for_each(|cell| cell.join().map_err(|_| anyhow::anyhow!("a cell panicked"))?)
    })
}

#[test]
fn a_stalled_agent() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        cell.agent()?.stall()?;
        let query = cell.hold("insert into ledger values (1)")?;
        let (client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        cell.failed_as_the_rule_says(&ran)?;
        cell.agent()?.resume()?;
        cell.client = Some(client);
        cell.unharmed()
    })
}

/// Once it was not seen for as long as a verdict may take, the kernel side does not stop anybody: it lets pass, or ends the session.
#[test]
fn an_agent_that_has_been_dead_for_a_while() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        let killed = cell.agent.take().context("no agent")?.kill()?;
        #[expect(clippy::disallowed_methods, reason = "a heartbeat must become stale")]
        thread::sleep(Duration::from_secs(6));
        let mut client = cell.client.take().context("no client")?;
        let ran = client.runs("insert into ledger values (1)");
        cell.failed_as_the_rule_says(&ran)?;
        killed.adopted();
        cell.unharmed()
    })
}

#[test]
fn a_dead_agent() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        cell.agent()?.stall()?;
        let query = cell.hold("insert into ledger values (1)")?;
        let killed = cell.agent.take().context("no agent")?.kill()?;
        let (client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        cell.failed_as_the_rule_says(&ran)?;
        killed.adopted();
        cell.client = Some(client);
        cell.unharmed()
    })
}

#[test]
fn a_dead_shim() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        shim::of(cell.data.path())?.kill()?;
        let mut client = cell.client.take().context("no client")?;
        ensure!(!client.runs("insert into ledger values (2) -- deny")?, "a denied statement ran");
        ensure!(client.runs("insert into ledger values (1)")?, "an allowed one did not");
        ensure!(cell.landed()? == 1);
        cell.client = Some(client);
        cell.unharmed()
    })
}

/// Whichever starts first decides: here it is the agent, which knows what was asked.
#[test]
fn agent_and_shim_dead() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        for (sql, runs) in
            [("insert into ledger values (1)", true), ("insert into ledger values (1) -- deny", false)]
        {
            let mut cell = Cell::new(on_failure, tls, "")?;
            cell.agent()?.stall()?;
            let query = cell.hold(sql)?;
            shim::of(cell.data.path())?.kill()?;
            let killed = cell.agent.take().context("no agent")?.kill()?;
            ensure!(cell.any_stopped()?, "somebody let it go on");
            cell.agent = Some(start(&cell.server, cell.data.path(), &rules(on_failure))?);
            killed.adopted();
            let (client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
            ensure!(matches!(ran, Ok(ran) if ran == runs), "{sql}: {ran:?}");
            ensure!(cell.landed()? == u64::from(runs));
            cell.client = Some(client);
            cell.unharmed()?;
        }
        Ok(())
    })
}

/// The ring has no room for the event that would tell of the hold.
#[test]
fn a_full_ring() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, SMALL_RING)?;
        for (sql, runs) in
            [("insert into ledger values (1)", true), ("insert into ledger values (2) -- deny", false)]
        {
            cell.agent()?.stall()?;
            cell.other.borrow_mut().query("select repeat('x', 1000) from generate_series(1, 4000)")?;
            let query = cell.hold(sql)?;
            cell.agent()?.resume()?;
            let (client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
            ensure!(matches!(ran, Ok(ran) if ran == runs), "{sql}: {ran:?}");
            cell.client = Some(client);
        }
        ensure!(cell.landed()? == 1);
        cell.unharmed()
    })
}

/// The kernel cannot stop a backend, here for want of room in the table of holds.
#[test]
fn a_backend_that_cannot_be_stopped() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let outcome = if on_failure == "closed" { "failed_closed" } else { "failed_open" };
        let mut cell = Cell::new(on_failure, tls, "")?;
        KernelSide::of(cell.agent()?.pid()?)?.fill_holds()?;
        // The first one's backend has its place in the table already.
        let mut late = Client::connect(&cell.server, tls)?;
        let ran = late.runs("insert into ledger values (1) -- deny");
        cell.failed_as_the_rule_says(&ran)?;
        cell.client = None;
        cell.other.borrow_mut().terminate()?;
        drop(late);
        cell.server.wait_idle()?;
        let agent = cell.agent.take().context("no agent")?;
        let record = agent.stop()?.record;
        let verdicts = record.decisions_of("verdict");
        ensure!(verdicts.iter().any(|row| row.verdict.as_deref() == Some(outcome)), "{verdicts:?}");
        cell.server.stop()?;
        Ok(())
    })
}

#[test]
fn a_client_that_is_gone() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        cell.agent()?.stall()?;
        let mut client = cell.client.take().context("no client")?;
        client.ask("insert into ledger values (2) -- deny")?;
        cell.wait_stopped()?;
        drop(client);
        cell.agent()?.resume()?;
        wait::until("the backend to leave", Duration::from_secs(10), || {
            Ok((cell.server.sessions()?.len() == 1).then_some(()))
        })?;
        ensure!(cell.landed()? == 0);
        cell.unharmed()
    })
}

#[test]
fn a_server_that_is_shut_down() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        for (signal, name) in [(Signal::TERM, "smart"), (Signal::INT, "fast"), (Signal::QUIT, "immediate")] {
            shut_down(on_failure, tls, signal).context(name)?;
        }
        Ok(())
    })
}

/// While a statement is held of which nobody decides: its session's deadline comes first.
fn shut_down(on_failure: &str, tls: bool, signal: Signal) -> anyhow::Result<()> {
    let mut cell = Cell::new(on_failure, tls, "")?;
    cell.agent()?.stall()?;
    let query = cell.hold("insert into ledger values (1)")?;
    // A smart shutdown waits for everybody.
    cell.other.borrow_mut().terminate()?;
    cell.signal_server(signal)?;
    let (client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    if signal == Signal::TERM && on_failure == "open" {
        ensure!(matches!(ran, Ok(true)), "{ran:?}");
    } else {
        ensure!(ran.is_err(), "{ran:?}");
    }
    drop(client);
    let path = format!("/proc/{}/stat", cell.postmaster);
    wait::until("the server to be gone", Duration::from_secs(10), || {
        let gone = std::fs::read_to_string(&path).map_or(true, |stat| stat.contains(") Z "));
        Ok(gone.then_some(()))
    })?;
    cell.agent()?.resume()?;
    cell.agent.take().context("no agent")?.end()
}

/// The server is another one then, or, after a crash, has started anew: neither frozen nor unguarded.
#[test]
fn a_server_that_restarts() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        restart(on_failure, tls, |cell| cell.server.restart()).context("restart")?;
        restart(on_failure, tls, |cell| {
            let other = cell.server.sessions()?.into_iter().find(|pid| !is_stopped(*pid));
            kill(other.context("everybody is stopped")?, Signal::KILL)
        })
        .context("crash")
    })
}

fn restart(
    on_failure: &str,
    tls: bool,
    restarts: impl Fn(&mut Cell) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut cell = Cell::new(on_failure, tls, "")?;
    cell.agent()?.stall()?;
    let query = cell.hold("insert into ledger values (1)")?;
    restarts(&mut cell)?;
    let (client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
    ensure!(ran.is_err(), "{ran:?}");
    drop(client);
    cell.agent()?.resume()?;
    // It hears of a server that started meanwhile.
    cell.agent()?.wait_drained()?;
    wait::until("the server to accept clients", Duration::from_secs(30), || {
        Ok(cell.server.psql("select 1").ok())
    })?;
    let mut client = Client::connect(&cell.server, tls)?;
    ensure!(!client.runs("insert into ledger values (2) -- deny")?, "a denied statement ran");
    ensure!(client.runs("insert into ledger values (3)")?, "an allowed one did not");
    ensure!(!cell.any_stopped()?, "a backend is still stopped");
    drop(client);
    cell.server.wait_idle()?;
    ensure!(cell.server.psql("select string_agg(id::text, ',' order by id) from ledger")?.trim() == "0,3");
    cell.server.wait_idle()?;
    cell.agent.take().context("no agent")?.end()?;
    cell.server.stop()?;
    Ok(())
}

/// A session that a server accepts before the agent hears of its start is guarded as soon as it does, not only when it looks
/// through all processes again.
#[test]
fn a_session_before_the_server_is_known() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        cell.client = None;
        cell.agent()?.stall()?;
        cell.server.restart()?;
        let mut client = Client::connect(&cell.server, tls)?;
        ensure!(client.runs("insert into ledger values (1)")?, "there is nobody to stop it");
        cell.agent()?.resume()?;
        cell.agent()?.wait_drained()?;
        ensure!(!client.runs("insert into ledger values (2) -- deny")?, "a denied statement ran");
        ensure!(client.runs("insert into ledger values (3)")?, "an allowed one did not");
        ensure!(!cell.any_stopped()?, "a backend is still stopped");
        drop(client);
        cell.server.wait_idle()?;
        cell.agent.take().context("no agent")?.end()?;
        cell.server.stop()?;
        Ok(())
    })
}

#[test]
fn rules_that_change_meanwhile() -> anyhow::Result<()> {
    everywhere(|on_failure, tls| {
        let mut cell = Cell::new(on_failure, tls, "")?;
        cell.agent()?.stall()?;
        let query = cell.hold("insert into ledger values (1) -- deny")?;
        let agent = cell.agent.as_mut().context("no agent")?;
        agent.configure(&rules(on_failure).replace("deny", "nothing"))?;
        agent.resume()?;
        let (mut client, ran) = query.join().map_err(|_| anyhow::anyhow!("panicked"))?;
        ensure!(ran.is_ok(), "{ran:?}");
        agent.wait_for("its rules hold from now on")?;
        ensure!(client.runs("insert into ledger values (2) -- deny")?, "the new rules do not hold");
        // A file that is wrong changes nothing.
        agent.configure(&rules(on_failure).replace("contains", "contain"))?;
        agent.wait_for("the old rules stay")?;
        ensure!(client.runs("insert into ledger values (3) -- deny")?, "the old rules are gone");
        ensure!(!client.runs("insert into ledger values (4) -- nothing")?, "the old rules are gone");
        // And back.
        agent.configure(&rules(on_failure))?;
        wait::until("the first rules", Duration::from_secs(5), || {
            Ok((!client.runs("insert into ledger values (5) -- deny")?).then_some(()))
        })?;
        cell.client = Some(client);
        cell.unharmed()
    })
}

fn kill(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process")?;
    Ok(kill_process(pid, signal)?)
}

fn start(server: &Server, data: &Path, config: &str) -> anyhow::Result<Agent> {
    AgentOptions::default().server(server).data(data).config(config).start()
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}
