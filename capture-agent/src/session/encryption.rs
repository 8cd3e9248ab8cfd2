//! Sessions whose bytes are encrypted on the socket.
//!
//! ```text
//!   socket:   clear bytes │ handshake, ciphertext …                     counted, never part of a stream
//!   stream:   clear bytes │ plaintext, as the server takes and gives it  counted, read, recorded
//! ```
//!
//! A session's streams are the socket's bytes until encryption begins and the plaintext from there; of a session that was
//! encrypted before the agent came, the plaintext only. Where no probe
//! stands in the server's TLS code, no plaintext comes; what passed over the socket is then declared as a gap, since it
//! is all that is known of the stream.

use serde::{Deserialize, Serialize};

use super::conversation::Conversation;
use super::sync::Sync;
use super::{Direction, Micros, Mode, Session, Sink};
use crate::frames::handshake::Handshake;

/// What is known of a session's encryption.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Encryption {
    handshake: Handshake,
    /// Whether plaintext has passed.
    in_clear: bool,
    /// Bytes that passed over the socket, as far as the kernel side said: from the client, to it.
    socket: [u64; 2],
}

impl Session {
    /// Bytes of an encrypted connection passed over the socket, at position `offset` of its stream.
    pub fn sealed(&mut self, direction: Direction, offset: u64, bytes: &[u8]) {
        if self.info.gss_encrypted {
            return;
        }
        self.info.tls = true;
        let from_server = direction == Direction::Backend;
        self.encryption.handshake.feed(from_server, offset, bytes);
        if self.info.tls_version.is_none()
            && let Some(agreed) = self.encryption.handshake.negotiated()
        {
            self.info.tls_version = Some(agreed.version().into());
            self.info.tls_cipher = Some(agreed.cipher().into());
        }
    }

    /// It is GSSAPI that encrypts the session's bytes.
    pub fn by_gss(&mut self) {
        self.info.gss_encrypted = true;
        self.info.tls = false;
    }

    /// The kernel side's count of the socket's bytes, also of those of which no event was delivered.
    pub fn socket_at(&mut self, ends: [u64; 2]) {
        self.encryption.socket = ends;
    }

    /// Plaintext passes: from here on the streams are read again.
    pub(super) fn in_clear(&mut self, sink: &mut impl Sink) {
        if std::mem::replace(&mut self.encryption.in_clear, true) {
            return;
        }
        self.info.tls = !self.info.gss_encrypted;
        let (partial, idle) = (self.info.origin.partial, self.info.origin.idle);
        if partial {
            // What came of an open session so far was taken for clear text. The kernel side counts anew from here.
            self.frontend.restart();
            self.backend.restart();
            self.conversation = Conversation::new(self.conversation.limits(), partial);
            self.sync = Sync::new(idle);
            self.hold = None;
            self.protocol_error = None;
        }
        // What is missing so far may be the front of what follows.
        let [lost_requests, lost_replies] =
            [&self.frontend, &self.backend].map(|lane| lane.ledger.lost() > 0);
        let frontend = if partial || lost_requests { Mode::OutOfSync } else { Mode::Startup };
        // A server that waits sends nothing but whole messages next.
        let backend = if (partial && !idle) || lost_replies { Mode::OutOfSync } else { Mode::Messages };
        self.frontend.in_clear(frontend, &self.info, sink);
        self.backend.in_clear(backend, &self.info, sink);
    }

    /// The session ends. If data was encrypted and no plaintext came of it, it is missing.
    pub(super) fn declare_unread(&mut self, at: Micros, sink: &mut impl Sink) {
        let Encryption { handshake, in_clear, socket: [received, sent] } = &self.encryption;
        // What a GSS client sends first cannot be told from data.
        let carries_data = self.info.gss_encrypted || (self.info.tls && handshake.carries_data());
        if !in_clear && carries_data {
            self.frontend.unread(*received, at, &self.info, sink);
            self.backend.unread(*sent, at, &self.info, sink);
        }
    }

    /// Bytes that passed over the socket: from the client, to it.
    pub(super) fn socket(&self) -> [u64; 2] {
        if self.info.tls || self.info.gss_encrypted {
            return self.encryption.socket;
        }
        [self.frontend.ledger.next(), self.backend.ledger.next()]
    }
}
