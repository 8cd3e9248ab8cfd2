//! The corpora in `tests/policy`: statements that try to get around guardrails, each with the effect that it has when
//! nobody stops it. `tests/policy/README.md` explains the format.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::deps;
use crate::server::Server;
use crate::wait;
use crate::wire::{Message, Wire, backend, frontend};

/// The role that sends the statements.
pub const ROLE: &str = "mcp_agent";

/// One case.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Its name.
    pub name: String,
    sql: Option<String>,
    bytes: Option<String>,
    generate: Option<Generate>,
    function: Option<Function>,
    protocol: Option<Protocol>,
    #[serde(default)]
    params: Vec<String>,
    #[serde(default)]
    first: Vec<String>,
    /// Whether guardrails stop the session at `first`, and not at the statement.
    pub denied: Option<Denied>,
    copy_in: Option<String>,
    #[serde(default)]
    after: Vec<String>,
    /// The session's `client_encoding` when the statement is sent.
    pub client_encoding: Option<String>,
    /// Its `standard_conforming_strings`: `on`, `off` or `unknown`.
    pub standard_conforming_strings: Option<String>,
    #[serde(default)]
    setup: Vec<String>,
    #[serde(default)]
    cleanup: Vec<String>,
    #[serde(default)]
    bystander: bool,
    effect: Option<Effect>,
    probe: Option<String>,
}

/// Where guardrails stop a session before its statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Denied {
    /// At what it sends before.
    First,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Extended,
}

#[derive(Clone, Debug, Deserialize)]
struct Generate {
    prefix: String,
    open: String,
    times: usize,
    inner: String,
    close: String,
    #[serde(default)]
    suffix: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Function {
    oid: u32,
    args: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Emptied,
    Deleted,
    Changed,
    Inserted,
    Dropped,
    Landed,
    Needle,
    Refused,
}

#[derive(Deserialize)]
struct Cases {
    case: Vec<Case>,
}

/// What became of a case.
#[derive(Debug)]
pub struct Played {
    /// Whether its effect was there before the statement.
    pub before: bool,
    /// Whether its effect happened.
    pub happened: bool,
    /// The errors that the session was told.
    pub errors: Vec<String>,
}

/// The folder of the corpora.
pub fn folder() -> PathBuf {
    deps::crate_dir().join("policy")
}

/// The cases of a file, or of all files of a folder.
///
/// # Errors
/// A file is not as the README says.
pub fn cases(path: &Path) -> anyhow::Result<Vec<Case>> {
    let mut paths = vec![path.to_owned()];
    if path.is_dir() {
        paths = fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        paths.sort();
    }
    let mut cases = Vec::new();
    for path in paths {
        let read: Cases =
            toml::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        cases.extend(read.case);
    }
    Ok(cases)
}

/// The database that a case is played in.
pub fn database_of(case: &Case) -> String {
    format!("case_{}", case.name.replace('-', "_"))
}

/// What ordinary programs send, each with whose statement it is.
///
/// # Errors
/// The folder cannot be read.
pub fn ordinary() -> anyhow::Result<Vec<(String, String)>> {
    let mut statements = Vec::new();
    for entry in fs::read_dir(folder().join("ordinary"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let (_, rest) = text.split_once('\n').context("the first line says whose statements follow")?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        statements.extend(rest.split_inclusive(";\n").map(|sql| (name.clone(), sql.trim_end().to_owned())));
    }
    Ok(statements)
}

/// A server on which cases are played.
#[derive(Debug)]
pub struct Stage<'s> {
    server: &'s Server,
    data: String,
}

impl<'s> Stage<'s> {
    /// Makes the role, and the database that each case gets a copy of.
    ///
    /// # Errors
    /// The server refuses.
    pub fn build(server: &'s Server) -> anyhow::Result<Self> {
        let mut wire = superuser(server, "postgres")?;
        run(&mut wire, &format!("create role {ROLE} superuser login"))?;
        run(&mut wire, "create database corpus")?;
        run(&mut superuser(server, "corpus")?, &fs::read_to_string(folder().join("base.sql"))?)?;
        let data = value(&mut wire, "show data_directory")?.context("the server has a data directory")?;
        Ok(Self { server, data })
    }

    /// Plays a case in a database of its own.
    ///
    /// # Errors
    /// Something else than its statement, or what the session sends before it, fails.
    pub fn play(&self, case: &Case) -> anyhow::Result<Played> {
        self.play_with(case, false)
    }

