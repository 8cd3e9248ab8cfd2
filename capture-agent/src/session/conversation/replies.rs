//! The server's messages, each given to the request that it answers.

use super::extended::param;
use super::fate::is_of_names;
use super::request::Kind;
use super::running::{Begun, CopySide, Ended};
use super::{Conversation, Phase, Then, Turn};
use crate::frames::backend::{self, ErrorFields};
use crate::frames::frontend::{FunctionCall, format_at};
use crate::frames::{Frame, tag};
use crate::session::value::Encoding;
use crate::session::{Protocol, RowValues, Sink, SqlState, Status, Tag, Values};

impl Conversation {
    /// A message of the server's.
    pub(in crate::session) fn reply(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) -> Then {
        let body = frame.body();
        if self.unsettled.is_some() {
            self.settle_before(frame, turn);
        }
        match frame.tag {
            tag::NEGOTIATION if body == b"S" => return Then::Encrypted,
            tag::NEGOTIATION if body == b"G" => {
                // The client proves itself to GSSAPI before that encrypts; a server that is content with it asks for nothing
                // more (`ClientAuthentication` in `src/backend/libpq/auth.c`).
                turn.info.gss_encrypted = true;
                turn.info.auth_method = Some("gss".into());
                return Then::Encrypted;
            }
            tag::NEGOTIATION => return Then::Declined,
            b'N' | b'A' | b'K' | b'v' => {}
            b'S' => self.parameter_status(body, turn.info),
            b'R' => self.authentication(body, turn.info),
            b'E' => self.error(frame, turn),
            b'Z' => self.ready(backend::ready_for_query(body), turn),
            _ if self.confused || self.phase != Phase::Ready => {}
            _ => self.answer(frame, turn),
        }
        Then::Continue
    }

    /// A reply to the head of the queue.
    fn answer(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        match (self.head(), frame.tag) {
            (Some(Kind::Lost), _) => {}
            (Some(Kind::Query), _) => {
                self.in_query(turn);
                self.answer_statement(frame, turn);
            }
            (Some(Kind::Execute), b'T') => self.confused = true,
            (Some(Kind::Execute), _) => {
                self.in_execute();
                self.answer_statement(frame, turn);
            }
            (Some(Kind::Parse), b'1') => self.parsed(turn),
            (Some(Kind::Bind), b'2') => self.bound(frame, turn),
            (Some(Kind::Close), b'3') => self.closed(),
            (Some(Kind::Describe), b't' | b'T' | b'n') => self.described(frame, turn),
            (Some(Kind::Function), b'V') => self.function_returned(frame, turn),
            _ => self.confused = true,
        }
    }

    /// A reply to the statement at the head.
    fn answer_statement(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        let body = frame.body();
        let whole = !frame.holed && !frame.truncated;
        self.run.touched |= frame.holed;
        if frame.tag == b'D' {
            return self.data_row(body, frame.wire, whole, turn);
        }
        match frame.tag {
            b'd' => return self.copy_output(frame, turn),
            b'c' => return self.copy_output_over(frame, turn),
            _ => self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(frame.wire),
        }
        match frame.tag {
            b'T' => self.run.columns = whole.then(|| self.columns(body, turn.info)),
            b'C' => {
                let tag = whole.then(|| self.tag(backend::command_tag(body), turn.info.client_encoding));
                if self.exchange.protocol == Protocol::Replication {
                    self.exchange.command_tag = tag;
                } else {
                    self.complete(
                        Ended { status: Status::Completed, tag, error: None, touched: false },
                        turn,
                    );
                }
            }
            b'I' => self.complete(Ended::with(Status::Completed), turn),
            b's' => self.complete(Ended::with(Status::Suspended), turn),
            b'G' => self.begin_copy(CopySide::Client, body, turn),
            b'H' => self.begin_copy(CopySide::Server, body, turn),
            b'W' => self.begin_copy(CopySide::Both, body, turn),
            _ => self.confused = true,
        }
    }

    /// A tag: the same as the last, mostly.
    fn tag(&mut self, text: &[u8], encoding: Encoding) -> Tag {
        match self.tag.take() {
            Some(last) if encoding == Encoding::Utf8 && last.as_bytes() == text => last,
            _ => Tag::from(&*encoding.decode(text)),
        }
    }

    /// The statement at the head is done.
    fn complete(&mut self, ended: Ended, turn: &mut Turn<'_, impl Sink>) {
        let names = ended.tag.as_ref().filter(|tag| is_of_names(tag)).cloned();
        // A COPY from the client cannot complete before the client says that it is done.
        self.run.touched |=
            self.run.copy.as_ref().is_some_and(|copy| copy.side == CopySide::Client && !copy.input_over);
        if self.progress.is_some() {
            self.finish_query_statement(ended, turn);
        } else {
            self.finish_execute(ended, turn);
        }
        if let Some(tag) = names {
            self.follow_names(&tag, turn.info);
        }
    }

    /// What the server handles next. Passes over what it handles without a word.
    pub(super) fn head(&mut self) -> Option<Kind> {
        loop {
            let kind = self.queue.head()?.kind;
            if !kind.is_silent() {
                return Some(kind);
            }
            if let Some(request) = self.queue.pop() {
                self.queue.recycle(request.body);
            }
        }
    }

