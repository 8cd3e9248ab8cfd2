//! `capture-agent check`.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::print::brief;
use crate::config::Config;
use crate::mask::{Explained, Key, Masker};
use crate::policy::{
    ConditionReport, Effect, Explanation, RowLimits, RuleReport, SessionFacts, StatementFacts,
};
use crate::session::Protocol;
use crate::session::value::Encoding;
use crate::sql::{Analysis, Examiner, Reading};

/// What `check` was asked.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The file
    file: PathBuf,
    /// Say what would happen to this query string
    #[arg(long)]
    sql: Option<String>,
    /// Of a session of this role; what is not given of a session is not known
    #[arg(long, value_name = "ROLE")]
    user: Option<String>,
    /// With this database
    #[arg(long)]
    database: Option<String>,
    /// With this application_name
    #[arg(long, value_name = "NAME")]
    application_name: Option<String>,
    /// From this address; empty for a Unix socket
    #[arg(long, value_name = "ADDR")]
    client_addr: Option<String>,
    /// Over this transport
    #[arg(long, value_parser = ["tcp", "unix"])]
    transport: Option<String>,
    /// Encrypted or not
    #[arg(long, value_name = "true|false")]
    tls: Option<bool>,
    /// Authenticated in this way
    #[arg(long, value_name = "METHOD")]
    auth_method: Option<String>,
    /// With this client_encoding
    #[arg(long, value_name = "ENCODING", default_value = "UTF8")]
    encoding: String,
    /// With standard_conforming_strings on or off
    #[arg(long, value_name = "true|false", default_value = "true", action = clap::ArgAction::Set)]
    standard_conforming_strings: bool,
    /// With this parameter, $1 first: the statement comes through Parse and Bind (repeatable)
    #[arg(long, value_name = "VALUE", requires = "sql")]
    param: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What `check` prints as JSON.
#[derive(Serialize)]
struct Answer<'a> {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    stmt: Option<Stmt<'a>>,
    #[serde(flatten)]
    explanation: Option<&'a Explanation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    masking: Option<&'a Explained>,
}

/// What the text does.
#[derive(Serialize)]
struct Stmt<'a> {
    unknown: Option<String>,
    kinds: &'a [String],
    tables_read: &'a [String],
    tables_written: &'a [String],
    functions: &'a [String],
    settings: &'a [String],
    update_without_where: bool,
    delete_without_where: bool,
}

