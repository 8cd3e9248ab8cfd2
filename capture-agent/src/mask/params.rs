//! The parameters of a statement that are masked.

use super::outputs::either;
use super::rules::Applies;

/// Which of them, and by which rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params {
    /// By number, from 1.
    some: Vec<(usize, Applies)>,
    /// Those with any number.
    all: Option<Applies>,
}

impl Params {
    /// All of them, if there is a rule.
    pub(super) fn all(rule: Option<Applies>) -> Self {
        Self { some: Vec::new(), all: rule }
    }

    /// The one with this number, from 1, is masked too.
    pub(super) fn add(&mut self, number: usize, rule: Applies) {
        if !self.some.contains(&(number, rule)) {
            self.some.push((number, rule));
        }
    }

    /// All of them are.
    pub(super) fn add_all(&mut self, rule: Applies) {
        self.all = either(self.all, Some(rule));
    }

    /// Those of `other` are masked too.
    pub(super) fn join(&mut self, other: Self) {
        other.some.into_iter().for_each(|(number, rule)| self.add(number, rule));
        self.all = either(self.all, other.all);
    }

    /// The rule of the parameter at `index`, from 0: of several, the first in the file.
    pub(super) fn at(&self, index: usize) -> Option<Applies> {
        let own = self.some.iter().filter(|(number, _)| *number == index + 1).map(|(_, rule)| *rule).min();
        either(own, self.all)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.some.is_empty() && self.all.is_none()
    }

    /// As people write them: `$2`, or `all`.
    pub(super) fn words(&self) -> Vec<String> {
        if self.all.is_some() {
            return vec!["all".to_owned()];
        }
        let mut numbers: Vec<usize> = self.some.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| format!("${number}")).collect()
    }
}
