//! Query messages: one row per statement of the query string.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::request::{Kind, Request};
use super::running::{Begun, Ended};
use super::{Conversation, Replication, Turn};
use crate::frames::frontend;
use crate::session::saved::clipped;
use crate::session::split::statements;
use crate::session::{Micros, Protocol, SessionInfo, Sink, Status};

/// How far the server has come in a query string.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The string; none if it is not wholly known.
    #[serde(serialize_with = "clipped::text")]
    text: Option<Arc<str>>,
    /// Whether it holds more than one statement.
    several: bool,
    /// Where the next statement's stretch begins.
    at: usize,
    /// Statements begun.
    begun: u64,
    /// When the next statement began: the string was received, or the statement before ended.
    started_at: Micros,
    /// Whether the server refused the rest of the string.
    pub(super) failed: bool,
    /// Whether every text so far is certain to belong to its reply.
    sure: bool,
    holed: bool,
    truncated: bool,
    wire: u64,
    range: (u64, u64),
    scs: bool,
}

impl Progress {
    /// Notes what was cut off when it was saved.
    pub(super) fn mend(&mut self) {
        self.truncated |= self.text.as_ref().is_some_and(|text| clipped::is_at_limit(text.as_bytes()));
    }

    /// The beginning of a query string.
    pub(super) fn new(request: &Request, info: &SessionInfo) -> Self {
        let query = frontend::Query::read(&request.body);
        let text: Option<Arc<str>> = (!request.holed).then(|| info.client_encoding.decode(query.text).into());
        let scs = info.standard_conforming_strings;
        let several = text.as_ref().is_some_and(|text| has_several(text, scs));
        Self {
            text,
            several,
            at: 0,
            begun: 0,
            started_at: request.at,
            failed: false,
            sure: true,
            holed: request.holed,
            truncated: request.truncated,
            wire: request.wire,
            range: request.range(),
            scs,
        }
    }

    /// The whole string.
    pub(super) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// The next statement's text. A string with one statement is given as it was sent.
    fn next_text(&mut self) -> Option<Arc<str>> {
        let text = self.text.as_ref()?;
        if !self.several {
            return (self.begun == 0).then(|| Arc::clone(text));
        }
        let rest = text.get(self.at..)?;
        let range = statements(rest, self.scs).next()?;
        let statement = rest.get(range.clone())?;
        self.at += range.end;
        Some(statement.into())
    }

    /// Whether statements are left that no reply has come for.
    fn has_more(&self) -> bool {
        match &self.text {
            Some(text) if self.several => {
                text.get(self.at..).is_some_and(|rest| statements(rest, self.scs).next().is_some())
            }
            _ => self.begun == 0,
        }
    }

    /// The row of the next statement, and whether it is certain.
    fn next(&mut self, protocol: Protocol, at: Option<Micros>) -> Begun {
        let sql = self.next_text();
        self.sure &= sql.is_some() || self.text.is_none();
        let bytes_in = if self.begun == 0 { self.wire } else { 0 };
        self.begun += 1;
        let at = at.unwrap_or(self.started_at);
        Begun { protocol, at, sql, name: None, range: self.range, bytes_in }
    }
}

/// Whether `text` holds more than one statement. Most hold one, with or without a semicolon behind it.
fn has_several(text: &str, scs: bool) -> bool {
    let bare = text.trim_end_matches([' ', '\t', '\n', '\r', '\x0c', ';']);
    memchr::memchr(b';', bare.as_bytes()).is_some() && statements(text, scs).nth(1).is_some()
}

impl Conversation {
    /// The head, a Query, has a reply: opens its string, and the row of its next statement.
    pub(super) fn in_query(&mut self, turn: &mut Turn<'_, impl Sink>) {
        if self.progress.is_none() {
            // The server drops the unnamed statement and portal with every Query (`exec_simple_query`).
            self.names.forget(b"");
            if let Some(portal) = self.names.close(b"") {
                self.queue.recycle(portal.body);
            }
            let Some(request) = self.queue.head() else { return };
            self.progress = Some(Progress::new(request, turn.info));
            self.queue.release_head();
        }
        if !self.run.active {
            self.begin_query_statement(None);
        }
    }

    /// Begins the row of the query string's next statement.
    fn begin_query_statement(&mut self, at: Option<Micros>) {
        let Some(mut progress) = self.progress.take() else { return };
        let begun = progress.next(self.simple_protocol(progress.text.as_deref()), at);
        self.begin(begun);
        self.exchange.complete = progress.sure && !progress.holed;
        self.exchange.params_truncated = progress.truncated;
        self.progress = Some(progress);
    }

