//! The requests that wait, who decided about them, and what their approvals cover.
//!
//! ```text
//!          ask                 decide
//! (none) ───────► waiting ───────────────► decided ──► handed over by take_decided
//!                    │                        │
//!                    │ withdraw, overdue      │ covers more than the statement
//!                    ▼                        ▼
//!                  gone                     grant ──► forgotten: its time is over, or its session
//! ```
//!
//! Sans-IO: time comes in as an argument, in nanoseconds of `CLOCK_MONOTONIC`.

use std::collections::{BTreeMap, VecDeque};

use super::grants::{Grant, Grants};
use super::request::{Answer, Approver, Choice, Cover, Decided, Request, RequestId};
use crate::session::SessionId;

/// The requests and grants of one agent.
///
/// `waiting.len() + decided.len() <= MOST_WAITING`, `gone.len() <= MOST_REMEMBERED`.
#[derive(Debug)]
pub struct Book {
    waiting: BTreeMap<RequestId, Waiting>,
    decided: Vec<Decided>,
    /// The latest requests that wait no more, and why.
    gone: VecDeque<(RequestId, Gone)>,
    grants: Grants,
    /// The number of the next request.
    next: u32,
}

/// A request that waits.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What is asked.
    pub request: Request,
    /// How many other sessions wait for locks since it is held, as far as that is known: an upper bound of those that
    /// wait for this one's.
    pub blocked: Option<u32>,
}

/// Why a request waits no more.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Gone {
    Decided(Approver, Answer),
    Withdrawn,
    Overdue,
}

/// There are too many requests already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MOST_WAITING} requests for approval wait already")]
pub struct Full;

/// Why a decision is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No request of this name waits, and none was seen lately.
    #[error("no request {0} waits")]
    Unknown(RequestId),
    /// Somebody was faster.
    #[error("{id} is decided already: {approver} {}", match answer { Answer::Approve(_) => "approved it", Answer::Deny => "denied it" })]
    Decided {
        /// The request.
        id: RequestId,
        /// Who.
        approver: Approver,
        /// What.
        answer: Answer,
    },
    /// Its session ended, or its statement went on or failed for another reason.
    #[error("{0} waits no more: its session or statement has ended")]
    Withdrawn(RequestId),
    /// Nobody decided in time.
    #[error("{0} waits no more: its time was over, and the guardrail's on_failure decided")]
    Overdue(RequestId),
    /// The guardrail does not let an approval cover so much.
    #[error("the guardrail {guardrail} does not let an approval cover {cover}; it allows {allowed}")]
    TooMuch {
        /// The guardrail.
        guardrail: String,
        /// What was wanted.
        cover: Cover,
        /// What it allows.
        allowed: String,
    },
}

impl Book {
    /// Nobody waits. Names of requests begin with number `first`: another one than the last agent's, so that a name
    /// that somebody has seen then means nothing now.
    pub fn new(first: u32) -> Self {
        Self {
            waiting: BTreeMap::new(),
            decided: Vec::new(),
            gone: VecDeque::new(),
            grants: Grants::default(),
            next: first,
        }
    }

    /// A statement waits.
    ///
    /// # Errors
    ///
    /// Too many do.
    pub fn ask(&mut self, request: Request) -> Result<RequestId, Full> {
        if self.waiting.len() + self.decided.len() >= MOST_WAITING {
            return Err(Full);
        }
        let mut id = RequestId::of(self.next);
        while self.waiting.contains_key(&id) {
            self.next = self.next.wrapping_add(1);
            id = RequestId::of(self.next);
        }
        self.next = self.next.wrapping_add(1);
        self.gone.retain(|(gone, _)| *gone != id);
        self.waiting.insert(id, Waiting { request, blocked: None });
        Ok(id)
    }

    /// A statement waits no more, for another reason than an approver's word. What was decided about it and not handed
    /// over is forgotten.
    pub fn withdraw(&mut self, id: RequestId) {
        let decided = self.decided.len();
        self.decided.retain(|decided| decided.id != id);
        if self.waiting.remove(&id).is_some() || self.decided.len() < decided {
            self.remember(id, Gone::Withdrawn);
        }
    }

