//! Events in, ordered bytes or declared gaps out: one [`Ledger`] per session and direction.
//!
//! The kernel side stamps every event with its position in the stream, whether or not the events before it
//! could be delivered. The ledger compares positions: a hole is a [`Hole`] of known length, bytes that came
//! already are cut off. It holds no bytes, so that whatever order the events come in costs no memory.

use capture_common::{LOSS_OVERSIZE, LOSS_RING_FULL, LOSS_UNREADABLE};
use serde::{Deserialize, Serialize};

/// Why the kernel side did not deliver bytes: the `LOSS_*` constants of `capture-common`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Loss {
    /// The ring was full.
    RingFull,
    /// The process's memory could not be read.
    Unreadable,
    /// One system call moved more than is captured of one call.
    Oversize,
    /// No agent ran, and nothing captured in its place.
    Unwatched,
}

impl Loss {
    /// From an event's `loss` field; none if it declares none, or is no such constant.
    pub fn from_code(code: u32) -> Option<Self> {
        match code {
            LOSS_RING_FULL => Some(Self::RingFull),
            LOSS_UNREADABLE => Some(Self::Unreadable),
            LOSS_OVERSIZE => Some(Self::Oversize),
            _ => None,
        }
    }
}

/// A stretch of a stream that was not delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// Position of the first missing byte.
    pub offset: u64,
    /// How many bytes are missing; never 0.
    pub length: u64,
    /// Why. An undeclared hole was lost the only way that leaves no trace: before the ring had room again.
    pub loss: Loss,
}

/// What an event adds to a stream: first the hole before it, if any, then its new bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted<'a> {
    /// The bytes missing right before `offset`.
    pub hole: Option<Hole>,
    /// Position of the first of `bytes`.
    pub offset: u64,
    /// The event's bytes, without those that came before. May be empty.
    pub bytes: &'a [u8],
}

/// How far one direction of one session has come.
///
/// Invariant: `next - base = captured + lost`, unless the stream was [restarted](Ledger::restart).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Position of the next byte that is not yet accounted for.
    next: u64,
    /// Bytes delivered, or passed over because nobody wants them.
    captured: u64,
    /// Bytes declared as holes.
    lost: u64,
}

impl Ledger {
    /// A ledger of a stream that is counted from `base` on: 0 for every session, since the kernel side counts
    /// from the moment it follows one; a session that was already open then is marked partial by other means.
    pub fn new(base: u64) -> Self {
        Self { next: base, captured: 0, lost: 0 }
    }

