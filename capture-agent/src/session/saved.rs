//! A session's state as bytes, so that the next agent goes on where a dead one stopped.
//!
//! In two parts, because one changes with every event and the other rarely: everything but the named prepared
//! statements, and these. Whoever keeps the parts writes them together with what the session has told its
//! [`Sink`](super::Sink) by then: a session that is restored from them and given the events from there on tells
//! just what the lost one would have told.

use serde::Deserialize;

use super::{Limits, Session};

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
const LAYOUT: u16 = 3;
