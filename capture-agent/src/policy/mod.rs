//! What happens to a statement, and what of a session is recorded: the rules of the configuration file.
//!
//! Sans-IO: a text becomes a [`Policy`], facts become a [`Decision`]. The same policy and the same facts give the same
//! decision. `docs/policy.md` is the page for those who write rules.

use std::sync::Arc;

mod condition;
mod decide;
mod error;
mod explain;
mod facts;
mod fields;
mod file;
mod filter;
mod mask;
mod rule;
mod rules;
mod text;

pub use condition::{Fault, Type};
pub use decide::{Decision, Needs, Observed, Reason, Verdict, Waits};
pub use error::{PolicyError, PolicyErrors};
pub use explain::{ConditionReport, Effect, Explanation, GuardrailReport, RuleReport};
pub use facts::{SessionFacts, StatementFacts};
pub use fields::{FIELDS, FieldInfo};
pub use filter::Filter;
pub use mask::{ColumnPattern, MaskRule, ParamMask, Strategy, ValuePattern};
pub use rule::{Action, Approval, Guardrail, OnFailure, OnUnknown, RecordRule, RowLimits};

/// Every rule of a configuration file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// In the file's order, and at the end the one that takes what no other took.
    records: Vec<RecordRule>,
    guardrails: Vec<Arc<Guardrail>>,
    masks: Vec<MaskRule>,
}

impl Policy {
    /// Reads and checks the rules in a configuration file's text; other sections are passed over. `otherwise` limits
    /// the rows of sessions that no rule is about.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with its line.
    pub fn compile(text: &str, otherwise: RowLimits) -> Result<Self, PolicyErrors> {
        file::compile(text, otherwise)
    }

    /// The guardrails, in the file's order.
    pub fn guardrails(&self) -> &[Arc<Guardrail>] {
        &self.guardrails
    }

    /// The recording rules, in the file's order; the last one is the default.
    pub fn record_rules(&self) -> &[RecordRule] {
        &self.records
    }
}

impl Default for Policy {
    /// Records everything, and stops nothing.
    fn default() -> Self {
        Self {
            records: vec![RecordRule::otherwise(RowLimits::default())],
            guardrails: Vec::new(),
            masks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
