//! `capture-agent approvals`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};

use super::Place;
use super::print::{brief, duration, safe};
use crate::approvals::{self, Approve, Cover, Deny, Listed, Question, Reply, RequestId, Why};
use crate::probes::Pins;

/// What `approvals` was asked.
#[derive(Debug, Args)]
pub(super) struct ApprovalsArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the statements that wait
    #[command(after_help = LIST_HELP)]
    List(ListArgs),
    /// Let a statement run
    #[command(after_help = APPROVE_HELP)]
    Approve(ApproveArgs),
    /// Let a statement fail
    #[command(after_help = DENY_HELP)]
    Deny(DenyArgs),
}

#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ApproveArgs {
    #[command(flatten)]
    place: Place,
    /// The request, as `list` names it
    #[arg(value_parser = id)]
    id: RequestId,
    /// What else may run: `text`, the same text in the same session; or for a time such as `30m` everything that the
    /// guardrail catches in the session
    #[arg(long, value_name = "statement|text|TIME", default_value = "statement")]
    cover: Cover,
    /// Why; the record keeps it
    #[arg(long)]
    reason: Option<String>,
}

#[derive(Debug, Args)]
struct DenyArgs {
    #[command(flatten)]
    place: Place,
    /// The request, as `list` names it
    #[arg(value_parser = id)]
    id: RequestId,
    /// Why; the client is told, and the record keeps it
    #[arg(long)]
    reason: String,
}

fn id(text: &str) -> Result<RequestId, String> {
    text.parse()
        .map_err(|()| "expected four letters and digits, as `capture-agent approvals list` prints".into())
}

pub(super) fn approvals(args: ApprovalsArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let (place, question, json) = match args.command {
        Command::List(args) => (args.place, Question::List {}, args.json),
        Command::Approve(ApproveArgs { place, id, cover, reason }) => {
            let (id, cover) = (id.to_string(), Some(cover.to_string()));
            (place, Question::Approve(Approve { id, cover, reason }), false)
        }
        Command::Deny(DenyArgs { place, id, reason }) => {
            (place, Question::Deny(Deny { id: id.to_string(), reason }), false)
        }
    };
    match approvals::ask(&socket(&place)?, &question)? {
        Reply::Requests(requests) if json => {
            for request in &requests {
                serde_json::to_writer(&mut *out, request)?;
                writeln!(out)?;
            }
        }
        Reply::Requests(requests) if requests.is_empty() => writeln!(out, "nothing waits")?,
        Reply::Requests(requests) => {
            for request in &requests {
                print(request, out)?;
            }
        }
        Reply::Done { id } => writeln!(out, "{} is decided", safe(&id, true))?,
        Reply::Refused { why, message } => {
            out.flush()?;
            return refused(why, &message);
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The socket of the agent that records there.
fn socket(place: &Place) -> anyhow::Result<PathBuf> {
    let config = place.config()?;
    let pins = Pins::of(&config.kernel.pin_dir, &config.data_dir).context(
        "kernel.pin_dir is empty in this configuration, and without it no statement can be held \
         (see docs/errors.md#not-pinned)",
    )?;
    Ok(approvals::socket(&config.shim.runtime_dir, &pins))
}

fn refused(why: Why, message: &str) -> anyhow::Result<ExitCode> {
    let message = brief(message, MESSAGE);
    let (code, anchor) = match why {
        Why::Unknown => (NOT_WAITING, "approvals-unknown"),
        Why::Decided | Why::TooLate => (NOT_WAITING, "approvals-decided"),
        Why::NotAllowed => (TOO_MUCH, "approvals-cover"),
        Why::Malformed => bail!("{message} (see docs/errors.md#approvals-failed)"),
        Why::Busy => bail!("{message} (see docs/errors.md#approvals-busy)"),
    };
    writeln!(std::io::stderr(), "error: {message} (see docs/errors.md#{anchor})")?;
    Ok(ExitCode::from(code))
}

fn print(request: &Listed, out: &mut impl Write) -> anyhow::Result<()> {
    let text = |text: &Option<String>| brief(text.as_deref().unwrap_or("-"), NAME);
    let time = |ms: u64| duration(i64::try_from(ms.saturating_mul(1_000)).unwrap_or(i64::MAX));
    writeln!(
        out,
        "{}  waits {}, {} left  guardrail {}",
        brief(&request.id, 10),
        time(request.waited_ms),
        time(request.left_ms),
        brief(&request.guardrail, NAME)
    )?;
    writeln!(
        out,
        "    {} on {}, application {}, from {}, backend {}, session {}",
        text(&request.user),
        text(&request.database),
        text(&request.application_name),
        request.client_addr.as_deref().map_or("a Unix socket".to_owned(), |addr| brief(addr, NAME)),
        request.host_pid,
        brief(&request.session_id, NAME)
    )?;
    if let Some(message) = &request.message {
        writeln!(out, "    {}", brief(message, MESSAGE))?;
    }
    match &request.sql {
        Some(sql) => {
            for line in safe(sql, false).lines() {
                writeln!(out, "    | {line}")?;
            }
        }
        None => writeln!(out, "    [text unknown: it was prepared where the record does not reach]")?,
    }
    for (at, value) in request.params.iter().enumerate() {
        let value =
            value.as_deref().map_or("NULL".to_owned(), |value| format!("'{}'", brief(value, MESSAGE)));
        writeln!(out, "    | ${} = {value}", at + 1)?;
    }
    if request.truncated {
        writeln!(out, "    [text or parameters are longer than what is shown]")?;
    }
    if let Some(blocked) = request.blocked {
        let most = request.max_blocked.map_or(String::new(), |most| format!(", allowed are {most}"));
        writeln!(out, "    sessions that wait for locks since: at most {blocked} for this one's{most}")?;
    }
    writeln!(out, "    an approval may cover: {}", brief(&request.covers.join(", "), NAME))?;
    Ok(())
}

/// Exit code: the request does not wait, or not any more.
const NOT_WAITING: u8 = 3;

/// Exit code: the guardrail does not let an approval cover so much.
const TOO_MUCH: u8 = 4;

/// Characters of a name, and of a message.
const NAME: usize = 100;
const MESSAGE: usize = 1_000;

pub(super) const HELP: &str = "\
Example: what waits, and let one of them run
  capture-agent approvals list
  capture-agent approvals approve k7f2

Root may decide, and the group that the configuration names (`approvals.group`).";

const LIST_HELP: &str = "\
Example:
  capture-agent approvals list --json

Exit codes: 0 listed, also if nothing waits; 1 failure: no agent asks, or you
may not decide; 2 wrong usage.";

const APPROVE_HELP: &str = "\
Example: this statement; or everything that the guardrail catches in its session
in the next half hour
  capture-agent approvals approve k7f2
  capture-agent approvals approve k7f2 --cover 30m --reason CHG-1234

Exit codes: 0 approved; 1 failure: no agent asks, or you may not decide;
2 wrong usage; 3 it does not wait, or somebody has decided already; 4 the
guardrail does not let an approval cover so much.";

const DENY_HELP: &str = "\
Example:
  capture-agent approvals deny k7f2 --reason 'not before the release'

Exit codes: 0 denied; 1 failure: no agent asks, or you may not decide;
2 wrong usage; 3 it does not wait, or somebody has decided already.";
