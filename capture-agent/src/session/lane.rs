//! One direction of a session: its ledger, its decoder, and what is declared as missing.

use super::{Direction, Gap, GapReason, Micros, Sink};
use crate::frames::{Decoder, Mode, Side};
use crate::session::SessionInfo;
use crate::streams::{Hole, Ledger, Loss};
use serde::{Deserialize, Serialize};

/// One direction of a session.
///
/// Invariant: `declared <= ledger.captured()`; what is in the record is the difference.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lane {
    direction: Direction,
    pub(super) ledger: Ledger,
    pub(super) decoder: Decoder,
    /// Why bytes that can't be read now are left out.
    why: GapReason,
    /// Bytes that were captured but left out of the record.
    declared: u64,
    /// The latest of them, not yet reported: they may go on.
    open: Option<Gap>,
}

impl Lane {
    /// A direction from its first byte on; or, of a session that was open before, from somewhere.
    pub(super) fn new(direction: Direction, partial: bool) -> Self {
        let side = match direction {
            Direction::Frontend => Side::Frontend,
            Direction::Backend => Side::Backend,
        };
        let mut decoder = Decoder::new(side);
        if partial {
            decoder.set_mode(Mode::OutOfSync);
        }
        Self {
            direction,
            ledger: Ledger::default(),
            decoder,
            why: GapReason::Resync,
            declared: 0,
            open: None,
        }
    }

    /// Bytes that are in the record.
    pub(super) fn recorded(&self) -> u64 {
        self.ledger.captured().saturating_sub(self.declared)
    }

    /// Bytes that are not in the record.
    pub(super) fn missing(&self) -> u64 {
        self.ledger.lost().saturating_add(self.declared)
    }

    /// From here on nothing can be read, and `why`.
    pub(super) fn stop_reading(&mut self, mode: Mode, why: GapReason) {
        self.decoder.set_mode(mode);
        self.why = why;
    }

    /// Reports lost bytes. Whether the lane was in step and no longer is.
    pub(super) fn hole(&mut self, hole: Hole, at: Micros, info: &SessionInfo, sink: &mut impl Sink) -> bool {
        let lost_sync = self.decoder.lose(hole.length);
        if let Some(since) = lost_sync {
            self.why = GapReason::Resync;
            self.declare(since, hole.offset.saturating_sub(since), at, info, sink);
        }
        self.flush(info, sink);
        let reason = match hole.loss {
            Loss::RingFull => GapReason::RingFull,
            Loss::Unreadable => GapReason::Unreadable,
            Loss::Oversize => GapReason::Oversize,
            Loss::Unwatched => GapReason::AgentStopped,
        };
        let Hole { offset, length, .. } = hole;
        sink.gap(info, &Gap { direction: self.direction, offset, length, at, reason });
        lost_sync.is_some()
    }

    /// What came so far was no part of the stream, but what its bytes were encrypted to: the stream begins now. What is
    /// declared as missing already stays so.
    pub(super) fn restart(&mut self) {
        let unreported = self.left_out();
        self.take_back(unreported);
        self.open = None;
        self.ledger.restart(self.declared);
    }

    /// The stream goes on in clear: the next byte is taken for what `mode` says. What was left out of the record so far
    /// was encrypted.
    pub(super) fn in_clear(&mut self, mode: Mode, info: &SessionInfo, sink: &mut impl Sink) {
        if let Some(open) = &mut self.open {
            open.reason = GapReason::Encrypted;
        }
        self.flush(info, sink);
        self.why = GapReason::Resync;
        self.decoder.resume(self.ledger.next());
        self.decoder.set_mode(mode);
    }

    /// Declares the stream up to `end` as encrypted: it was never in clear.
    pub(super) fn unread(&mut self, end: u64, at: Micros, info: &SessionInfo, sink: &mut impl Sink) {
        if let Some(Hole { offset, length, .. }) = self.ledger.advance(end, None) {
            let reason = GapReason::Encrypted;
            sink.gap(info, &Gap { direction: self.direction, offset, length, at, reason });
        }
    }

    /// Leaves captured bytes out of the record, for the reason that stands.
    pub(super) fn declare(
        &mut self,
        offset: u64,
        length: u64,
        at: Micros,
        info: &SessionInfo,
        sink: &mut impl Sink,
    ) {
        if length == 0 {
            return;
        }
        self.declared = self.declared.saturating_add(length);
        if let Some(open) = &mut self.open
            && open.reason == self.why
            && open.offset.saturating_add(open.length) == offset
        {
            open.length = open.length.saturating_add(length);
            return;
        }
        self.flush(info, sink);
        self.open = Some(Gap { direction: self.direction, offset, length, at, reason: self.why });
    }

    /// Takes the latest `length` declared bytes back into the record: they turned out to be in step.
    pub(super) fn take_back(&mut self, length: u64) {
        if let Some(open) = &mut self.open {
            let length = length.min(open.length);
            open.length -= length;
            self.declared = self.declared.saturating_sub(length);
        }
    }

    /// How many of the latest captured bytes are left out of the record in one stretch.
    pub(super) fn left_out(&self) -> u64 {
        self.open.map_or(0, |open| open.length)
    }

    /// Reports what was left out of the record so far.
    pub(super) fn flush(&mut self, info: &SessionInfo, sink: &mut impl Sink) {
        if let Some(gap) = self.open.take().filter(|gap| gap.length > 0) {
            sink.gap(info, &gap);
        }
    }
}
