//! Where, after lost bytes, a message provably begins.
//!
//! The client's side: the server was seen to be idle after the loss, and what it received next is a chain of
//! messages, each with the structure of its kind to the last byte, that ends where the receive ends. The
//! server's side: a send that ends with ReadyForQuery, after which the server waits for the client. Whether the
//! server was idle, and what it did next, is for the session to say; here stands what the bytes must look like.

use super::frontend::{Bind, Execute, FunctionCall, Parse, Query, Target, format_at};
use super::tag;
use serde::{Deserialize, Serialize};

/// Whether `bytes` are one or more messages with which a client may turn to an idle server, and nothing else.
///
/// COPY data is no proof: its body may hold anything.
pub fn is_chain(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let [tag, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]);
        let sane = tag::max_frontend(*tag).is_some_and(|max| length <= max);
        let Some(body) = length.checked_sub(4).filter(|_| sane) else { return false };
        let Some((body, after)) = after.split_at_checked(body as usize) else { return false };
        if !is_exact(*tag, body) {
            return false;
        }
        rest = after;
    }
    rest.is_empty() && !bytes.is_empty()
}

/// Whether `body` has the structure of its message to the last byte.
fn is_exact(tag: u8, body: &[u8]) -> bool {
    match tag {
        b'Q' => Query::read(body).exact,
        b'P' => Parse::read(body).is_some_and(|parse| parse.exact),
        b'B' => Bind::read(body, |_| {})
            .is_some_and(|bind| bind.exact && formats(bind.formats) && formats(bind.result_formats)),
        b'E' => Execute::read(body).is_some_and(|execute| execute.exact),
        b'D' | b'C' => Target::read(body).is_some_and(|target| target.exact),
        b'F' => FunctionCall::read(body, |_| {})
            .is_some_and(|call| call.exact && formats(call.formats) && matches!(call.result_format, 0 | 1)),
        b'H' | b'S' | b'X' => body.is_empty(),
        _ => false,
    }
}

fn formats(codes: &[u8]) -> bool {
    (0..codes.len() / 2).all(|index| matches!(format_at(codes, index), 0 | 1))
}

/// The end of what one send carried, as far as ReadyForQuery may need it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Tail {
    bytes: [u8; READY.len() + 1],
    length: usize,
}

impl Tail {
    /// Adds the next bytes of the same send.
    pub fn push(&mut self, bytes: &[u8]) {
        if let Some(end) = bytes.last_chunk() {
            (self.bytes, self.length) = (*end, end.len());
            return;
        }
        let fresh = bytes.get(bytes.len().saturating_sub(self.bytes.len())..).unwrap_or(bytes);
        self.bytes.rotate_left(fresh.len());
        let at = self.bytes.len() - fresh.len();
        if let Some(place) = self.bytes.get_mut(at..) {
            place.copy_from_slice(fresh);
        }
        self.length = (self.length + bytes.len()).min(self.bytes.len());
    }

    /// Forgets everything: another send begins, or bytes were lost.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// The transaction status, if the bytes end with ReadyForQuery.
    pub fn ready(&self) -> Option<u8> {
        let (status, header) = self.bytes.split_last()?;
        let whole = self.length == self.bytes.len() && header == READY;
        (whole && matches!(status, b'I' | b'T' | b'E')).then_some(*status)
    }
}

/// ReadyForQuery's tag and length; its body is one byte.
const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];
/// ReadyForQuery's bytes.
pub const READY_LEN: u64 = READY.len() as u64 + 1;
