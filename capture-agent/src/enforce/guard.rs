//! Decides about what the clients of armed sessions ask for, before their servers look at it.

use std::sync::Arc;

use capture_common::Hold;

use super::{Backends, Prepared};
use crate::policy::{Decision, Needs, OnFailure, Policy, SessionFacts, StatementFacts, Verdict};
use crate::probes::Way;
use crate::session::value::Encoding;
use crate::session::{Asked, Protocol, Session, What};
use crate::sql::{Analysis, Examined, Examiner, Reading, Unknown, function_call};

/// The guardrails that hold, and what is remembered of texts.
pub struct Guard {
    policy: Arc<Policy>,
    examiner: Examiner,
}

/// Up to where in its client's stream a session's texts may be read in another way than it seems: requests that stand
/// before are about to change a setting.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsettled {
    strings: u64,
    encoding: u64,
    /// What is known of prepared statements.
    pub prepared: Prepared,
}

/// A message, and what was decided about it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The message.
    pub asked: Asked,
    /// Its text, as far as it has one and it was seen.
    pub text: Option<Arc<str>>,
    /// The same, and its parameters, as they may be recorded and shown: without what is masked.
    pub shown: Option<Arc<str>>,
    /// Its parameters, none for NULL.
    pub params: Vec<Option<String>>,
    /// What was decided.
    pub decision: Decision,
    /// Who did, if not the policy alone.
    pub by: Option<By>,
}

/// Who has the last word on a statement that a guardrail wants to be approved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Somebody, and what that person says to the client if it is denied.
    Approver(Arc<str>, Option<String>),
    /// Nobody could: why. The guardrail's `on_failure` has decided.
    Nobody(&'static str),
}

/// What was done with a stopped backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// It goes on; what must not run fails.
    On,
    /// Its session ends.
    Ended,
}

impl Guard {
    /// Decides as `policy` says.
    pub fn new(policy: Arc<Policy>) -> Self {
        Self { policy, examiner: Examiner::default() }
    }

    /// What is decided about what the client asks for with the messages that were complete with bytes behind `since` of its
    /// stream.
    pub fn decide(&mut self, session: &Session, unsettled: &mut Unsettled, since: u64) -> Vec<Case> {
        let asked = session.asked_since(since);
        if asked.is_empty() {
            return Vec::new();
        }
        let facts = SessionFacts::of(session.info(), session.is_ready());
        let needs = self.policy.needs(&facts);
        let mut cases = Vec::with_capacity(asked.len());
        for asked in asked {
            let (text, stmt) = self.examine(&asked, session, *unsettled, needs);
            unsettled.note(stmt.analysis(), asked.range.1);
            let decision = self.policy.decide(&facts, &stmt);
            unsettled.prepared.note(&asked.what, stmt.analysis(), &decision);
            let mut case = Case { asked, text, shown: None, params: Vec::new(), decision, by: None };
            if case.is_parse() && case.decision.verdict == Verdict::Approve {
                // To prepare it does no harm, and its Execute is asked about.
                case.decision.verdict = Verdict::Allow;
                (case.decision.guardrail, case.decision.reason) = (None, None);
            }
            cases.push(case);
        }
        cases
    }

