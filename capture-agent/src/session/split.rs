//! The statements of a query string.

use std::ops::Range;

use super::lexer::{Lexer, Token, TokenKind, is_space};

/// The statements of a query string, cut where the server's grammar cuts it (`stmtmulti` in `gram.y`).
///
/// Gives the byte range of each, without the semicolon and without white space around it; the comments before
/// and inside a statement belong to it. A stretch without any token is no statement: the server answers it with
/// nothing (or with EmptyQueryResponse, if there is nothing else). A string that the server refuses with a syntax
/// error is cut as well as it goes.
///
/// Linear in the length of the text, without allocation or recursion.
pub fn statements(text: &str, standard_conforming_strings: bool) -> impl Iterator<Item = Range<usize>> {
    Statements { text, lexer: Lexer::new(text, standard_conforming_strings), start: 0 }
}

struct Statements<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    /// Where the next statement's stretch begins: one past the last semicolon.
    start: usize,
}

impl Iterator for Statements<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let mut body = Body::default();
        let mut any = false;
        let end = loop {
            let Some(token) = self.lexer.next() else {
                break self.text.len();
            };
            let ends = body.follow(&self.lexer, token);
            if ends && any {
                break token.start;
            } else if ends {
                self.start = token.end;
                body = Body::default();
            } else {
                any = true;
            }
        };
        let stretch = self.start..end;
        self.start = end.saturating_add(1);
        any.then(|| trimmed(self.text.as_bytes(), stretch))
    }
}

/// Where in a statement the scan is, as far as it matters for semicolons.
#[derive(Default)]
struct Body {
    /// Open parentheses: the actions of CREATE RULE stand in them, with semicolons between.
    parens: usize,
    /// Open `BEGIN ATOMIC`s.
    atomic: usize,
    /// The first words.
    head: Head,
    /// The token before, as far as it matters.
    before: Before,
}

/// How far the statement's beginning spells `CREATE [OR REPLACE] FUNCTION | PROCEDURE`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Head {
    #[default]
    Start,
    Create,
    CreateOr,
    CreateOrReplace,
    Routine,
    Something,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Before {
    /// A place where a statement of a routine's body begins: `ATOMIC` or a semicolon.
    Beginning,
    Begin,
    #[default]
    Something,
}

impl Body {
    /// Whether `token` is the semicolon that ends the statement.
    fn follow(&mut self, lexer: &Lexer<'_>, token: Token) -> bool {
        if self.head != Head::Something && self.head != Head::Routine {
            self.head = self.head.follow(lexer.bytes(token));
        }
        let before = std::mem::take(&mut self.before);
        match token.kind {
            TokenKind::LeftParen => self.parens += 1,
            TokenKind::RightParen => self.parens = self.parens.saturating_sub(1),
            TokenKind::Semicolon if self.parens == 0 && self.atomic == 0 => return true,
            TokenKind::Semicolon => self.before = Before::Beginning,
            TokenKind::Word if self.head == Head::Routine => self.routine_word(lexer.bytes(token), before),
            _ => {}
        }
        false
    }

    /// In a body each statement ends with a semicolon, and none begins with END. So an END right behind a
    /// semicolon or behind ATOMIC closes the body, and every other END is CASE's, or a name.
    fn routine_word(&mut self, word: &[u8], before: Before) {
        if word.eq_ignore_ascii_case(b"begin") {
            self.before = Before::Begin;
        } else if before == Before::Begin && word.eq_ignore_ascii_case(b"atomic") {
            self.atomic += 1;
            self.before = Before::Beginning;
        } else if before == Before::Beginning && word.eq_ignore_ascii_case(b"end") {
            self.atomic = self.atomic.saturating_sub(1);
        }
    }
}

impl Head {
    fn follow(self, word: &[u8]) -> Self {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        match self {
            Self::Start if is("create") => Self::Create,
            Self::Create if is("or") => Self::CreateOr,
            Self::CreateOr if is("replace") => Self::CreateOrReplace,
            Self::Create | Self::CreateOrReplace if is("function") || is("procedure") => Self::Routine,
            _ => Self::Something,
        }
    }
}

