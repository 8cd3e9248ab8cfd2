//! Prints what [`probes::doctor`](crate::probes::doctor) found.

use std::io::{self, Write};
use std::process::ExitCode;

use super::rights;
use crate::config::Config;
use crate::probes::doctor::{self, Check, Verdict};
use crate::probes::{Access, Selector};
use crate::shim::Eyes;

/// Examines this host. Fails if anything keeps capture from working.
///
/// # Errors
///
/// If stdout cannot be written.
pub fn doctor(config: &Config, servers: &[Selector], json: bool) -> anyhow::Result<ExitCode> {
    let shim = rights::socket(config).and_then(|socket| Eyes::open(socket).ok());
    let access = shim.as_ref().map(|shim| -> &dyn Access { shim });
    let checks = doctor::examine(servers, access, &config.kernel.pin_dir);
    let mut out = io::stdout().lock();
    if json {
        print_json(&checks, &mut out)?;
    } else {
        print_text(&checks, &mut out)?;
    }
    let broken = checks.iter().any(|check| check.verdict == Verdict::Fail);
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print_text(checks: &[Check], out: &mut impl Write) -> io::Result<()> {
    for check in checks {
        writeln!(out, "{:<5} {:<14} {}", word(check.verdict), check.name, check.found)?;
        if let Some(advice) = check.advice {
            writeln!(out, "{:<21}→ {advice}", "")?;
        }
    }
    let failures = checks.iter().filter(|check| check.verdict == Verdict::Fail).count();
    match failures {
        0 => writeln!(out, "\nThis host is ready: `capture-agent run` can record."),
        n => writeln!(out, "\nThis host is not ready: {n} of {} checks failed.", checks.len()),
    }
}

/// One object: `{"ready": bool, "checks": [{"name", "verdict", "found", "advice"}]}`.
fn print_json(checks: &[Check], out: &mut impl Write) -> io::Result<()> {
    let checks: Vec<_> = checks
        .iter()
        .map(|check| {
            serde_json::json!({
                "name": check.name,
                "verdict": word(check.verdict),
                "found": check.found,
                "advice": check.advice,
            })
        })
        .collect();
    let ready = checks.iter().all(|check| check["verdict"] != word(Verdict::Fail));
    writeln!(out, "{}", serde_json::json!({ "ready": ready, "checks": checks }))
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Note => "note",
        Verdict::Fail => "FAIL",
    }
}
