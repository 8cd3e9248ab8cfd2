//! Cuts one direction's bytes into frames.

use serde::{Deserialize, Serialize};

use super::{Body, Frame, backend, startup, tag};

/// Which side's messages a decoder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The client's.
    Frontend,
    /// The server's.
    Backend,
}

/// What a decoder takes the next byte for.
///
/// ```text
///  frontend                                          backend
///
///  ┌─────────┐ startup packet  ┌──────────┐          ┌──────────┐  the client asked   ┌─────────────┐
///  │ Startup ├────────────────►│ Messages │          │ Messages ├────────────────────►│ Negotiation │
///  └──┬───┬──┘                 └─┬──────▲─┘          │          │◄────────────────────┤             │
///     │   │ 0x16: TLS            │      │            └─┬──────▲─┘   N, or an error    └──────┬──────┘
///     │   └───────► Opaque       │      │              │      │                              │ S or G
///     │                          │      │ resume       │      │ resume                       ▼
///     │ lost bytes, bad length   ▼      │              ▼      │                            Opaque
///     └──────────────────────► OutOfSync               OutOfSync
/// ```
///
/// A decoder goes to `OutOfSync` by itself, when bytes outside the body of a known frame are lost or when the
/// stream breaks the protocol. All other moves are made by its owner, who alone knows what the other side said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// A startup packet, which has no tag.
    Startup,
    /// The one-byte answer to SSLRequest or GSSENCRequest; also the ErrorResponse of a server that does not know
    /// the request.
    Negotiation,
    /// A message.
    Messages,
    /// Nothing that can be read: the bytes are encrypted.
    Opaque,
    /// Not known: the stream has to be found again.
    OutOfSync,
}

/// What a decoder found at the front of its input.
#[derive(Debug)]
pub enum Step<'a> {
    /// Nothing complete: the input is used up. Also the answer in the modes in which nothing can be read.
    Pending,
    /// A message, which is taken off the input.
    Frame(Frame<'a>),
    /// TLS without an SSLRequest before it. The decoder is `Opaque` from there on.
    Encrypted,
    /// The bytes from `offset` on break the protocol. The decoder is `OutOfSync`.
    Broken {
        /// Position of the first byte of what would have been a message.
        offset: u64,
        /// What is wrong with it.
        error: FrameError,
    },
}

/// How a stream broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The receiver knows no such message.
    #[error("invalid message type 0x{tag:02X}")]
    Tag {
        /// The message type.
        tag: u8,
    },
    /// The receiver would not take the length.
    #[error("invalid length {length} of message type 0x{tag:02X}")]
    Length {
        /// The message type.
        tag: u8,
        /// The length field.
        length: u32,
    },
    /// The server would not take the length.
    #[error("invalid length {length} of startup packet")]
    StartupLength {
        /// The length field.
        length: u32,
    },
}

/// One direction's decoder.
///
/// It copies nothing while a message lies in one piece. A message that does not is gathered in a buffer that
/// grows with the bytes that came, never with what a length claims, and never past what is wanted of the body.
#[derive(Debug)]
pub struct Decoder {
    side: Side,
    mode: Mode,
    /// Position of the next byte.
    offset: u64,
    /// The front of a header that did not come in one piece: `head[..head_len]`.
    head: [u8; HEADER],
    head_len: usize,
    /// The message that is being gathered, once its header is complete.
    partial: Option<Partial>,
    /// The kept part of that message's body.
    buffer: Vec<u8>,
    /// Whether `buffer` was handed out and can be reused.
    spent: bool,
}

/// Invariant: `buffer.len() + room <= keep`, and the body ends `remaining` bytes after `Decoder::offset`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Partial {
    tag: u8,
    offset: u64,
    wire: u64,
    /// From where on no byte was lost: the message's first, or the one behind its latest hole.
    unbroken: u64,
    /// Bytes of the body that are still to come.
    remaining: u64,
    /// Bytes of the body that may still be kept.
    room: usize,
    holed: bool,
    truncated: bool,
}

struct Header {
    tag: u8,
    /// Bytes of the header.
    size: usize,
    /// Bytes of the body.
    body: u32,
}

