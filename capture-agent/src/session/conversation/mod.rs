//! What client and server say to each other, paired.
//!
//! The client's messages wait in a queue. A reply of the server's belongs to the head of the queue: the server
//! handles messages one by one and in order. Prepared statements and portals change when the reply says that
//! they did, as they do in the server; so a name always stands for what the server takes it for, also in a
//! pipeline, also after a Parse that failed.
//!
//! ```text
//!             ┌─────────┐ startup   ┌────────────────┐ AuthenticationOk … Z ┌───────┐
//!             │ Startup ├──────────►│ Authenticating ├─────────────────────►│ Ready │
//!             └─────────┘           └────────────────┘                      └───┬───┘
//!                                                                               │
//!   of Ready:                                                                   ▼
//!   ┌─────────────────────────────────────────────────────────────────────────────┐
//!   │ Paired ──── error in the extended protocol ───► Skipping ──── Sync ───► Paired │
//!   │   │ G: COPY from the client, the head stays until its reply ends               │
//!   │   │ a reply that the head cannot have                                          │
//!   │   └─────────► Confused ───── the server is provably idle ────────────► Paired  │
//!   └─────────────────────────────────────────────────────────────────────────────┘
//! ```

mod asked;
mod copying;
mod extended;
mod fate;
mod names;
mod query;
mod replies;
mod request;
mod running;
mod startup;

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use names::{Described, Names, Portal};
use query::Progress;
use request::{Kind, Queue};
pub(super) use running::Expected;
use running::Run;

use super::saved::clipped;
use super::{Column, Exchange, Judged, Limits, Micros, SessionInfo, Sink, Tag};
use crate::frames::Frame;

/// Where and when a conversation's message is handled, and who hears of it.
pub(super) struct Turn<'a, S> {
    pub(super) info: &'a mut SessionInfo,
    pub(super) at: Micros,
    pub(super) sink: &'a mut S,
}

/// The conversation of one session.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Conversation {
    #[serde(skip)]
    limits: Limits,
    phase: Phase,
    queue: Queue,
    names: Names,
    /// Whether the server discards everything until Sync.
    skipping: bool,
    /// Whether a reply did not fit its request: nothing is paired until the server is idle.
    confused: bool,
    /// Position in the client's stream before which requests were given up on, though the server may run them.
    given_up: u64,
    /// The verdicts on requests that wait, by their first bytes' positions.
    judged: Vec<(u64, Arc<Judged>)>,
    /// Whether the client sent messages of the extended protocol since the last Sync.
    unsynced: bool,
    /// Whether the session is a walsender's.
    replication: Replication,
    /// What the walk over statements without a reply has defined on its way.
    overlay: fate::Overlay,
    /// The query string of the Query at the head, once the server began to answer it.
    progress: Option<Progress>,
    /// The statement that the server is working on.
    run: Run,
    /// The portal of the Execute that is done but not handed out: the server has not committed it yet.
    unsettled: Option<Unsettled>,
    /// Its row; what is left in it is overwritten by the next.
    exchange: Exchange,
    /// The latest RowDescription that belongs to no prepared statement.
    row_description: Option<Described>,
    /// The latest CommandComplete's tag.
    #[serde(skip)]
    tag: Option<Tag>,
    /// A portal that is closed, for the next Bind.
    #[serde(skip)]
    spare_portal: Option<Box<Portal>>,
    /// Its columns.
    #[serde(skip)]
    spare_columns: Option<Arc<[Column]>>,
    /// The number of the next statement.
    seq: u64,
    errors: u64,
    /// SQLSTATE of the error with which the server ended the session.
    fatal: Option<String>,
    terminated: bool,
    unnamed: Arc<str>,
}

/// The name of a portal, if it could be read.
type Unsettled = Option<Box<[u8]>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Startup,
    Authenticating,
    Ready,
    Cancel,
}

/// The startup packet's `replication` option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Replication {
    No,
    /// Takes replication commands only.
    Physical,
    /// Takes replication commands and SQL.
    Logical,
}

