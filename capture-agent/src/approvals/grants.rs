//! Approvals that hold beyond one statement.

use std::collections::HashMap;
use std::sync::Arc;

use super::request::{Approver, Cover, Decided};
use crate::session::SessionId;

/// What approvers let sessions do until they end, or until a time.
///
/// Each session's list has at most [`MOST_OF_SESSION`] grants, all together at most [`MOST`].
#[derive(Debug, Default)]
pub(super) struct Grants {
    by_session: HashMap<SessionId, Vec<Grant>>,
}

/// An approval that holds beyond one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who approved.
    pub approver: Approver,
    /// Which guardrail's word it replaces.
    pub guardrail: Arc<str>,
    scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// This text.
    Text(Arc<str>),
    /// Everything, until then.
    Until(u64),
}

impl Grants {
    /// Adds what an approval covers beyond its statement. When there are too many, the oldest of the session, or this
    /// one, is forgotten: then somebody is asked again.
    pub(super) fn add(&mut self, decided: &Decided, cover: Cover) {
        let request = &decided.request;
        let scope = match cover {
            Cover::Statement => return,
            Cover::Text => match &request.exact {
                Some(sql) if sql.len() <= LONGEST_TEXT => Scope::Text(Arc::clone(sql)),
                _ => return,
            },
            Cover::Everything(time) => {
                let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
                Scope::Until(decided.at.saturating_add(nanos))
            }
        };
        let known = self.by_session.contains_key(&request.session);
        let all: usize = self.by_session.values().map(Vec::len).sum();
        if all >= MOST && !known {
            return;
        }
        let grants = self.by_session.entry(request.session).or_default();
        if grants.len() >= MOST_OF_SESSION || all >= MOST {
            grants.remove(0);
        }
        let (approver, guardrail) = (decided.approver.clone(), Arc::clone(&request.guardrail));
        grants.push(Grant { approver, guardrail, scope });
    }

    /// The grant that covers this statement.
    pub(super) fn covering(
        &mut self,
        session: SessionId,
        guardrail: &str,
        sql: Option<&str>,
        now: u64,
    ) -> Option<&Grant> {
        let grants = self.by_session.get_mut(&session)?;
        grants.retain(|grant| !matches!(grant.scope, Scope::Until(until) if until <= now));
        grants.iter().rev().find(|grant| {
            &*grant.guardrail == guardrail
                && match &grant.scope {
                    Scope::Text(text) => sql == Some(&**text),
                    Scope::Until(_) => true,
                }
        })
    }

    /// A session has ended.
    pub(super) fn end_session(&mut self, session: SessionId) {
        self.by_session.remove(&session);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_session.values().map(Vec::len).sum()
    }
}

/// Grants of one session.
pub(super) const MOST_OF_SESSION: usize = 16;

/// Grants of all sessions.
pub(super) const MOST: usize = 4_096;

/// Bytes of a text that an approval can cover: with these bounds texts take 256 MiB only if somebody approves
/// thousands of the longest.
const LONGEST_TEXT: usize = 64 << 10;