impl Decoder {
    /// A decoder of a stream's beginning.
    pub fn new(side: Side) -> Self {
        let mode = match side {
            Side::Frontend => Mode::Startup,
            Side::Backend => Mode::Messages,
        };
        Self {
            side,
            mode,
            offset: 0,
            head: [0; HEADER],
            head_len: 0,
            partial: None,
            buffer: Vec::new(),
            spent: false,
        }
    }

    /// What the next byte is taken for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Position of the next byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the next byte is the first of a message.
    pub fn at_boundary(&self) -> bool {
        self.head_len == 0 && self.partial.is_none()
    }

    /// Position where the message that is being gathered begins, or the next byte's.
    pub fn frame_start(&self) -> u64 {
        match self.partial {
            Some(partial) => partial.offset,
            None => self.offset.saturating_sub(self.head_len as u64),
        }
    }

    /// Position where the next message begins, as far as it can be told: behind the one that is being gathered if its
    /// header is complete, else where that one begins.
    pub fn next_frame(&self) -> u64 {
        match self.partial {
            Some(partial) => partial.offset.saturating_add(partial.wire),
            None => self.frame_start(),
        }
    }

    /// Bytes that the decoder holds for a message that did not come in one piece.
    pub fn held(&self) -> usize {
        self.buffer.capacity()
    }

    /// Takes the next byte for what `mode` says, dropping what was gathered.
    pub fn set_mode(&mut self, mode: Mode) {
        self.drop_partial();
        self.mode = mode;
    }

    /// Takes the byte at `offset` for the first of a message.
    pub fn resume(&mut self, offset: u64) {
        self.set_mode(Mode::Messages);
        self.offset = offset;
    }

    /// Passes over `length` lost bytes.
    ///
    /// Within the body of a known message they only leave a hole in it; the message may then be complete, so
    /// [`Decoder::next`] must be called also if no bytes follow. Anywhere else the decoder loses sync: the
    /// answer is where the message began that can't be told any more, or its part behind an earlier hole: at or
    /// before the first lost byte.
    pub fn lose(&mut self, length: u64) -> Option<u64> {
        if let Some(partial) = &mut self.partial
            && length <= partial.remaining
        {
            partial.remaining -= length;
            partial.holed = true;
            partial.room = 0;
            self.offset = self.offset.saturating_add(length);
            partial.unbroken = self.offset;
            return None;
        }
        let since = self.partial.map_or(self.frame_start(), |partial| partial.unbroken);
        self.offset = self.offset.saturating_add(length);
        if matches!(self.mode, Mode::Opaque | Mode::OutOfSync) {
            return None;
        }
        self.set_mode(Mode::OutOfSync);
        Some(since)
    }

