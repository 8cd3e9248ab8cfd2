//! The rules as TOML: `[[record]]`, `[[guardrail]]` and `[[mask]]`.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;

use super::error::INVALID;
use super::rule::RowLimits;
use super::rules::Rules;
use super::{Policy, PolicyError, PolicyErrors, RecordRule, text};

/// The sections of the file that are this room's.
#[derive(Debug, Deserialize)]
struct Sections {
    #[serde(default)]
    record: Vec<Spanned<RawRecord>>,
    #[serde(default)]
    guardrail: Vec<Spanned<RawGuardrail>>,
    #[serde(default)]
    mask: Vec<Spanned<RawMask>>,
}

/// `[[record]]`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRecord {
    pub(super) name: Option<Spanned<String>>,
    #[serde(rename = "match")]
    pub(super) matching: Option<Spanned<String>>,
    pub(super) results: Option<Spanned<toml::Value>>,
    #[serde(default)]
    pub(super) skip: bool,
    #[serde(default)]
    pub(super) required: bool,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) on_failure: Option<Spanned<String>>,
}

/// `[[guardrail]]`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawGuardrail {
    pub(super) name: Option<Spanned<String>>,
    #[serde(rename = "match")]
    pub(super) matching: Option<Spanned<String>>,
    pub(super) when: Option<Spanned<String>>,
    pub(super) action: Option<Spanned<String>>,
    pub(super) message: Option<Spanned<String>>,
    pub(super) on_unknown: Option<Spanned<String>>,
    pub(super) on_failure: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) approval: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) max_blocked: Option<Spanned<u32>>,
}

/// `[[mask]]`, as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMask {
    pub(super) name: Option<Spanned<String>>,
    #[serde(rename = "match")]
    pub(super) matching: Option<Spanned<String>>,
    pub(super) columns: Option<Vec<Spanned<String>>>,
    pub(super) patterns: Option<Vec<Spanned<String>>>,
    pub(super) params: Option<Spanned<toml::Value>>,
    pub(super) when: Option<Spanned<String>>,
    pub(super) strategy: Option<Spanned<String>>,
}

/// The policy in a file's text, or everything that is wrong with it.
pub(super) fn compile(file: &str, otherwise: RowLimits) -> Result<Policy, PolicyErrors> {
    let sections: Sections = toml::from_str(file).map_err(|error| {
        let line = error.span().map_or(1, |span| text::line(file, span.start));
        let message = error.message().to_owned();
        PolicyErrors(vec![PolicyError { line, message, anchor: INVALID }])
    })?;
    let mut rules = Rules { file, errors: Vec::new() };
    let (records, guardrails) = (sections.record.len(), sections.guardrail.len());
    let most = records.max(guardrails).max(sections.mask.len());
    if most > MOST_RULES {
        rules.wrong(0..0, format!("there are {most} rules; at most {MOST_RULES} are expected"));
        return Err(PolicyErrors(rules.errors));
    }
    let mut names = HashSet::new();
    let mut record_rules = Vec::with_capacity(records + 1);
    for (index, raw) in sections.record.into_iter().enumerate() {
        let span = raw.span();
        let rule = rules.record(span.clone(), index, raw.into_inner(), otherwise);
        if !names.insert(rule.name.clone()) {
            rules.wrong(span, format!("there is another recording rule \"{}\"; names are unique", rule.name));
        }
        record_rules.push(rule);
    }
    record_rules.push(RecordRule::otherwise(otherwise));
    names.clear();
    let mut guardrail_rules = Vec::with_capacity(guardrails);
    for raw in sections.guardrail {
        let span = raw.span();
        let Some(guardrail) = rules.guardrail(span.clone(), raw.into_inner()) else { continue };
        if !names.insert(guardrail.name.clone()) {
            rules.wrong(span, format!("there is another guardrail \"{}\"; names are unique", guardrail.name));
        }
        guardrail_rules.push(Arc::new(guardrail));
    }
    names.clear();
    let mut masks = Vec::with_capacity(sections.mask.len());
    for raw in sections.mask {
        let span = raw.span();
        let Some(mask) = rules.mask(span.clone(), raw.into_inner()) else { continue };
        if !names.insert(mask.name.clone()) {
            rules.wrong(span, format!("there is another mask \"{}\"; names are unique", mask.name));
        }
        masks.push(mask);
    }
    if rules.errors.is_empty() {
        return Ok(Policy { records: record_rules, guardrails: guardrail_rules, masks });
    }
    rules.errors.sort_by_key(|error| error.line);
    Err(PolicyErrors(rules.errors))
}

/// Each is evaluated for every statement of the sessions that it may be about.
const MOST_RULES: usize = 1_000;
