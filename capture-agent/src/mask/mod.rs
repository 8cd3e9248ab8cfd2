//! Masks what must not be recorded, before anything is.
//!
//! Sans-IO: [`Masked`] is a [`Sink`](crate::session::Sink) between a session and whoever records it. What of a statement is masked is found
//! once for each text (`plan`), by the server's own grammar; where that does not tell, everything is masked that may
//! be meant. `docs/masking.md` is the page for those who write rules.

use std::collections::HashMap;
use std::sync::Arc;

mod learned;
mod lineage;
mod literal;
mod message;
mod outputs;
mod params;
mod patterns;
mod plan;
mod rules;
mod scope;
mod secrets;
mod sink;
mod strategy;
mod tables;
#[cfg(test)]
mod tests;
mod values;

pub use sink::Masked;
pub use strategy::{Key, REDACTED};

use learned::Learned;
use outputs::{Outputs, Table};
use plan::Plan;
use rules::Rules;
use sink::RowPlan;
use tables::{Changes, Columns, Tables};
use values::{Masking, Sent};

use crate::policy::{MaskRule, Policy, SessionFacts, StatementFacts};
use crate::session::value::Encoding;
use crate::session::{Protocol, SessionInfo};
use crate::sql::cache::RecentTexts;
use crate::sql::{Analyzer, Limits};

/// Knows the rules, and what they mean for the texts seen of late.
#[derive(Debug)]
pub struct Masker {
    rules: Vec<MaskRule>,
    key: Option<Key>,
    /// The rules of sessions of one kind, by which of them they are.
    sets: Vec<(Vec<usize>, Set)>,
    /// Changes with the rules.
    generation: u64,
    learned: Learned,
    /// Whether any rule is about columns, so that tables are of interest.
    have_columns: bool,
    changes: Changes,
    /// Tells what statements do, if a rule asks.
    analyzer: Option<Box<Analyzer>>,
    clear: Arc<Plan>,
    masked: u64,
}

/// The rules of sessions of one kind.
#[derive(Debug)]
struct Set {
    rules: Rules,
    plans: RecentTexts<Plan>,
    unseen: Arc<Plan>,
}

/// What masking has to know of one session.
#[derive(Debug, Default)]
pub struct SessionMasks {
    /// Which set of rules is about it.
    set: usize,
    /// What of the session and the rules that was found by.
    known: Option<Known>,
    /// The statement whose rows come, and how many values of them were masked.
    seq: u64,
    count: u32,
    /// What comes back of prepared statements and cursors.
    names: HashMap<String, Outputs>,
    row: Option<RowPlan>,
    /// The columns of tables, and what they mean for the text that was executed last.
    tables: Tables,
    told: Option<(Arc<str>, Arc<Plan>)>,
}

/// What the rules mean, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Explained {
    /// The names of those that are about the session.
    pub rules: Vec<String>,
    /// How many constants of the text are masked.
    pub masked: u32,
    /// The parameters that are: `$2`, or `all`.
    pub params: Vec<String>,
    /// The text as it would be recorded; none if there is none.
    pub sql: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    generation: u64,
    user: Option<Arc<str>>,
    database: Option<Arc<str>>,
    application_name: Option<Arc<str>>,
    encrypted: bool,
    pod: bool,
}

impl Masker {
    /// Masks as a policy says. Without the key, what it wants hashed is redacted.
    pub fn new(policy: &Policy, key: Option<Key>) -> Self {
        let mut masker = Self {
            rules: Vec::new(),
            key,
            sets: Vec::new(),
            generation: 0,
            learned: Learned::default(),
            have_columns: false,
            changes: Changes::default(),
            analyzer: None,
            clear: Arc::new(Plan::clear()),
            masked: 0,
        };
        masker.set_rules(policy);
        masker
    }

    /// Other rules hold from now on.
    pub fn set_rules(&mut self, policy: &Policy) {
        self.rules = policy.mask_rules().to_vec();
        self.have_columns = self.rules.iter().any(|rule| !rule.columns.is_empty());
        self.generation += 1;
        self.sets.clear();
        self.set(Vec::new());
    }

    /// The key for what is hashed, if it was not there before.
    pub fn set_key(&mut self, key: Key) {
        self.key = Some(key);
        self.generation += 1;
        self.sets.clear();
        self.set(Vec::new());
    }

    /// Values masked so far.
    pub fn masked(&self) -> u64 {
        self.masked
    }

    /// A statement's text as it may be shown before it runs. Its backend waits meanwhile: of a text that is too long to be
    /// read, that is the beginning without constants.
    pub fn text(&mut self, session: &mut SessionMasks, info: &SessionInfo, text: &Arc<str>) -> Arc<str> {
        session.refresh(self, info);
        if text.len() > Limits::default().text_bytes {
            let rules = &self.sets[session.set].1.rules;
            return plan::beginning(text, info.standard_conforming_strings, rules, self.key.as_ref());
        }
        let plan = self.plan(session.set, text, info.standard_conforming_strings);
        plan.text.clone().unwrap_or_else(|| Arc::clone(text))
    }

