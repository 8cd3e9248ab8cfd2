//! What agent and shim say to each other, over a Unix socket: fixed-size requests, of two verbs with bytes behind them,
//! each answered with a code and, for a piece of memory, its bytes. Numbers are little-endian.

use std::io;

/// Bytes of a request.
pub(super) const REQUEST: usize = 32;
/// Bytes of a reply, before the piece.
pub(super) const REPLY: usize = 4;
/// The longest piece.
pub(super) const MAX_PIECE: usize = 1 << 20;
/// The longest reason.
pub(super) const MAX_REASON: usize = 512;

/// What the shim is to do with a stopped backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) verb: Verb,
    /// The backend.
    pub(super) tgid: u32,
    /// [`Hold::at`](capture_common::Hold::at) of the hold that is meant.
    pub(super) at: u64,
    /// From where in the hold's bytes on; of [`Verb::Read`], [`Verb::Refuse`] and [`Verb::Spoil`].
    pub(super) offset: u64,
    /// How many. Of [`Verb::Refuse`] and [`Verb::Spoil`], which only act if these bytes stand there, they follow the
    /// request.
    pub(super) len: u32,
    /// Bytes of the reason, which follow the others; of [`Verb::Refuse`].
    pub(super) reason: u32,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// Read a piece of the bytes that it waits with.
    Read = 1,
    /// Let it go on.
    Release = 2,
    /// End its session.
    Terminate = 3,
    /// Put a message in the place of one, which fails with the reason.
    Refuse = 4,
    /// Make the end of a message such that the message fails.
    Spoil = 5,
}

impl Request {
    pub(super) fn to_bytes(self) -> [u8; REQUEST] {
        let mut bytes = [0; REQUEST];
        bytes[0..4].copy_from_slice(&(self.verb as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.tgid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.at.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.len.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.reason.to_le_bytes());
        bytes
    }

    /// Reads a request; none if it is not one.
    pub(super) fn parse(bytes: &[u8; REQUEST]) -> Option<Self> {
        let half = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let whole = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let verb = match half(0)? {
            1 => Verb::Read,
            2 => Verb::Release,
            3 => Verb::Terminate,
            4 => Verb::Refuse,
            5 => Verb::Spoil,
            _ => return None,
        };
        let (len, reason) = (half(24)?, half(28)?);
        let most = if verb == Verb::Refuse { MAX_REASON } else { 0 };
        let fits = len as usize <= MAX_PIECE && reason as usize <= most;
        fits.then_some(Self { verb, tgid: half(4)?, at: whole(8)?, offset: whole(16)?, len, reason })
    }

    /// How many bytes follow the request.
    pub(super) fn follow(self) -> usize {
        match self.verb {
            Verb::Refuse | Verb::Spoil => self.len as usize + self.reason as usize,
            Verb::Read | Verb::Release | Verb::Terminate => 0,
        }
    }
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// Done; of [`Verb::Read`] the piece follows.
    Done,
    /// The backend does not wait with this hold any more.
    Over,
    /// The system refused.
    Failed,
}

impl Reply {
    pub(super) fn of(done: &io::Result<()>) -> Self {
        match done {
            Ok(()) => Self::Done,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Over,
            Err(_) => Self::Failed,
        }
    }

    pub(super) fn to_bytes(self) -> [u8; REPLY] {
        (self as u32).to_le_bytes()
    }

    pub(super) fn parse(bytes: [u8; REPLY]) -> Option<Self> {
        [Self::Done, Self::Over, Self::Failed].into_iter().find(|reply| reply.to_bytes() == bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_request_is_read_as_it_was_written(
            verb in prop::sample::select(vec![
                Verb::Read, Verb::Release, Verb::Terminate, Verb::Refuse, Verb::Spoil,
            ]),
            tgid: u32, at: u64, offset: u64, len in 0..=MAX_PIECE as u32, reason in 0..=MAX_REASON as u32,
        ) {
            let reason = if verb == Verb::Refuse { reason } else { 0 };
            let request = Request { verb, tgid, at, offset, len, reason };
            prop_assert_eq!(Request::parse(&request.to_bytes()), Some(request));
        }

        #[test]
        fn what_is_read_can_be_written_again(bytes: [u8; REQUEST]) {
            if let Some(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.to_bytes(), bytes);
            }
        }
    }

    #[test]
    fn no_piece_is_larger_than_its_buffer() {
        let request =
            Request { verb: Verb::Read, tgid: 1, at: 2, offset: 3, len: MAX_PIECE as u32, reason: 0 };
        assert_eq!(Request::parse(&request.to_bytes()), Some(request));
        let long = Request { len: request.len + 1, ..request };
        assert_eq!(Request::parse(&long.to_bytes()), None);
        let long = Request { verb: Verb::Refuse, reason: MAX_REASON as u32 + 1, ..request };
        assert_eq!(Request::parse(&long.to_bytes()), None);
        assert_eq!(Request::parse(&[0; REQUEST]), None);
        for reply in [Reply::Done, Reply::Over, Reply::Failed] {
            assert_eq!(Reply::parse(reply.to_bytes()), Some(reply));
        }
        assert_eq!(Reply::parse([9; REPLY]), None);
    }
}