pub(super) fn check(args: &CheckArgs, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let config = Config::load(&args.file)?;
    let asked = args.sql.is_some() || session_is_given(args);
    let examined = args.sql.as_ref().map(|sql| {
        let reading = Reading {
            encoding: Encoding::from_name(&args.encoding),
            standard_conforming_strings: Some(args.standard_conforming_strings),
        };
        let session = session(args);
        Examiner::default().examine(sql.as_bytes(), reading, config.policy.needs(&session).opinions)
    });
    let facts = examined.as_ref().map(|examined| {
        let text = Arc::clone(&examined.text);
        let analysis = Arc::clone(&examined.analysis);
        if args.param.is_empty() {
            StatementFacts::new(text, Protocol::Simple, analysis)
        } else {
            let params = args.param.iter().map(|param| Some(param.as_str()));
            StatementFacts::new(text, Protocol::Extended, analysis).with_params(params)
        }
    });
    let explanation = asked.then(|| config.policy.explain(&session(args), facts.as_ref()));
    let masking = asked.then(|| {
        // A hash is shown as it looks; the agent's key is none of whoever checks a file.
        let mut masker = Masker::new(&config.policy, Some(Key::new(b"as it looks")));
        let text = examined.as_ref().map(|examined| &examined.text);
        masker.explain(&session(args), text, args.standard_conforming_strings)
    });
    let stmt = examined.as_ref().map(|examined| stmt(&examined.analysis));
    if args.json {
        let answer = Answer {
            file: args.file.display().to_string(),
            stmt,
            explanation: explanation.as_ref(),
            masking: masking.as_ref(),
        };
        serde_json::to_writer(&mut *out, &answer)?;
        writeln!(out)?;
    } else {
        let (records, guardrails) =
            (config.policy.record_rules().len() - 1, config.policy.guardrails().len());
        let masks = match config.policy.mask_rules().len() {
            0 => String::new(),
            masks => format!(", {masks} masks"),
        };
        writeln!(
            out,
            "{}: ok, {records} recording rules, {guardrails} guardrails{masks}",
            args.file.display()
        )?;
        if let Some(stmt) = &stmt {
            print_stmt(stmt, out)?;
        }
        if let Some(explanation) = &explanation {
            print(explanation, examined.is_some(), out)?;
        }
        if let Some(masking) = &masking {
            print_masking(masking, out)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn session_is_given(args: &CheckArgs) -> bool {
    session(args) != SessionFacts::default()
}

fn session(args: &CheckArgs) -> SessionFacts {
    let text = |text: &Option<String>| text.as_deref().map(Arc::from);
    SessionFacts {
        user: text(&args.user),
        database: text(&args.database),
        application_name: text(&args.application_name),
        client_addr: text(&args.client_addr),
        transport: text(&args.transport),
        tls: args.tls,
        auth_method: text(&args.auth_method),
        ..SessionFacts::default()
    }
}

fn stmt(analysis: &Analysis) -> Stmt<'_> {
    Stmt {
        unknown: analysis.unknown.map(|reason| reason.to_string()),
        kinds: &analysis.kinds,
        tables_read: &analysis.tables_read,
        tables_written: &analysis.tables_written,
        functions: &analysis.functions,
        settings: &analysis.settings,
        update_without_where: analysis.update_without_where,
        delete_without_where: analysis.delete_without_where,
    }
}

fn print_stmt(stmt: &Stmt<'_>, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\nstatement")?;
    if let Some(reason) = &stmt.unknown {
        writeln!(out, "  unknown: {reason}")?;
    }
    let lists = [
        ("kinds", stmt.kinds),
        ("tables_read", stmt.tables_read),
        ("tables_written", stmt.tables_written),
        ("functions", stmt.functions),
        ("settings", stmt.settings),
    ];
    for (name, list) in lists.into_iter().filter(|(_, list)| !list.is_empty()) {
        writeln!(out, "  {name}: {}", list.join(", "))?;
    }
    for (name, _) in [
        ("update_without_where", stmt.update_without_where),
        ("delete_without_where", stmt.delete_without_where),
    ]
    .into_iter()
    .filter(|(_, is)| *is)
    {
        writeln!(out, "  {name}")?;
    }
    Ok(())
}

fn print(explanation: &Explanation, with_statement: bool, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "\nrecording")?;
    for rule in &explanation.records {
        writeln!(
            out,
            "  {}: {}",
            rule.name,
            if rule.taken { recorded(rule) } else { "passed over".to_owned() }
        )?;
        print_condition("match", rule.matching.as_ref(), out)?;
    }
    writeln!(out, "\nguardrails")?;
    for guardrail in &explanation.guardrails {
        let effect = match guardrail.effect {
            Effect::Passes => "passes",
            Effect::Catches => "catches it",
            Effect::CatchesUnknown => "catches it, since it is unknown and on_unknown is block",
            Effect::CatchesFailed => "catches it, since it cannot be computed and on_failure is closed",
            Effect::Waits => "waits for the parameters",
        };
        writeln!(out, "  {} ({}): {effect}", guardrail.name, guardrail.action)?;
        print_condition("match", guardrail.matching.as_ref(), out)?;
        print_condition("when", guardrail.when.as_ref(), out)?;
    }
    if with_statement {
        let verdict = format!("{:?}", explanation.verdict).to_lowercase();
        match (&explanation.guardrail, &explanation.message) {
            (Some(guardrail), Some(message)) => writeln!(out, "\n{verdict}, by {guardrail}: {message}")?,
            (Some(guardrail), None) => writeln!(out, "\n{verdict}, by {guardrail}")?,
            (None, _) if explanation.later => writeln!(out, "\n{verdict}, until its parameters are known")?,
            (None, _) => writeln!(out, "\n{verdict}")?,
        }
    }
    Ok(())
}

fn print_masking(masking: &Explained, out: &mut impl Write) -> anyhow::Result<()> {
    if masking.rules.is_empty() && masking.masked == 0 && masking.params.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nmasking")?;
    if !masking.rules.is_empty() {
        writeln!(out, "  rules: {}", masking.rules.join(", "))?;
    }
    if let Some(sql) = &masking.sql {
        writeln!(out, "  masked in the text: {}", masking.masked)?;
        writeln!(out, "  recorded as: {sql}")?;
    }
    if !masking.params.is_empty() {
        writeln!(out, "  parameters masked: {}", masking.params.join(", "))?;
    }
    Ok(())
}

fn print_condition(name: &str, report: Option<&ConditionReport>, out: &mut impl Write) -> anyhow::Result<()> {
    if let Some(report) = report {
        let one_line = report.condition.split_whitespace().collect::<Vec<_>>().join(" ");
        writeln!(out, "    {name} is {}: {}", report.says, brief(&one_line, MOST_CONDITION))?;
    }
    Ok(())
}

fn recorded(rule: &RuleReport) -> String {
    let what = match rule.results {
        _ if rule.skip => "nothing of the session".to_owned(),
        RowLimits::NONE => "statements, no rows".to_owned(),
        RowLimits::FULL => "statements and all rows".to_owned(),
        RowLimits { rows, bytes } => format!("statements, {rows} rows and {bytes} bytes of rows of each"),
    };
    format!("taken; {what}{}", if rule.required { "; required" } else { "" })
}

/// Characters of a condition that are shown.
const MOST_CONDITION: usize = 160;

pub(super) const HELP: &str = "\
Example: is the file right, and what would become of a statement
  capture-agent check /etc/capture/capture.toml
  capture-agent check /etc/capture/capture.toml --user mcp_agent --sql 'drop table t'

Each condition is shown with what it says of that session and statement; what is
not given of a session (--user, --database, …) is not known.

Exit codes: 0 the file is valid, whatever becomes of the statement; 1 it is not
(file, line and what was expected are printed); 2 wrong usage.";
