//! Constants in a statement's text, and the text without them.

use super::rules::{ALWAYS, Applies, Rules};
use super::strategy::{Key, REDACTED, write};
use super::{patterns, strategy};
use crate::session::lexer::{Lexer, Token, TokenKind};

/// Which constants of a text are masked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Those that begin at these places.
    pub(super) at: Vec<(usize, Applies)>,
    /// The first string at or behind each of these places.
    pub(super) strings_from: Vec<(usize, Applies)>,
    /// All strings, also those within the bodies of functions.
    pub(super) strings: Option<Applies>,
    /// All constants of any kind, and all comments.
    pub(super) everything: Option<Applies>,
}

/// A text without what is masked in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rewritten {
    pub(super) text: String,
    /// How many constants were masked.
    pub(super) count: u32,
    /// Their values.
    pub(super) values: Vec<(String, Applies)>,
}

impl Marks {
    pub(super) fn is_empty(&self) -> bool {
        self.at.is_empty()
            && self.strings_from.is_empty()
            && self.strings.is_none()
            && self.everything.is_none()
    }
}

/// The text without its marked constants. None if a mark is at no constant: then the text is not what was parsed.
pub(super) fn rewrite(
    text: &str,
    standard_conforming_strings: bool,
    marks: &Marks,
    rules: &Rules,
    key: Option<&Key>,
) -> Option<Rewritten> {
    let mut tokens: Vec<Token> = Lexer::new(text, standard_conforming_strings).collect();
    if marks.everything.is_some() {
        without_riddles(text, &mut tokens);
    }
    let masked = placed(text, &tokens, marks)?;
    let mut out = Rewritten::default();
    let (mut end, mut sign) = (0, "");
    for (token, mark) in tokens.iter().zip(&masked) {
        between(text.get(end..token.start)?, marks.everything.is_some(), &mut out.text);
        end = token.end;
        let written = text.get(token.range())?;
        match *mark {
            Mark::None => out.text.push_str(written),
            Mark::Sign => sign = written,
            Mark::Value(rule) if marks.everything.is_none() && token.kind == TokenKind::DollarString => {
                body(written, standard_conforming_strings, rule, rules, key, &mut out)?;
            }
            Mark::Value(rule) => {
                let value = std::mem::take(&mut sign).to_owned() + &value_of(token.kind, written);
                out.text.push('\'');
                write(&value, rules.strategy(rule), key, &mut out.text);
                out.text.push('\'');
                out.count = out.count.saturating_add(1);
                out.values.push((value, rule));
            }
        }
    }
    between(text.get(end..)?, marks.everything.is_some(), &mut out.text);
    Some(without_comments_on(out, standard_conforming_strings))
}

/// The beginning of a text that is too long to be looked at, without its constants. What follows it is no SQL, so that it
/// passes for no other statement.
pub(super) fn beginning(
    text: &str,
    standard_conforming_strings: bool,
    all: &Marks,
    rules: &Rules,
    key: Option<&Key>,
) -> Option<Rewritten> {
    let kept = text.get(..text.floor_char_boundary(BEGINNING))?;
    // Where it is cut through, a string has no end.
    let open =
        Lexer::new(kept, standard_conforming_strings).find(|token| token.kind == TokenKind::Unterminated);
    let kept = kept.get(..open.map_or(kept.len(), |token| token.start))?;
    let mut left = rewrite(kept, standard_conforming_strings, all, rules, key)?;
    left.text.push_str(" …");
    left.text.push_str(REDACTED);
    left.count = left.count.saturating_add(1);
    Some(left)
}

/// What happens to a token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    None,
    /// It is masked.
    Value(Applies),
    /// The sign of a number that is masked: a part of its value.
    Sign,
}

/// In a text that nobody can read, a quote may have been forgotten or doubled: where a string runs into a word, or does not
/// end, all that follows may be the rest of a value.
fn without_riddles(text: &str, tokens: &mut Vec<Token>) {
    let riddle = tokens.iter().zip(tokens.iter().skip(1)).position(|(token, next)| {
        let runs_on = next.kind == TokenKind::Word || is_quoted(next.kind);
        is_string(token.kind) && token.end == next.start && runs_on
    });
    let open = tokens.iter().position(|token| token.kind == TokenKind::Unterminated);
    let first_string = tokens.iter().position(|token| is_string(token.kind));
    if riddle.is_none() && open.is_none() {
        return;
    }
    let first = [riddle, open, first_string].into_iter().flatten().min().unwrap_or_default();
    if let Some(token) = tokens.get_mut(first) {
        (token.kind, token.end) = (TokenKind::Unterminated, text.len());
    }
    tokens.truncate(first + 1);
}

