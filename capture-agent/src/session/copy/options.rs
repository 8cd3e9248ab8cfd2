//! What a COPY statement says of its data.

use std::iter::Peekable;

use serde::{Deserialize, Serialize};

use crate::session::lexer::{Lexer, Token, TokenKind};

/// The options that decide where rows and fields end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::session) struct Options {
    pub(super) csv: bool,
    pub(super) delimiter: u8,
    pub(super) null: Vec<u8>,
    pub(super) header: bool,
    pub(super) quote: u8,
    pub(super) escape: u8,
}

impl Options {
    /// Reads them from the statement's text, in the present syntax and the older ones
    /// (`copy_opt_list` and `copy_generic_opt_list` in `src/backend/parser/gram.y`).
    pub(in crate::session) fn of(sql: &str, standard_conforming_strings: bool) -> Self {
        let mut given = Given::default();
        let mut tokens = Lexer::new(sql, standard_conforming_strings).peekable();
        let mut depth = 0_usize;
        // The options stand behind the COPY's own FROM STDIN or TO STDOUT.
        while let Some(token) = tokens.next() {
            match word(sql, &token) {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                text if depth == 0
                    && is(text, &["from", "to"])
                    && tokens.next_if(|next| is(word(sql, next), &["stdin", "stdout"])).is_some() =>
                {
                    break;
                }
                _ => {}
            }
        }
        given.read(sql, &mut tokens);
        given.complete()
    }
}

#[derive(Default)]
struct Given {
    csv: bool,
    header: bool,
    delimiter: Option<Vec<u8>>,
    null: Option<Vec<u8>>,
    quote: Option<Vec<u8>>,
    escape: Option<Vec<u8>>,
}

impl Given {
    fn read(&mut self, sql: &str, tokens: &mut Peekable<Lexer<'_>>) {
        let mut depth = 0_usize;
        while let Some(token) = tokens.next() {
            let text = word(sql, &token);
            match text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                // Lists of columns.
                _ if depth > 1 => {}
                _ if is(text, &["where"]) => return,
                _ if is(text, &["csv", "'csv'"]) => self.csv = true,
                _ if is(text, &["header"]) => {
                    let off = ["false", "off", "0", "'false'", "'off'", "'0'"];
                    self.header = tokens.next_if(|next| is(word(sql, next), &off)).is_none();
                }
                _ if is(text, &["delimiter", "delimiters"]) => {
                    replace(&mut self.delimiter, value(sql, tokens));
                }
                _ if is(text, &["null"]) => replace(&mut self.null, value(sql, tokens)),
                _ if is(text, &["quote"]) => replace(&mut self.quote, value(sql, tokens)),
                _ if is(text, &["escape"]) => replace(&mut self.escape, value(sql, tokens)),
                _ => {}
            }
        }
    }

    fn complete(self) -> Options {
        let one = |given: Option<Vec<u8>>, default| match given.as_deref() {
            Some([byte]) => *byte,
            _ => default,
        };
        let quote = one(self.quote, b'"');
        Options {
            csv: self.csv,
            delimiter: one(self.delimiter, if self.csv { b',' } else { b'\t' }),
            null: self.null.unwrap_or_else(|| if self.csv { Vec::new() } else { b"\\N".to_vec() }),
            header: self.header,
            quote,
            escape: one(self.escape, quote),
        }
    }
}

fn word<'a>(sql: &'a str, token: &Token) -> &'a str {
    sql.get(token.start..token.end).unwrap_or_default()
}

fn is(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.eq_ignore_ascii_case(word))
}

fn replace(place: &mut Option<Vec<u8>>, value: Option<Vec<u8>>) {
    if value.is_some() {
        *place = value;
    }
}

/// A string behind an option's name.
fn value(sql: &str, tokens: &mut Peekable<Lexer<'_>>) -> Option<Vec<u8>> {
    tokens.next_if(|next| is(word(sql, next), &["as"]));
    let token = tokens.next_if(|next| matches!(next.kind, TokenKind::String | TokenKind::EscapeString))?;
    let text = word(sql, &token);
    let open = text.find('\'')?;
    let inner = text.get(open + 1..text.len().checked_sub(1)?)?.replace("''", "'");
    if token.kind == TokenKind::String {
        return Some(inner.into_bytes());
    }
    let mut value = Vec::new();
    let mut bytes = inner.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => value.push(match bytes.next() {
                Some(b't') => b'\t',
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b'b') => 0x08,
                Some(b'f') => 0x0c,
                Some(other) => other,
                None => b'\\',
            }),
            other => value.push(other),
        }
    }
    Some(value)
}
