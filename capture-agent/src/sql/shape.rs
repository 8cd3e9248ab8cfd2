//! A text's shape: its tokens, with every constant and parameter replaced by the same one where it cannot change what the
//! statement does, and with repeated rows of VALUES and members of IN left out.
//!
//! A shape is SQL itself and is parsed in the text's stead, so texts of one shape have one
//! [`Analysis`](super::Analysis) whatever happens. That it is also the text's own rests on the grammar: a constant in
//! an expression becomes an `A_Const` node, which is no relation and no function, and which the fingerprint passes
//! over, as it does over equal members of a list. Where a constant is something else (an option of a utility
//! statement, a function's body, the bounds of an array type, the precision of FLOAT, the character of UESCAPE), or
//! could be refused for what it says (escapes), it stays.

use crate::session::lexer::{Lexer, Token, TokenKind};

/// Writes the shape of `text` to `shape`, whose contents are replaced. Gives the number of its tokens.
///
/// The first byte tells the session's setting, the rest is the shape's text: [`text`].
pub(super) fn write(text: &str, standard_conforming_strings: bool, shape: &mut Vec<u8>) -> usize {
    shape.clear();
    shape.push(u8::from(standard_conforming_strings));
    let lexer = Lexer::new(text, standard_conforming_strings);
    let mut statement = Statement::default();
    let mut list = List::default();
    let mut kept = 0;
    let mut tokens = lexer.clone().peekable();
    while let Some(token) = tokens.next() {
        let bytes = lexer.bytes(token);
        let constant = statement.constant(token, bytes, standard_conforming_strings).filter(|&constant| {
            // An integer alone in brackets may be the bound of an array type.
            let bound = constant == INTEGER && statement.after_bracket;
            !(bound && tokens.peek().is_some_and(|next| next.kind == TokenKind::RightBracket))
        });
        kept -= list.before(token.kind, shape);
        shape.extend_from_slice(constant.unwrap_or(bytes));
        kept += 1;
        if token.kind == TokenKind::Junk {
            // What follows without space is refused; with space it may be fine.
            continue;
        }
        shape.push(b' ');
        if !statement.follow(token, bytes) {
            // UESCAPE changes what was said before: leave nothing out.
            return write_verbatim(lexer, shape);
        }
        list.after(token.kind, bytes, constant.is_some(), statement.expressions, shape.len());
    }
    kept - list.before(TokenKind::Semicolon, shape)
}

/// The text of a shape.
pub(super) fn text(shape: &[u8]) -> Option<&str> {
    str::from_utf8(shape.get(1..)?).ok()
}

fn write_verbatim(lexer: Lexer<'_>, shape: &mut Vec<u8>) -> usize {
    shape.truncate(1);
    let mut kept = 0;
    for token in lexer.clone() {
        shape.extend_from_slice(lexer.bytes(token));
        if token.kind != TokenKind::Junk {
            shape.push(b' ');
        }
        kept += 1;
    }
    kept
}

/// An integer that fits the grammar's `ICONST`.
const INTEGER: &[u8] = b"0";
/// Any other number, the grammar's `FCONST`.
const FLOAT: &[u8] = b"0.";
/// A string constant.
const STRING: &[u8] = b"''";
/// A bit string constant in binary.
const BITS: &[u8] = b"B''";
/// A bit string constant in hexadecimal.
const HEX: &[u8] = b"X''";

/// A parameter, whichever.
const PARAM: &[u8] = b"$1";

