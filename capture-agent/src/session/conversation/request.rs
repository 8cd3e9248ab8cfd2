//! The client's messages that wait for the server's replies.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

use crate::frames::Frame;
use crate::session::Micros;
use crate::session::saved::clipped;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Query,
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    Flush,
    Sync,
    Function,
    CopyData,
    CopyDone,
    CopyFail,
    /// Requests that are not known, since their bytes were lost. The last of the queue, always.
    Lost,
}

impl Kind {
    /// By message type; none for those that are no request.
    pub(super) fn of(tag: u8) -> Option<Self> {
        Some(match tag {
            b'Q' => Self::Query,
            b'P' => Self::Parse,
            b'B' => Self::Bind,
            b'D' => Self::Describe,
            b'E' => Self::Execute,
            b'C' => Self::Close,
            b'H' => Self::Flush,
            b'S' => Self::Sync,
            b'F' => Self::Function,
            b'd' => Self::CopyData,
            b'c' => Self::CopyDone,
            b'f' => Self::CopyFail,
            _ => return None,
        })
    }

    /// Whether the server answers it with ReadyForQuery in the end.
    pub(super) fn ends_cycle(self) -> bool {
        matches!(self, Self::Query | Self::Sync | Self::Function)
    }

    /// Whether the server, unless it is in a COPY, passes over it without a word.
    pub(super) fn is_silent(self) -> bool {
        matches!(self, Self::Flush | Self::CopyData | Self::CopyDone | Self::CopyFail)
    }
}

/// A message of the client's.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) kind: Kind,
    /// When the server received its end.
    pub(super) at: Micros,
    /// Position of its first byte in the client's stream.
    pub(super) offset: u64,
    /// Its bytes in the stream.
    pub(super) wire: u64,
    /// Whether bytes of it were lost.
    pub(super) holed: bool,
    /// Whether it was longer than what is kept.
    pub(super) truncated: bool,
    #[serde(serialize_with = "clipped::bytes", deserialize_with = "serde_bytes::deserialize")]
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn range(&self) -> (u64, u64) {
        (self.offset, self.offset.saturating_add(self.wire))
    }
}

/// Requests in the order in which the server handles them.
///
/// Invariant: `held` is the sum of the bodies' capacities.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Queue {
    items: VecDeque<Request>,
    /// Requests that end with ReadyForQuery.
    cycles: usize,
    held: usize,
    /// Bodies of requests that are done with, for reuse.
    #[serde(skip)]
    spare: Vec<Vec<u8>>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.items.iter()
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Request> {
        self.items.iter_mut()
    }

    /// Bytes that they hold.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether a request waits for ReadyForQuery.
    pub(super) fn expects_ready(&self) -> bool {
        self.cycles > 0
    }

    pub(super) fn head(&self) -> Option<&Request> {
        self.items.front()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.items.back().is_some_and(|last| last.kind == Kind::Lost)
    }

    /// The first request behind the head, if there is one.
    pub(super) fn behind_head(&self) -> Option<Kind> {
        self.items.get(1).map(|request| request.kind)
    }

    /// Makes a request of a message.
    pub(super) fn request(&mut self, kind: Kind, frame: Frame<'_>, at: Micros) -> Request {
        let Frame { offset, wire, holed, truncated, .. } = frame;
        let body = if frame.body().is_empty() {
            Vec::new()
        } else {
            frame.into_body(self.spare.pop().unwrap_or_default())
        };
        Request { kind, at, offset, wire, holed, truncated, body }
    }

    pub(super) fn push(&mut self, request: Request) {
        self.held = self.held.saturating_add(request.body.capacity());
        self.cycles += usize::from(request.kind.ends_cycle());
        self.items.push_back(request);
    }

    /// From here on the client's requests are not known.
    pub(super) fn push_lost(&mut self, at: Micros) {
        if !self.is_lost() {
            let body = Vec::new();
            self.push(Request {
                kind: Kind::Lost,
                at,
                offset: 0,
                wire: 0,
                holed: true,
                truncated: false,
                body,
            });
        }
    }

    pub(super) fn pop(&mut self) -> Option<Request> {
        let request = self.items.pop_front()?;
        self.left(&request);
        Some(request)
    }

    /// Takes the first request behind the head out.
    pub(super) fn pop_behind_head(&mut self) -> Option<Request> {
        let request = self.items.remove(1)?;
        self.left(&request);
        Some(request)
    }

    /// Frees the head's body, which has been read.
    pub(super) fn release_head(&mut self) {
        let body = self.take_head_body();
        self.recycle(body);
    }

    /// Takes the head's body out.
    pub(super) fn take_head_body(&mut self) -> Vec<u8> {
        let body = self.items.front_mut().map(|head| std::mem::take(&mut head.body)).unwrap_or_default();
        self.held = self.held.saturating_sub(body.capacity());
        body
    }

    /// The head is answered, but for ReadyForQuery.
    pub(super) fn answer_head(&mut self) {
        if let Some(head) = self.items.front_mut() {
            head.kind = Kind::Sync;
        }
    }

    /// Puts a request back where it was taken.
    pub(super) fn push_front(&mut self, request: Request) {
        self.held = self.held.saturating_add(request.body.capacity());
        self.cycles += usize::from(request.kind.ends_cycle());
        self.items.push_front(request);
    }

    fn left(&mut self, request: &Request) {
        self.held = self.held.saturating_sub(request.body.capacity());
        self.cycles -= usize::from(request.kind.ends_cycle());
    }

    /// Keeps a body that is done with for another request.
    pub(super) fn recycle(&mut self, body: Vec<u8>) {
        if body.capacity() > 0 && body.capacity() <= SPARE_CAPACITY && self.spare.len() < SPARES {
            self.spare.push(body);
        }
    }
}

/// Spare bodies that a session keeps: what one round trip of an everyday driver needs.
const SPARES: usize = 8;
/// The largest spare body. A server has hundreds of sessions.
const SPARE_CAPACITY: usize = 4 * 1024;
