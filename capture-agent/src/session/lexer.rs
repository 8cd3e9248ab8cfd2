//! SQL's tokens, cut where the server's scanner cuts them (`src/backend/parser/scan.l`, PostgreSQL 14 to 18).
//!
//! It serves the splitter of query strings and the recognition of a statement's shape: it knows where tokens
//! begin and end, not what they mean. One pass, no recursion, no allocation; text that the server would refuse
//! still gives tokens, so that nothing behind it is lost.

use std::ops::Range;

/// Cuts one query string into tokens. White space and comments are left out.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    standard_conforming_strings: bool,
}

/// One token of a query string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Position of its first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// What a token is. A token that ends with the text before its closing quote does is [`TokenKind::Unterminated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A keyword or an identifier without quotes.
    Word,
    /// `"…"`.
    QuotedIdentifier,
    /// `U&"…"`.
    UnicodeIdentifier,
    /// `'…'`, with all its continuation lines.
    String,
    /// `E'…'`.
    EscapeString,
    /// `U&'…'`.
    UnicodeString,
    /// `N'…'`.
    NationalString,
    /// `$$…$$` or `$tag$…$tag$`.
    DollarString,
    /// `B'…'`.
    BitString,
    /// `X'…'`.
    HexString,
    /// A number without point and exponent, in any base.
    Integer,
    /// A number with point or exponent.
    Float,
    /// A number or parameter that runs into an identifier, such as `12ab`. An error since PostgreSQL 15.
    Junk,
    /// `$1`.
    Param,
    /// The longest run of operator characters.
    Operator,
    /// `(`
    LeftParen,
    /// `)`
    RightParen,
    /// `[`
    LeftBracket,
    /// `]`
    RightBracket,
    /// `,`
    Comma,
    /// `;`
    Semicolon,
    /// `.`
    Dot,
    /// `:`, `::` or `:=`.
    Colon,
    /// A byte that begins no token.
    Other,
    /// A comment, string or quoted identifier whose end is missing.
    Unterminated,
}

impl Token {
    /// Where it stands.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

impl<'a> Lexer<'a> {
    /// Begins at the start of `text`. With `standard_conforming_strings` off, a backslash escapes in plain
    /// string constants too.
    pub fn new(text: &'a str, standard_conforming_strings: bool) -> Self {
        Self { text: text.as_bytes(), at: 0, standard_conforming_strings }
    }

    /// The token's bytes.
    pub fn bytes(&self, token: Token) -> &'a [u8] {
        self.text.get(token.range()).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> u8 {
        // NUL cannot occur in a query string, and begins no token.
        self.text.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Passes white space and comments. False if a block comment does not end.
    fn skip_trivia(&mut self) -> bool {
        loop {
            match class(self.peek(0)) {
                Class::Space => self.at += 1,
                Class::Operator if self.peek(0) == b'-' && self.peek(1) == b'-' => self.skip_line_comment(),
                Class::Operator if self.peek(0) == b'/' && self.peek(1) == b'*' => {
                    if !self.skip_block_comment() {
                        return false;
                    }
                }
                _ => return true,
            }
        }
    }

    fn skip_line_comment(&mut self) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
    }

