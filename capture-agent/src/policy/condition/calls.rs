//! Functions of conditions: which there are, and what they take.

use cel::common::ast::{Expr as Tree, IdedExpr, LiteralValue};
use regex::{Regex, RegexBuilder};

use super::check::{Checked, Checker, hint};
use super::expr::{Expr, Place};
use super::types::Type;
use super::{ConditionError, nearest};

/// A call: `name(args)` or `target.name(args)`.
pub(super) struct Call<'t> {
    pub(super) tree: &'t IdedExpr,
    pub(super) name: &'t str,
    pub(super) target: Option<&'t IdedExpr>,
    pub(super) args: &'t [IdedExpr],
}

/// Functions, and how they are called.
const FUNCTIONS: [(&str, &str); 15] = [
    ("all", "list.all(member, condition)"),
    ("contains", "text.contains(part)"),
    ("endsWith", "text.endsWith(part)"),
    ("exists", "list.exists(member, condition)"),
    ("exists_one", "list.exists_one(member, condition)"),
    ("existsOne", "list.existsOne(member, condition)"),
    ("filter", "list.filter(member, condition)"),
    ("int", "int(text)"),
    ("lowerAscii", "text.lowerAscii()"),
    ("map", "list.map(member, value)"),
    ("matches", "text.matches('expression')"),
    ("size", "size(value)"),
    ("startsWith", "text.startsWith(part)"),
    ("string", "string(number)"),
    ("upperAscii", "text.upperAscii()"),
];

/// Checks a call of a function.
pub(super) fn checked<'t>(checker: &mut Checker<'t>, call: &Call<'t>) -> Checked {
    match (call.name, call.target, call.args) {
        ("size", Some(value), []) | ("size", None, [value]) => {
            let (expr, kind) = checker.check(value)?;
            if !matches!(kind, Type::String | Type::List(_)) {
                return checker.fail(value, format!("strings and lists have a size, and this is {kind}"));
            }
            Ok((Expr::Size(Box::new(expr)), Type::Int))
        }
        ("startsWith", Some(text), [part]) => holds(checker, Place::Start, text, part),
        ("endsWith", Some(text), [part]) => holds(checker, Place::End, text, part),
        ("contains", Some(text), [part]) => holds(checker, Place::Anywhere, text, part),
        ("matches", Some(text), [pattern]) | ("matches", None, [text, pattern]) => {
            let text = checker.expect(text, &Type::String, "what `matches` looks at")?;
            let pattern = compiled(checker, pattern)?;
            Ok((Expr::Matches(Box::new(text), pattern), Type::Bool))
        }
        ("lowerAscii", Some(text), []) => {
            let text = checker.expect(text, &Type::String, "what `lowerAscii` changes")?;
            Ok((Expr::Lower(Box::new(text)), Type::String))
        }
        ("upperAscii", Some(text), []) => {
            let text = checker.expect(text, &Type::String, "what `upperAscii` changes")?;
            Ok((Expr::Upper(Box::new(text)), Type::String))
        }
        ("int", None, [text]) => {
            let text = checker.expect(text, &Type::String, "what `int` reads")?;
            Ok((Expr::ToInt(Box::new(text)), Type::Int))
        }
        ("string", None, [number]) => {
            let number = checker.expect(number, &Type::Int, "what `string` writes")?;
            Ok((Expr::ToText(Box::new(number)), Type::String))
        }
        ("has", ..) => checker.fail(call.tree, "every field is there: compare it, what is absent is empty"),
        (name, ..) => match FUNCTIONS.iter().find(|(known, _)| *known == name) {
            Some((_, usage)) => checker.fail(call.tree, format!("`{name}` is called as {usage}")),
            None => {
                let hint = hint(nearest(name, FUNCTIONS.iter().map(|(known, _)| *known)));
                checker.fail(call.tree, format!("there is no function `{name}`{hint}"))
            }
        },
    }
}

fn holds<'t>(checker: &mut Checker<'t>, place: Place, text: &'t IdedExpr, part: &'t IdedExpr) -> Checked {
    let text = checker.expect(text, &Type::String, "what is looked at")?;
    let part = checker.expect(part, &Type::String, "what is looked for")?;
    Ok((Expr::Holds(place, Box::new([text, part])), Type::Bool))
}

/// A regular expression is compiled once, and must therefore be a constant. Matching it takes time in proportion to the
/// text, whatever both are.
fn compiled(checker: &Checker<'_>, pattern: &IdedExpr) -> Result<Regex, ConditionError> {
    let Tree::Literal(LiteralValue::String(text)) = &pattern.expr else {
        return checker.fail(pattern, "the expression that `matches` looks for must be a constant string");
    };
    match RegexBuilder::new(text.inner()).size_limit(REGEX_BYTES).dfa_size_limit(REGEX_BYTES).build() {
        Ok(regex) => Ok(regex),
        Err(regex::Error::CompiledTooBig(_)) => checker.fail(pattern, "the regular expression is too large"),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            checker.fail(pattern, format!("this is no regular expression: {reason}"))
        }
    }
}

/// The most memory that a compiled regular expression may take, and its cache.
const REGEX_BYTES: usize = 1 << 20;