    fn ready(&mut self, status: Option<u8>, turn: &mut Turn<'_, impl Sink>) {
        if self.phase != Phase::Ready {
            self.phase = Phase::Ready;
        } else if !self.confused {
            match self.head() {
                Some(Kind::Query) => self.close_query(turn),
                Some(Kind::Sync) => {
                    if let Some(request) = self.queue.pop() {
                        self.queue.recycle(request.body);
                    }
                }
                // Lost requests are answered too; and a Sync that was taken for part of a failed COPY.
                Some(Kind::Lost) | None => {}
                Some(_) => self.confused = true,
            }
        }
        self.skipping = false;
        self.overlay.clear();
        if status == Some(b'I')
            && let Some(portal) = self.names.close_portals()
        {
            self.recycle_portal(portal);
        }
    }

    /// ErrorResponse.
    fn error(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        let fields = ErrorFields::read(frame.body());
        self.errors += 1;
        let code = SqlState::new(fields.code);
        if fields.is_fatal() {
            self.fatal = Some(code.map_or_else(String::new, |code| code.to_string()));
        }
        if self.phase != Phase::Ready || self.confused {
            return;
        }
        let status = if fields.code == QUERY_CANCELED { Status::Canceled } else { Status::Failed };
        let message = turn.info.client_encoding.decode(fields.message).into_owned();
        let ended = Ended { status, tag: None, error: Some((code, message)), touched: frame.holed };
        match self.head() {
            Some(Kind::Query) => {
                let unread = self.progress.is_none() && !fields.inner && is_parser(fields.file);
                if self.progress.as_ref().is_some_and(|progress| progress.failed) {
                    return;
                }
                self.touch_reply(frame);
                self.fail_query(ended, unread, turn);
            }
            Some(Kind::Execute) => {
                self.in_execute();
                self.touch_reply(frame);
                self.finish_execute(ended, turn);
                self.skip_to_sync(None, turn);
            }
            Some(Kind::Function) => {
                self.in_function(turn);
                self.touch_reply(frame);
                self.finish(ended, turn);
                self.queue.answer_head();
            }
            Some(Kind::Parse | Kind::Bind | Kind::Describe | Kind::Close) => {
                if let Some(request) = self.queue.pop() {
                    self.skip_to_sync(Some((request, ended)), turn);
                }
            }
            _ => {}
        }
    }

    fn touch_reply(&mut self, frame: &Frame<'_>) {
        self.run.touched |= frame.holed;
        if self.run.active {
            self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(frame.wire);
        }
    }

    /// FunctionCallResponse.
    fn function_returned(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        let binary = self.in_function(turn);
        self.touch_reply(frame);
        let result = backend::function_result(frame.body());
        if let Some(value) = result.filter(|_| !frame.truncated) {
            let size = value.map_or(0, <[u8]>::len);
            self.exchange.first_row_us = Some(turn.at.0.saturating_sub(self.exchange.started_at.0));
            if self.run.admit(size, &self.limits) {
                let values = Values::Fields { fields: &[value], binary };
                let row = RowValues {
                    seq: self.exchange.seq,
                    row: 0,
                    sql: None,
                    started_at: self.exchange.started_at,
                    columns: &[],
                    values,
                };
                turn.sink.row(turn.info, row);
            }
        } else {
            self.run.rows = 1;
            self.run.truncated = true;
        }
        self.finish(Ended::with(Status::Completed), turn);
        self.queue.answer_head();
    }

    /// The head, a FunctionCall, has a reply: opens its row. Whether the result is binary.
    pub(super) fn in_function(&mut self, turn: &mut Turn<'_, impl Sink>) -> bool {
        let Some(head) = self.queue.head() else { return false };
        let (at, range, bytes_in) = (head.at, head.range(), head.wire);
        let (holed, mut truncated) = (head.holed, head.truncated);
        let body = self.queue.take_head_body();
        self.begin(Begun { protocol: Protocol::Function, at, sql: None, name: None, range, bytes_in });
        let params = &mut self.exchange.params;
        let mut binary = false;
        if let Some(call) = FunctionCall::read(&body, |value| params.push(param(value))) {
            for (index, param) in self.exchange.params.iter_mut().enumerate() {
                param.format = format_at(call.formats, index);
            }
            truncated |= call.cut && holed;
            binary = call.result_format == 1;
            let name = format!("fn:{}", call.oid);
            self.exchange.statement_name = Some(turn.info.client_encoding.decode(name.as_bytes()).into());
        }
        self.exchange.params_body = body;
        self.exchange.params_truncated = truncated;
        self.run.touched |= holed;
        binary
    }
}

/// Whether the server reported an error from its scanner or grammar: then it has not seen statements yet.
fn is_parser(file: &[u8]) -> bool {
    matches!(file, b"scan.l" | b"gram.y" | b"parser.c")
}

/// SQLSTATE 57014.
const QUERY_CANCELED: &[u8] = b"57014";
