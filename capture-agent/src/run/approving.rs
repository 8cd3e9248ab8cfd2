//! Held statements that wait for somebody's word.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context as _;
use capture_common::Hold;

use crate::approvals::{Answer, Approvals, Notice, Request, RequestId, Webhook, Who, socket};
use crate::config::Config;
use crate::enforce::{Backends, Case};
use crate::policy::{Guardrail, OnFailure, Verdict};
use crate::probes::{Kernel, LockWaits, is_being_ended, monotonic_now};
use crate::session::{SessionId, SessionInfo};

use super::sessions::Clock;

/// Asks approvers, and tells them by webhook.
pub(super) struct Approving {
    approvals: Approvals,
    webhook: Option<Webhook>,
    node: String,
    waiting: HashMap<u32, Waiting>,
}

/// A backend that waits for approvers.
pub(super) struct Waiting {
    pub(super) hold: Hold,
    /// Place of `bytes` in the client's stream.
    pub(super) start: u64,
    /// What it was stopped with.
    pub(super) bytes: Vec<u8>,
    pub(super) cases: Vec<Case>,
    session: SessionId,
    /// What was asked about which case, as far as it is not decided.
    asked: Vec<(RequestId, usize)>,
    locks: LockWaits,
}

impl Approving {
    /// Listens for approvers.
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or the group that may use it is not there.
    pub(super) fn start(config: &Config, kernel: &Kernel) -> anyhow::Result<Self> {
        let pins = kernel.pins().context("nothing is pinned")?;
        let socket = socket(&config.shim.runtime_dir, pins);
        let approvals = Approvals::start(&socket, config.approvals.group_id()?).with_context(|| {
            format!("cannot listen for approvers on {} (see docs/errors.md#approvals)", socket.display())
        })?;
        let webhook = config.approvals.webhook.as_ref().map(|webhook| Webhook::start(webhook.destination()));
        Ok(Self {
            approvals,
            webhook: webhook.transpose()?,
            node: config.node.clone(),
            waiting: HashMap::new(),
        })
    }

    /// How many backends wait for an approver.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether the process waits for an approver.
    pub(super) fn holds(&self, tgid: u32) -> bool {
        self.waiting.contains_key(&tgid)
    }

    /// Has approvers asked about those of `cases` that need it. Gives them back if none waits: each is decided then.
    pub(super) fn ask(
        &mut self,
        hold: &Hold,
        start: u64,
        bytes: &[u8],
        mut cases: Vec<Case>,
        session: &SessionInfo,
        backends: &mut Backends,
    ) -> Option<Vec<Case>> {
        let now = monotonic_now();
        let mut hold = *hold;
        let mut asked = Vec::new();
        for (index, case) in cases.iter_mut().enumerate() {
            let Some(guardrail) = wants_approval(case) else { continue };
            let text = case.text.as_deref();
            if let Some(grant) = self.approvals.book.granted(session.origin.id, &guardrail.name, text, now) {
                let who = grant.approver.to_string();
                case.approve(who.into());
                continue;
            }
            let timeout = u64::try_from(guardrail.timeout.as_nanos()).unwrap_or(u64::MAX);
            let request = request(&hold, hold.at.saturating_add(timeout), case, &guardrail, session);
            let deadline = request.deadline.saturating_add(GRACE_NS).max(hold.deadline);
            match backends.extend(&hold, deadline, guardrail.on_failure == OnFailure::Closed) {
                Ok(extended) => hold = extended,
                Err(_) => {
                    case.fail("nobody decided in time");
                    continue;
                }
            }
            match self.approvals.book.ask(request.clone()) {
                Ok(id) => {
                    if let Some(webhook) = &self.webhook {
                        let at = Clock::now().unix(hold.at);
                        webhook.tell(Notice::approval(&self.node, at, id, &request, now));
                    }
                    asked.push((id, index));
                }
                Err(_) => case.fail("too many statements wait for approval"),
            }
        }
        if asked.is_empty() {
            return Some(cases);
        }
        let locks = LockWaits::since_now(session.origin.server.pid);
        let waiting =
            Waiting { hold, start, bytes: bytes.to_vec(), cases, session: session.origin.id, asked, locks };
        self.waiting.insert(hold.session.tgid, waiting);
        None
    }

