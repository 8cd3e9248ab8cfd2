//! A condition: a CEL expression, checked when it is loaded, that is true, false or cannot be told.
//!
//! The crate `cel` reads the syntax. Types are checked and values computed here, because a guardrail needs what its
//! interpreter has not: a type error at load, a third truth value for what is not known, and a bound on the cost.
//! Where both give a value they give the same one (`tests.rs` compares them).

use std::fmt;

use super::facts::{SessionFacts, StatementFacts};
use super::fields::Field;

mod calls;
mod check;
mod eval;
mod expr;
mod parse;
mod suggest;
mod types;

pub use eval::Fault;
pub(super) use eval::{Items, Missing, Value};
pub(super) use suggest::nearest;
pub use types::Type;

/// An expression that yields a truth value.
#[derive(Clone)]
pub(super) struct Condition {
    source: String,
    expr: expr::Expr,
    reads: Vec<Field>,
}

/// What a condition may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// `session`.
    Session,
    /// `session` and `stmt`.
    Statement,
}

/// What a condition says of certain facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    True,
    False,
    /// It depends on what is not known.
    Unknown(Missing),
    /// It has no value.
    Failed(Fault),
}

/// Why a condition is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConditionError {
    /// The character of the condition where it was noticed, counted from 0.
    pub(super) at: usize,
    /// What is wrong, and what was expected.
    pub(super) message: String,
}

impl Condition {
    /// Reads and checks a condition.
    pub(super) fn compile(source: &str, scope: Scope) -> Result<Self, ConditionError> {
        let (expr, reads) = parse::compile(source, scope)?;
        Ok(Self { source: source.to_owned(), expr, reads })
    }

    /// Its value.
    pub(super) fn outcome(&self, session: &SessionFacts, stmt: Option<&StatementFacts>) -> Outcome {
        eval::outcome(&self.expr, session, stmt)
    }

    /// As it was written.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The fields that it reads.
    pub(super) fn reads(&self) -> &[Field] {
        &self.reads
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.source).finish()
    }
}

/// The same text has the same meaning.
impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

#[cfg(test)]
mod tests;