/// What the other direction must take the next byte for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing changes.
    Continue,
    /// The client sent its StartupMessage: messages follow.
    Started,
    /// The client asked for encryption: the server answers with one byte.
    Negotiate,
    /// The server declined: messages follow from it, a startup packet from the client.
    Declined,
    /// The server accepted: nothing that follows can be read.
    Encrypted,
}

impl Conversation {
    pub(super) fn new(limits: Limits, partial: bool) -> Self {
        Self {
            limits,
            phase: if partial { Phase::Ready } else { Phase::Startup },
            queue: Queue::default(),
            names: Names::default(),
            skipping: false,
            confused: false,
            given_up: 0,
            judged: Vec::new(),
            unsynced: false,
            replication: Replication::No,
            overlay: fate::Overlay::default(),
            progress: None,
            run: Run::default(),
            unsettled: None,
            exchange: running::blank(),
            row_description: None,
            tag: None,
            spare_portal: None,
            spare_columns: None,
            seq: 0,
            errors: 0,
            fatal: None,
            terminated: false,
            unnamed: Arc::from(""),
        }
    }

    /// What it was made with.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// How much of the body of a client's message is wanted, which has so much.
    #[inline]
    pub(super) fn keep_request(&self, tag: u8, length: u32) -> usize {
        let length = length as usize;
        if tag != b'd' && length <= KEPT_NAMES {
            return length;
        }
        let free = self.limits.kept.saturating_sub(self.queue.held() + self.names.held());
        let wanted = if tag != b'd' {
            free.max(KEPT_NAMES)
        } else if self.takes_copy_data() {
            self.copy_room().min(free)
        } else {
            // Ahead of the server's CopyInResponse; its receive buffer holds no more.
            QUEUED_COPY.saturating_sub(self.queue.held()).min(free)
        };
        wanted.min(length)
    }

    /// How much of the body of a server's message is wanted, which has so much.
    #[inline]
    pub(super) fn keep_reply(&self, tag: u8, length: u32) -> usize {
        let length = length as usize;
        match tag {
            // A row is recorded whole or not at all.
            b'D' if length <= self.run.room(&self.limits) => length,
            b'D' => 0,
            b'd' => length.min(self.copy_room()),
            _ => length.min(KEPT_REPLY),
        }
    }

    /// A message of the client's.
    pub(super) fn request(&mut self, frame: Frame<'_>, turn: &mut Turn<'_, impl Sink>) -> Then {
        match (self.phase, Kind::of(frame.tag)) {
            (Phase::Startup, _) => return self.startup(&frame, turn),
            (Phase::Cancel, _) => {}
            (_, Some(kind)) => self.take(kind, frame, turn),
            (_, None) => self.terminated |= frame.tag == b'X',
        }
        Then::Continue
    }

    fn take(&mut self, kind: Kind, frame: Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        match kind {
            Kind::Sync => self.unsynced = false,
            Kind::Parse | Kind::Bind | Kind::Describe | Kind::Execute | Kind::Close | Kind::Flush => {
                self.unsynced = true;
            }
            _ => {}
        }
        if self.takes_copy_data() && self.queue.len() == 1 {
            if self.copy_input(kind, &frame, turn) {
                return;
            }
        } else if kind.is_silent() && self.queue.len() == 0 {
            // Out of a COPY the server passes over it.
            return;
        }
        let end = frame.end();
        let request = self.queue.request(kind, frame, turn.at);
        if self.skipping && kind != Kind::Sync {
            return self.skip(request, turn);
        }
        self.skipping = false;
        self.queue.push(request);
        if self.queue.len() > self.limits.requests {
            self.confused = true;
            self.given_up = end;
            self.abandon(turn);
        }
    }

    /// Bytes of messages that are kept.
    pub(super) fn held(&self) -> usize {
        self.queue.held() + self.names.held() + self.exchange.params_body.capacity()
    }

