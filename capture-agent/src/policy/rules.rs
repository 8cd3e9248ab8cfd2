//! From what is written to rules that hold, with everything that is wrong on the way.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::condition::{Condition, Scope, nearest};
use super::error::{CONDITION, INVALID};
use super::file::{RawGuardrail, RawRecord};
use super::rule::{
    Action, Approval, Guardrail, OnFailure, OnUnknown, REQUIRED_TIMEOUT, RecordRule, RowLimits,
};
use super::{PolicyError, text};

mod masks;

/// Makes rules, and collects errors.
pub(super) struct Rules<'t> {
    pub(super) file: &'t str,
    pub(super) errors: Vec<PolicyError>,
}

/// Shorter deadlines pass before the agent could decide; longer ones hold locks for longer than a day.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3_600);
/// The client sees the message in an error that takes the place of its statement.
const MOST_MESSAGE: usize = 300;
const MOST_NAME: usize = 63;

impl Rules<'_> {
    /// Notes an error at a place in the file.
    pub(super) fn wrong(&mut self, span: Range<usize>, message: String) {
        self.errors.push(PolicyError { line: text::line(self.file, span.start), message, anchor: INVALID });
    }

    pub(super) fn guardrail(&mut self, span: Range<usize>, raw: RawGuardrail) -> Option<Guardrail> {
        let Some(name) = raw.name else {
            self.wrong(span, "a guardrail without `name`".to_owned());
            return None;
        };
        self.check_name(&name);
        let name = name.into_inner();
        let of = format!("guardrail \"{name}\"");
        let action = match raw.action {
            Some(action) => self.choice(&of, "action", &action, &ACTIONS),
            None => {
                self.wrong(
                    span.clone(),
                    format!("{of} has no `action`: observe, alert, block, approve or terminate"),
                );
                None
            }
        };
        let matching = self.condition(&of, "match", raw.matching, Scope::Session);
        let when = self.condition(&of, "when", raw.when, Scope::Statement);
        let on_unknown = raw.on_unknown.and_then(|word| self.choice(&of, "on_unknown", &word, &ON_UNKNOWN));
        let on_failure = raw.on_failure.and_then(|word| self.choice(&of, "on_failure", &word, &ON_FAILURE));
        let timeout = raw.timeout.and_then(|time| self.timeout(&of, &time));
        if let Some(message) = &raw.message {
            self.check_message(&of, message);
        }
        let approves = action == Some(Action::Approve);
        for (key, at) in [
            ("approval", raw.approval.as_ref().map(Spanned::span)),
            ("max_blocked", raw.max_blocked.as_ref().map(Spanned::span)),
        ] {
            if let Some(at) = at.filter(|_| action.is_some() && !approves) {
                self.wrong(at, format!("{of}: `{key}` is for the action \"approve\" only"));
            }
        }
        let approval = raw.approval.map(|list| self.approval(&of, list.into_inner())).unwrap_or_default();
        let action = action?;
        Some(Guardrail {
            name,
            action,
            message: raw.message.map(Spanned::into_inner),
            on_unknown: on_unknown.unwrap_or_default(),
            on_failure: on_failure.unwrap_or_default(),
            timeout: timeout.unwrap_or(action.timeout()),
            approval,
            max_blocked: raw.max_blocked.map(Spanned::into_inner),
            matching,
            when,
        })
    }

    pub(super) fn record(
        &mut self,
        span: Range<usize>,
        index: usize,
        raw: RawRecord,
        otherwise: RowLimits,
    ) -> RecordRule {
        let name = match raw.name {
            Some(name) => {
                self.check_name(&name);
                name.into_inner()
            }
            None => format!("record-{}", index + 1),
        };
        let of = format!("recording rule \"{name}\"");
        let matching = self.condition(&of, "match", raw.matching, Scope::Session);
        for (key, at) in [
            ("timeout", raw.timeout.as_ref().map(Spanned::span)),
            ("on_failure", raw.on_failure.as_ref().map(Spanned::span)),
        ] {
            if let Some(at) = at.filter(|_| !raw.required) {
                self.wrong(at, format!("{of}: `{key}` is for rules with `required = true` only"));
            }
        }
        let timeout = raw.timeout.and_then(|time| self.timeout(&of, &time));
        let on_failure = raw.on_failure.and_then(|word| self.choice(&of, "on_failure", &word, &ON_FAILURE));
        if let Some(results) = raw.results.as_ref().filter(|_| raw.skip) {
            self.wrong(results.span(), format!("{of}: a session that is skipped has no `results`"));
        }
        let results =
            raw.results.and_then(|results| self.results(&of, &results, otherwise)).unwrap_or(otherwise);
        if raw.skip && raw.required {
            self.wrong(span, format!("{of}: what is skipped cannot be required"));
        }
        RecordRule {
            name,
            index: Some(index),
            results,
            skip: raw.skip,
            required: raw.required,
            timeout: timeout.unwrap_or(REQUIRED_TIMEOUT),
            on_failure: on_failure.unwrap_or_default(),
            matching,
        }
    }

    pub(super) fn condition(
        &mut self,
        of: &str,
        key: &str,
        source: Option<Spanned<String>>,
        scope: Scope,
    ) -> Option<Condition> {
        let source = source?;
        let (span, source) = (source.span(), source.into_inner());
        match Condition::compile(&source, scope) {
            Ok(condition) => Some(condition),
            Err(error) => {
                let line = text::line_in_string(self.file, span, &source, error.at);
                let message = format!("{of}, `{key}`: {}{}", error.message, text::excerpt(&source, error.at));
                self.errors.push(PolicyError { line, message, anchor: CONDITION });
                None
            }
        }
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        of: &str,
        key: &str,
        word: &Spanned<String>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let found = choices.iter().find(|(choice, _)| choice == word.get_ref());
        if found.is_none() {
            let words: Vec<_> = choices.iter().map(|(choice, _)| *choice).collect();
            let hint = match nearest(word.get_ref(), words.iter().copied()) {
                Some(near) => format!("; did you mean \"{near}\"?"),
                None => format!("; expected {}", words.join(", ")),
            };
            self.wrong(word.span(), format!("{of}: `{key}` is \"{}\"{hint}", word.get_ref()));
        }
        found.map(|(_, value)| *value)
    }

    fn timeout(&mut self, of: &str, time: &Spanned<String>) -> Option<Duration> {
        let found = text::duration(time.get_ref()).filter(|time| TIMEOUTS.contains(time));
        if found.is_none() {
            self.wrong(
                time.span(),
                format!(
                    "{of}: `timeout` is \"{}\"; expected 100ms to 24h, such as \"30s\" or \"5m\"",
                    time.get_ref()
                ),
            );
        }
        found
    }

    fn approval(&mut self, of: &str, words: Vec<Spanned<String>>) -> Approval {
        let mut approval = Approval::default();
        for word in words {
            match word.get_ref().as_str() {
                "statement" => {}
                "text" => approval.text = true,
                time => match text::duration(time).filter(|time| TIMEOUTS.contains(time)) {
                    Some(time) => approval.at_most = Some(time),
                    None => self.wrong(
                        word.span(),
                        format!("{of}: an approval covers a \"statement\", a \"text\" or a time such as \"30m\", not \"{time}\""),
                    ),
                },
            }
        }
        approval
    }

    fn results(&mut self, of: &str, value: &Spanned<toml::Value>, otherwise: RowLimits) -> Option<RowLimits> {
        let found = match value.get_ref() {
            toml::Value::String(word) if word == "none" => Some(RowLimits::NONE),
            toml::Value::String(word) if word == "full" => Some(RowLimits::FULL),
            toml::Value::Table(table) => limits(table, otherwise),
            _ => None,
        };
        if found.is_none() {
            let expected = "expected \"none\", \"full\" or { rows = N, bytes = N }";
            self.wrong(value.span(), format!("{of}: `results` is {}; {expected}", value.get_ref()));
        }
        found
    }

    /// A name stands in errors, in file names of dashboards and on command lines.
    pub(super) fn check_name(&mut self, name: &Spanned<String>) {
        let text = name.get_ref();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > MOST_NAME || !text.chars().all(plain) {
            self.wrong(
                name.span(),
                format!("the name {text:?} is not 1 to {MOST_NAME} letters, digits, points, hyphens and underscores"),
            );
        } else if text == "default" {
            self.wrong(
                name.span(),
                "the name \"default\" is taken by what holds without any rule".to_owned(),
            );
        }
    }

    fn check_message(&mut self, of: &str, message: &Spanned<String>) {
        let text = message.get_ref();
        if text.len() > MOST_MESSAGE || text.chars().any(char::is_control) {
            self.wrong(
                message.span(),
                format!("{of}: `message` is not one line of at most {MOST_MESSAGE} bytes"),
            );
        }
    }
}

fn limits(table: &toml::Table, otherwise: RowLimits) -> Option<RowLimits> {
    let mut limits = otherwise;
    for (key, value) in table {
        let number = value.as_integer().and_then(|number| u64::try_from(number).ok())?;
        match key.as_str() {
            "rows" => limits.rows = number,
            "bytes" => limits.bytes = number,
            _ => return None,
        }
    }
    (!table.is_empty()).then_some(limits)
}

const ACTIONS: [(&str, Action); 5] = [
    ("observe", Action::Observe),
    ("alert", Action::Alert),
    ("block", Action::Block),
    ("approve", Action::Approve),
    ("terminate", Action::Terminate),
];
const ON_UNKNOWN: [(&str, OnUnknown); 2] = [("allow", OnUnknown::Allow), ("block", OnUnknown::Block)];
const ON_FAILURE: [(&str, OnFailure); 2] = [("open", OnFailure::Open), ("closed", OnFailure::Closed)];
