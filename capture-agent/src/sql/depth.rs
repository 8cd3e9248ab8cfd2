//! How deeply a text is nested, before a recursive parser sees it.

use crate::session::lexer::{Lexer, TokenKind};

/// An upper bound, but for a small factor, for the depth of the text's parse tree, counted in tokens; none if it is
/// more than `limit`.
///
/// Every token may nest what follows it into what comes before: parentheses do, but chains of binary operators,
/// joins and set operations as well, which need no parentheses. What stands side by side does not add up: the
/// members of a list, the arms of AND and OR (which the grammar keeps as flat lists), statements.
pub(super) fn bounded(text: &str, standard_conforming_strings: bool, limit: usize) -> Option<usize> {
    let lexer = Lexer::new(text, standard_conforming_strings);
    let mut open: Vec<Level> = Vec::new();
    let mut level = Level::default();
    // Nesting in the open levels, and in routine bodies, which semicolons do not end.
    let mut outside = 0;
    let mut deepest = 0;
    let mut after_dot = false;
    for token in lexer.clone() {
        let bytes = lexer.bytes(token);
        let was_after_dot = std::mem::replace(&mut after_dot, token.kind == TokenKind::Dot);
        match token.kind {
            TokenKind::Comma => (level.chain, level.joins) = (0, 0),
            TokenKind::Semicolon => level = Level::default(),
            TokenKind::LeftParen | TokenKind::LeftBracket => {
                level.chain += PARENTHESIS;
                outside += level.depth();
                open.push(std::mem::take(&mut level));
            }
            TokenKind::RightParen | TokenKind::RightBracket => {
                if let Some(outer) = open.pop() {
                    level = outer;
                    outside -= level.depth();
                }
            }
            // A run of plus and minus signs is as many operators.
            TokenKind::Operator => level.chain += bytes.len(),
            TokenKind::Word => level.word(bytes, was_after_dot, &mut outside),
            _ => level.chain += 1,
        }
        deepest = deepest.max(outside + level.depth());
        if deepest > limit {
            return None;
        }
    }
    Some(deepest)
}

/// What an opening parenthesis counts: a subquery in it is three nodes deep, and a comma may hide its SELECT.
const PARENTHESIS: usize = 4;

/// What is nested at one level of parentheses.
#[derive(Default)]
struct Level {
    /// Tokens since the last comma, AND, OR or semicolon.
    chain: usize,
    /// JOINs since the last comma or semicolon: a condition with AND may stand between two of them.
    joins: usize,
    /// CASEs that are open.
    cases: usize,
    /// UNIONs and their kin since the last semicolon: each takes the whole SELECT before it as an operand.
    set_operations: usize,
}

impl Level {
    fn depth(&self) -> usize {
        self.chain + self.joins + self.cases + self.set_operations
    }

    fn word(&mut self, word: &[u8], after_dot: bool, outside: &mut usize) {
        self.chain += 1;
        if !(2..=9).contains(&word.len()) || after_dot {
            return;
        }
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword.as_bytes());
        match word.first().map(u8::to_ascii_lowercase) {
            Some(b'a') if is("and") => self.chain = 0,
            Some(b'a') if is("atomic") => *outside += 1,
            Some(b'o') if is("or") => self.chain = 0,
            Some(b'j') if is("join") => self.joins += 1,
            Some(b'c') if is("case") => self.cases += 2,
            Some(b'e') if is("end") => self.cases = self.cases.saturating_sub(2),
            Some(b'u' | b'i' | b'e') if is("union") || is("intersect") || is("except") => {
                self.set_operations += 1;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn depth(text: &str) -> usize {
        bounded(text, true, usize::MAX).unwrap()
    }

    #[test]
    fn what_stands_side_by_side_does_not_add_up() {
        let one = depth("SELECT a FROM t WHERE x = 1");
        assert!(one < 12);
        assert_eq!(depth(&format!("SELECT a FROM t WHERE x = 1{}", " OR x = 1".repeat(50_000))), one);
        assert!(depth(&format!("SELECT {} a", "-a, ".repeat(50_000))) < 12);
        assert!(depth(&"SELECT 1; ".repeat(50_000)) < 12);
        assert!(depth(&format!("SELECT {} a", "(a), f(a), CASE WHEN a THEN b END,".repeat(10_000))) < 24);
    }

    #[test]
    fn what_nests_adds_up() {
        for unit in [
            "(",
            "[",
            "NOT ",
            "- ",
            "+",
            "CASE WHEN a.end AND b THEN ",
            "a || ",
            "1 UNION SELECT a, b ",
            "JOIN t ON a AND b ",
            "ARRAY[",
            "f(a, ",
            "EXISTS (SELECT ",
            "x::int",
            "IS NULL ",
            "BEGIN ATOMIC; ",
        ] {
            assert!(depth(&format!("SELECT {}", unit.repeat(1000))) >= 1000, "{unit}");
            assert_eq!(bounded(&unit.repeat(10_000), true, 1000), None);
        }
    }

    #[test]
    fn parentheses_in_strings_and_comments_do_not_count() {
        assert!(depth("SELECT '((((((((((((((((((((' /* (((((((((((((((( */ -- ((((((((((((((((") < 5);
    }
}
