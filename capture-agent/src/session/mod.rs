//! Frames in, exchanges out: what each session said, one [`Exchange`] per executed statement.
//!
//! Sans-IO: bytes, system facts and time come in as arguments; everything that is known goes out through a
//! [`Sink`], in the order in which it became known.
//!
//! A [`Session`] owns both directions of one session. Each runs through a ledger and a decoder; the messages meet
//! in the conversation, which pairs requests with replies. The order of the events is the order of the
//! backend's own system calls, so that what the server had received when it answered is known.

mod asked;
mod conversation;
mod copy;
pub mod data_row;
mod encryption;
mod exchange;
mod hold;
mod judged;
mod lane;
pub mod lexer;
mod limits;
mod passed;
mod rows;
mod saved;
pub mod split;
mod sync;
#[cfg(test)]
pub(crate) mod testing;
pub mod value;

pub use asked::{Asked, What};
pub use data_row::DataRow;
pub use exchange::{
    Column, Direction, EndReason, Exchange, Gap, GapReason, Micros, Origin, Param, Protocol, ServerOrigin,
    SessionEnd, SessionId, SessionInfo, Sink, SqlState, Status, Tag, Transport,
};
pub use judged::{Judged, Verdict};
pub use limits::Limits;
pub use passed::{Passed, Unwanted};
pub use rows::{RowRun, RowValues, Values};
pub use saved::RestoreError;

use serde::{Deserialize, Serialize};

use conversation::{Conversation, Expected, Then, Turn};
use encryption::Encryption;
use hold::Hold;
use lane::Lane;

use crate::frames::{Mode, Step};
use crate::streams::Loss;

/// Bytes of a session: one event of the kernel side's.
#[derive(Clone, Copy, Debug)]
pub struct Data<'a> {
    /// Which way they went.
    pub direction: Direction,
    /// Position of the first byte in the stream of that direction.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Why bytes are missing right before them, if any are.
    pub loss: Option<Loss>,
    /// Whether they are the last of their call.
    pub end_of_call: bool,
    /// Whether the session is encrypted, and these are what the server took or gave in clear.
    pub plaintext: bool,
    /// When they passed.
    pub at: Micros,
}

/// How a session ended, as the kernel side saw it.
#[derive(Clone, Copy, Debug)]
pub struct Close {
    /// Where each stream ended: the client's, the server's.
    pub ends: [u64; 2],
    /// How many bytes passed over the socket: from the client, to it.
    pub socket: [u64; 2],
    /// Why bytes before each end are missing, if any are.
    pub losses: [Option<Loss>; 2],
    /// The backend's exit status as `wait(2)` reports it.
    pub exit_status: u32,
    /// When it ended.
    pub at: Micros,
}

/// One session, from its first byte to its last.
///
/// Hand it every event with [`Session::data`] or [`Session::sealed`], in the order in which they happened, and end it
/// with [`Session::close`] or [`Session::stop`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Session {
    info: SessionInfo,
    frontend: Lane,
    backend: Lane,
    conversation: Conversation,
    sync: sync::Sync,
    /// Set from the point where a stream was found again until the pairing is proven.
    hold: Option<Hold>,
    encryption: Encryption,
    protocol_error: Option<String>,
    /// Where each stream was when the kernel side began to count it anew.
    base: [u64; 2],
}

impl Session {
    /// A session of which nothing was read yet.
    pub fn new(origin: Origin, limits: Limits) -> Self {
        let Origin { partial, idle, .. } = origin;
        let info = SessionInfo {
            user: origin.user.as_deref().map(Into::into),
            database: origin.database.as_deref().map(Into::into),
            application_name: None,
            auth_method: None,
            server_version: origin.server.version.as_deref().map(Into::into),
            client_encoding: value::Encoding::default(),
            standard_conforming_strings: true,
            tls: false,
            gss_encrypted: false,
            tls_version: None,
            tls_cipher: None,
            origin,
        };
        Self {
            info,
            frontend: Lane::new(Direction::Frontend, partial),
            // A server that waits sends nothing but whole messages next.
            backend: Lane::new(Direction::Backend, partial && !idle),
            conversation: Conversation::new(limits, partial),
            sync: sync::Sync::new(partial && idle),
            hold: None,
            encryption: Encryption::default(),
            protocol_error: None,
            base: [0; 2],
        }
    }

    /// Nobody captured for a while; the kernel side counts anew, from where the streams were at `ends`. False if that
    /// cannot be this session: its streams have come further, or do not count the socket's bytes.
    pub fn resume_at(&mut self, ends: [u64; 2], at: Micros, sink: &mut impl Sink) -> bool {
        let [frontend, backend] = ends;
        let behind = frontend < self.frontend.ledger.next() || backend < self.backend.ledger.next();
        if behind || self.info.tls || self.info.gss_encrypted {
            return false;
        }
        self.base = [0; 2];
        self.advance_to(Direction::Frontend, frontend, Some(Loss::Unwatched), at, sink);
        self.advance_to(Direction::Backend, backend, Some(Loss::Unwatched), at, sink);
        self.base = ends;
        true
    }