    /// An approver decides.
    ///
    /// # Errors
    ///
    /// The request does not wait, or the guardrail does not allow what the approval shall cover: then it waits on.
    pub fn decide(
        &mut self,
        id: RequestId,
        approver: Approver,
        choice: Choice,
        now: u64,
    ) -> Result<(), Refusal> {
        let Some(waiting) = self.waiting.get(&id) else { return Err(self.why_gone(id)) };
        if waiting.request.deadline <= now {
            // It will be told as overdue.
            return Err(Refusal::Overdue(id));
        }
        if let Answer::Approve(cover) = choice.answer {
            check_cover(&waiting.request, cover)?;
        }
        let Some(Waiting { request, .. }) = self.waiting.remove(&id) else { return Err(self.why_gone(id)) };
        self.remember(id, Gone::Decided(approver.clone(), choice.answer));
        self.decided.push(Decided { id, request, approver, choice, at: now });
        Ok(())
    }

    /// What was decided since this was last asked. From here on the grants hold.
    pub fn take_decided(&mut self) -> Vec<Decided> {
        let decided = std::mem::take(&mut self.decided);
        for decided in &decided {
            if let Answer::Approve(cover) = decided.choice.answer {
                self.grants.add(decided, cover);
            }
        }
        decided
    }

    /// The requests whose time is over. They wait no more.
    pub fn overdue(&mut self, now: u64) -> Vec<RequestId> {
        let overdue: Vec<_> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.request.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &overdue {
            self.waiting.remove(id);
            self.remember(*id, Gone::Overdue);
        }
        overdue
    }

    /// The approval that covers a statement which this guardrail catches, if there is one.
    pub fn granted(
        &mut self,
        session: SessionId,
        guardrail: &str,
        sql: Option<&str>,
        now: u64,
    ) -> Option<&Grant> {
        self.grants.covering(session, guardrail, sql, now)
    }

    /// A session has ended: nothing of it waits, and nothing is granted to it.
    pub fn end_session(&mut self, session: SessionId) {
        let of_it = self.waiting.iter().filter(|(_, waiting)| waiting.request.session == session);
        let of_decided = self.decided.iter().filter(|decided| decided.request.session == session);
        let ids: Vec<_> = of_it.map(|(id, _)| *id).chain(of_decided.map(|decided| decided.id)).collect();
        for id in ids {
            self.withdraw(id);
        }
        self.grants.end_session(session);
    }

    /// How many sessions wait for locks since this request's statement is held. True if that is more than its guardrail
    /// allows.
    pub fn set_blocked(&mut self, id: RequestId, blocked: u32) -> bool {
        let Some(waiting) = self.waiting.get_mut(&id) else { return false };
        waiting.blocked = Some(blocked);
        waiting.request.max_blocked.is_some_and(|most| blocked > most)
    }

    /// The requests that wait, the longest first.
    pub fn waiting(&self) -> Vec<(RequestId, &Waiting)> {
        let mut waiting: Vec<_> = self.waiting.iter().map(|(id, waiting)| (*id, waiting)).collect();
        waiting.sort_by_key(|(id, waiting)| (waiting.request.since, *id));
        waiting
    }

    fn remember(&mut self, id: RequestId, why: Gone) {
        self.gone.retain(|(gone, _)| *gone != id);
        if self.gone.len() >= MOST_REMEMBERED {
            self.gone.pop_front();
        }
        self.gone.push_back((id, why));
    }

    fn why_gone(&self, id: RequestId) -> Refusal {
        match self.gone.iter().find(|(gone, _)| *gone == id).map(|(_, why)| why.clone()) {
            None => Refusal::Unknown(id),
            Some(Gone::Decided(approver, answer)) => Refusal::Decided { id, approver, answer },
            Some(Gone::Withdrawn) => Refusal::Withdrawn(id),
            Some(Gone::Overdue) => Refusal::Overdue(id),
        }
    }
}

fn check_cover(request: &Request, cover: Cover) -> Result<(), Refusal> {
    let covers = request.covers();
    let allowed = covers.iter().any(|allowed| match (cover, allowed) {
        (Cover::Everything(wanted), Cover::Everything(most)) => wanted <= *most,
        (cover, allowed) => cover == *allowed,
    });
    if allowed {
        return Ok(());
    }
    let allowed = covers.iter().map(Cover::to_string).collect::<Vec<_>>().join(", ");
    Err(Refusal::TooMuch { guardrail: request.guardrail.to_string(), cover, allowed })
}

/// Statements that wait at once: each holds a backend, and its locks.
pub const MOST_WAITING: usize = 256;

/// Requests of which it is known why they wait no more.
const MOST_REMEMBERED: usize = 1_024;

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
