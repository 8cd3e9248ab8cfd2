//! Values that are known by their form: found in any text, each checked as far as its form allows.

use std::ops::Range;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::{Match, Regex};

use super::rules::{Applies, Rules};
use crate::policy::ValuePattern;

/// A stretch of a text that is to be masked, and the rule that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) range: Range<usize>,
    pub(super) rule: Applies,
}

/// Where the values of the rules' patterns stand in `text`, in order, without overlaps.
pub(super) fn find(text: &str, rules: &Rules) -> Vec<Hit> {
    let mut hits: Vec<Hit> = Vec::new();
    for (pattern, rule) in rules.patterns() {
        if may_have(text.as_bytes(), pattern) {
            hits.extend(values(text, pattern).map(|range| Hit { range, rule }));
        }
    }
    if hits.len() > 1 {
        hits.sort_by_key(|hit| (hit.range.start, std::cmp::Reverse(hit.range.end)));
        let mut joined: Vec<Hit> = Vec::with_capacity(hits.len());
        for hit in hits {
            match joined.last_mut() {
                // Neither may stay because the other one went.
                Some(last) if hit.range.start < last.range.end => {
                    last.range.end = last.range.end.max(hit.range.end);
                }
                _ => joined.push(hit),
            }
        }
        return joined;
    }
    hits
}

/// Whether a look at the bytes alone leaves any chance. Most values are short, and have none.
fn may_have(text: &[u8], pattern: ValuePattern) -> bool {
    let digits = |least: usize| text.iter().filter(|byte| byte.is_ascii_digit()).take(least).count() == least;
    match pattern {
        ValuePattern::Card => text.len() >= 12 && digits(12),
        ValuePattern::Iban => text.len() >= 15 && digits(4),
        ValuePattern::Ssn => text.len() >= 11 && digits(9),
        ValuePattern::Email => memchr::memchr(b'@', text).is_some(),
        ValuePattern::Jwt => text.len() >= 20 && memchr::memmem::find(text, b"eyJ").is_some(),
        ValuePattern::Pem => memchr::memmem::find(text, b"-----BEGIN").is_some(),
        ValuePattern::CloudKey => text.len() >= 20,
    }
}

fn values(text: &str, pattern: ValuePattern) -> Box<dyn Iterator<Item = Range<usize>> + '_> {
    let with = |regex: &'static Regex, is: fn(&str) -> bool| {
        Box::new(regex.find_iter(text).filter_map(move |found| {
            let free = stands_alone(text, &found);
            (free && is(found.as_str())).then(|| found.range())
        }))
    };
    match pattern {
        ValuePattern::Card => Box::new(CARD.find_iter(text).filter_map(|found| {
            stands_alone(text, &found)
                .then(|| card(found.as_str()).map(|length| found.start()..found.start() + length))
                .flatten()
        })),
        ValuePattern::Iban => Box::new(IBAN.find_iter(text).filter_map(|found| {
            stands_alone(text, &found)
                .then(|| iban(found.as_str()).map(|length| found.start()..found.start() + length))
                .flatten()
        })),
        ValuePattern::Ssn => with(&SSN, ssn),
        ValuePattern::Email => Box::new(EMAIL.find_iter(text).map(|found| found.range())),
        ValuePattern::Jwt => {
            Box::new(JWT.find_iter(text).filter(|found| jwt(found.as_str())).map(|found| found.range()))
        }
        ValuePattern::Pem => Box::new(PEM.find_iter(text).map(|found| found.range())),
        ValuePattern::CloudKey => Box::new(CLOUD_KEY.find_iter(text).map(|found| found.range())),
    }
}

/// Whether it is no part of a longer number or word.
fn stands_alone(text: &str, found: &Match<'_>) -> bool {
    let before = text.get(..found.start()).and_then(|text| text.chars().next_back());
    !before.is_some_and(|c| c.is_ascii_alphanumeric())
}

/// How much of `text`, digits in groups, is a card's number: from its beginning, the longest that is one.
fn card(text: &str) -> Option<usize> {
    let places: Vec<(usize, u32)> =
        text.char_indices().filter_map(|(at, c)| Some((at, c.to_digit(10)?))).collect();
    let digits: Vec<u32> = places.iter().map(|(_, digit)| *digit).collect();
    let known =
        matches!(digits.as_slice(), [3..=6, ..] | [2, 2..=7, ..] | [1, 8, 0, 0, ..] | [2, 1, 3, 1, ..]);
    if !known {
        return None;
    }
    let longest = digits.len().min(19);
    // All of a run without separators, or it is another number.
    let apart = text.contains([' ', '-']);
    let least = if apart { 12 } else { digits.len() };
    (least.max(12)..=longest).rev().find_map(|length| {
        let digits = digits.get(..length)?;
        let ends = text.get(places.get(length - 1)?.0 + 1..)?;
        let whole = !ends.starts_with(|c: char| c.is_ascii_digit());
        (whole && luhn(digits)).then(|| places[length - 1].0 + 1)
    })
}

