//! Rows that nobody wants: the kernel side passes over them, and tells how many there were.

use super::{Direction, GapReason, Micros, Session, Sink};
use crate::frames::Mode;

/// From where on the server sends nothing that is wanted, but what is no message of this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwanted {
    /// The type: a DataRow's, or CopyData's.
    pub tag: u8,
    /// Where such a message may begin in the server's stream, as the kernel side counts it. In front of it stands
    /// nothing but the rest of another.
    pub next: u64,
}

/// What was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Positions in the server's stream, as the kernel side counts it: of the first byte, and one past the last.
    pub range: (u64, u64),
    /// How many messages began in it.
    pub messages: u64,
    /// Whether it is not known if a message begins behind it.
    pub astray: bool,
}

impl Session {
    /// What need not be delivered any more of the result that is under way.
    pub fn unwanted(&self) -> Option<Unwanted> {
        let tag = self.conversation.unwanted().filter(|_| self.hold.is_none())?;
        let decoder = &self.backend.decoder;
        let known =
            decoder.mode() == Mode::Messages && decoder.gathers().is_none_or(|gathers| gathers == tag);
        let next = decoder.next_frame().checked_sub(self.base[1]).filter(|_| known)?;
        Some(Unwanted { tag, next })
    }

    /// Whether bytes that the kernel side counts as before `offset` have not come.
    #[inline]
    pub fn lacks(&self, direction: Direction, offset: u64) -> bool {
        let lane = match direction {
            Direction::Frontend => &self.frontend,
            Direction::Backend => &self.backend,
        };
        self.place(direction, offset) > lane.ledger.next()
    }

    /// The kernel side has passed over rows, as it was asked to by [`Session::unwanted`]; what it delivers next comes behind them.
    pub fn passed(&mut self, passed: Passed, at: Micros, sink: &mut impl Sink) {
        let Passed { range: (from, to), messages, astray } = passed;
        self.advance_to(Direction::Backend, from, None, at, sink);
        let offset = self.backend.ledger.next();
        let length = self.backend.ledger.pass(self.place(Direction::Backend, to));
        if length == 0 {
            return;
        }
        self.sync.passed();
        if self.backend.decoder.mode() != Mode::Messages {
            return self.backend.declare(offset, length, at, &self.info, sink);
        }
        let begun = self.backend.decoder.pass(length);
        self.conversation.passed(messages + u64::from(begun.is_some()), length + begun.unwrap_or(0), at);
        if astray {
            self.backend.stop_reading(Mode::OutOfSync, GapReason::Resync);
            self.conversation.lost_replies();
        }
    }
}
