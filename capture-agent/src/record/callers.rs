//! Who ran a statement: the columns that are the same in each row of a session, as long as it says nothing else of itself.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;

use super::labels::Labels;
use super::repeats::Repeats;
use crate::session::{SessionId, SessionInfo};

/// Builds the columns of who ran a statement: each caller of a batch has a number, which is all that a row needs.
#[derive(Debug)]
pub(super) struct Callers {
    session_id: Repeats,
    pg_user: Repeats,
    database: Repeats,
    application_name: Repeats,
    client_addr: Repeats,
    /// By the session id's last byte, which is random in a UUIDv7.
    known: Vec<Option<Known>>,
}

/// A caller, and its texts: they are kept alive, so that the same pointer means the same text.
#[derive(Debug)]
struct Known {
    session: SessionId,
    user: Option<Arc<str>>,
    database: Option<Arc<str>>,
    application_name: Option<Arc<str>>,
    number: u32,
}

impl Callers {
    /// Knows nobody.
    pub(super) fn new() -> Self {
        Self {
            session_id: Repeats::new(),
            pg_user: Repeats::new(),
            database: Repeats::new(),
            application_name: Repeats::new(),
            client_addr: Repeats::new(),
            known: (0..SLOTS).map(|_| None).collect(),
        }
    }

    /// The number of a session as it is now. Each number is given out when it is asked for, and in order.
    #[inline]
    pub(super) fn number(&mut self, labels: &Labels, session: &SessionInfo) -> u32 {
        let slot = usize::from(session.origin.id.0.as_bytes()[15]);
        match &self.known[slot] {
            Some(known) if known.is(session) => known.number,
            _ => self.add(slot, labels, session),
        }
    }

    fn add(&mut self, slot: usize, labels: &Labels, session: &SessionInfo) -> u32 {
        let origin = &session.origin;
        // A batch is cut long before it has 2^32 rows.
        let number = u32::try_from(self.session_id.len()).unwrap_or(u32::MAX);
        self.session_id.append_value(labels.id());
        self.pg_user.append_option(session.user.as_deref().or(origin.user.as_deref()));
        self.database.append_option(session.database.as_deref().or(origin.database.as_deref()));
        self.application_name.append_option(session.application_name.as_deref());
        self.client_addr.append_option(labels.client_addr.as_deref());
        self.known[slot] = Some(Known {
            session: origin.id,
            user: session.user.clone(),
            database: session.database.clone(),
            application_name: session.application_name.clone(),
            number,
        });
        number
    }

    /// The columns of rows whose callers have these numbers: session, user, database, application, address. Nobody is known
    /// then.
    pub(super) fn finish(&mut self, rows: &[u32]) -> Result<[ArrayRef; 5], ArrowError> {
        self.known.fill_with(|| None);
        Ok([
            self.session_id.spread(rows)?,
            self.pg_user.spread(rows)?,
            self.database.spread(rows)?,
            self.application_name.spread(rows)?,
            self.client_addr.spread(rows)?,
        ])
    }
}

impl Known {
    /// Of a session's origin nothing changes that is told here.
    fn is(&self, session: &SessionInfo) -> bool {
        self.session == session.origin.id
            && same(&self.user, &session.user)
            && same(&self.database, &session.database)
            && same(&self.application_name, &session.application_name)
    }
}

/// Whether it is the same, and not only an equal one.
pub(super) fn same<T: ?Sized>(known: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
    match (known, other) {
        (Some(known), Some(other)) => Arc::ptr_eq(known, other),
        (known, other) => known.is_none() && other.is_none(),
    }
}

/// One for each value of a byte.
const SLOTS: usize = 256;
