//! What happens when bytes are lost, and how the streams are found again.
//!
//! ```text
//!   server's stream                                  client's stream
//!
//!   in step ── lost bytes ──► out of step            in step ── lost bytes ──► out of step
//!      ▲                          │                     ▲                          │
//!      │                          │ a send ends with    │                          │ the server is idle, and a
//!      │  the next event is       ▼ ReadyForQuery       │  the receive is a chain  ▼ receive follows
//!      └── a receive ───────── maybe idle               └── of exact messages ── candidate
//! ```
//!
//! A stretch that was captured but lies before such a point is declared as a gap. When the client's stream was
//! found again, or a reply may still be owed to a request that was lost, the first cycle is held back: only a
//! cycle in which every reply fits, up to ReadyForQuery, proves the pairing.

use super::conversation::Turn;
use super::hold::Hold;
use super::{Direction, Micros, Session, Sink};
use crate::frames::Mode;
use crate::frames::resync::{READY_LEN, Tail, is_chain};
use crate::streams::Hole;
use serde::{Deserialize, Serialize};

/// What is known of the two streams' common state.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sync {
    /// The server's last send ended with ReadyForQuery, and nothing was lost since.
    idle: bool,
    /// The end of the server's present send.
    tail: Tail,
    /// The server's last send, out of step, ended with what looks like ReadyForQuery.
    maybe_idle: bool,
    /// Whether the server's next bytes belong to the same send as the last, and the client's likewise.
    sending: bool,
    receiving: bool,
    /// The present receive, from its first byte on, while the client's stream is out of step.
    #[serde(with = "serde_bytes")]
    candidate: Vec<u8>,
    /// Whether `candidate` holds all of the present receive, and the server was idle before it.
    is_candidate: bool,
}

impl Sync {
    /// `idle`: the server was seen to wait for the client, as after ReadyForQuery.
    pub(super) fn new(idle: bool) -> Self {
        Self { idle, ..Self::default() }
    }

    /// The server has sent rows that were not delivered.
    pub(super) fn passed(&mut self) {
        self.idle = false;
        self.maybe_idle = false;
        self.is_candidate = false;
        self.tail.clear();
    }
}

impl Session {
    /// Bytes of a direction were lost.
    pub(super) fn hole(&mut self, direction: Direction, hole: Hole, at: Micros, sink: &mut impl Sink) {
        self.sync.idle = false;
        self.sync.maybe_idle = false;
        self.sync.is_candidate = false;
        self.sync.candidate = Vec::new();
        match direction {
            Direction::Frontend => {
                self.sync.receiving = false;
                if self.frontend.hole(hole, at, &self.info, sink) {
                    self.conversation.lost_requests(at);
                }
                // The hole may have been the rest of a message.
                self.read_frontend(&[], at, sink);
            }
            Direction::Backend => {
                self.sync.sending = false;
                self.sync.tail.clear();
                if self.backend.hole(hole, at, &self.info, sink) {
                    self.conversation.lost_replies();
                }
                self.read_backend(&[], at, sink);
            }
        }
    }

    /// The server received bytes.
    pub(super) fn received(
        &mut self,
        offset: u64,
        bytes: &[u8],
        end_of_call: bool,
        at: Micros,
        sink: &mut impl Sink,
    ) {
        let begins = !std::mem::replace(&mut self.sync.receiving, !end_of_call);
        if begins {
            // What an earlier receive was is no word on this one, should it break the protocol in its middle.
            self.sync.is_candidate = false;
        }
        if begins && self.sync.maybe_idle {
            self.found_backend(at, sink);
        }
        if begins && self.sync.idle && self.conversation.expects_ready() {
            self.abandon(at, sink);
        }
        match self.frontend.decoder.mode() {
            Mode::Opaque => self.frontend.declare(offset, bytes.len() as u64, at, &self.info, sink),
            Mode::OutOfSync => {
                self.frontend.declare(offset, bytes.len() as u64, at, &self.info, sink);
                self.consider(begins, offset, bytes, end_of_call, at, sink);
            }
            Mode::Startup | Mode::Negotiation | Mode::Messages => self.read_frontend(bytes, at, sink),
        }
        if end_of_call {
            self.sync.idle = false;
        }
    }

