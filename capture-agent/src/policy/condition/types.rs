//! Types of conditions.

use std::fmt;

/// The type of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// `bool`
    Bool,
    /// `int`: 64 bits, with sign.
    Int,
    /// `string`
    String,
    /// `list(…)`
    List(&'static Type),
    /// The members of `[]`: they are of every type.
    Any,
}

impl Type {
    /// The type of most lists.
    pub const STRINGS: Self = Self::List(&Self::String);

    /// The type of lists of these; none for lists of lists of lists.
    pub(super) fn list_of(&self) -> Option<Self> {
        const BOOLS: Type = Type::List(&Type::Bool);
        const INTS: Type = Type::List(&Type::Int);
        Some(Self::List(match self {
            Self::Bool => &Self::Bool,
            Self::Int => &Self::Int,
            Self::String => &Self::String,
            Self::Any => &Self::Any,
            Self::List(Self::Bool) => &BOOLS,
            Self::List(Self::Int) => &INTS,
            Self::List(Self::String) => &Self::STRINGS,
            Self::List(_) => return None,
        }))
    }

    /// Whether values of the two can be compared.
    pub(super) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) | (_, Self::Any) => true,
            (Self::List(a), Self::List(b)) => a.fits(b),
            _ => self == other,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::String => f.write_str("string"),
            Self::List(member) => write!(f, "list({member})"),
            Self::Any => f.write_str("any"),
        }
    }
}