    /// What a message would do.
    fn examine(
        &mut self,
        asked: &Asked,
        session: &Session,
        unsettled: Unsettled,
        needs: Needs,
    ) -> (Option<Arc<str>>, StatementFacts) {
        let info = session.info();
        let in_doubt = |until: u64| until > 0 && session.waits_before(until);
        let strings = Some(info.standard_conforming_strings).filter(|_| !in_doubt(unsettled.strings));
        let encoding = if in_doubt(unsettled.encoding) { Encoding::Opaque } else { info.client_encoding };
        let (protocol, examined, params) = match &asked.what {
            What::Query(text) => {
                let reading = Reading { encoding, standard_conforming_strings: strings };
                (Protocol::Simple, self.examiner.examine(text, reading, needs.opinions), None)
            }
            What::Parse { text, .. } => {
                let reading = Reading { encoding, standard_conforming_strings: strings };
                (Protocol::Extended, self.examiner.examine(text, reading, needs.opinions), None)
            }
            What::Execute { text: Some(text), params } if params.is_some() || !needs.params => {
                let examined = self.examine_prepared(text, info.client_encoding, needs);
                (Protocol::Extended, examined, Some(params.as_deref().unwrap_or_default()))
            }
            What::Function { oid, params } => {
                let examined = Examined { text: "".into(), analysis: function_call(*oid) };
                (Protocol::Function, examined, Some(params.as_slice()))
            }
            What::Execute { .. } | What::Unseen => {
                let analysis = Arc::new(Analysis::of_unknown(Unknown::Unseen));
                let facts = StatementFacts::new("".into(), Protocol::Extended, analysis);
                return (None, facts.with_params([]));
            }
        };
        let Examined { text, analysis } = examined;
        let analysis = match analysis.executes.is_empty() {
            true => analysis,
            false => Arc::new(self.with_executed(&analysis, session, asked.range.0, needs)),
        };
        let facts = StatementFacts::new(Arc::clone(&text), protocol, analysis);
        let facts = match params {
            Some(params) => facts.with_params(params.iter().map(Option::as_deref)),
            None => facts,
        };
        (Some(text).filter(|text| !text.is_empty()), facts)
    }

    /// What the text of a prepared statement would do.
    fn examine_prepared(&mut self, text: &str, encoding: Encoding, needs: Needs) -> Examined {
        // The text is decoded already, and how the server read its backslashes then is not known.
        let opaque = encoding == Encoding::Opaque && !text.is_ascii();
        let encoding = if opaque { Encoding::Opaque } else { Encoding::Utf8 };
        let reading = Reading { encoding, standard_conforming_strings: None };
        self.examiner.examine(text.as_bytes(), reading, needs.opinions)
    }

    /// What a message at `offset` of the client's stream does together with the prepared statements that it executes by
    /// name. Unknown if one of them is: of those that were prepared before anybody watched the name is all there is.
    fn with_executed(
        &mut self,
        analysis: &Analysis,
        session: &Session,
        offset: u64,
        needs: Needs,
    ) -> Analysis {
        let mut whole = analysis.clone();
        for name in &analysis.executes {
            let Some(text) = session.prepared_text(name, offset) else {
                return Analysis::of_unknown(Unknown::Unseen);
            };
            let inner = self.examine_prepared(&text, session.info().client_encoding, needs).analysis;
            if let Some(reason) = inner.unknown {
                return Analysis::of_unknown(reason);
            }
            if !inner.executes.is_empty() {
                return Analysis::of_unknown(Unknown::Unseen);
            }
            whole.add(&inner);
        }
        whole
    }
}

impl Unsettled {
    /// Once such a statement waits whose messages end at `end`, the next texts may be read in another way.
    fn note(&mut self, analysis: &Analysis, end: u64) {
        let opaque = analysis.unknown.is_some()
            || analysis.kinds.iter().any(|kind| OPAQUE.contains(&kind.as_str()))
            || analysis.functions.iter().any(|name| name.ends_with("set_config"));
        let sets = |setting: &str| analysis.settings.iter().any(|name| name == setting || name == "all");
        let ends = analysis.kinds.iter().any(|kind| kind == "transaction");
        if opaque || ends || sets("standard_conforming_strings") {
            self.strings = end;
        }
        if opaque || sets("client_encoding") {
            self.encoding = end;
        }
    }
}

/// Kinds that may change any setting.
const OPAQUE: [&str; 5] = ["do", "call", "execute", "discard", "function_call"];

/// Lets a stopped backend go on as was decided: what must not run is made to fail, or else its session ended. `bytes` are
/// those that it waits with, and `start` is their place in the client's stream.
pub fn act(backends: &mut Backends, hold: &Hold, start: u64, bytes: &[u8], cases: &[Case]) -> Done {
    let worst = cases.iter().map(|case| case.decision.verdict).max().unwrap_or_default();
    let done = match worst {
        Verdict::Allow => Done::On,
        Verdict::Terminate => Done::Ended,
        Verdict::Approve | Verdict::Block => {
            let stopped = cases.iter().filter(|case| case.decision.verdict != Verdict::Allow);
            let mut done = Done::On;
            for case in stopped {
                if let Err(error) = fail(backends, hold, start, bytes, case) {
                    tracing::info!(
                        pid = hold.session.tgid, %error,
                        "a statement that must not run cannot be made to fail: its session is ended"
                    );
                    done = Done::Ended;
                    break;
                }
            }
            done
        }
    };
    backends.release(hold, if done == Done::On { Way::On } else { Way::End });
    done
}