    /// The server sent bytes.
    pub(super) fn sent(
        &mut self,
        offset: u64,
        bytes: &[u8],
        end_of_call: bool,
        at: Micros,
        sink: &mut impl Sink,
    ) {
        let begins = !std::mem::replace(&mut self.sync.sending, !end_of_call);
        if bytes.is_empty() {
            return;
        }
        self.sync.idle = false;
        self.sync.maybe_idle = false;
        self.sync.is_candidate = false;
        if begins {
            self.sync.tail.clear();
        }
        self.sync.tail.push(bytes);
        match self.backend.decoder.mode() {
            Mode::Opaque | Mode::OutOfSync => {
                self.backend.declare(offset, bytes.len() as u64, at, &self.info, sink);
            }
            Mode::Startup | Mode::Negotiation | Mode::Messages => {
                let ready = self.read_backend(bytes, at, sink);
                self.sync.idle = ready && end_of_call;
            }
        }
        // Asked after the bytes were read: a message that breaks the protocol may stand in the middle of a send.
        self.sync.maybe_idle = end_of_call
            && self.backend.decoder.mode() == Mode::OutOfSync
            && self.backend.left_out() >= READY_LEN
            && self.sync.tail.ready().is_some();
    }

    /// The server's stream is in step again: it ended with ReadyForQuery, and the server waits for the client.
    fn found_backend(&mut self, at: Micros, sink: &mut impl Sink) {
        let Some(status) = self.sync.tail.ready() else { return };
        let end = self.backend.ledger.next();
        self.backend.take_back(READY_LEN);
        self.backend.flush(&self.info, sink);
        self.backend.decoder.resume(end.saturating_sub(READY_LEN));
        let owes = self.give_up(at, sink);
        self.read_backend(&[b'Z', 0, 0, 0, 5, status], at, sink);
        self.hold_if(owes);
        self.sync.maybe_idle = false;
        self.sync.idle = true;
    }

    /// The server is idle: what it was asked and did not seem to answer has an answer that is not known.
    fn abandon(&mut self, at: Micros, sink: &mut impl Sink) {
        let owes = self.give_up(at, sink);
        self.hold_if(owes);
    }

    /// Empties the conversation. Whether the server may still answer something of it.
    fn give_up(&mut self, at: Micros, sink: &mut impl Sink) -> bool {
        self.doubt(sink);
        let owes = self.conversation.may_owe();
        self.conversation.abandon(&mut Turn { info: &mut self.info, at, sink });
        owes
    }

    fn hold_if(&mut self, owes: bool) {
        if owes && self.frontend.decoder.mode() == Mode::Messages {
            self.hold = Some(Hold::default());
        }
    }

    /// Gathers a receive that may bring the client's stream in step again.
    fn consider(
        &mut self,
        begins: bool,
        offset: u64,
        bytes: &[u8],
        end_of_call: bool,
        at: Micros,
        sink: &mut impl Sink,
    ) {
        if begins {
            self.sync.is_candidate = self.sync.idle;
            self.sync.candidate.clear();
        }
        self.sync.is_candidate &= self.sync.candidate.len() + bytes.len() <= CANDIDATE;
        if !self.sync.is_candidate {
            return;
        }
        self.sync.candidate.extend_from_slice(bytes);
        if end_of_call && is_chain(&self.sync.candidate) {
            let candidate = std::mem::take(&mut self.sync.candidate);
            let length = candidate.len() as u64;
            self.frontend.take_back(length);
            self.frontend.flush(&self.info, sink);
            let end = offset.saturating_add(bytes.len() as u64);
            self.frontend.decoder.resume(end.saturating_sub(length));
            self.give_up(at, sink);
            self.hold = Some(Hold::default());
            self.read_frontend(&candidate, at, sink);
        }
    }

    /// Decides about what is held back, after a reply.
    pub(super) fn judge(&mut self, ready: bool, sink: &mut impl Sink) {
        if self.conversation.is_confused() || self.hold.as_ref().is_some_and(Hold::is_full) {
            self.doubt(sink);
        } else if ready && let Some(hold) = self.hold.take() {
            hold.release(&self.info, sink);
        }
    }

    /// What is held back is not certain, and never will be.
    pub(super) fn doubt(&mut self, sink: &mut impl Sink) {
        if let Some(hold) = self.hold.take() {
            hold.doubt(&self.info, sink);
        }
    }
}

/// The longest receive that is considered: eight times the server's receive buffer.
const CANDIDATE: usize = 64 << 10;
