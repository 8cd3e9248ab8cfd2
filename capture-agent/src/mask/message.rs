//! Error messages, which may repeat what a statement said.

use super::rules::{Applies, Rules};
use super::strategy::{Key, REDACTED, masked};
use crate::session::lexer::{Lexer, TokenKind};

/// What is known of the statement that an error ended.
pub(super) struct Failed<'s> {
    /// Its text, without what is masked in it.
    pub(super) text: &'s str,
    /// What is masked in its text and parameters.
    pub(super) values: &'s [(String, Applies)],
    /// Whether it reads or writes masked columns, or may.
    pub(super) touched: bool,
    /// Its SQLSTATE.
    pub(super) sqlstate: Option<&'s str>,
}

/// The message without what is masked. How many values that were; none changes nothing.
pub(super) fn rewrite(message: &mut String, failed: &Failed<'_>, rules: &Rules, key: Option<&Key>) -> u32 {
    let mut count = 0;
    // Longer ones first: one may be a part of another.
    let mut values: Vec<_> = failed.values.iter().filter(|(value, _)| !value.is_empty()).collect();
    values.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    for (value, rule) in values {
        let mut from = 0;
        while let Some(at) = message.get(from..).and_then(|rest| rest.find(value.as_str())) {
            let (begin, end) = (from + at, from + at + value.len());
            // A short value is everywhere; as a word of its own it is likely meant.
            if value.len() < LEAST_PART && !is_word(message, begin, end) {
                from = end;
                continue;
            }
            let left = masked(value, rules.strategy(*rule), key);
            message.replace_range(begin..end, &left);
            from = begin + left.len();
            count += 1;
        }
    }
    if !failed.touched {
        return count;
    }
    match kind(failed.sqlstate) {
        Kind::Names => {}
        Kind::Quotes => count += u32::from(quoted(message, failed.text)),
        Kind::Anything => {
            REDACTED.clone_into(message);
            count += 1;
        }
    }
    count
}

/// What a message of a class tells (`src/backend/utils/errcodes.txt`).
enum Kind {
    /// Names of objects.
    Names,
    /// Values, in quotes; or pieces of the text.
    Quotes,
    /// Anything: it comes from a function.
    Anything,
}

fn kind(sqlstate: Option<&str>) -> Kind {
    let Some(class) = sqlstate.and_then(|code| code.get(..2)) else { return Kind::Anything };
    match class {
        "23" | "25" | "40" | "53" | "54" | "55" | "57" | "58" | "08" | "28" | "0A" | "0Z" | "24" | "34"
        | "26" => Kind::Names,
        "22" | "42" | "21" | "3D" | "3F" | "2B" | "XX" => Kind::Quotes,
        _ => Kind::Anything,
    }
}

/// Masks what stands in quotes unless it is a name in the text. Whether anything did.
fn quoted(message: &mut String, text: &str) -> bool {
    if !message.is_ascii() {
        // Other languages have other quotes.
        REDACTED.clone_into(message);
        return true;
    }
    let Some((first, last)) = message.find('"').zip(message.rfind('"')).filter(|(first, last)| first < last)
    else {
        return false;
    };
    let inside: Vec<&str> = message.get(first + 1..last).unwrap_or_default().split('"').collect();
    let names = inside.len() % 2 == 1 && inside.iter().step_by(2).all(|part| is_name(part, text));
    if !names {
        message.replace_range(first + 1..last, REDACTED);
    }
    !names
}

/// Whether it is a word of the text, or several with points between.
fn is_name(part: &str, text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$');
    part.split('.').all(|name| {
        !name.is_empty()
            && name.chars().all(plain)
            && Lexer::new(text, true).any(|token| {
                let written = text.get(token.range()).unwrap_or_default();
                matches!(token.kind, TokenKind::Word | TokenKind::QuotedIdentifier)
                    && written.trim_matches('"').eq_ignore_ascii_case(name)
            })
    })
}

fn is_word(message: &str, begin: usize, end: usize) -> bool {
    let part = |c: char| c.is_alphanumeric();
    let before = message.get(..begin).and_then(|text| text.chars().next_back());
    let behind = message.get(end..).and_then(|text| text.chars().next());
    !before.is_some_and(part) && !behind.is_some_and(part)
}

/// Values shorter than this are parts of many words.
const LEAST_PART: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(message: &str, text: &str, values: &[&str], sqlstate: &str) -> String {
        let values: Vec<_> = values.iter().map(|value| ((*value).to_owned(), Applies(0))).collect();
        let mut message = message.to_owned();
        let failed = Failed { text, values: &values, touched: true, sqlstate: Some(sqlstate) };
        rewrite(&mut message, &failed, &Rules::default(), None);
        message
    }

    #[test]
    fn values_of_the_statement_are_masked_and_names_stay() {
        let text = "insert into customers (ssn) values ('[masked]')";
        for (message, sqlstate, left) in [
            (
                "column \"ssn\" of relation \"customers\" does not exist",
                "42703",
                "column \"ssn\" of relation \"customers\" does not exist",
            ),
            (
                "invalid input syntax for type integer: \"123-45\"",
                "22P02",
                "invalid input syntax for type integer: \"[masked]\"",
            ),
            (
                "duplicate key value violates unique constraint \"c_key\"",
                "23505",
                "duplicate key value violates unique constraint \"c_key\"",
            ),
            (
                "unterminated quoted string at or near \"'se\"cret\"",
                "42601",
                "unterminated quoted string at or near \"[masked]\"",
            ),
            ("ungültige Eingabe: »123«", "22P02", "[masked]"),
            ("no such customer 123", "P0001", "[masked]"),
        ] {
            assert_eq!(told(message, text, &[], sqlstate), left);
        }
        assert_eq!(
            told("value secret is bad, secrets", text, &["secret"], "23514"),
            "value [masked] is bad, [masked]s"
        );
        assert_eq!(told("12 of 123", text, &["12"], "23514"), "[masked] of 123");
    }
}