/// Leaves repeated members out of the outermost list that the scan is in.
#[derive(Default)]
struct List {
    state: ListState,
    /// Open parentheses in the text.
    depth: usize,
    /// The depth at which the list's commas stand.
    commas: usize,
    /// Where the member at hand, and its tokens, begin.
    start: usize,
    tokens: usize,
    /// The member before: where it begins and ends.
    before: Option<(usize, usize)>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum ListState {
    /// In no list.
    #[default]
    Outside,
    /// Behind VALUES: a parenthesis begins a row.
    Values,
    /// Between rows of VALUES, or in one.
    Rows,
    /// Behind IN: a parenthesis begins the list.
    In,
    /// In the list of IN.
    Members,
}

impl List {
    /// Before a token is written: drops the member that it ends if that repeats the one before. Gives the number of
    /// tokens dropped.
    fn before(&mut self, kind: TokenKind, shape: &mut Vec<u8>) -> usize {
        let ends = match self.state {
            ListState::Rows => self.depth == self.commas && kind != TokenKind::LeftParen,
            ListState::Members => {
                self.depth == self.commas && matches!(kind, TokenKind::Comma | TokenKind::RightParen)
            }
            ListState::Outside | ListState::Values | ListState::In => false,
        };
        if !ends {
            return 0;
        }
        let end = shape.len();
        // Members of IN are left out if they are constants alone, rows whatever they are.
        let constant = self.tokens == 1;
        if let Some((start, before_end)) = self.before.filter(|_| constant || self.state == ListState::Rows)
            && shape.get(start..before_end) == shape.get(self.start..end)
        {
            shape.truncate(before_end);
            // The comma between the two goes as well.
            return self.tokens + 1;
        }
        self.before = Some((self.start, end));
        0
    }

    /// After a token was written, up to `end`.
    fn after(&mut self, kind: TokenKind, bytes: &[u8], constant: bool, expressions: bool, end: usize) {
        match kind {
            TokenKind::LeftParen => self.depth += 1,
            TokenKind::RightParen => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.tokens += 1;
        match self.state {
            ListState::Values if kind == TokenKind::LeftParen => {
                // The row begins with the parenthesis that was just written.
                self.begin(ListState::Rows, self.depth - 1, end - 2);
                self.tokens = 1;
            }
            ListState::In if kind == TokenKind::LeftParen => self.begin(ListState::Members, self.depth, end),
            ListState::Rows | ListState::Members if self.depth > self.commas => {}
            ListState::Rows if kind == TokenKind::RightParen && self.depth == self.commas => {}
            ListState::Members if self.depth == self.commas && kind != TokenKind::Comma => {
                // Only a constant alone may be left out.
                if !constant {
                    self.tokens += 1;
                }
            }
            ListState::Rows | ListState::Members if kind == TokenKind::Comma => {
                self.start = end;
                self.tokens = 0;
            }
            _ => self.state = Self::opened_by(kind, bytes, expressions),
        }
    }

    fn begin(&mut self, state: ListState, commas: usize, start: usize) {
        *self = Self { state, depth: self.depth, commas, start, tokens: 0, before: None };
    }

    fn opened_by(kind: TokenKind, bytes: &[u8], expressions: bool) -> ListState {
        if kind != TokenKind::Word || !expressions {
            ListState::Outside
        } else if bytes.len() == 2 && bytes.eq_ignore_ascii_case(b"in") {
            ListState::In
        } else if bytes.len() == 6 && bytes.eq_ignore_ascii_case(b"values") {
            ListState::Values
        } else {
            ListState::Outside
        }
    }
}

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
    /// The constant that stands for the token, if it is one that may be replaced.
    fn constant(
        &self,
        token: Token,
        bytes: &[u8],
        standard_conforming_strings: bool,
    ) -> Option<&'static [u8]> {
        if !self.expressions || self.float == Float::Paren {
            return None;
        }
        let plain = || memchr::memchr(b'\\', bytes).is_none();
        match token.kind {
            TokenKind::Integer => integer(bytes),
            TokenKind::Float => Some(FLOAT),
            TokenKind::String => (standard_conforming_strings || plain()).then_some(STRING),
            TokenKind::EscapeString => plain().then_some(STRING),
            TokenKind::DollarString => Some(STRING),
            TokenKind::BitString => Some(BITS),
            TokenKind::HexString => Some(HEX),
            // Longer numbers may be refused.
            TokenKind::Param if bytes.len() <= 6 => Some(PARAM),
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
fn integer(digits: &[u8]) -> Option<&'static [u8]> {
    if digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
    Some(if i32::try_from(value).is_ok() { INTEGER } else { FLOAT })
}

#[cfg(test)]
mod tests;
