//! Texts that repeat in every row of a session, made once.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{Array, ArrayBuilder as _, StringBuilder};
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
    id: String,
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
        let id = session.0.hyphenated().to_string();
        Self { session, id, client_addr: client_addr.map(|addr| addr.to_canonical().to_string()) }
    }

    /// The session's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Appends what prints as text, without a copy of its own.
pub(super) fn append_display(column: &mut StringBuilder, value: impl std::fmt::Display) {
    // Writing to a builder does not fail.
    let _ = write!(column, "{value}");
    column.append_value("");
}

/// The column, and in its place an empty one with room for as much again: growing from nothing would copy each text once
/// more.
pub(super) fn texts(column: &mut StringBuilder) -> Arc<dyn Array> {
    let room = StringBuilder::with_capacity(column.len(), column.values_slice().len().min(MOST_ROOM));
    Arc::new(std::mem::replace(column, room).finish())
}

/// Bytes of text that a column holds so far.
pub(super) fn text_bytes(column: &StringBuilder) -> usize {
    column.values_slice().len() + size_of_val(column.offsets_slice())
}

/// A column that says the same in each of `rows` rows.
pub(super) fn constant(value: &str, rows: usize) -> Arc<dyn Array> {
    Arc::new(arrow::array::StringArray::from_iter_values(std::iter::repeat_n(value, rows)))
}

/// Bytes of text that an empty column has room for at most. A batch of everyday statements has less in each.
const MOST_ROOM: usize = 512 << 10;
