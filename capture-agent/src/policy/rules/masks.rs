//! `[[mask]]`: from what is written to a rule that holds.

use std::ops::Range;

use toml::Spanned;

use super::Rules;
use crate::policy::condition::Scope;
use crate::policy::file::RawMask;
use crate::policy::mask::{ColumnPattern, MaskRule, ParamMask, Strategy, ValuePattern};

impl Rules<'_> {
    pub(in crate::policy) fn mask(&mut self, span: Range<usize>, raw: RawMask) -> Option<MaskRule> {
        let Some(name) = raw.name else {
            self.wrong(span, "a mask without `name`".to_owned());
            return None;
        };
        self.check_name(&name);
        let name = name.into_inner();
        let of = format!("mask \"{name}\"");
        let matching = self.condition(&of, "match", raw.matching, Scope::Session);
        let strategy = raw.strategy.and_then(|word| self.choice(&of, "strategy", &word, &STRATEGIES));
        let given = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
        let others = given(&raw.columns) || given(&raw.patterns);
        if !others && raw.params.is_none() {
            self.wrong(span, format!("{of} is about nothing: expected `columns`, `patterns`, or `params`"));
        }
        if let Some(when) = &raw.when {
            let why = match (&raw.params, others) {
                (None, _) => "`when` says of which statements `params` are masked, and there are no `params`",
                (Some(_), true) => {
                    "`when` holds for `params` only; `columns` and `patterns` need a rule of its own"
                }
                (Some(_), false) => "",
            };
            if !why.is_empty() {
                self.wrong(when.span(), format!("{of}: {why}"));
            }
        }
        let params = raw.params.and_then(|params| self.params(&of, &params, raw.when));
        let mut columns = Vec::new();
        for column in raw.columns.unwrap_or_default() {
            match ColumnPattern::read(column.get_ref()) {
                Ok(pattern) => columns.push(pattern),
                Err(why) => {
                    let message = format!("{of}: the column {:?}: {why}", column.get_ref());
                    self.wrong(column.span(), message);
                }
            }
        }
        let patterns: Vec<_> = raw
            .patterns
            .unwrap_or_default()
            .iter()
            .filter_map(|word| self.choice(&of, "patterns", word, &ValuePattern::ALL))
            .collect();
        Some(MaskRule { name, columns, patterns, params, strategy: strategy.unwrap_or_default(), matching })
    }

    fn params(
        &mut self,
        of: &str,
        params: &Spanned<toml::Value>,
        when: Option<Spanned<String>>,
    ) -> Option<ParamMask> {
        let numbers = match params.get_ref() {
            toml::Value::String(word) if word == "all" => Some(None),
            toml::Value::Array(list) if !list.is_empty() => {
                list.iter().map(number).collect::<Option<Vec<_>>>().map(Some)
            }
            _ => None,
        };
        if numbers.is_none() {
            let expected = "expected \"all\", or a list of numbers from 1 to 65535";
            self.wrong(params.span(), format!("{of}: `params` is {}; {expected}", params.get_ref()));
        }
        let span = when.as_ref().map(Spanned::span);
        let when = self.condition(of, "when", when, Scope::Statement);
        if let Some((field, span)) = when.as_ref().and_then(ParamMask::foreign).zip(span) {
            let message = format!("{of}: `when` asks for `{field}`; it is about a text, whoever executes it");
            self.wrong(span, message);
        }
        numbers.map(|numbers| ParamMask { numbers, when })
    }
}

/// A parameter's number: Bind counts them with 16 bits.
fn number(value: &toml::Value) -> Option<u16> {
    value.as_integer().and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}

const STRATEGIES: [(&str, Strategy); 3] =
    [("redact", Strategy::Redact), ("partial", Strategy::Partial), ("hash", Strategy::Hash)];