    /// Finds the next message at the front of `input`, which continues the stream, and takes it off.
    ///
    /// `keep` says how much of a body is wanted, by tag and length of the body; the rest is passed over without
    /// being copied. Secrets are cut off whatever it says.
    #[inline]
    pub fn next<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], keep: impl Fn(u8, u32) -> usize) -> Step<'a> {
        if self.mode == Mode::Messages && !self.spent && self.at_boundary() {
            if input.is_empty() {
                return Step::Pending;
            }
            if let Some(frame) = self.everyday(input, &keep) {
                return Step::Frame(frame);
            }
        }
        self.any(input, keep)
    }

    /// Takes a message off the input, at whose front one begins, if it lies in one piece and is read like any other.
    #[inline]
    fn everyday<'i>(&mut self, input: &mut &'i [u8], keep: &impl Fn(u8, u32) -> usize) -> Option<Frame<'i>> {
        let [tag, a, b, c, d, after @ ..] = *input else { return None };
        let most = self.everyday_length(*tag);
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        let size = length.checked_sub(4).filter(|_| length <= most)?;
        let (whole, rest) = after.split_at_checked(size as usize)?;
        *input = rest;
        let offset = self.offset;
        let wire = (HEADER + whole.len()) as u64;
        self.offset = offset.saturating_add(wire);
        let body = if *tag == b'Z' { whole } else { whole.get(..keep(*tag, size)).unwrap_or(whole) };
        Some(Frame {
            tag: *tag,
            offset,
            wire,
            holed: false,
            truncated: body.len() < whole.len(),
            body: Body::Borrowed(body),
        })
    }

    /// The next message, whatever it is and however it came.
    fn any<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], keep: impl Fn(u8, u32) -> usize) -> Step<'a> {
        if self.spent {
            self.drop_partial();
        }
        if self.partial.is_none() && self.head_len == 0 {
            match self.header(input) {
                Ok(Some(header)) => {
                    let total = header.size + header.body as usize;
                    if let Some((frame, rest)) = input.split_at_checked(total) {
                        *input = rest;
                        return Step::Frame(self.whole(&header, frame, &keep));
                    }
                }
                Ok(None) => {}
                Err(error) => return self.broken(error),
            }
            if self.mode == Mode::Startup && input.first() == Some(&TLS_HANDSHAKE) {
                self.set_mode(Mode::Opaque);
                return Step::Encrypted;
            }
        }
        match self.mode {
            Mode::Opaque | Mode::OutOfSync => Step::Pending,
            Mode::Startup | Mode::Negotiation | Mode::Messages => self.gather(input, keep),
        }
    }

    /// A message that lies in one piece.
    fn whole<'a>(&mut self, header: &Header, frame: &'a [u8], keep: &impl Fn(u8, u32) -> usize) -> Frame<'a> {
        let offset = self.offset;
        self.offset = offset.saturating_add(frame.len() as u64);
        let body = frame.get(header.size..).unwrap_or_default();
        let wanted = self.keep(header, keep).min(body.len());
        let kept = body.get(..wanted).unwrap_or(body);
        Frame {
            tag: header.tag,
            offset,
            wire: frame.len() as u64,
            holed: false,
            truncated: wanted < body.len(),
            body: Body::Borrowed(public(self.side, header.tag, kept)),
        }
    }

    /// Adds to a message that does not lie in one piece.
    fn gather<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8], keep: impl Fn(u8, u32) -> usize) -> Step<'a> {
        while self.partial.is_none() {
            let Some((byte, rest)) = input.split_first() else {
                return Step::Pending;
            };
            *input = rest;
            self.offset = self.offset.saturating_add(1);
            if let Some(slot) = self.head.get_mut(self.head_len) {
                *slot = *byte;
                self.head_len += 1;
            }
            let head = self.head;
            match self.header(head.get(..self.head_len).unwrap_or_default()) {
                Ok(Some(header)) => self.begin(&header, &keep),
                Ok(None) => {}
                Err(error) => return self.broken(error),
            }
        }
        let Some(partial) = &mut self.partial else {
            return Step::Pending;
        };
        let coming = usize::try_from(partial.remaining).unwrap_or(usize::MAX).min(input.len());
        let (piece, rest) = input.split_at(coming);
        *input = rest;
        self.offset = self.offset.saturating_add(coming as u64);
        partial.remaining -= coming as u64;
        let kept = piece.get(..partial.room).unwrap_or(piece);
        partial.room -= kept.len();
        append(&mut self.buffer, kept, partial.room);
        if partial.remaining > 0 {
            return Step::Pending;
        }
        let Partial { tag, offset, wire, holed, truncated, .. } = *partial;
        self.spent = true;
        let public = public(self.side, tag, &self.buffer).len();
        self.buffer.truncate(public);
        Step::Frame(Frame { tag, offset, wire, holed, truncated, body: Body::Buffered(&mut self.buffer) })
    }

    fn begin(&mut self, header: &Header, keep: &impl Fn(u8, u32) -> usize) {
        let body = header.body as usize;
        let room = self.keep(header, keep).min(body);
        self.partial = Some(Partial {
            tag: header.tag,
            offset: self.offset.saturating_sub(header.size as u64),
            unbroken: self.offset.saturating_sub(header.size as u64),
            wire: header.size as u64 + u64::from(header.body),
            remaining: u64::from(header.body),
            room,
            holed: false,
            truncated: room < body,
        });
        self.head_len = 0;
    }

    /// How much of a body to keep. Startup packets and authentication requests are short and always wanted.
    fn keep(&self, header: &Header, keep: &impl Fn(u8, u32) -> usize) -> usize {
        match (self.side, header.tag) {
            (Side::Frontend, b'p') => 0,
            (Side::Frontend, tag::STARTUP) | (Side::Backend, b'R' | b'K' | b'Z' | tag::NEGOTIATION) => {
                tag::MAX_AUTH as usize
            }
            (_, tag) => keep(tag, header.body),
        }
    }

    /// The header at the front of `bytes`, if it is complete.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, FrameError> {
        let mode = match (self.mode, bytes.first()) {
            // A server that does not know the request answers with an ErrorResponse.
            (Mode::Negotiation, Some(b'E')) => Mode::Messages,
            (mode, _) => mode,
        };
        match (mode, bytes) {
            (Mode::Messages, [tag, a, b, c, d, ..]) => {
                let (tag, length) = (*tag, u32::from_be_bytes([*a, *b, *c, *d]));
                let max = self.max(tag).ok_or(FrameError::Tag { tag })?;
                match length.checked_sub(4) {
                    Some(body) if length <= max => Ok(Some(Header { tag, size: 5, body })),
                    _ => Err(FrameError::Length { tag, length }),
                }
            }
            (Mode::Messages, [tag, ..]) if self.max(*tag).is_none() => Err(FrameError::Tag { tag: *tag }),
            (Mode::Startup, [TLS_HANDSHAKE, ..]) => Ok(None),
            (Mode::Startup, [a, b, c, d, ..]) => {
                let length = u32::from_be_bytes([*a, *b, *c, *d]);
                match length.checked_sub(4) {
                    Some(body @ 4..=tag::MAX_STARTUP) => {
                        Ok(Some(Header { tag: tag::STARTUP, size: 4, body }))
                    }
                    _ => Err(FrameError::StartupLength { length }),
                }
            }
            // The byte is the whole message: it is its body.
            (Mode::Negotiation, [_, ..]) => Ok(Some(Header { tag: tag::NEGOTIATION, size: 0, body: 1 })),
            _ => Ok(None),
        }
    }

    /// The largest length field of a message that is read like any other; 0 of all others.
    #[inline]
    fn everyday_length(&self, tag: u8) -> u32 {
        match self.side {
            Side::Frontend => tag::EVERYDAY_FRONTEND[usize::from(tag)],
            Side::Backend => tag::EVERYDAY_BACKEND[usize::from(tag)],
        }
    }

    fn max(&self, tag: u8) -> Option<u32> {
        match self.side {
            Side::Frontend => tag::max_frontend(tag),
            Side::Backend => tag::max_backend(tag),
        }
    }

    fn broken(&mut self, error: FrameError) -> Step<'static> {
        let offset = self.frame_start();
        self.set_mode(Mode::OutOfSync);
        Step::Broken { offset, error }
    }

    fn drop_partial(&mut self) {
        self.head_len = 0;
        self.partial = None;
        self.spent = false;
        if self.buffer.capacity() > KEPT_CAPACITY {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
    }
}