/// The checksum of ISO/IEC 7812-1, annex B.
fn luhn(digits: &[u32]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| match (at % 2, digit * 2) {
            (0, _) => digit,
            (_, double) => double / 10 + double % 10,
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|&digit| digit != 0)
}

/// How much of `text` is an IBAN, from its beginning.
fn iban(text: &str) -> Option<usize> {
    let length =
        LENGTHS.iter().find(|(country, _)| text.get(..2) == Some(*country)).map(|(_, length)| *length)?;
    let mut characters = Vec::with_capacity(length);
    let mut end = 0;
    for (at, c) in text.char_indices().filter(|(_, c)| *c != ' ') {
        if characters.len() == length {
            break;
        }
        characters.push(c.to_digit(36)?);
        end = at + 1;
    }
    if characters.len() != length || text.get(end..)?.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    characters.rotate_left(4);
    let remainder = characters.iter().fold(0, |rest, &value| {
        let shift = if value > 9 { 100 } else { 10 };
        (rest * shift + value) % 97
    });
    (remainder == 1).then_some(end)
}

/// Areas 000, 666 and 900 to 999, group 00 and serial 0000 are never issued (Social Security Administration, RM 10201.035).
fn ssn(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let part = |range: Range<usize>| digits.get(range).unwrap_or_default();
    let area = part(0..3);
    let separators: Vec<char> = text.chars().filter(|c| !c.is_ascii_digit()).collect();
    separators.first() == separators.last()
        && area != "000"
        && area != "666"
        && !area.starts_with('9')
        && part(3..5) != "00"
        && part(5..9) != "0000"
}

/// Its first part is a JSON object with an `alg` or `enc`.
fn jwt(text: &str) -> bool {
    let header = text.split('.').next().unwrap_or_default();
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(header) else { return false };
    serde_json::from_slice::<serde_json::Value>(&bytes)
        .is_ok_and(|value| value.as_object().is_some_and(|object| object.contains_key("alg")))
}

fn regex(pattern: &str) -> Regex {
    // Each is a constant, and `every_pattern_compiles` looks at all of them.
    Regex::new(pattern).unwrap_or_else(|_| Regex::new("$^").unwrap_or_else(|_| unreachable!()))
}

static CARD: LazyLock<Regex> = LazyLock::new(|| regex(r"[1-6](?:[ -]?[0-9]){11,}"));
static IBAN: LazyLock<Regex> = LazyLock::new(|| regex(r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}"));
static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"[0-9]{3}[- ][0-9]{2}[- ][0-9]{4}\b"));
static EMAIL: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"[\p{L}\p{N}._%+-]{1,64}@(?:[\p{L}\p{N}](?:[\p{L}\p{N}-]{0,61}[\p{L}\p{N}])?\.)+[\p{L}]{2,24}")
});
static JWT: LazyLock<Regex> =
    LazyLock::new(|| regex(r"eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{2,}(?:\.[A-Za-z0-9_-]*){1,3}"));
/// Up to its end, or as far as it goes: also with its line breaks written as `\n`.
static PEM: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY( BLOCK)?-----(?s:.)*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY( BLOCK)?-----|\z)",
    )
});
/// Their issuers' own forms: AWS, Google Cloud, Azure, GitHub, GitLab, Slack, Stripe, npm, PyPI, OpenAI, Anthropic.
static CLOUD_KEY: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b",
        r"|(?i:aws_?secret_?access_?key|secret_?access_?key)[\x22' :=>]{1,6}[A-Za-z0-9/+]{40}",
        r"|\bAIza[A-Za-z0-9_-]{35}",
        r"|\bya29\.[A-Za-z0-9_-]{20,}",
        r"|\bGOCSPX-[A-Za-z0-9_-]{28}",
        r"|(?i:AccountKey|SharedAccessKey|SharedSecretValue)=[A-Za-z0-9+/]{40,}={0,2}",
        r"|\b[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,34}",
        r"|\bgh[pousr]_[A-Za-z0-9]{36,}",
        r"|\bgithub_pat_[A-Za-z0-9_]{50,}",
        r"|\bglpat-[A-Za-z0-9_-]{20,}",
        r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
        r"|\bxapp-[0-9]-[A-Za-z0-9-]{10,}",
        r"|https://hooks\.slack\.com/services/[A-Za-z0-9/_]{20,}",
        r"|\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
        r"|\bnpm_[A-Za-z0-9]{36}",
        r"|\bpypi-[A-Za-z0-9_-]{50,}",
        r"|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{20,}",
    ))
});

/// Countries and the lengths of their IBANs (SWIFT's IBAN registry).
const LENGTHS: [(&str, usize); 78] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VG", 24),
];

#[cfg(test)]
mod tests;