    /// Notes what was cut off when it was saved.
    fn mend(&mut self) {
        for request in self.queue.iter_mut() {
            request.truncated |= clipped::is_at_limit(&request.body);
        }
        for portal in self.names.portals_mut() {
            portal.truncated |= clipped::is_at_limit(&portal.body);
        }
        if let Some(progress) = &mut self.progress {
            progress.mend();
        }
        let exchange = &mut self.exchange;
        let text = exchange.sql.as_ref().is_some_and(|text| clipped::is_at_limit(text.as_bytes()));
        exchange.params_truncated |= text || clipped::is_at_limit(&exchange.params_body);
    }

    /// The named prepared statements, which are saved apart from the rest.
    pub(super) fn prepared(&self) -> &impl Serialize {
        self.names.statements()
    }

    /// Changes whenever they do.
    pub(super) fn prepared_version(&self) -> u64 {
        self.names.version()
    }

    /// Completes a conversation that was saved.
    pub(super) fn restore(&mut self, prepared: &[u8], limits: Limits) -> postcard::Result<()> {
        self.limits = limits;
        self.mend();
        if !prepared.is_empty() {
            self.names.restore(postcard::from_bytes(prepared)?);
        }
        Ok(())
    }

    /// Whether ReadyForQuery has come.
    pub(super) fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// Changes how much of each statement's rows is handed on, from the next statement on.
    pub(super) fn limit_rows(&mut self, rows: u64, bytes: u64) {
        self.limits.rows = rows;
        self.limits.bytes = bytes;
    }

    /// Whether the server was promised replies that it has not given.
    pub(super) fn expects_ready(&self) -> bool {
        self.queue.expects_ready() || self.confused
    }

    /// Whether a reply of the server's may belong to a request that is not in the queue, once it is emptied.
    pub(super) fn may_owe(&self) -> bool {
        self.unsynced || self.queue.is_lost()
    }

    /// Whether a reply did not fit its request since the server was last idle.
    pub(super) fn is_confused(&self) -> bool {
        self.confused
    }

    /// Statements recorded so far.
    pub(super) fn statements(&self) -> u64 {
        self.seq
    }

    pub(super) fn errors(&self) -> u64 {
        self.errors
    }

    /// SQLSTATE of the error with which the server ended the session.
    pub(super) fn fatal(&self) -> Option<&str> {
        self.fatal.as_deref()
    }

    /// Whether the client said that it leaves.
    pub(super) fn terminated(&self) -> bool {
        self.terminated
    }

    /// Whether the connection carried a CancelRequest.
    pub(super) fn is_cancel(&self) -> bool {
        self.phase == Phase::Cancel
    }

    /// Bytes of the client's stream were lost: what it asked for from here on is not known.
    pub(super) fn lost_requests(&mut self, at: Micros) {
        if self.takes_copy_data() {
            self.run.touched = true;
        }
        self.queue.push_lost(at);
    }

    /// Bytes of the server's stream were lost: the statement that it was answering is touched.
    pub(super) fn lost_replies(&mut self) {
        self.run.touched = true;
        self.confused = true;
    }

    /// How much of a CopyData message is wanted: nothing, once its rows are not.
    fn copy_room(&self) -> usize {
        let rows = self.run.copy.as_ref().and_then(|copy| copy.rows.as_ref());
        if rows.is_some() { self.run.room(&self.limits) } else { 0 }
    }

    pub(super) fn close_portals(&mut self) {
        if let Some(portal) = self.names.close_portals() {
            self.recycle_portal(portal);
        }
    }
}

/// What is kept of a request in any case: its front, where the names stand.
const KEPT_NAMES: usize = 1 << 10;
/// What is kept of a reply that is neither row nor COPY data. A RowDescription of 1,664 columns, the most a
/// target list can have (`MaxTupleAttributeNumber`), takes 140 KiB; error messages may be longer than anybody
/// reads.
const KEPT_REPLY: usize = 256 << 10;
/// COPY data kept ahead of the server's CopyInResponse: more than its receive buffer of 8 KiB cannot be on the
/// way.
const QUEUED_COPY: usize = 64 << 10;