    /// What is known of the session so far.
    pub fn info(&self) -> &SessionInfo {
        &self.info
    }

    /// More became known of the server.
    pub fn set_server(&mut self, server: std::sync::Arc<ServerOrigin>) {
        self.info.origin.server = server;
    }

    /// Whether the server has said ReadyForQuery: what the client tells of itself has been told.
    pub fn is_ready(&self) -> bool {
        self.conversation.is_ready()
    }

    /// Changes how much of each statement's rows is handed on: so many of them, and so many bytes of their messages.
    pub fn limit_rows(&mut self, rows: u64, bytes: u64) {
        self.conversation.limit_rows(rows, bytes);
    }

    /// Bytes of messages that the session holds at the moment: incomplete ones, and those that wait.
    pub fn held(&self) -> usize {
        self.frontend.decoder.held() + self.backend.decoder.held() + self.conversation.held()
    }

    /// Bytes passed over the session's socket; or, once it is encrypted, through the server's encryption.
    pub fn data(&mut self, data: Data<'_>, sink: &mut impl Sink) {
        let Data { direction, offset, bytes, loss, end_of_call, plaintext, at } = data;
        if plaintext {
            self.in_clear(sink);
        }
        let offset = self.place(direction, offset);
        let accepted = self.lane(direction).ledger.accept(offset, bytes, loss);
        if let Some(hole) = accepted.hole {
            self.hole(direction, hole, at, sink);
        }
        match direction {
            Direction::Frontend => self.received(accepted.offset, accepted.bytes, end_of_call, at, sink),
            Direction::Backend => self.sent(accepted.offset, accepted.bytes, end_of_call, at, sink),
        }
    }

    /// A stream is at `end`, though no event said what came before: the kernel side's own count.
    pub fn advance_to(
        &mut self,
        direction: Direction,
        end: u64,
        loss: Option<Loss>,
        at: Micros,
        sink: &mut impl Sink,
    ) {
        let end = self.place(direction, end);
        if let Some(hole) = self.lane(direction).ledger.advance(end, loss) {
            self.hole(direction, hole, at, sink);
        }
    }

    /// The backend ended, and the session with it.
    pub fn close(mut self, close: Close, sink: &mut impl Sink) {
        let Close { ends: [frontend, backend], socket, losses, exit_status, at } = close;
        let [frontend_loss, backend_loss] = losses;
        self.socket_at(socket);
        self.advance_to(Direction::Frontend, frontend, frontend_loss, at, sink);
        self.advance_to(Direction::Backend, backend, backend_loss, at, sink);
        let signal = u8::try_from(exit_status & WAIT_SIGNAL).unwrap_or(0);
        let reason = if signal != 0 {
            EndReason::Signal(signal)
        } else if self.conversation.is_cancel() {
            EndReason::CancelRequest
        } else if let Some(code) = self.conversation.fatal() {
            EndReason::Fatal(code.to_owned())
        } else if self.conversation.terminated() {
            EndReason::Terminate
        } else {
            EndReason::Disconnected
        };
        self.end(Some(at), reason, at, sink);
    }

    /// The agent stops while the session is open.
    pub fn stop(mut self, at: Micros, sink: &mut impl Sink) {
        self.end(None, EndReason::AgentStopped, at, sink);
    }

    /// The agent stops, and another will go on with this session: its totals so far.
    pub fn pause(&self, sink: &mut impl Sink) {
        sink.end(&self.info, &self.totals(None, EndReason::AgentStopped));
    }

    fn end(&mut self, ended_at: Option<Micros>, reason: EndReason, at: Micros, sink: &mut impl Sink) {
        let known = self.backend.decoder.mode() != Mode::OutOfSync && !self.conversation.is_confused();
        let status = if known { Status::InFlight } else { Status::Unknown };
        self.doubt(sink);
        self.conversation.end_all(status, &mut Turn { info: &mut self.info, at, sink });
        self.frontend.flush(&self.info, sink);
        self.backend.flush(&self.info, sink);
        self.declare_unread(at, sink);
        sink.end(&self.info, &self.totals(ended_at, reason));
    }

    fn totals(&self, ended_at: Option<Micros>, reason: EndReason) -> SessionEnd {
        let [socket_bytes_in, socket_bytes_out] = self.socket();
        SessionEnd {
            ended_at,
            reason,
            statements: self.conversation.statements(),
            errors: self.conversation.errors(),
            bytes_in: self.frontend.recorded(),
            bytes_out: self.backend.recorded(),
            gap_bytes: self.frontend.missing().saturating_add(self.backend.missing()),
            socket_bytes_in,
            socket_bytes_out,
            protocol_error: self.protocol_error.clone(),
        }
    }