    /// Tells of a statement that a guardrail with `alert` caught.
    pub(super) fn alert(
        &self,
        hold: Option<&Hold>,
        case: &Case,
        guardrail: &Guardrail,
        reason: &str,
        session: &SessionInfo,
    ) {
        let Some(webhook) = &self.webhook else { return };
        let now = monotonic_now();
        let hold = hold.copied().unwrap_or(Hold { at: now, ..Hold::default() });
        let request = request(&hold, now, case, guardrail, session);
        webhook.tell(Notice::alert(&self.node, Clock::now().unix(now), &request, reason, now));
    }

    /// Takes the backends about which all is decided by now.
    pub(super) fn decided(&mut self) -> Vec<Waiting> {
        let now = monotonic_now();
        for decided in self.approvals.decided(now) {
            let who: Arc<str> = decided.approver.to_string().into();
            let word = |case: &mut Case| match decided.choice.answer {
                Answer::Approve(_) => case.approve(Arc::clone(&who)),
                Answer::Deny => case.deny(Arc::clone(&who), decided.choice.reason.clone()),
            };
            self.settle(decided.id, word);
        }
        for id in self.approvals.book.overdue(now) {
            self.settle(id, |case| case.fail("nobody decided in time"));
        }
        let over = self.waiting.extract_if(|_, waiting| waiting.asked.is_empty());
        over.map(|(_, waiting)| waiting).collect()
    }

    /// Looks after those that wait: whether they still do, and whom they keep waiting. To be called now and then.
    pub(super) fn look(&mut self, backends: &Backends) {
        let mut withdrawn = Vec::new();
        let (mut failed, mut canceled) = (Vec::new(), Vec::new());
        self.waiting.retain(|tgid, waiting| {
            let ids = waiting.asked.iter().map(|(id, _)| *id);
            if backends.find(*tgid, waiting.hold.at).is_none() {
                // Over time, or gone.
                withdrawn.extend(ids);
                return false;
            }
            if is_being_ended(*tgid) {
                canceled.extend(ids);
                return true;
            }
            let blocked = u32::try_from(waiting.locks.look().len()).unwrap_or(u32::MAX);
            for id in ids {
                if self.approvals.book.set_blocked(id, blocked) {
                    failed.push((id, "it kept too many sessions waiting"));
                }
            }
            true
        });
        for id in withdrawn {
            self.approvals.book.withdraw(id);
        }
        for id in canceled {
            self.approvals.book.withdraw(id);
            let reason = "it was canceled, or its session ended, while it waited";
            self.settle(id, |case| case.deny("cancel".into(), Some(reason.to_owned())));
        }
        for (id, why) in failed {
            self.approvals.book.withdraw(id);
            self.settle(id, |case| case.fail(why));
        }
    }

    /// A session is over: nothing is granted to it any more.
    pub(super) fn end_session(&mut self, session: SessionId) {
        self.approvals.book.end_session(session);
        self.waiting.retain(|_, waiting| waiting.session != session);
    }

    fn settle(&mut self, id: RequestId, word: impl FnOnce(&mut Case)) {
        for waiting in self.waiting.values_mut() {
            if let Some(at) = waiting.asked.iter().position(|(asked, _)| *asked == id) {
                let (_, index) = waiting.asked.swap_remove(at);
                if let Some(case) = waiting.cases.get_mut(index) {
                    word(case);
                }
                return;
            }
        }
    }
}

/// The guardrail that wants the case to be approved, if one does.
fn wants_approval(case: &Case) -> Option<Arc<Guardrail>> {
    (case.decision.verdict == Verdict::Approve).then(|| case.decision.guardrail.clone()).flatten()
}

fn request(hold: &Hold, deadline: u64, case: &Case, guardrail: &Guardrail, session: &SessionInfo) -> Request {
    Request {
        session: session.origin.id,
        who: Who {
            user: session.user.clone(),
            database: session.database.clone(),
            application_name: session.application_name.clone(),
            client_addr: session.origin.client_addr.map(|addr| addr.to_string()),
            host_pid: session.origin.host_pid,
        },
        guardrail: guardrail.name.as_str().into(),
        message: guardrail.message.clone(),
        sql: case.shown.clone(),
        exact: case.text.clone(),
        params: case.params.clone(),
        since: hold.at,
        deadline,
        approval: guardrail.approval,
        max_blocked: guardrail.max_blocked,
    }
}

/// What the agent takes at most to act on a deadline before the shim does.
const GRACE_NS: u64 = 2_000_000_000;
