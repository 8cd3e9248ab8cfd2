//! Bytes in, frames out: the framing and the message bodies of PostgreSQL's wire protocol 3.0 and 3.2
//! ([Frontend/Backend Protocol](https://www.postgresql.org/docs/current/protocol.html)).
//!
//! A [`Decoder`] cuts one direction of one session into [`Frame`]s. [`frontend`], [`backend`] and [`startup`]
//! read the bodies, borrowed, without ever believing a count or a length before its bytes are there. [`resync`]
//! tells where, after lost bytes, a message provably begins. [`handshake`] reads what an encrypted connection shows in
//! clear.
//!
//! What proves the client's or the server's identity ends here: of PasswordMessage and the SASL and GSS
//! messages nothing leaves, of AuthenticationRequest the kind and the names of SASL mechanisms, of
//! BackendKeyData and CancelRequest the process id.

pub mod backend;
mod decoder;
pub mod frontend;
pub mod handshake;
#[cfg(test)]
mod oracle_tests;
mod reader;
pub mod resync;
pub mod startup;
pub mod tag;

pub use decoder::{Decoder, FrameError, Mode, Side, Step};

/// One message, or one startup packet, as it stood in the stream.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The message type; [`tag::STARTUP`] or [`tag::NEGOTIATION`] for what has none.
    pub tag: u8,
    /// Position of its first byte in the stream.
    pub offset: u64,
    /// Its bytes in the stream, tag and length included.
    pub wire: u64,
    /// Whether bytes of it were lost. The body then ends where the hole begins.
    pub holed: bool,
    /// Whether the body was longer than what is kept of it. The body then ends where the limit stood.
    pub truncated: bool,
    body: Body<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    /// The message lay in one piece.
    Borrowed(&'a [u8]),
    /// The message came in pieces.
    Buffered(&'a mut Vec<u8>),
}

impl Frame<'_> {
    /// The message's body as far as it is known and kept: what follows the length field.
    pub fn body(&self) -> &[u8] {
        match &self.body {
            Body::Borrowed(bytes) => bytes,
            Body::Buffered(bytes) => bytes,
        }
    }

    /// One past its last byte in the stream.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.wire)
    }

    /// Keeps the body: a large one that was gathered is moved, any other is copied into `spare`.
    pub fn into_body(self, mut spare: Vec<u8>) -> Vec<u8> {
        match self.body {
            Body::Buffered(bytes) if bytes.len() > decoder::KEPT_CAPACITY => std::mem::take(bytes),
            Body::Buffered(bytes) => {
                spare.clear();
                spare.extend_from_slice(bytes);
                spare
            }
            Body::Borrowed(bytes) => {
                spare.clear();
                spare.extend_from_slice(bytes);
                spare
            }
        }
    }
}