    /// Accounts for an event of `bytes` at `offset`.
    ///
    /// Bytes before the present position are cut off, a position beyond it makes a hole. Bytes that would pass
    /// the end of the 64-bit stream are cut off too: no honest event has them.
    pub fn accept<'a>(&mut self, offset: u64, bytes: &'a [u8], loss: Option<Loss>) -> Accepted<'a> {
        let hole = self.advance(offset, loss);
        let known = usize::try_from(self.next.saturating_sub(offset)).unwrap_or(usize::MAX);
        let bytes = bytes.get(known..).unwrap_or_default();
        let room = usize::try_from(u64::MAX - self.next).unwrap_or(usize::MAX);
        let bytes = bytes.get(..room).unwrap_or(bytes);
        let offset = self.next;
        self.next += bytes.len() as u64;
        self.captured += bytes.len() as u64;
        Accepted { hole, offset, bytes }
    }

    /// Accounts for everything up to `end`, which was seen where it passed, and not delivered because nobody wants it. How many
    /// bytes of it are new.
    pub fn pass(&mut self, end: u64) -> u64 {
        let length = end.saturating_sub(self.next);
        self.next += length;
        self.captured += length;
        length
    }

    /// Accounts for the stream being at `end`, though no event says what came before.
    pub fn advance(&mut self, end: u64, loss: Option<Loss>) -> Option<Hole> {
        let length = end.checked_sub(self.next).filter(|length| *length > 0)?;
        let hole = Hole { offset: self.next, length, loss: loss.unwrap_or(Loss::RingFull) };
        self.next = end;
        self.lost += length;
        Some(hole)
    }

    /// The stream is counted anew from 0 on: of what was delivered so far, only `declared` bytes remain accounted for.
    pub fn restart(&mut self, declared: u64) {
        self.next = 0;
        self.captured = declared;
    }

    /// Position of the next byte that is not yet accounted for.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Bytes delivered so far.
    pub fn captured(&self) -> u64 {
        self.captured
    }

    /// Bytes declared as holes so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_in_order_come_out_whole() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.accept(0, b"abc", None), Accepted { hole: None, offset: 0, bytes: b"abc" });
        assert_eq!(ledger.accept(3, b"de", None), Accepted { hole: None, offset: 3, bytes: b"de" });
        assert_eq!((ledger.next(), ledger.captured(), ledger.lost()), (5, 5, 0));
    }

    #[test]
    fn a_jump_in_the_offset_is_a_hole_of_its_length() {
        let mut ledger = Ledger::default();
        ledger.accept(0, b"abc", None);
        let accepted = ledger.accept(10, b"k", Some(Loss::Unreadable));
        assert_eq!(accepted.hole, Some(Hole { offset: 3, length: 7, loss: Loss::Unreadable }));
        assert_eq!((accepted.offset, accepted.bytes), (10, b"k".as_slice()));
    }

    #[test]
    fn an_undeclared_hole_is_blamed_on_the_ring() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.advance(4, None), Some(Hole { offset: 0, length: 4, loss: Loss::RingFull }));
        assert_eq!(ledger.advance(4, None), None);
    }

    #[test]
    fn repeated_and_overlapping_bytes_are_cut_off() {
        let mut ledger = Ledger::default();
        ledger.accept(0, b"abcdef", None);
        assert_eq!(ledger.accept(2, b"cd", None).bytes, b"");
        assert_eq!(ledger.accept(4, b"efgh", None), Accepted { hole: None, offset: 6, bytes: b"gh" });
    }

    #[test]
    fn a_session_first_seen_at_an_offset_declares_what_came_before() {
        let mut ledger = Ledger::new(0);
        assert_eq!(ledger.accept(900, b"x", None).hole.map(|hole| hole.length), Some(900));
        let mut ledger = Ledger::new(900);
        assert_eq!(ledger.accept(900, b"x", None).hole, None);
    }

    #[test]
    fn the_end_of_the_offset_space_is_no_panic() {
        let mut ledger = Ledger::default();
        let accepted = ledger.accept(u64::MAX - 1, b"abc", None);
        assert_eq!((accepted.bytes, ledger.next()), (b"a".as_slice(), u64::MAX));
        assert_eq!(ledger.accept(u64::MAX, b"abc", None).bytes, b"");
        assert_eq!(ledger.captured() + ledger.lost(), u64::MAX);
    }

    proptest! {
        #[test]
        fn captured_and_lost_add_up_whatever_comes(
            events in prop::collection::vec((0_u64..400, 0_usize..40, any::<bool>()), 0..60)
        ) {
            let stream: Vec<u8> = (0..=255).cycle().take(500).collect();
            let mut ledger = Ledger::default();
            for (offset, length, silent) in events {
                let before = ledger.next();
                if silent {
                    ledger.advance(offset, Some(Loss::RingFull));
                } else {
                    let at = usize::try_from(offset).unwrap();
                    let accepted = ledger.accept(offset, &stream[at..at + length], None);
                    let at = usize::try_from(accepted.offset).unwrap();
                    prop_assert_eq!(accepted.bytes, &stream[at..at + accepted.bytes.len()]);
                    let hole = accepted.hole.map_or(0, |hole| hole.length);
                    prop_assert_eq!(before + hole, accepted.offset);
                }
                prop_assert!(ledger.next() >= before);
                prop_assert_eq!(ledger.captured() + ledger.lost(), ledger.next());
            }
        }
    }
}
