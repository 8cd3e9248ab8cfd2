//! From a condition's text to a checked expression, whatever the text is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

use cel::Env;

use super::super::fields::Field;
use super::expr::Expr;
use super::{ConditionError, Scope, check};

/// Reads and checks a condition.
///
/// The parser is a young one, generated for a runtime that recurses: it gets texts of bounded length and nesting only,
/// on a stack that holds them, and a panic of its own is an error of the text.
pub(super) fn compile(source: &str, scope: Scope) -> Result<(Expr, Vec<Field>), ConditionError> {
    if source.len() > MOST_BYTES {
        return Err(error(0, format!("the condition is longer than {MOST_BYTES} bytes")));
    }
    if let Some(at) = too_deep(source) {
        return Err(error(
            at,
            format!("the condition is nested deeper than {MOST_NESTED} brackets or signs"),
        ));
    }
    let failed = || error(0, "the condition cannot be read: the parser of CEL failed on it".to_owned());
    thread::scope(|scope_| {
        thread::Builder::new()
            .name("condition".to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope_, || {
                catch_unwind(AssertUnwindSafe(|| read(source, scope))).unwrap_or_else(|_| Err(failed()))
            })
            .map_err(|_| failed())?
            .join()
            .map_err(|_| failed())?
    })
}

/// The longest condition. Long lists of names belong in the policy, not in the statement's way.
const MOST_BYTES: usize = 16 << 10;
/// Brackets within brackets, and signs before signs.
const MOST_NESTED: usize = 32;
/// The parser takes up to 100 KiB for each level of brackets (without optimization). What is not used is not mapped.
const STACK: usize = 64 << 20;

fn read(source: &str, scope: Scope) -> Result<(Expr, Vec<Field>), ConditionError> {
    // An environment without macros: `exists` and its kin stay the calls that they are written as.
    let parser = Env::default().with_optional_support(false).parser();
    match parser.parse_with_source_info(source) {
        Ok((tree, positions)) => check::checked(&tree, &positions, scope),
        Err(errors) => {
            let Some(first) = errors.errors.into_iter().next() else {
                return Err(error(0, "the condition cannot be read".to_owned()));
            };
            let (line, column) = first.pos;
            let at = offset(source, usize::try_from(line).unwrap_or(0), usize::try_from(column).unwrap_or(0));
            let message = first.msg.lines().next().unwrap_or_default().to_owned();
            Err(error(at, message))
        }
    }
}

/// The character at a line and column, both of which begin with 1 (or 0, where the parser does not know).
fn offset(source: &str, line: usize, column: usize) -> usize {
    let before = source.split_inclusive('\n').take(line.saturating_sub(1));
    before.map(|line| line.chars().count()).sum::<usize>() + column.saturating_sub(1)
}

fn error(at: usize, message: String) -> ConditionError {
    ConditionError { at, message }
}

/// Where the text is nested too deeply. Strings are not told apart: brackets in them count, which at worst refuses a
/// condition that holds a strange string.
fn too_deep(source: &str) -> Option<usize> {
    let mut open = 0usize;
    let mut signs = 0usize;
    for (at, char) in source.chars().enumerate() {
        match char {
            '(' | '[' | '{' | '?' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        signs = match char {
            '!' | '-' => signs + 1,
            c if c.is_whitespace() => signs,
            _ => 0,
        };
        if open > MOST_NESTED || signs > MOST_NESTED {
            return Some(at);
        }
    }
    None
}