    /// Plays a case of which nothing is expected to happen: its session may be ended in the middle.
    ///
    /// # Errors
    /// Something else than what its session sends fails.
    pub fn play_guarded(&self, case: &Case) -> anyhow::Result<Played> {
        self.play_with(case, true)
    }

    fn play_with(&self, case: &Case, guarded: bool) -> anyhow::Result<Played> {
        let database = database_of(case);
        let mut outside = superuser(self.server, "postgres")?;
        run(&mut outside, &format!("create database {database} template corpus"))?;
        let played = self.play_in(case, &database, guarded);
        // Other roles' objects go with the database, before they do.
        run(&mut outside, &format!("drop database {database} with (force)"))?;
        for sql in &case.cleanup {
            // What did not happen cannot be undone.
            if let Err(error) = run(&mut outside, sql)
                && !guarded
            {
                return Err(error);
            }
        }
        played.with_context(|| case.name.clone())
    }

    /// Puts what the case is played with into its texts.
    fn fill(&self, sql: &str, database: &str) -> String {
        let port = self.server.port();
        let connection = format!("host=127.0.0.1 port={port} dbname={database} user=postgres");
        sql.replace("@DATABASE@", database)
            .replace("@HOST@", "127.0.0.1")
            .replace("@PORT@", &port.to_string())
            .replace("@CONNECTION@", &connection)
            .replace("@DATA@", &self.data)
    }

    fn play_in(&self, case: &Case, database: &str, guarded: bool) -> anyhow::Result<Played> {
        let fill = |sql: &str| self.fill(sql, database);
        let mut judge = superuser(self.server, database)?;
        for sql in &case.setup {
            run(&mut judge, &fill(sql))?;
        }
        let bystander = case.bystander.then(|| session(self.server, database, "bystander")).transpose()?;
        let before = match case.probe() {
            Some(probe) => is_true(&mut judge, probe)?,
            None => false,
        };
        let mut session = session(self.server, database, "corpus")?;
        let first = case.first.iter().map(|sql| Ok((frontend::query(&fill(sql)), None)));
        let own = std::iter::once(case.request(fill).map(|request| (request, case.copy_in.as_deref())));
        let after = case.after.iter().map(|sql| Ok((frontend::query(&fill(sql)), None)));
        let is_error = |message: &&Message| message.tag == b'E';
        let mut heard = Vec::new();
        for request in first.chain(own).chain(after) {
            let (request, copied) = request?;
            match exchange(&mut session, &request, copied) {
                Ok(replies) => heard.extend(replies),
                // A session that was ended hears no more.
                Err(_) if guarded => break,
                Err(error) => return Err(error),
            }
            // What follows a statement that was stopped shows its effect only: by itself it may do anything.
            if guarded && heard.iter().any(|message| is_error(&message)) {
                break;
            }
        }
        let errors: Vec<String> = heard.iter().filter(is_error).map(backend::describe).collect();
        let happened = match (case.effect, case.probe()) {
            (Some(Effect::Needle), _) => heard.iter().any(holds_needle),
            (Some(Effect::Refused), _) if guarded => is_true(&mut judge, EMPTIED)?,
            (Some(Effect::Refused), _) => !errors.is_empty() && !is_true(&mut judge, EMPTIED)?,
            (_, Some(probe)) if guarded => is_true(&mut judge, probe)?,
            (_, Some(probe)) => comes_true(&mut judge, probe)?,
            (_, None) => bail!("{} has neither effect nor probe", case.name),
        };
        drop((session, bystander));
        Ok(Played { before, happened, errors })
    }
}

impl Case {
    /// The query that says whether the effect has happened; none if the client sees that.
    fn probe(&self) -> Option<&str> {
        Some(match self.effect {
            Some(Effect::Emptied) => EMPTIED,
            Some(Effect::Deleted) => "select not exists (select from ledger where id = 1)",
            Some(Effect::Changed) => "select exists (select from ledger where id = 1 and amount <> 10)",
            Some(Effect::Inserted) => "select exists (select from ledger where id = 99)",
            Some(Effect::Dropped) => "select to_regclass('public.ledger') is null",
            Some(Effect::Landed) => "select exists (select from landed)",
            Some(Effect::Needle | Effect::Refused) => return None,
            None => self.probe.as_deref()?,
        })
    }

