//! `capture-agent verify`.

use std::io::{IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Place;
use super::print::brief;
use crate::seal::{self, Checked, Report, Request};

/// What `verify` was asked.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// The key that must have signed every seal [default: those that stand beside the seals]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Heads of the chains that were kept elsewhere: the file that `seals.anchor` names
    #[arg(long, value_name = "FILE")]
    anchor: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) fn verify(args: &VerifyArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let request = Request {
        data_dir: args.place.config()?.data_dir,
        public_key: args.public_key.clone(),
        anchor: args.anchor.clone(),
    };
    let bar = progress_bar();
    let report = seal::verify(&request, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let report = report?;
    if args.json {
        serde_json::to_writer(&mut *out, &report)?;
        writeln!(out)?;
    } else {
        print(&report, args, out)?;
    }
    out.flush()?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report, args: &VerifyArgs, out: &mut impl Write) -> std::io::Result<()> {
    for chain in &report.chains {
        let Checked { node, seals, files, bytes, rows, from, to, key } = chain;
        writeln!(
            out,
            "{}: {seals} seals from {} to {}, signed by key {key}; {files} files with {rows} rows in {bytes} bytes are as \
             they were sealed",
            brief(node, 80),
            brief(from.as_deref().unwrap_or("-"), 40),
            brief(to.as_deref().unwrap_or("-"), 40),
        )?;
    }
    for finding in &report.findings {
        writeln!(out, "{}", brief(&finding.to_string(), 400))?;
    }
    match report.findings.len() {
        0 => writeln!(out, "nothing was changed, removed, added or reordered")?,
        1 => writeln!(out, "1 finding")?,
        n => writeln!(out, "{n} findings")?,
    }
    if args.public_key.is_none() {
        writeln!(
            out,
            "note: the keys are those in the record itself; --public-key compares with one that you know"
        )?;
    }
    if args.anchor.is_none() {
        writeln!(out, "note: without --anchor, seals that were cut off the end are not missed")?;
    }
    Ok(())
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("verifying {bar:30} {bytes} of {total_bytes}, {eta} left");
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

pub(super) const HELP: &str = "\
Example: a copy of the record, with what was kept elsewhere
  capture-agent verify --data-dir /copy --public-key db1.pub --anchor db1.anchor

Reads every published file and compares it with its seal. Needs no server, no
agent and no network. docs/seals.md says what is proven, and how to verify with
openssl and Python only.

Exit codes: 0 the record is as it was sealed, 1 it is not, or it cannot be read,
2 wrong usage.";