    fn skip_block_comment(&mut self) -> bool {
        let mut depth = 0usize;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'/', b'*', rest) else {
                self.at = self.text.len();
                return false;
            };
            self.at += found;
            match (self.peek(0), self.peek(1)) {
                (b'/', b'*') => {
                    depth += 1;
                    self.at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    self.at += 2;
                    if depth == 0 {
                        return true;
                    }
                }
                _ => self.at += 1,
            }
        }
    }

    /// Passes a quoted stretch, the opening quote being the next byte. A doubled quote stands for itself; with
    /// `escapes`, a backslash takes the byte after it along. False if the closing quote is missing.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) -> bool {
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let found =
                if escapes { memchr::memchr2(quote, b'\\', rest) } else { memchr::memchr(quote, rest) };
            let Some(found) = found else {
                self.at = self.text.len();
                return false;
            };
            self.at += found;
            if self.peek(0) == b'\\' && escapes {
                self.at = (self.at + 2).min(self.text.len());
            } else if self.peek(1) == quote {
                self.at += 2;
            } else {
                self.at += 1;
                return true;
            }
        }
    }

    /// Passes a string constant and its continuations: string constants that only white space with a newline
    /// in it separates are one, and the first one's prefix holds for all.
    fn string(&mut self, kind: TokenKind, escapes: bool) -> TokenKind {
        loop {
            if !self.skip_quoted(b'\'', escapes) {
                return TokenKind::Unterminated;
            }
            let Some(next) = self.continuation() else {
                return kind;
            };
            self.at = next;
        }
    }

    /// Position of the quote that continues the string constant which ends here.
    fn continuation(&self) -> Option<usize> {
        if !matches!(class(self.peek(0)), Class::Space) && self.peek(0) != b'-' {
            return None;
        }
        let mut ahead = self.clone();
        let mut newline = false;
        loop {
            match ahead.peek(0) {
                b'\n' | b'\r' => {
                    newline = true;
                    ahead.at += 1;
                }
                b' ' | b'\t' | 0x0b | 0x0c => ahead.at += 1,
                b'-' if ahead.peek(1) == b'-' => ahead.skip_line_comment(),
                b'\'' if newline => return Some(ahead.at),
                _ => return None,
            }
        }
    }

    fn word(&mut self) -> TokenKind {
        match (self.peek(0), self.peek(1), self.peek(2)) {
            (b'e' | b'E', b'\'', _) => {
                self.at += 1;
                self.string(TokenKind::EscapeString, true)
            }
            (b'b' | b'B', b'\'', _) => {
                self.at += 1;
                self.string(TokenKind::BitString, false)
            }
            (b'x' | b'X', b'\'', _) => {
                self.at += 1;
                self.string(TokenKind::HexString, false)
            }
            (b'n' | b'N', b'\'', _) => {
                self.at += 1;
                self.string(TokenKind::NationalString, !self.standard_conforming_strings)
            }
            (b'u' | b'U', b'&', b'\'') => {
                self.at += 2;
                self.string(TokenKind::UnicodeString, false)
            }
            (b'u' | b'U', b'&', b'"') => {
                self.at += 2;
                self.quoted_identifier(TokenKind::UnicodeIdentifier)
            }
            _ => {
                self.at += 1;
                self.skip_while(is_identifier_byte);
                TokenKind::Word
            }
        }
    }

    fn quoted_identifier(&mut self, kind: TokenKind) -> TokenKind {
        if self.skip_quoted(b'"', false) { kind } else { TokenKind::Unterminated }
    }

    fn dollar(&mut self) -> TokenKind {
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            self.skip_while(|byte| byte.is_ascii_digit());
            return self.junk_or(TokenKind::Param);
        }
        let start = self.at;
        self.at += 1;
        if matches!(class(self.peek(0)), Class::Word) {
            // No dollar sign inside a tag.
            self.skip_while(|byte| is_identifier_byte(byte) && byte != b'$');
        }
        if self.peek(0) != b'$' {
            // No quote: the dollar sign stands alone, and what follows is a token of its own.
            self.at = start + 1;
            return TokenKind::Other;
        }
        self.at += 1;
        let rest = self.text.get(self.at..).unwrap_or_default();
        let delimiter = self.text.get(start..self.at).unwrap_or_default();
        match memchr::memmem::find(rest, delimiter) {
            Some(found) => {
                self.at += found + delimiter.len();
                TokenKind::DollarString
            }
            None => {
                self.at = self.text.len();
                TokenKind::Unterminated
            }
        }
    }

    fn number(&mut self) -> TokenKind {
        let digits: Option<fn(u8) -> bool> = match (self.peek(0), self.peek(1)) {
            (b'0', b'x' | b'X') => Some(|byte| byte.is_ascii_hexdigit() || byte == b'_'),
            (b'0', b'o' | b'O') => Some(|byte| matches!(byte, b'0'..=b'7' | b'_')),
            (b'0', b'b' | b'B') => Some(|byte| matches!(byte, b'0' | b'1' | b'_')),
            _ => None,
        };
        if let Some(digits) = digits.filter(|digits| digits(self.peek(2))) {
            self.at += 2;
            self.skip_while(digits);
            return self.junk_or(TokenKind::Integer);
        }
        let decimal = |byte: u8| byte.is_ascii_digit() || byte == b'_';
        let mut kind = TokenKind::Integer;
        self.skip_while(decimal);
        // `1..2` is an integer, two dots and an integer.
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            kind = TokenKind::Float;
            self.at += 1;
            if self.peek(0).is_ascii_digit() {
                self.skip_while(decimal);
            }
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                kind = TokenKind::Float;
                self.at += 1 + sign;
                self.skip_while(decimal);
            }
        }
        self.junk_or(kind)
    }

    fn junk_or(&self, kind: TokenKind) -> TokenKind {
        if matches!(class(self.peek(0)), Class::Word) { TokenKind::Junk } else { kind }
    }

    fn operator(&mut self) -> TokenKind {
        loop {
            self.at += 1;
            let comment = matches!((self.peek(0), self.peek(1)), (b'-', b'-') | (b'/', b'*'));
            if comment || !matches!(class(self.peek(0)), Class::Operator) {
                return TokenKind::Operator;
            }
        }
    }

    fn single(&mut self, kind: TokenKind) -> TokenKind {
        self.at += 1;
        kind
    }

    fn skip_while(&mut self, belongs: impl Fn(u8) -> bool) {
        let rest = self.text.get(self.at..).unwrap_or_default();
        self.at += rest.iter().position(|&byte| !belongs(byte)).unwrap_or(rest.len());
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        let trivia = self.at;
        if !self.skip_trivia() {
            // The server refuses the whole string for it, so it must not vanish.
            return Some(Token { kind: TokenKind::Unterminated, start: trivia, end: self.at });
        }
        let start = self.at;
        let &first = self.text.get(start)?;
        let kind = match class(first) {
            Class::Word => self.word(),
            Class::Digit => self.number(),
            Class::Operator => self.operator(),
            Class::Space | Class::Other => match first {
                b'\'' => self.string(TokenKind::String, !self.standard_conforming_strings),
                b'"' => self.quoted_identifier(TokenKind::QuotedIdentifier),
                b'$' => self.dollar(),
                b'.' if self.peek(1).is_ascii_digit() => self.number(),
                b'.' => self.single(TokenKind::Dot),
                b',' => self.single(TokenKind::Comma),
                b';' => self.single(TokenKind::Semicolon),
                b'(' => self.single(TokenKind::LeftParen),
                b')' => self.single(TokenKind::RightParen),
                b'[' => self.single(TokenKind::LeftBracket),
                b']' => self.single(TokenKind::RightBracket),
                b':' if matches!(self.peek(1), b':' | b'=') => {
                    self.at += 2;
                    TokenKind::Colon
                }
                b':' => self.single(TokenKind::Colon),
                _ => self.single(TokenKind::Other),
            },
        };
        Some(Token { kind, start, end: self.at })
    }
}