/// What happens to each token.
fn placed(text: &str, tokens: &[Token], marks: &Marks) -> Option<Vec<Mark>> {
    let mut masked = vec![Mark::None; tokens.len()];
    let mut mark = |at: usize, rule: Applies| {
        if let Some(place) = masked.get_mut(at) {
            *place = match *place {
                Mark::Value(known) => Mark::Value(known.min(rule)),
                _ => Mark::Value(rule),
            };
        }
    };
    for (at, token) in tokens.iter().enumerate() {
        let all = marks.everything.filter(|_| is_constant(token.kind));
        if let Some(rule) = all.or(marks.strings.filter(|_| is_string(token.kind))) {
            mark(at, rule);
        }
    }
    if marks.everything.is_some() {
        return Some(masked);
    }
    let mut signs = Vec::new();
    for &(place, rule) in &marks.at {
        let first = tokens.partition_point(|token| token.end <= place);
        let signed = tokens.get(first).is_some_and(|token| token.kind == TokenKind::Operator);
        let at = first + usize::from(signed);
        let token = tokens.get(at)?;
        if is_constant(token.kind) || is_truth(text.get(token.range())?) {
            mark(at, rule);
            // A sign alone: else it is the end of another operator.
            let minus = tokens.get(first).and_then(|token| text.get(token.range())) == Some("-");
            signs.extend((signed && minus).then_some(first));
        } else if token.kind != TokenKind::Word {
            return None;
        }
        // A word: what syntax makes a constant of, such as EXTRACT's field, is none of anybody's.
    }
    for &(place, rule) in &marks.strings_from {
        let first = tokens.partition_point(|token| token.start < place);
        let at = first + tokens.get(first..)?.iter().position(|token| is_string(token.kind))?;
        mark(at, rule);
    }
    for sign in signs {
        if let Some(place) = masked.get_mut(sign) {
            *place = Mark::Sign;
        }
    }
    Some(masked)
}

/// A function's body: without its constants, and still a body.
fn body(
    written: &str,
    standard_conforming_strings: bool,
    rule: Applies,
    rules: &Rules,
    key: Option<&Key>,
    out: &mut Rewritten,
) -> Option<()> {
    let quote = written.get(..=written.get(1..)?.find('$')? + 1)?;
    let inner = written.strip_prefix(quote)?.strip_suffix(quote)?;
    let all = Marks { everything: Some(rule), ..Marks::default() };
    let mut rewritten = rewrite(inner, standard_conforming_strings, &all, rules, key)?;
    // A body without constants is one.
    if rewritten.count == 0 {
        rewritten = Rewritten {
            text: strategy::masked(inner, rules.strategy(rule), key),
            count: 1,
            values: vec![(inner.to_owned(), rule)],
        };
    }
    out.text.push_str(quote);
    out.text.push_str(&rewritten.text);
    out.text.push_str(quote);
    out.count = out.count.saturating_add(rewritten.count);
    out.values.append(&mut rewritten.values);
    Some(())
}

/// White space and comments.
fn between(text: &str, everything: bool, out: &mut String) {
    if everything && (text.contains("--") || text.contains("/*")) {
        // A line comment may have ended a line that matters.
        out.push(if text.contains('\n') { '\n' } else { ' ' });
    } else {
        out.push_str(text);
    }
}

/// Takes comments away that repeat a value that was masked.
fn without_comments_on(mut rewritten: Rewritten, standard_conforming_strings: bool) -> Rewritten {
    let commented = rewritten.text.contains("--") || rewritten.text.contains("/*");
    let told = |text: &str| {
        rewritten.values.iter().any(|(value, _)| !value.is_empty() && text.contains(value.as_str()))
    };
    if !commented || !told(&rewritten.text) {
        return rewritten;
    }
    let mut out = String::with_capacity(rewritten.text.len());
    let mut end = 0;
    for token in Lexer::new(&rewritten.text, standard_conforming_strings) {
        let before = rewritten.text.get(end..token.start).unwrap_or_default();
        between(before, told(before), &mut out);
        out.push_str(rewritten.text.get(token.range()).unwrap_or_default());
        end = token.end;
    }
    let last = rewritten.text.get(end..).unwrap_or_default();
    between(last, told(last), &mut out);
    rewritten.text = out;
    rewritten
}

