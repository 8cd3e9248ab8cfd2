//! The decisions that the agent itself takes: which policy holds, which sessions it leaves out, and what waits to be stored
//! elsewhere.

use std::path::Path;
use std::sync::Arc;

use super::sessions::Clock;
use crate::config::Config;
use crate::enforce::Case;
use crate::policy::{Action, Reason};
use crate::probes::monotonic_now;
use crate::record::{Decision, DecisionKind, Outcome, Recorder};
use crate::session::{Micros, SessionInfo};
use crate::upload::Backlog;

/// Records that this configuration's policy holds from now on.
pub(super) fn policy_loaded(config: &Config, file: Option<&Path>, recorder: &mut Recorder) {
    let rules = config.policy.record_rules().len() - 1;
    let guardrails = config.policy.guardrails().len();
    let masks = config.policy.mask_rules().len();
    let source = match (file, &config.sha256) {
        (Some(file), Some(hash)) => format!("{} sha256:{hash}", file.display()),
        _ => "no configuration file".to_owned(),
    };
    recorder.decision(
        None,
        &Decision {
            reason: Some(source),
            decided_by: Some(Arc::from("agent")),
            message: Some(summary(rules, guardrails, masks)),
            ..Decision::new(DecisionKind::PolicyLoaded, now())
        },
    );
}

/// How many rules of each kind there are.
fn summary(rules: usize, guardrails: usize, masks: usize) -> String {
    let masks = if masks > 0 { format!(", {masks} masks") } else { String::new() };
    format!("{rules} recording rules, {guardrails} guardrails{masks}")
}

/// Records that a changed configuration file is wrong, and the old policy stays.
pub(super) fn policy_refused(error: &str, file: Option<&Path>, recorder: &mut Recorder) {
    recorder.decision(
        None,
        &Decision {
            reason: file.map(|file| file.display().to_string()),
            decided_by: Some(Arc::from("agent")),
            message: Some(error.to_owned()),
            ..Decision::new(DecisionKind::PolicyRefused, now())
        },
    );
}

/// Records that a recording rule leaves a session out.
pub(super) fn recording_skipped(session: &SessionInfo, rule: &str, recorder: &mut Recorder) {
    recorder.decision(
        Some(session),
        &Decision {
            reason: Some(rule.to_owned()),
            decided_by: Some(Arc::from("policy")),
            ..Decision::new(DecisionKind::RecordingSkipped, now())
        },
    );
}

/// Records that more of the record waits to be uploaded than may, or no longer.
pub(super) fn upload_backlog(backlog: Backlog, recorder: &mut Recorder) {
    let Backlog { over, files, bytes, limit } = backlog;
    let reason = if over { "more waits than `upload.backlog_bytes`" } else { "less waits again" };
    recorder.decision(
        None,
        &Decision {
            reason: Some(reason.to_owned()),
            decided_by: Some(Arc::from("agent")),
            message: Some(format!("{files} files of {bytes} bytes wait to be uploaded; {limit} bytes may")),
            ..Decision::new(DecisionKind::UploadBacklog, now())
        },
    );
}

/// Records what guardrails have said about a statement that they caught, who decided, and how long its backend was held.
pub(super) fn verdict(
    session: &SessionInfo,
    case: &Case,
    outcome: Outcome,
    decided_by: &Arc<str>,
    held_us: Option<u64>,
    recorder: &mut Recorder,
) {
    let decision = &case.decision;
    // Of most statements there is nothing to record.
    if decision.observed.is_empty() && outcome == Outcome::Allowed {
        return;
    }
    let at = now();
    for observed in &decision.observed {
        let alert = observed.guardrail.action == Action::Alert;
        recorder.decision(
            Some(session),
            &Decision {
                guardrail: Some(observed.guardrail.name.as_str().into()),
                action: Some(observed.guardrail.action),
                verdict: Some(if alert { Outcome::Alerted } else { Outcome::Observed }),
                reason: Some(reason(&observed.reason)),
                decided_by: Some("policy".into()),
                held_us,
                sql: case.shown.clone(),
                message: observed.guardrail.message.clone(),
                ..Decision::new(DecisionKind::Verdict, at)
            },
        );
    }
    // No guardrail has stopped it: its row in `statements` says that.
    if outcome == Outcome::Allowed {
        return;
    }
    let guardrail = decision.guardrail.as_deref();
    recorder.decision(
        Some(session),
        &Decision {
            guardrail: guardrail.map(|guardrail| guardrail.name.as_str().into()),
            action: guardrail.map(|guardrail| guardrail.action),
            verdict: Some(outcome),
            reason: decision.reason.as_ref().map(reason),
            decided_by: Some(Arc::clone(decided_by)),
            held_us,
            sql: case.shown.clone(),
            message: guardrail.and_then(|guardrail| guardrail.message.clone()),
            ..Decision::new(DecisionKind::Verdict, at)
        },
    );
}

pub(super) fn reason(reason: &Reason) -> String {
    match reason {
        Reason::True => "its condition is true".to_owned(),
        Reason::Unknown => "its condition depends on what is not known".to_owned(),
        Reason::Failed(fault) => format!("its condition has no value: {fault}"),
    }
}

fn now() -> Micros {
    Clock::now().unix(monotonic_now())
}