/// Has a message fail in the server.
fn fail(backends: &mut Backends, hold: &Hold, start: u64, bytes: &[u8], case: &Case) -> std::io::Result<()> {
    let cannot = || std::io::Error::other("its bytes are not there any more");
    let (first, end) = case.asked.range;
    let upto = usize::try_from(end.checked_sub(start).ok_or_else(cannot)?).map_err(|_| cannot())?;
    if let Some(at) = first.checked_sub(start) {
        let from = usize::try_from(at).map_err(|_| cannot())?;
        let message = bytes.get(from..upto).ok_or_else(cannot)?;
        return backends.refuse(hold, at, message, &reason(case));
    }
    // The server has taken its beginning already.
    let left = bytes.get(..upto).ok_or_else(cannot)?;
    // Without the length, which may be among what is left.
    let body = usize::try_from((first + HEADER).saturating_sub(start)).map_err(|_| cannot())?;
    let spoiled = match &case.asked.what {
        // One string, to its end.
        What::Query(_) => Some(body..upto),
        // The portal's name, of which the end is still there, and the number of rows.
        What::Execute { .. } if upto > EXECUTE_ROWS => Some(body..upto),
        // How many types of parameters follow.
        What::Parse { types, .. } => {
            let count = upto.checked_sub(2 + 4 * types);
            count.map(|at| at..at + 2)
        }
        What::Execute { .. } | What::Function { .. } | What::Unseen => None,
    };
    let spoiled = spoiled.filter(|range| !range.is_empty()).ok_or_else(cannot)?;
    let expected = left.get(spoiled.clone()).ok_or_else(cannot)?;
    backends.spoil(hold, spoiled.start as u64, expected)
}

/// What the client is told.
fn reason(case: &Case) -> String {
    let guardrail = case.decision.guardrail.as_deref();
    let name = guardrail.map_or("capture", |guardrail| guardrail.name.as_str());
    let message = guardrail.and_then(|guardrail| guardrail.message.as_deref());
    match &case.by {
        Some(By::Approver(who, Some(reason))) => format!("{name}: denied: {reason} ({who})"),
        Some(By::Approver(who, None)) => format!("{name}: denied by {who}"),
        Some(By::Nobody(why)) => format!("{name}: {why}"),
        None => format!("{name}: {}", message.unwrap_or("blocked")),
    }
}

/// Bytes of a message's header: tag and length.
const HEADER: u64 = 5;
/// Bytes of Execute behind the portal's name: the number of rows.
const EXECUTE_ROWS: usize = 4;

impl Case {
    /// Its parameters as they were sent, none for NULL; none if it has none or they are not known.
    pub fn sent_params(&self) -> &[Option<String>] {
        match &self.asked.what {
            What::Execute { params: Some(params), .. } | What::Function { params, .. } => params,
            _ => &[],
        }
    }

    /// Whether anybody is told of it, and of what comes with it: of most there is nothing to tell.
    pub fn is_told(&self) -> bool {
        self.decision.verdict != Verdict::Allow || !self.decision.observed.is_empty()
    }

    /// Whether it only prepares a statement.
    pub fn is_parse(&self) -> bool {
        matches!(self.asked.what, What::Parse { .. })
    }

    /// Somebody has decided.
    pub fn approve(&mut self, who: Arc<str>) {
        self.decision.verdict = Verdict::Allow;
        self.by = Some(By::Approver(who, None));
    }

    /// The same, that it must not run.
    pub fn deny(&mut self, who: Arc<str>, reason: Option<String>) {
        self.decision.verdict = Verdict::Block;
        self.by = Some(By::Approver(who, reason));
    }

    /// Nobody can decide, for this reason: the guardrail says what that means.
    pub fn fail(&mut self, why: &'static str) {
        let open =
            self.decision.guardrail.as_ref().is_some_and(|guardrail| guardrail.on_failure == OnFailure::Open);
        self.decision.verdict = if open { Verdict::Allow } else { Verdict::Block };
        self.by = Some(By::Nobody(why));
    }
}