/// Masks what the rules' patterns find in a statement's text, so that it stays a text that can be read.
pub(super) fn rewrite_patterns(
    rewritten: &mut Rewritten,
    standard_conforming_strings: bool,
    rules: &Rules,
    key: Option<&Key>,
) {
    let text = std::mem::take(&mut rewritten.text);
    let hits = patterns::find(&text, rules);
    if hits.is_empty() {
        rewritten.text = text;
        return;
    }
    let tokens: Vec<Token> = match text.len() <= LONGEST {
        true => Lexer::new(&text, standard_conforming_strings).collect(),
        // It is data; what stands in its strings stays there.
        false => Vec::new(),
    };
    let mut end = 0;
    for hit in hits {
        let (mut from, mut to) = (hit.range.start, hit.range.end);
        let first = tokens.partition_point(|token| token.end <= from);
        let within: Vec<&Token> =
            tokens.get(first..).unwrap_or_default().iter().take_while(|token| token.start < to).collect();
        let inside = match within.as_slice() {
            [] => true,
            [token] => is_quoted(token.kind) && token.start < from && to <= token.end,
            _ => false,
        };
        if let (false, Some(first), Some(last)) = (inside, within.first(), within.last()) {
            (from, to) = (from.min(first.start), to.max(last.end));
        }
        if from < end {
            // It went with the one before.
            continue;
        }
        let value = text.get(hit.range.clone()).unwrap_or_default();
        rewritten.text.push_str(text.get(end..from).unwrap_or_default());
        let quote = if inside { "" } else { "'" };
        rewritten.text.push_str(quote);
        write(value, rules.strategy(hit.rule), key, &mut rewritten.text);
        rewritten.text.push_str(quote);
        rewritten.count = rewritten.count.saturating_add(1);
        rewritten.values.push((value.to_owned(), hit.rule));
        end = to;
    }
    rewritten.text.push_str(text.get(end..).unwrap_or_default());
}

/// Masks what the rules' patterns find in any other text. How many values that were.
pub(super) fn replace_patterns(text: &mut String, rules: &Rules, key: Option<&Key>) -> u32 {
    let hits = patterns::find(text, rules);
    for hit in hits.iter().rev() {
        let value = text.get(hit.range.clone()).unwrap_or_default();
        let left = strategy::masked(value, rules.strategy(hit.rule), key);
        text.replace_range(hit.range.clone(), &left);
    }
    u32::try_from(hits.len()).unwrap_or(u32::MAX)
}

/// A text of which nothing is left, not even its statement.
pub(super) fn blank() -> Rewritten {
    Rewritten { text: format!("/* {REDACTED} */"), count: 1, values: Vec::new() }
}

fn is_truth(word: &str) -> bool {
    ["true", "false", "on", "off"].iter().any(|truth| word.eq_ignore_ascii_case(truth))
}

pub(super) fn is_string(kind: TokenKind) -> bool {
    use TokenKind as T;
    matches!(
        kind,
        T::String
            | T::EscapeString
            | T::UnicodeString
            | T::NationalString
            | T::DollarString
            | T::BitString
            | T::HexString
    )
}

fn is_quoted(kind: TokenKind) -> bool {
    is_string(kind)
        || matches!(
            kind,
            TokenKind::QuotedIdentifier | TokenKind::UnicodeIdentifier | TokenKind::Unterminated
        )
}

fn is_constant(kind: TokenKind) -> bool {
    is_string(kind)
        || matches!(kind, TokenKind::Integer | TokenKind::Float | TokenKind::Junk | TokenKind::Unterminated)
}

/// What a constant's text says.
pub(super) fn value_of(kind: TokenKind, written: &str) -> String {
    let inner = || {
        let begin = written.find('\'').map_or(0, |at| at + 1);
        let end = written.rfind('\'').unwrap_or(written.len()).max(begin);
        written.get(begin..end).unwrap_or_default()
    };
    match kind {
        TokenKind::String | TokenKind::NationalString | TokenKind::UnicodeString => {
            inner().replace("''", "'")
        }
        TokenKind::EscapeString => unescaped(inner()),
        TokenKind::BitString | TokenKind::HexString => inner().to_owned(),
        TokenKind::DollarString => {
            let quote = written.get(1..).and_then(|rest| rest.find('$')).map_or(0, |at| at + 2);
            written.get(quote..written.len().saturating_sub(quote)).unwrap_or_default().to_owned()
        }
        TokenKind::Unterminated => written.trim_start_matches(['\'', '"']).to_owned(),
        _ => written.to_owned(),
    }
}

/// Escapes of `E'…'` as far as they are common.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            '\'' => {
                rest.next_if_eq(&'\'');
                out.push('\'');
            }
            other => out.push(other),
        }
    }
    out
}

/// Everything constant in a text that nobody can vouch for.
pub(super) fn all(rule: Option<Applies>) -> Marks {
    Marks { everything: Some(rule.unwrap_or(ALWAYS)), ..Marks::default() }
}

/// What is kept of a text whose constants are masked without anybody having read it: what a person reads of it.
const BEGINNING: usize = 16 << 10;
/// Longer texts are not cut into tokens: those take several times as much memory as the text.
const LONGEST: usize = 1 << 20;