    /// The messages that carry the statement.
    fn request(&self, fill: impl Fn(&str) -> String) -> anyhow::Result<Vec<u8>> {
        if let Some(Function { oid, args }) = &self.function {
            let args: Vec<_> = args.iter().map(|arg| Some(fill(arg).into_bytes())).collect();
            return Ok(frontend::function_call(*oid, &[0], &args, 0));
        }
        let mut sql = if let Some(hex) = &self.bytes {
            let digits = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16);
            (0..hex.len()).step_by(2).map(digits).collect::<Result<Vec<u8>, _>>()?
        } else if let Some(Generate { prefix, open, times, inner, close, suffix }) = &self.generate {
            [prefix.as_str(), &open.repeat(*times), inner, &close.repeat(*times), suffix].concat().into()
        } else {
            fill(self.sql.as_deref().context("a case has a statement")?).into_bytes()
        };
        if self.protocol.is_none() {
            sql.push(0);
            return Ok(frontend::message(b'Q', &sql));
        }
        let values: Vec<_> = self.params.iter().map(|param| Some(fill(param).into_bytes())).collect();
        let mut request = frontend::parse("", str::from_utf8(&sql)?, &[]);
        request.extend(frontend::bind("", "", &[], &values, &[]));
        request.extend(frontend::execute("", 0));
        request.extend(frontend::message(b'S', &[]));
        Ok(request)
    }
}

/// Sends a request and yields the reply, up to ReadyForQuery or the end of the session.
fn exchange(wire: &mut Wire, request: &[u8], copied: Option<&str>) -> anyhow::Result<Vec<Message>> {
    wire.send(request)?;
    let mut messages = Vec::new();
    while let Some(message) = wire.receive()? {
        let tag = message.tag;
        messages.push(message);
        match tag {
            b'Z' => break,
            b'G' => {
                wire.send(&frontend::message(b'd', copied.unwrap_or_default().as_bytes()))?;
                wire.send(&frontend::message(b'c', &[]))?;
            }
            _ => {}
        }
    }
    Ok(messages)
}

fn superuser(server: &Server, database: &str) -> anyhow::Result<Wire> {
    let mut wire = Wire::tcp(server)?;
    wire.start(&[("user", "postgres"), ("database", database)])?;
    Ok(wire)
}

fn session(server: &Server, database: &str, name: &str) -> anyhow::Result<Wire> {
    let mut wire = Wire::tcp(server)?;
    wire.start(&[("user", ROLE), ("database", database), ("application_name", name)])?;
    Ok(wire)
}

/// Runs what must succeed.
fn run(wire: &mut Wire, sql: &str) -> anyhow::Result<Vec<Message>> {
    let messages = wire.query(sql)?;
    let error = messages.iter().find(|message| message.tag == b'E');
    ensure!(error.is_none(), "{sql}: {:?}", error.map(|error| error.field(b'M')));
    Ok(messages)
}

fn value(wire: &mut Wire, sql: &str) -> anyhow::Result<Option<String>> {
    let messages = run(wire, sql)?;
    let row = messages.iter().find(|message| message.tag == b'D').map(Message::values);
    let first = row.and_then(|values| values.into_iter().next().flatten());
    Ok(first.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

fn is_true(wire: &mut Wire, probe: &str) -> anyhow::Result<bool> {
    Ok(value(wire, probe)?.as_deref() == Some("t"))
}

/// Whether a probe becomes true: some effects are another process's work.
fn comes_true(wire: &mut Wire, probe: &str) -> anyhow::Result<bool> {
    let mut last = Ok(false);
    let settled = wait::until("the effect", SETTLED, || {
        last = is_true(wire, probe);
        Ok((!matches!(last, Ok(false))).then_some(()))
    });
    if settled.is_ok() { last } else { Ok(false) }
}

/// DataRow, CopyData or NotificationResponse with the text that only secrets have.
fn holds_needle(message: &Message) -> bool {
    matches!(message.tag, b'D' | b'd' | b'A') && message.body.windows(NEEDLE.len()).any(|part| part == NEEDLE)
}

const NEEDLE: &[u8] = b"needle-7f3a9c";
const EMPTIED: &str = "select not exists (select from ledger)";
/// After that, an effect does not happen any more.
const SETTLED: Duration = Duration::from_secs(3);
