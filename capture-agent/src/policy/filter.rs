//! A condition that chooses what others are told.

use super::condition::{Condition, Outcome, Scope};
use super::facts::{SessionFacts, StatementFacts};
use super::fields::Field;
use super::text;

/// A condition over `session` and `stmt`.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Condition);

impl Filter {
    /// Reads and checks a condition.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and what was expected.
    pub fn compile(source: &str) -> Result<Self, String> {
        let condition = Condition::compile(source, Scope::Statement)
            .map_err(|error| format!("{}{}", error.message, text::excerpt(source, error.at)))?;
        if condition.reads().contains(&Field::Params) {
            return Err("parameters are not told, so `stmt.params` cannot be asked for".to_owned());
        }
        Ok(Self(condition))
    }

    /// Whether it is true, or cannot be told: to tell too much is the lesser harm.
    pub fn passes(&self, session: &SessionFacts, stmt: Option<&StatementFacts>) -> bool {
        self.0.outcome(session, stmt) != Outcome::False
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::session::Protocol;
    use crate::sql::Analysis;

    #[test]
    fn what_cannot_be_told_passes_and_what_is_false_does_not() {
        let filter = Filter::compile("session.database == \"payments\" && \"drop\" in stmt.kinds").unwrap();
        let session = |database: Option<&str>| SessionFacts {
            database: database.map(Into::into),
            ..SessionFacts::default()
        };
        let stmt = |kind: &str| {
            let analysis = Analysis { kinds: vec![kind.to_owned()], ..Analysis::default() };
            StatementFacts::new("".into(), Protocol::Simple, Arc::new(analysis))
        };
        assert!(filter.passes(&session(Some("payments")), Some(&stmt("drop"))));
        assert!(!filter.passes(&session(Some("payments")), Some(&stmt("select"))));
        assert!(!filter.passes(&session(Some("shop")), Some(&stmt("drop"))));
        assert!(filter.passes(&session(None), Some(&stmt("drop"))));
        assert!(filter.passes(&session(Some("payments")), None));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for (wrong, why) in [("session.databse == \"x\"", "database"), ("\"x\" in stmt.params", "parameters")]
        {
            let error = Filter::compile(wrong).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