    /// A statement's parameter, by its place from 0, as it may be shown before it runs; none if it may be as it is.
    pub fn parameter(
        &mut self,
        session: &mut SessionMasks,
        info: &SessionInfo,
        statement: Option<&Arc<str>>,
        index: usize,
        value: &str,
    ) -> Option<String> {
        session.refresh(self, info);
        let plan = match statement.filter(|text| text.len() <= Limits::default().text_bytes) {
            Some(text) => self.plan(session.set, text, info.standard_conforming_strings),
            None => Arc::clone(&self.sets[session.set].1.unseen),
        };
        let rules = &self.sets[session.set].1.rules;
        let masking = Masking { rules, key: self.key.as_ref(), encoding: Encoding::Utf8 };
        let sent = Sent { type_oid: TEXT, format: 0, bytes: value.as_bytes() };
        match plan.params.at(index) {
            Some(rule) => Some(masking.whole(sent, rule)),
            None => masking.parameter(sent).map(|(left, _)| String::from_utf8_lossy(&left).into_owned()),
        }
    }

    /// What the rules mean for a session, and for a text of it.
    pub fn explain(&mut self, facts: &SessionFacts, text: Option<&Arc<str>>, setting: bool) -> Explained {
        let about: Vec<usize> = (0..self.rules.len())
            .filter(|at| self.rules.get(*at).is_some_and(|rule| rule.is_about(facts)))
            .collect();
        let rules = about.iter().filter_map(|at| self.rules.get(*at)).map(|rule| rule.name.clone()).collect();
        let set = self.set(about);
        let plan = text.map(|text| self.plan(set, text, setting));
        let masked = plan.as_ref().map_or(0, |plan| plan.count);
        let params = plan.as_ref().map(|plan| plan.params.words()).unwrap_or_default();
        let sql = plan.zip(text).map(|(plan, text)| plan.text.as_deref().unwrap_or(text).to_owned());
        Explained { rules, masked, params, sql }
    }

    fn set(&mut self, about: Vec<usize>) -> usize {
        if let Some(at) = self.sets.iter().position(|(known, _)| *known == about) {
            return at;
        }
        let rules = Rules::new(about.iter().filter_map(|&at| self.rules.get(at)));
        let unseen = Arc::new(Plan::unseen(&rules));
        self.sets.push((about, Set { rules, plans: RecentTexts::default(), unseen }));
        self.sets.len() - 1
    }

    /// What of a text is masked.
    fn plan(&mut self, set: usize, text: &Arc<str>, standard_conforming_strings: bool) -> Arc<Plan> {
        let plans = &mut self.sets[set].1.plans;
        let key = plans.key(text, standard_conforming_strings);
        if let Some(plan) = plans.find(key, text) {
            return Arc::clone(plan);
        }
        let plan = self.plan_with(set, text, standard_conforming_strings, None);
        self.sets[set].1.plans.note(key, text, &plan);
        plan
    }

    /// The same, with the columns of a table that the text names without them.
    fn plan_with(
        &mut self,
        set: usize,
        text: &Arc<str>,
        standard_conforming_strings: bool,
        columns: Option<(&Table, &Columns)>,
    ) -> Arc<Plan> {
        let rules = &self.sets[set].1.rules;
        let mut plan = Plan::of(text, standard_conforming_strings, rules, self.key.as_ref(), columns);
        let facts = rules.ask_about_statements().then(|| {
            let analysis = self.analyzer.get_or_insert_default().analyze(text, standard_conforming_strings);
            StatementFacts::new(Arc::clone(text), Protocol::Extended, analysis)
        });
        plan.params.join(rules.params(facts.as_ref()));
        if plan.is_clear() { Arc::clone(&self.clear) } else { Arc::new(plan) }
    }
}

impl SessionMasks {
    /// Finds the rules about a session, if more is known of it than before.
    fn refresh(&mut self, masker: &mut Masker, info: &SessionInfo) {
        let current = |known: &Known| {
            known.generation == masker.generation
                && known.user == info.user
                && known.database == info.database
                && known.application_name == info.application_name
                && known.encrypted == (info.tls || info.gss_encrypted)
                && known.pod == info.origin.server.pod.is_some()
        };
        if self.known.as_ref().is_some_and(current) {
            return;
        }
        self.known = Some(Known {
            generation: masker.generation,
            user: info.user.clone(),
            database: info.database.clone(),
            application_name: info.application_name.clone(),
            encrypted: info.tls || info.gss_encrypted,
            pod: info.origin.server.pod.is_some(),
        });
        (self.row, self.told) = (None, None);
        let about = if masker.rules.is_empty() {
            Vec::new()
        } else {
            // Statements run once the server is ready.
            let facts = SessionFacts::of(info, true);
            let rules = masker.rules.iter().enumerate();
            rules.filter(|(_, rule)| rule.is_about(&facts)).map(|(at, _)| at).collect()
        };
        let set = masker.set(about);
        if set != self.set {
            // What was found under other rules says nothing under these.
            self.names.clear();
            self.tables.forget();
        }
        self.set = set;
    }

    /// What the next agent has to know: which statement's rows come, and how many values of them were masked.
    pub fn save(&self) -> [u8; SAVED] {
        let mut saved = [0; SAVED];
        let (seq, count) = saved.split_at_mut(8);
        seq.copy_from_slice(&self.seq.to_le_bytes());
        count.copy_from_slice(&self.count.to_le_bytes());
        saved
    }

    /// Of a session that an earlier agent has saved.
    pub fn restore(saved: [u8; SAVED]) -> Self {
        let [seq @ .., a, b, c, d] = saved;
        Self { seq: u64::from_le_bytes(seq), count: u32::from_le_bytes([a, b, c, d]), ..Self::default() }
    }
}

/// Bytes of what is saved of a session.
pub const SAVED: usize = 12;
/// `text`
const TEXT: u32 = 25;
