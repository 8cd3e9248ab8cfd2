//! A condition after its types were checked.

use std::sync::Arc;

use regex::Regex;

use super::super::fields::Field;

/// An expression. What it does to its operands is safe to do: their types were checked.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Bool(bool),
    Int(i64),
    Text(Arc<str>),
    List(Vec<Expr>),
    Field(Field),
    /// A variable of `all`, `exists`, …: the outermost is number 0.
    Local(usize),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Box<[Expr; 2]>),
    Or(Box<[Expr; 2]>),
    Conditional(Box<[Expr; 3]>),
    Compare(Comparison, Box<[Expr; 2]>),
    Arithmetic(Arithmetic, Box<[Expr; 2]>),
    /// Member of a list.
    In(Box<[Expr; 2]>),
    Index(Box<[Expr; 2]>),
    Size(Box<Expr>),
    /// A text and the part that is looked for in it.
    Holds(Place, Box<[Expr; 2]>),
    Matches(Box<Expr>, Regex),
    Lower(Box<Expr>),
    Upper(Box<Expr>),
    ToInt(Box<Expr>),
    ToText(Box<Expr>),
    /// For the members of a list.
    Each(Each, Box<[Expr; 2]>),
    /// Those members for which the first is true (or all), made into the second.
    Map(Box<Expr>, Option<Box<Expr>>, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// Of numbers, texts and lists.
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Start,
    End,
    Anywhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Each {
    All,
    Exists,
    ExistsOne,
}