/// What of a body may leave this room.
fn public(side: Side, tag: u8, body: &[u8]) -> &[u8] {
    let length = match (side, tag) {
        (Side::Frontend, b'p') => 0,
        (Side::Frontend, tag::STARTUP) => startup::public_len(body),
        (Side::Backend, b'R') => backend::Authentication::public_len(body),
        (Side::Backend, b'K') => 4,
        _ => return body,
    };
    body.get(..length).unwrap_or(body)
}

/// Appends `piece`, of which at most `room` more bytes will follow. Doubles, but not past what can come.
fn append(buffer: &mut Vec<u8>, piece: &[u8], room: usize) {
    if buffer.capacity() - buffer.len() < piece.len() {
        let wanted = (buffer.capacity() * 2).max(buffer.len() + piece.len()).max(SMALLEST);
        let most = buffer.len() + piece.len() + room;
        buffer.reserve_exact(wanted.min(most) - buffer.len());
    }
    buffer.extend_from_slice(piece);
}

/// Bytes of a message's header: tag and length.
const HEADER: usize = 5;
/// The first byte of a TLS record that carries a handshake (RFC 8446, section 5.1). No startup packet begins
/// with it: the length would be over 300 million.
const TLS_HANDSHAKE: u8 = 0x16;
/// Capacity that a buffer may keep for the next message: twice the server's socket buffers of 8 KiB, so that
/// everyday messages reuse it.
pub(super) const KEPT_CAPACITY: usize = 16 * 1024;
/// A buffer's first size.
const SMALLEST: usize = 256;

#[path = "decoder_run.rs"]
mod run;
#[path = "decoder_saved.rs"]
mod saved;

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