/// Whether a byte separates tokens (`space` in `scan.l`; the vertical tab since PostgreSQL 16).
pub fn is_space(byte: u8) -> bool {
    matches!(class(byte), Class::Space)
}

fn is_identifier_byte(byte: u8) -> bool {
    matches!(class(byte), Class::Word | Class::Digit) || byte == b'$'
}

#[derive(Clone, Copy)]
enum Class {
    Other,
    Space,
    Word,
    Digit,
    Operator,
}

fn class(byte: u8) -> Class {
    const CLASSES: [Class; 256] = {
        let mut classes = [Class::Other; 256];
        let mut byte = 0;
        while byte < 256 {
            classes[byte] = match byte as u8 {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => Class::Space,
                b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80..=0xff => Class::Word,
                b'0'..=b'9' => Class::Digit,
                b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'+' | b'-' | b'*' | b'/'
                | b'%' | b'<' | b'>' | b'=' => Class::Operator,
                _ => Class::Other,
            };
            byte += 1;
        }
        classes
    };
    CLASSES[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<(TokenKind, &str)> {
        Lexer::new(text, true).map(|token| (token.kind, &text[token.range()])).collect()
    }

    #[test]
    fn comments_end_operators_and_are_left_out() {
        use TokenKind::{Integer, Operator};
        assert_eq!(tokens("1+/* /* nested */ */2"), [(Integer, "1"), (Operator, "+"), (Integer, "2")]);
        assert_eq!(tokens("1<--3\n2"), [(Integer, "1"), (Operator, "<"), (Integer, "2")]);
        assert_eq!(tokens("1*/*;*/2"), [(Integer, "1"), (Operator, "*"), (Integer, "2")]);
    }

    #[test]
    fn string_continues_on_the_next_line_with_its_prefix() {
        use TokenKind::{EscapeString, String};
        assert_eq!(tokens("E'a' -- c\n 'b\\'c'"), [(EscapeString, "E'a' -- c\n 'b\\'c'")]);
        assert_eq!(tokens("'a' 'b'"), [(String, "'a'"), (String, "'b'")]);
        assert_eq!(tokens("'a''b'\r'c'"), [(String, "'a''b'\r'c'")]);
    }

    #[test]
    fn dollar_quotes_need_a_whole_tag() {
        use TokenKind::{DollarString, Integer, Other, Param, Word};
        assert_eq!(tokens("$a$ $b$ ; $a$"), [(DollarString, "$a$ $b$ ; $a$")]);
        assert_eq!(tokens("a$$ $1"), [(Word, "a$$"), (Param, "$1")]);
        assert_eq!(tokens("$ 1"), [(Other, "$"), (Integer, "1")]);
    }

    #[test]
    fn numbers_of_every_form_are_one_token() {
        use TokenKind::{Dot, Float, Integer, Junk, Word};
        for text in ["1.5e-10", ".5", "1.", "1e5", "1_000.0"] {
            assert_eq!(tokens(text), [(Float, text)]);
        }
        for text in ["0x1F", "0b01", "0o17", "1_000"] {
            assert_eq!(tokens(text), [(Integer, text)]);
        }
        assert_eq!(tokens("1..2"), [(Integer, "1"), (Dot, "."), (Float, ".2")]);
        assert_eq!(tokens("12ab"), [(Junk, "12"), (Word, "ab")]);
    }

    #[test]
    fn missing_end_is_told() {
        for text in ["'a", "\"a", "$$a", "/* /* */", "E'a\\'", "U&'"] {
            assert_eq!(tokens(text), [(TokenKind::Unterminated, text)], "{text}");
        }
    }
}