fn trimmed(text: &[u8], stretch: Range<usize>) -> Range<usize> {
    let bytes = text.get(stretch.clone()).unwrap_or_default();
    let front = bytes.iter().take_while(|&&byte| is_space(byte)).count();
    let back = bytes.iter().rev().take_while(|&&byte| is_space(byte)).count();
    let start = stretch.start + front;
    start..stretch.end.saturating_sub(back).max(start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(text: &str) -> Vec<&str> {
        statements(text, true).map(|range| &text[range]).collect()
    }

    /// Each statement as the server's grammar cuts it, trimmed as ours are.
    fn oracle(text: &str) -> Vec<&str> {
        pg_query::split_with_parser(text)
            .expect("the server's grammar reads it")
            .into_iter()
            .map(|statement| statement.trim_matches(|char| matches!(char, ' ' | '\t' | '\n' | '\r' | '\x0c')))
            .collect()
    }

    /// Since PostgreSQL 18 the comments before a statement are not counted to it.
    fn without_comments_before(statement: &str) -> &str {
        let first = Lexer::new(statement, true).next().expect("a statement has a token");
        &statement[first.start..]
    }

    const PIECES: &[&str] = &[
        "SELECT 1",
        "SELECT ';' , 'it''s', E'\\';', E'a' \n 'b\\';'",
        "SELECT U&'d\\0061t;a', U&\"d;\", \"a;\"\"b\" FROM \"x;y\"",
        "SELECT $$;$$, $a$ $$;$b$ $a$, B'01', X'1F', N'x;'",
        "SELECT 1 /* ; /* ; */ ; */ + 2 -- ; '",
        "SELECT /*;*/ 1 -- ;\n, 2",
        "SELECT (SELECT 2), ARRAY[1,2], a$1 FROM t$",
        "SELECT begin atomic FROM x",
        "BEGIN",
        "END",
        "CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)",
        "CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 1 ELSE 2 END; END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC END",
        "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; ; END",
        "CREATE OR REPLACE PROCEDURE p(a int) BEGIN ATOMIC INSERT INTO t VALUES (a); SELECT 1 AS end; SELECT t.end, 1 case FROM t; END",
        "create /* c */ or replace function p() returns int return 1",
        "CREATE FUNCTION begin() RETURNS int LANGUAGE sql AS 'select 1; select 2'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN 1; END $f$",
        "CREATE TABLE create_t (a int, function text)",
        "CREATE VIEW v AS SELECT CASE WHEN true THEN 1 END AS begin",
        "DO $$ BEGIN PERFORM 1; END $$",
        "COPY t FROM STDIN",
        "SELECT '\u{e9};\u{6f22}' AS \u{e9}\u{6f22}",
        "SELECT 1.5e10, .5, 1., 1_000, 0x1F, $1",
        "SELECT a <-- ;\n b FROM t",
        "SELECT '' '' -- not continued",
    ];

    const SEPARATORS: &[&str] = &["", " ", "\n", "\t\r\n", " -- c;\n", "/* ; */", " /* /* ' */ \" */ "];

    #[test]
    fn every_piece_is_one_statement() {
        for piece in PIECES.iter().filter(|piece| !piece.starts_with("SELECT '' ''")) {
            assert_eq!(oracle(piece), [*piece]);
            assert_eq!(split(piece), [*piece]);
            assert_eq!(split(&format!(" {piece} \n; ; /* {piece} */")), [*piece], "{piece}");
        }
    }

    #[test]
    fn empty_stretches_are_no_statements() {
        for text in ["", " ", ";", " ; ;\n", "-- c", "/* c */;", "; -- c\n;/* */ "] {
            assert!(split(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn text_without_an_end_is_the_last_statement() {
        assert_eq!(split("SELECT 1; /* SELECT 2; "), ["SELECT 1", "/* SELECT 2;"]);
        assert_eq!(split("SELECT 1; SELECT 'a; SELECT 2"), ["SELECT 1", "SELECT 'a; SELECT 2"]);
        assert_eq!(split("SELECT $$; x; $"), ["SELECT $$; x; $"]);
    }

    #[test]
    fn backslashes_escape_without_standard_conforming_strings() {
        let text = r"SELECT 'a\'; b'; SELECT 2";
        let old: Vec<_> = statements(text, false).map(|range| &text[range]).collect();
        assert_eq!(old, [r"SELECT 'a\'; b'", "SELECT 2"]);
        assert_eq!(split(text), [r"SELECT 'a\'", r"b'; SELECT 2"]);
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        let length = 1 << 20;
        for unit in ["(", ";", "/*", "'a' ", "'a'\n", "$a$", "$a", "begin atomic ", "--\n", "E'\\"] {
            let text = unit.repeat(length / unit.len());
            assert!(statements(&text, true).count() <= length);
        }
        let text = format!("CREATE FUNCTION f() {}", "BEGIN ATOMIC ".repeat(length / 13));
        assert_eq!(split(&text).len(), 1);
        let text = format!("SELECT 1; SELECT '{}'", "x;".repeat(8 << 20));
        assert_eq!(split(&text).len(), 2);
    }

    proptest! {
        #[test]
        fn cuts_where_the_servers_grammar_cuts(
            pieces in prop::collection::vec((0..PIECES.len() - 1, 0..SEPARATORS.len(), 0..SEPARATORS.len()), 0..12)
        ) {
            let mut text = String::new();
            for (piece, before, after) in pieces {
                text += SEPARATORS[before];
                text += PIECES[piece];
                text += "\n";
                text += SEPARATORS[after];
                text += ";";
            }
            let ours: Vec<&str> = split(&text).into_iter().map(without_comments_before).collect();
            prop_assert_eq!(ours, oracle(&text));
        }

        #[test]
        fn any_text_gives_ranges_in_order(text in "[ ;'\"$a/*\\-(\n1eEbBuU&\u{e9}]{0,60}", standard in any::<bool>()) {
            let mut end = 0;
            for range in statements(&text, standard) {
                prop_assert!(range.start >= end && range.start < range.end);
                prop_assert!(text.get(range.clone()).is_some());
                end = range.end;
            }
        }
    }
}
