//! The agent's hands: what can be done with a stopped backend.

use std::io;

use capture_common::{HOLD_UNREAD, Hold, SessionKey};

use crate::probes::{Holds, Way};
use crate::shim::Client;
use crate::telemetry::metrics;

/// The table of holds, and the way to the shim.
pub struct Backends {
    holds: Holds,
    shim: Client,
    piece: Vec<u8>,
}

impl Backends {
    /// Acts on what stands in `holds`, with the help of the shim.
    #[must_use]
    pub fn new(holds: Holds, shim: Client) -> Self {
        Self { holds, shim, piece: Vec::new() }
    }

    /// The hold of process `tgid` that began `at`, if the backend still waits with it.
    #[must_use]
    pub fn find(&self, tgid: u32, at: u64) -> Option<Hold> {
        self.holds.find(tgid, at)
    }

    /// The backends that wait: with bytes that no event carries, or else those that do.
    #[must_use]
    pub fn waiting(&self, unread: bool) -> Vec<Hold> {
        let mut waiting = self.holds.waiting();
        waiting.retain(|hold| (hold.flags & HOLD_UNREAD != 0) == unread);
        waiting
    }

    /// Fetches what a backend waits with, piece by piece, each with its position in the session's stream.
    ///
    /// # Errors
    ///
    /// The rest cannot be had: the backend is gone or went on, or the shim cannot be reached.
    pub fn fetch(&mut self, hold: &Hold, mut take: impl FnMut(u64, &[u8])) -> io::Result<()> {
        let mut done = 0;
        while done < hold.len {
            let length = usize::try_from(hold.len - done).unwrap_or(usize::MAX).min(Client::MAX_PIECE);
            self.piece.resize(length, 0);
            self.shim.read(hold, done, &mut self.piece)?;
            take(hold.offset.wrapping_add(done), &self.piece);
            done += length as u64;
            metrics::FETCHED_BYTES.add(length as u64);
        }
        Ok(())
    }

    /// Has a message fail: see [`Client::refuse`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn refuse(&mut self, hold: &Hold, offset: u64, message: &[u8], reason: &str) -> io::Result<()> {
        self.shim.refuse(hold, offset, message, reason)
    }

    /// The same, of a message of which the end is left: see [`Client::spoil`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn spoil(&mut self, hold: &Hold, offset: u64, end: &[u8]) -> io::Result<()> {
        self.shim.spoil(hold, offset, end)
    }

    /// Gives a backend that waits time until `deadline`, in nanoseconds of `CLOCK_MONOTONIC`; then it goes on, or, if
    /// `closed`, ends.
    ///
    /// # Errors
    ///
    /// It does not wait any more, or will not for long; or the table cannot be written.
    pub fn extend(&mut self, hold: &Hold, deadline: u64, closed: bool) -> io::Result<Hold> {
        self.holds.extend(hold, deadline, closed)
    }

    /// Ends the session of a backend that could not be stopped.
    ///
    /// # Errors
    ///
    /// The signal cannot be sent.
    pub fn end(&mut self, session: SessionKey) -> io::Result<()> {
        self.holds.end(session)
    }

    /// Lets a backend go on, or ends its session.
    pub fn release(&mut self, hold: &Hold, way: Way) {
        let released = match way {
            Way::On => self.holds.release(hold, Way::On),
            // With the shim out of reach this agent does it: it has the right to send signals.
            Way::End => self.shim.terminate(hold).or_else(|_| self.holds.release(hold, Way::End)),
        };
        if let Err(error) = released {
            tracing::error!(
                pid = hold.session.tgid, %error,
                "cannot let a stopped backend go on; the shim tries again (see docs/errors.md#hold-overdue)"
            );
        }
    }
}