    fn simple_protocol(&self, text: Option<&str>) -> Protocol {
        match self.replication {
            Replication::No => Protocol::Simple,
            Replication::Physical => Protocol::Replication,
            Replication::Logical if text.is_some_and(is_replication_command) => Protocol::Replication,
            Replication::Logical => Protocol::Simple,
        }
    }

    /// The statement of the head, a Query, is done.
    pub(super) fn finish_query_statement(&mut self, ended: Ended, turn: &mut Turn<'_, impl Sink>) {
        if let Some(progress) = &mut self.progress {
            progress.started_at = turn.at;
            if progress.several
                && let (Some(tag), Some(sql)) = (&ended.tag, &self.exchange.sql)
                && !may_give(sql, tag)
            {
                progress.sure = false;
            }
            self.exchange.complete &= progress.sure;
        }
        self.finish(ended, turn);
    }

    /// The server refused the head, a Query: the statement that it was at failed, the rest never ran.
    pub(super) fn fail_query(&mut self, ended: Ended, whole: bool, turn: &mut Turn<'_, impl Sink>) {
        if whole && self.progress.is_none() {
            // The string as a whole could not be read, so that there is no telling statements apart.
            self.in_query_as_one(turn);
        }
        self.in_query(turn);
        self.finish(ended, turn);
        self.end_query(Status::Skipped, turn);
        if let Some(progress) = &mut self.progress {
            progress.failed = true;
        }
    }

    fn in_query_as_one(&mut self, turn: &mut Turn<'_, impl Sink>) {
        self.names.forget(b"");
        if let Some(request) = self.queue.head() {
            let mut progress = Progress::new(request, turn.info);
            progress.several = false;
            self.progress = Some(progress);
            self.queue.release_head();
        }
    }

    /// Gives the statements of the query string that no reply came for `status`.
    pub(super) fn end_query(&mut self, status: Status, turn: &mut Turn<'_, impl Sink>) {
        while self.progress.as_ref().is_some_and(|progress| !progress.failed && progress.has_more()) {
            self.begin_query_statement(None);
            self.exchange.complete &= status != Status::Unknown;
            self.finish(Ended::with(status), turn);
        }
    }

    /// ReadyForQuery closes the head, a Query.
    pub(super) fn close_query(&mut self, turn: &mut Turn<'_, impl Sink>) {
        if self.run.active {
            // A replication command may be answered with several tags; its row ends here.
            let tag = self.exchange.command_tag.take();
            let status = if tag.is_some() { Status::Completed } else { Status::Unknown };
            self.finish(Ended { status, tag, error: None, touched: false }, turn);
        }
        if self.progress.is_none() {
            self.in_query(turn);
            self.finish(Ended::with(Status::Unknown), turn);
        }
        self.end_query(Status::Unknown, turn);
        self.progress = None;
        if let Some(request) = self.queue.pop() {
            debug_assert_eq!(request.kind, Kind::Query);
            self.queue.recycle(request.body);
        }
    }
}

/// Whether a statement that begins like `sql` may be answered with `tag`.
///
/// Only statements whose tag begins with their own first word are judged: a mismatch means that texts and
/// replies are not in step.
fn may_give(sql: &str, tag: &str) -> bool {
    let word = sql.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
    let strict = ["insert", "update", "delete", "merge", "copy", "set", "show", "drop", "alter", "truncate"];
    if !strict.iter().any(|known| word.eq_ignore_ascii_case(known)) {
        return true;
    }
    tag.get(..word.len()).is_some_and(|front| front.eq_ignore_ascii_case(word))
}

/// Whether a walsender takes `text` for a command of its own (`src/backend/replication/repl_scanner.l`).
fn is_replication_command(text: &str) -> bool {
    let word = text.trim_start().split(|c: char| !c.is_ascii_alphabetic() && c != '_').next();
    word.is_some_and(|word| COMMANDS.iter().any(|known| word.eq_ignore_ascii_case(known)))
}

const COMMANDS: [&str; 9] = [
    "IDENTIFY_SYSTEM",
    "BASE_BACKUP",
    "START_REPLICATION",
    "CREATE_REPLICATION_SLOT",
    "DROP_REPLICATION_SLOT",
    "ALTER_REPLICATION_SLOT",
    "READ_REPLICATION_SLOT",
    "TIMELINE_HISTORY",
    "UPLOAD_MANIFEST",
];
