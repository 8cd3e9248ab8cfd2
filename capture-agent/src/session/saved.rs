//! A session's state as bytes, so that the next agent goes on where a dead one stopped.
//!
//! In two parts, because one changes with every event and the other rarely: everything but the named prepared
//! statements, and these. Whoever keeps the parts writes them together with what the session has told its
//! [`Sink`](super::Sink) by then: a session that is restored from them and given the events from there on tells
//! just what the lost one would have told.

use serde::Deserialize;

use super::{EndReason, Limits, Session, SessionEnd, SessionInfo};

/// Why a state cannot be used: it was saved by an agent of another layout, or it is damaged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The layout is another one.
    #[error("the session was saved in layout {found}, this agent reads layout {LAYOUT}")]
    Layout {
        /// The layout's number.
        found: u16,
    },
    /// The bytes do not make sense.
    #[error("the session's saved state is damaged: {0}")]
    Damaged(#[from] postcard::Error),
}

impl Session {
    /// Appends the state to `out`, without the named prepared statements.
    pub fn save(&self, out: &mut Vec<u8>) {
        write(&LAYOUT, out);
        write(self, out);
    }

    /// Changes whenever what [`Session::save_prepared`] writes does.
    pub fn prepared_version(&self) -> u64 {
        self.conversation.prepared_version()
    }

    /// Appends the named prepared statements to `out`.
    pub fn save_prepared(&self, out: &mut Vec<u8>) {
        write(self.conversation.prepared(), out);
    }

    /// Appends what may be read by anybody: who the session is, and its totals so far. No text and no value that the
    /// client or the server has sent is part of it.
    pub fn save_outline(&self, out: &mut Vec<u8>) {
        write(&LAYOUT, out);
        write(&self.info, out);
        write(&self.totals(None, EndReason::AgentStopped), out);
    }

    /// What [`Session::save_outline`] has written.
    ///
    /// # Errors
    ///
    /// Another version's layout, or damaged bytes.
    pub fn read_outline(outline: &[u8]) -> Result<(SessionInfo, SessionEnd), RestoreError> {
        let (found, rest) = postcard::take_from_bytes(outline)?;
        if found != LAYOUT {
            return Err(RestoreError::Layout { found });
        }
        let (info, rest) = postcard::take_from_bytes(rest)?;
        Ok((info, postcard::from_bytes(rest)?))
    }

    /// The session whose state this is.
    ///
    /// # Errors
    ///
    /// Another version's layout, or damaged bytes. Never panics, whatever the bytes are.
    pub fn restore(state: &[u8], prepared: &[u8], limits: Limits) -> Result<Self, RestoreError> {
        let (found, state) = postcard::take_from_bytes(state)?;
        if found != LAYOUT {
            return Err(RestoreError::Layout { found });
        }
        let mut session = Session::deserialize(&mut postcard::Deserializer::from_bytes(state))?;
        session.conversation.restore(prepared, limits)?;
        Ok(session)
    }
}

fn write(value: &impl serde::Serialize, out: &mut Vec<u8>) {
    // A vector takes everything, and no type here refuses to be serialized.
    let _ = postcard::to_io(value, out);
}

/// To be raised with every change to a type that a [`Session`] is made of: `tests::saved` notices.
const LAYOUT: u16 = 7;

/// What of a long message's parts is saved: its beginning. It is saved again with each step of its session, and a
/// copy of 64 MiB each time would cost more than the end of a text that only matters if the agent dies meanwhile.
pub(super) mod clipped {
    use std::sync::Arc;

    use serde::{Serialize, Serializer};

    use crate::session::Param;

    /// A message's body.
    pub(in crate::session) fn bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.get(..MOST).unwrap_or(bytes))
    }

    /// A statement's text.
    pub(in crate::session) fn text<S: Serializer>(
        text: &Option<Arc<str>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_deref()
            .map(|text| text.get(..text.floor_char_boundary(MOST)).unwrap_or(text))
            .serialize(serializer)
    }

    /// Parameters that lie in a body: where the body is cut off, so are they.
    pub(in crate::session) fn params<S: Serializer>(
        params: &[Param],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let most = MOST as u32;
        let clip = |(start, end): (u32, u32)| (start < most || end <= most).then_some((start, end.min(most)));
        serializer
            .collect_seq(params.iter().map(|param| Param { value: param.value.and_then(clip), ..*param }))
    }

    /// Whether it may be the beginning of something longer.
    pub(in crate::session) fn is_at_limit(bytes: &[u8]) -> bool {
        bytes.len() > MOST - 4
    }

    const MOST: usize = 1 << 20;
}
