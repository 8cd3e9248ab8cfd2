//! A text's shape: its tokens, with the constants left out where they cannot change what the statement does.
//!
//! Texts of one shape have the same [`Analysis`](super::Analysis). In the grammar, a constant in an expression
//! becomes an `A_Const` node, which is no relation and no function, and which the fingerprint passes over. Where a
//! constant is something else (an option of a utility statement, a function's body, the bounds of an array type,
//! the precision of FLOAT, the character of UESCAPE), or could be refused for what it says (escapes), it stays.

use crate::session::lexer::{Lexer, Token, TokenKind};

/// Writes the shape of `text` to `shape`, whose contents are replaced.
///
/// The tokens stand in it as in the text, with one space behind each; a constant that is left out is one of the
/// bytes below, none of which begins a token of a valid text.
pub(super) fn write(text: &str, standard_conforming_strings: bool, shape: &mut Vec<u8>) {
    shape.clear();
    shape.push(u8::from(standard_conforming_strings));
    let lexer = Lexer::new(text, standard_conforming_strings);
    let mut statement = Statement::default();
    let mut tokens = lexer.clone().peekable();
    while let Some(token) = tokens.next() {
        let bytes = lexer.bytes(token);
        match statement.placeholder(token, bytes, standard_conforming_strings) {
            // An integer alone in brackets may be the bound of an array type.
            Some(INTEGER)
                if statement.after_bracket
                    && tokens.peek().is_some_and(|next| next.kind == TokenKind::RightBracket) =>
            {
                shape.extend_from_slice(bytes);
            }
            Some(placeholder) => shape.push(placeholder),
            None => shape.extend_from_slice(bytes),
        }
        if token.kind == TokenKind::Junk {
            // What follows without space is refused; with space it may be fine.
            continue;
        }
        shape.push(b' ');
        if !statement.follow(token, bytes) {
            // UESCAPE changes what was said before: leave nothing out.
            return write_verbatim(lexer, shape);
        }
    }
}

fn write_verbatim(lexer: Lexer<'_>, shape: &mut Vec<u8>) {
    shape.truncate(1);
    for token in lexer.clone() {
        shape.extend_from_slice(lexer.bytes(token));
        if token.kind != TokenKind::Junk {
            shape.push(b' ');
        }
    }
}

/// An integer that fits the grammar's `ICONST`.
const INTEGER: u8 = 0x01;
/// Any other number, the grammar's `FCONST`.
const FLOAT: u8 = 0x02;
/// A string constant.
const STRING: u8 = 0x03;
/// A bit string constant in binary.
const BITS: u8 = 0x04;
/// A bit string constant in hexadecimal.
const HEX: u8 = 0x05;

/// How far the scan is in a statement.
#[derive(Default)]
struct Statement {
    /// Whether the statement has begun; parentheses before its first word do not count.
    begun: bool,
    /// Whether its constants are constants of expressions only.
    expressions: bool,
    /// Whether the last token was `[`.
    after_bracket: bool,
    /// How much of `FLOAT (` came last.
    float: Float,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Float {
    #[default]
    No,
    Word,
    Paren,
}

impl Statement {
    fn placeholder(&self, token: Token, bytes: &[u8], standard_conforming_strings: bool) -> Option<u8> {
        if !self.expressions || self.float == Float::Paren {
            return None;
        }
        let plain = || memchr::memchr(b'\\', bytes).is_none();
        match token.kind {
            TokenKind::Integer => integer(bytes),
            TokenKind::Float => Some(FLOAT),
            TokenKind::String | TokenKind::NationalString => {
                (standard_conforming_strings || plain()).then_some(STRING)
            }
            TokenKind::EscapeString => plain().then_some(STRING),
            TokenKind::DollarString => Some(STRING),
            TokenKind::BitString => Some(BITS),
            TokenKind::HexString => Some(HEX),
            _ => None,
        }
    }

    /// False if the token reaches back to the one before.
    fn follow(&mut self, token: Token, bytes: &[u8]) -> bool {
        self.after_bracket = token.kind == TokenKind::LeftBracket;
        let float = std::mem::take(&mut self.float);
        match token.kind {
            TokenKind::Semicolon => *self = Self::default(),
            TokenKind::LeftParen if float == Float::Word => self.float = Float::Paren,
            TokenKind::LeftParen if !self.begun => {}
            TokenKind::Word if !self.begun => {
                self.begun = true;
                self.expressions = has_expressions_only(bytes);
            }
            TokenKind::Word if bytes.len() == 5 && bytes.eq_ignore_ascii_case(b"float") => {
                self.float = Float::Word;
            }
            TokenKind::Word if bytes.len() == 7 && bytes.eq_ignore_ascii_case(b"uescape") => return false,
            _ => self.begun = true,
        }
        true
    }
}

/// Whether all constants of a statement that begins with this word are constants of expressions.
fn has_expressions_only(first: &[u8]) -> bool {
    const WORDS: [&[u8]; 10] = [
        b"select", b"insert", b"update", b"delete", b"with", b"values", b"merge", b"table", b"execute",
        b"call",
    ];
    WORDS.iter().any(|word| first.eq_ignore_ascii_case(word))
}

/// `process_integer_literal` in `scan.l`: what does not fit an `int` is an `FCONST`. Numbers in other bases and
/// very long ones are left as they are.
fn integer(digits: &[u8]) -> Option<u8> {
    if digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some(if i32::try_from(value).is_ok() { INTEGER } else { FLOAT })
}
