//! Texts that repeat in every row of a session, made once.

use std::fmt::Write as _;
use std::net::IpAddr;

use arrow::array::{Array, StringBuilder};
use uuid::Uuid;

use crate::session::{SessionId, SessionInfo};

/// The latest sessions' texts: one slot for each value of a session id's last byte, which is random in a UUIDv7.
#[derive(Debug)]
pub(super) struct LabelCache {
    slots: Vec<Labels>,
}

/// The texts of one session.
#[derive(Clone, Debug)]
pub(super) struct Labels {
    session: SessionId,
    id: [u8; uuid::fmt::Hyphenated::LENGTH],
    /// The client's address; none for Unix sockets.
    pub(super) client_addr: Option<String>,
}

impl LabelCache {
    pub(super) fn new() -> Self {
        Self { slots: vec![Labels::new(SessionId(Uuid::nil()), None); 256] }
    }

    /// The session's texts.
    pub(super) fn of(&mut self, session: &SessionInfo) -> &Labels {
        let id = session.origin.id;
        let slot = &mut self.slots[usize::from(id.0.as_bytes()[15])];
        if slot.session != id {
            *slot = Labels::new(id, session.origin.client_addr);
        }
        slot
    }
}

impl Labels {
    fn new(session: SessionId, client_addr: Option<IpAddr>) -> Self {
        let mut id = [0; uuid::fmt::Hyphenated::LENGTH];
        session.0.hyphenated().encode_lower(&mut id);
        Self { session, id, client_addr: client_addr.map(|addr| addr.to_canonical().to_string()) }
    }

    /// The session's id.
    pub(super) fn id(&self) -> &str {
        // Hexadecimal digits and hyphens.
        std::str::from_utf8(&self.id).unwrap_or_default()
    }
}

/// Appends what prints as text, without a copy of its own.
pub(super) fn append_display(column: &mut StringBuilder, value: impl std::fmt::Display) {
    // Writing to a builder does not fail.
    let _ = write!(column, "{value}");
    column.append_value("");
}

/// Bytes of text that a column holds so far.
pub(super) fn text_bytes(column: &StringBuilder) -> usize {
    column.values_slice().len() + size_of_val(column.offsets_slice())
}

/// A column that says the same in each of `rows` rows.
pub(super) fn constant(value: &str, rows: usize) -> std::sync::Arc<dyn Array> {
    std::sync::Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}