    /// Reads what the server received.
    fn read_frontend(&mut self, mut bytes: &[u8], at: Micros, sink: &mut impl Sink) {
        loop {
            let conversation = &self.conversation;
            let keep = |tag, length| conversation.keep_request(tag, length);
            let then = match self.frontend.decoder.next(&mut bytes, keep) {
                Step::Pending => return,
                Step::Frame(frame) => match &mut self.hold {
                    None => {
                        let mut turn = Turn { info: &mut self.info, at, sink: &mut *sink };
                        self.conversation.request(frame, &mut turn)
                    }
                    Some(hold) => {
                        let mut turn = Turn { info: &mut self.info, at, sink: hold };
                        self.conversation.request(frame, &mut turn)
                    }
                },
                Step::Encrypted => Then::Encrypted,
                Step::Broken { offset, error } => {
                    self.protocol_error.get_or_insert_with(|| error.to_string());
                    self.frontend.stop_reading(Mode::OutOfSync, GapReason::ProtocolError);
                    let length = self.frontend.ledger.next().saturating_sub(offset);
                    self.frontend.declare(offset, length, at, &self.info, sink);
                    self.conversation.lost_requests(at);
                    return;
                }
            };
            match then {
                Then::Continue => {}
                Then::Started => self.frontend.decoder.set_mode(Mode::Messages),
                // A server's stream that is out of step is not found again by a client's request.
                Then::Negotiate if self.backend.decoder.mode() != Mode::Messages => {}
                Then::Negotiate => self.backend.decoder.set_mode(Mode::Negotiation),
                Then::Declined => {}
                Then::Encrypted => {
                    let offset = self.frontend.decoder.offset();
                    return self.encrypted(offset, Direction::Frontend, at, sink);
                }
            }
        }
    }

    /// Reads what the server sent. Whether the last message was ReadyForQuery, and nothing follows it.
    fn read_backend(&mut self, mut bytes: &[u8], at: Micros, sink: &mut impl Sink) -> bool {
        let mut ready = false;
        loop {
            self.read_rows(&mut bytes, at, sink);
            let conversation = &self.conversation;
            let keep = |tag, length| conversation.keep_reply(tag, length);
            let (then, tag) = match self.backend.decoder.next(&mut bytes, keep) {
                Step::Pending => return ready && self.backend.decoder.at_boundary(),
                Step::Frame(frame) => {
                    let then = match &mut self.hold {
                        None => {
                            let mut turn = Turn { info: &mut self.info, at, sink: &mut *sink };
                            self.conversation.reply(&frame, &mut turn)
                        }
                        Some(hold) => {
                            let mut turn = Turn { info: &mut self.info, at, sink: hold };
                            self.conversation.reply(&frame, &mut turn)
                        }
                    };
                    (then, frame.tag)
                }
                Step::Encrypted => return false,
                Step::Broken { offset, error } => {
                    self.protocol_error.get_or_insert_with(|| error.to_string());
                    self.backend.stop_reading(Mode::OutOfSync, GapReason::ProtocolError);
                    let length = self.backend.ledger.next().saturating_sub(offset);
                    self.backend.declare(offset, length, at, &self.info, sink);
                    self.conversation.lost_replies();
                    return false;
                }
            };
            ready = tag == b'Z';
            if self.hold.is_some() {
                self.judge(ready, sink);
            }
            match then {
                Then::Continue | Then::Started | Then::Negotiate => {}
                Then::Declined => self.backend.decoder.set_mode(Mode::Messages),
                Then::Encrypted => {
                    let offset = self.backend.decoder.offset();
                    self.encrypted(offset, Direction::Backend, at, sink);
                    return false;
                }
            }
        }
    }

    /// Takes rows that follow each other off the front of what the server sent, where more than one is expected and each
    /// lies in one piece. What is left is read one by one.
    #[inline]
    fn read_rows(&mut self, bytes: &mut &[u8], at: Micros, sink: &mut impl Sink) {
        let Some(expected) = self.conversation.expects_rows().filter(|_| self.hold.is_none()) else { return };
        let Expected { tag, rows, bytes: room } = expected;
        let (messages, count) = self.backend.decoder.run(tag, bytes, rows, room);
        if count > 0 {
            let mut turn = Turn { info: &mut self.info, at, sink };
            self.conversation.rows(tag, messages, count, &mut turn);
        }
    }

    /// From `offset` on of the direction that showed it, and from here on of the other, nothing can be read, unless
    /// plaintext comes.
    fn encrypted(&mut self, offset: u64, direction: Direction, at: Micros, sink: &mut impl Sink) {
        self.info.tls = !self.info.gss_encrypted;
        self.frontend.stop_reading(Mode::Opaque, GapReason::Encrypted);
        self.backend.stop_reading(Mode::Opaque, GapReason::Encrypted);
        let lane = match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        };
        let length = lane.ledger.next().saturating_sub(offset);
        lane.declare(offset, length, at, &self.info, sink);
    }

    /// Where the kernel side's `offset` is in the stream.
    fn place(&self, direction: Direction, offset: u64) -> u64 {
        let [frontend, backend] = self.base;
        offset.saturating_add(match direction {
            Direction::Frontend => frontend,
            Direction::Backend => backend,
        })
    }

    fn lane(&mut self, direction: Direction) -> &mut Lane {
        match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        }
    }
}

/// `wait(2)`: the signal that ended the process, 0 if none did.
const WAIT_SIGNAL: u32 = 0x7f;

#[cfg(test)]
mod tests;
