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
            TokenKind::String => (standard_conforming_strings || plain()).then_some(STRING),
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::parse;

    fn shape(text: &str, standard_conforming_strings: bool) -> Vec<u8> {
        let mut shape = vec![b'x'; 10];
        write(text, standard_conforming_strings, &mut shape);
        shape
    }

    #[track_caller]
    fn same(a: &str, b: &str) {
        assert_eq!(shape(a, true), shape(b, true), "{a} | {b}");
    }

    #[track_caller]
    fn different(a: &str, b: &str) {
        assert_ne!(shape(a, true), shape(b, true), "{a} | {b}");
    }

    #[test]
    fn constants_of_expressions_are_left_out() {
        same("SELECT abalance FROM a WHERE aid = 12345;", "SELECT abalance FROM a WHERE aid = 1;");
        same("SELECT 'a''b', E'c', $$d$$", "SELECT '', 'it', $x$;$x$");
        same("SELECT 1.5, B'01', X'1F', 1e5", "SELECT .5, B'', X'', 99999999999");
        same(
            "INSERT INTO t VALUES (1, 'a') -- c",
            "insert INTO t VALUES (2, /* d */ 'b')".replace("insert", "INSERT").as_str(),
        );
        same("EXECUTE p(1)", "EXECUTE p(2)");
        same("(SELECT 1)", "(  SELECT 2 )");
        same("SELECT 1; DELETE FROM t WHERE a = 'x'", "SELECT 2;DELETE FROM t WHERE a='y'");
    }

    #[test]
    fn constants_that_are_no_expressions_stay() {
        for (a, b) in [
            ("SET x = 'a'", "SET x = 'b'"),
            ("COPY t FROM 'a'", "COPY t FROM 'b'"),
            ("DO 'a'", "DO 'b'"),
            ("FETCH 1 FROM c", "FETCH 2 FROM c"),
            ("SELECT 1; FETCH 1 FROM c", "SELECT 1; FETCH 2 FROM c"),
            ("SELECT a::float(1)", "SELECT a::float(53)"),
            ("SELECT a::int[1]", "SELECT a::int[2]"),
            ("SELECT U&\"d!0061\" UESCAPE '!'", "SELECT U&\"d!0061\" UESCAPE '?'"),
            ("SELECT E'\\u0041'", "SELECT E'\\u00'"),
            ("SELECT 1", "SELECT 3000000000"),
            ("SELECT 1", "SELECT '1'"),
            // A string with a cast to a type of characters.
            ("SELECT f 'a'", "SELECT f N'a'"),
            ("SELECT 1 a", "SELECT 1a"),
            ("SELECT $1", "SELECT $2"),
            ("SELECT a", "SELECT \"a\""),
            ("SELECT a<-1", "SELECT a< -1"),
        ] {
            different(a, b);
        }
        assert_ne!(shape("SELECT 'a'", true), shape("SELECT 'a'", false));
    }

    /// Pieces of statements; `%` is a constant of any kind, `#` an integer.
    const PIECES: &[&str] = &[
        "SELECT %",
        "SELECT %, f(%) FROM t WHERE a = % AND b IN (%, %)",
        "SELECT a[%], b::int[#], c::numeric(#, #)",
        "SELECT a::float(#), b::varchar(#), INTERVAL '1' SECOND(#), CAST(c AS bit(#))",
        "SELECT x FROM t LIMIT % OFFSET %",
        "SELECT DATE %, INTERVAL %, f %",
        "SELECT a FROM t FETCH FIRST # ROWS ONLY",
        "SELECT -%, +%, a - %, a -%",
        "SELECT CASE WHEN a = % THEN % ELSE % END, ARRAY[%, %], ARRAY[#], ROW(%, %)",
        "SELECT a FROM t ORDER BY #",
        "SELECT EXTRACT(% FROM x), OVERLAY(a PLACING % FROM # FOR #), a LIKE % ESCAPE %",
        "SELECT % %",
        "SELECT #a",
        "SELECT sum(a) OVER (ROWS BETWEEN # PRECEDING AND # FOLLOWING), % AS x",
        "SELECT * FROM t TABLESAMPLE system(#) REPEATABLE (#)",
        "INSERT INTO t VALUES (%, %), (%, DEFAULT)",
        "UPDATE t SET a = %, b[#] = % WHERE c = % RETURNING %",
        "DELETE FROM t WHERE a = % OR b BETWEEN % AND %",
        "WITH x AS (SELECT %) SELECT * FROM x WHERE y = %",
        "WITH RECURSIVE x AS (SELECT 1) CYCLE a SET b TO % DEFAULT % USING p SELECT %",
        "VALUES (%), (%)",
        "CALL p(%)",
        "EXECUTE q(%, %)",
        "MERGE INTO t USING u ON a = % WHEN MATCHED AND b = % THEN UPDATE SET c = %",
        "SELECT a AT TIME ZONE %, JSON_OBJECT(%: %)",
        "SELECT * FROM json_table(a, % COLUMNS (b int PATH %, NESTED PATH % COLUMNS (c int)))",
        "SELECT xmlpi(name a, %), xmlroot(a, version %)",
        "SELECT * FROM xmltable(XMLNAMESPACES(% AS x), % PASSING a COLUMNS b int PATH % DEFAULT %)",
        "SELECT * FROM f(%) AS (a int[#])",
        "SET x = %",
        "SET x TO %, %",
        "FETCH # FROM c",
        "DECLARE c CURSOR FOR SELECT %",
        "COPY t FROM %",
        "COPY (SELECT %) TO %",
        "DO %",
        "CREATE TABLE t (a varchar(#) DEFAULT %, b int[#])",
        "CREATE SEQUENCE s INCREMENT BY #",
        "COMMENT ON TABLE t IS %",
        "NOTIFY a, %",
        "EXPLAIN (FORMAT %) SELECT %",
        "PREPARE p AS SELECT %",
        "CREATE TABLE t AS SELECT %",
        "CREATE FUNCTION f() RETURNS int AS % LANGUAGE sql",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT %; SELECT # END",
        "CREATE RULE r AS ON INSERT TO t DO (SELECT %; NOTIFY a, %)",
        "ALTER TABLE t ALTER # SET STATISTICS #",
        "CREATE VIEW v AS SELECT %",
        "LOCK TABLE t",
        "SELECT U&% UESCAPE %",
        "SELECT U&\"a\" UESCAPE %",
        "SELECT $#, a$#, $#a",
        "SELECT a FROM t WHERE b = ANY (%) FOR UPDATE",
        "TABLE t",
        "SELECT x INTO y FROM z WHERE a = %",
        "SELECT grouping(%)",
    ];

    const CONSTANTS: &[&str] = &[
        "'a'",
        "''",
        "'it''s'",
        "E'b'",
        "E'\\n'",
        "E'\\u0041'",
        "E'\\u00'",
        "$$c$$",
        "$x$;$x$",
        "N'd'",
        "U&'\\0041'",
        "U&'\\zz'",
        "B'01'",
        "B'2'",
        "X'1F'",
        "1",
        "42",
        "2147483647",
        "2147483648",
        "99999999999999999999",
        "1.5",
        "1e10",
        ".5",
        "1.",
        "0x1F",
        "0b11",
        "1_000",
        "007",
        "-1",
        "1e",
        "'a'\n'b'",
        "'\\'",
    ];

    const INTEGERS: &[&str] =
        &["0", "1", "2", "5", "24", "25", "53", "54", "2147483647", "2147483648", "00001", "0x2", "1_0"];

    fn filled(pieces: &[usize], picks: &[usize]) -> String {
        let mut text = String::new();
        let mut picks = picks.iter().cycle();
        for &piece in pieces {
            for char in PIECES[piece].chars() {
                match char {
                    '%' => text += CONSTANTS[picks.next().unwrap() % CONSTANTS.len()],
                    '#' => text += INTEGERS[picks.next().unwrap() % INTEGERS.len()],
                    _ => text.push(char),
                }
            }
            text += ";";
        }
        text
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1500))]

        #[test]
        fn texts_of_one_shape_have_the_same_analysis(
            pieces in prop::collection::vec(0..PIECES.len(), 1..3),
            picks in prop::collection::vec(0usize..1000, 12),
            others in prop::collection::vec(0usize..1000, 12),
            few in any::<bool>(),
            standard in any::<bool>(),
        ) {
            // With few kinds of constants, equal shapes are frequent.
            let picks = if few { vec![picks[0] % 4; 12] } else { picks };
            let others = if few { others.iter().map(|other| other % 4).collect() } else { others };
            let (a, b) = (filled(&pieces, &picks), filled(&pieces, &others));
            if shape(&a, standard) == shape(&b, standard) {
                let (a_is, b_is) = (parse::analysis(&a, standard, 2000), parse::analysis(&b, standard, 2000));
                prop_assert_eq!(a_is, b_is, "{} | {}", a, b);
            }
        }
    }

    #[test]
    fn each_constant_alone_changes_the_shape_or_nothing() {
        let mut alike = 0;
        for piece in 0..PIECES.len() {
            for first in 0..CONSTANTS.len() {
                for second in [first + 1, first + 3, first + 15, first + 16] {
                    let (a, b) = (filled(&[piece], &[first]), filled(&[piece], &[second]));
                    if a != b && shape(&a, true) == shape(&b, true) {
                        alike += 1;
                        let (a_is, b_is) = (parse::analysis(&a, true, 2000), parse::analysis(&b, true, 2000));
                        assert_eq!(a_is, b_is, "{a} | {b}");
                    }
                }
            }
        }
        assert!(alike > 500, "{alike}");
    }
}
