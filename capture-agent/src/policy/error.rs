//! Why a policy is refused.

use std::fmt;

/// Something wrong in a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message} (see docs/errors.md#{anchor})")]
pub struct PolicyError {
    /// The line of the file, counted from 1.
    pub line: usize,
    /// What is wrong, and what was expected.
    pub message: String,
    /// Where `docs/errors.md` says more.
    pub anchor: &'static str,
}

/// Everything that is wrong in a policy; at least one error, in the order of their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyErrors(pub Vec<PolicyError>);

impl fmt::Display for PolicyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, error) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyErrors {}

/// A rule is written wrongly: docs/errors.md#policy-invalid.
pub(super) const INVALID: &str = "policy-invalid";
/// A condition is: docs/errors.md#policy-condition.
pub(super) const CONDITION: &str = "policy-condition";
