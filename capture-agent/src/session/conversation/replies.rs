//! The server's messages, each given to the request that it answers.

use std::sync::Arc;

use super::names::{Described, Portal, Prepared, bound_columns};
use super::request::{Kind, Request};
use super::running::{Begun, CopySide, Ended};
use super::{Conversation, Phase, Then, Turn};
use crate::frames::backend::{self, ErrorFields};
use crate::frames::frontend::{Bind, Execute, FunctionCall, Parse, Target, format_at};
use crate::frames::{Frame, tag};
use crate::session::{Column, Param, Protocol, RowValues, SessionInfo, Sink, SqlState, Status, Tag, Values};

impl Conversation {
    /// A message of the server's.
    pub(in crate::session) fn reply(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) -> Then {
        let body = frame.body();
        if self.unsettled.is_some() {
            self.settle_before(frame, turn);
        }
        match frame.tag {
            tag::NEGOTIATION if matches!(body, b"S" | b"G") => return Then::Encrypted,
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
                let text = turn.info.client_encoding.decode(backend::command_tag(body));
                let tag = whole.then(|| Tag::from(&*text));
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

    /// The statement at the head is done.
    fn complete(&mut self, ended: Ended, turn: &mut Turn<'_, impl Sink>) {
        let tag = ended.tag;
        // A COPY from the client cannot complete before the client says that it is done.
        self.run.touched |=
            self.run.copy.as_ref().is_some_and(|copy| copy.side == CopySide::Client && !copy.input_over);
        if self.progress.is_some() {
            self.finish_query_statement(ended, turn);
        } else {
            self.finish_execute(ended, turn);
        }
        if let Some(tag) = tag {
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

    /// ParseComplete.
    fn parsed(&mut self, turn: &mut Turn<'_, impl Sink>) {
        let Some(request) = self.queue.pop() else { return };
        if let Some(parse) = Parse::read(&request.body) {
            let prepared = self.prepare(&parse, &request, turn.info);
            self.names.define(parse.name, prepared, &self.limits);
        } else {
            // Any name may be the one.
            self.names.forget_statements();
        }
        self.queue.recycle(request.body);
    }

    /// The statement that a Parse defines.
    pub(super) fn prepare(&self, parse: &Parse<'_>, request: &Request, info: &SessionInfo) -> Arc<Prepared> {
        let encoding = info.client_encoding;
        let whole = !request.holed && !request.truncated;
        if parse.name.is_empty()
            && whole
            && let Some(same) = self.names.same_unnamed(parse.text, parse.types, encoding)
        {
            return Arc::clone(same);
        }
        Arc::new(Prepared {
            name: self.statement_name(parse.name, info),
            sql: (!request.holed).then(|| encoding.decode(parse.text).into()),
            truncated: request.truncated,
            declared: parse.types.into(),
            types: parse.types.into(),
            columns: None,
            described: None,
            bound: None,
        })
    }

    pub(super) fn statement_name(&self, name: &[u8], info: &SessionInfo) -> Arc<str> {
        if name.is_empty() { Arc::clone(&self.unnamed) } else { info.client_encoding.decode(name).into() }
    }

    /// BindComplete.
    fn bound(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        let Some(request) = self.queue.pop() else { return };
        let statement = Bind::names(&request.body).and_then(|(_, name)| self.names.statement(name)).cloned();
        let mut portal = self.portal(request, statement, turn.info);
        portal.bytes_out = frame.wire;
        let body = std::mem::take(&mut portal.body);
        let Some((name, statement_name)) = Bind::names(&body) else {
            // Any portal may be the one.
            return self.close_portals();
        };
        if let Some(statement) = portal.statement.as_mut().filter(|statement| statement.columns.is_some())
            && let Some(bind) = Bind::read(&body, |_| {})
        {
            portal.columns = bound_columns(&mut self.names, statement_name, statement, bind.result_formats);
        }
        // The name is a part of the body, which the portal owns: a named portal costs a copy of it.
        let name: Box<[u8]> = name.into();
        portal.body = body;
        if let Some(replaced) = self.names.open(&name, portal, &self.limits) {
            self.recycle_portal(replaced);
        }
    }

    /// The portal that a Bind opens.
    pub(super) fn portal(
        &mut self,
        request: Request,
        statement: Option<Arc<Prepared>>,
        info: &SessionInfo,
    ) -> Portal {
        let mut params = std::mem::take(&mut self.spare_params);
        params.clear();
        let mut portal = Portal {
            bytes_in: request.wire,
            offset: request.offset,
            touched: request.holed,
            truncated: request.truncated,
            ..Portal::default()
        };
        if let Some(bind) = Bind::read(&request.body, |value| params.push(param(value))) {
            for (index, param) in params.iter_mut().enumerate() {
                param.format = format_at(bind.formats, index);
                param.type_oid = statement.as_ref().map_or(0, |statement| statement.type_at(index));
            }
            portal.truncated |= bind.cut && !bind.exact && (request.holed || request.truncated);
            portal.statement_name = Some(match &statement {
                Some(statement) => Arc::clone(&statement.name),
                None => self.statement_name(bind.statement, info),
            });
        }
        portal.statement = statement;
        portal.params = params;
        portal.body = request.body;
        portal
    }

    pub(super) fn recycle_portal(&mut self, portal: Portal) {
        let Portal { body, params, .. } = portal;
        self.queue.recycle(body);
        if params.capacity() <= SPARE_PARAMS {
            self.spare_params = params;
        }
    }

    /// CloseComplete.
    fn closed(&mut self) {
        let Some(request) = self.queue.pop() else { return };
        match Target::read(&request.body) {
            Some(Target { portal: true, name, .. }) => {
                if let Some(portal) = self.names.close(name) {
                    self.recycle_portal(portal);
                }
            }
            Some(Target { name, .. }) => self.names.forget(name),
            None => {
                self.names.forget_statements();
                self.close_portals();
            }
        }
        self.queue.recycle(request.body);
    }

    /// ParameterDescription, RowDescription or NoData, as the answer to a Describe.
    fn described(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        let Some(head) = self.queue.head() else { return };
        let Some(target) = Target::read(&head.body) else {
            if frame.tag != b't' {
                self.queue.pop();
            }
            return;
        };
        let body = frame.body();
        let usable = !frame.holed && !frame.truncated;
        if !target.portal {
            if let Some(known) = self.names.statement(target.name).filter(|_| usable).cloned() {
                let mut learned = Prepared::clone(&known);
                match frame.tag {
                    b't' => learned.types = backend::parameter_types(body).unwrap_or_default().into(),
                    b'T' => {
                        learned.columns = Some(Described::read(body, turn.info.client_encoding).columns);
                        learned.bound = None;
                    }
                    _ => learned.columns = None,
                }
                self.names.learn(target.name, &known, &Arc::new(learned));
            }
            if frame.tag == b't' {
                return;
            }
        } else if frame.tag == b't' {
            self.confused = true;
            return;
        } else {
            let Some(request) = self.queue.pop() else { return };
            if let Some(Target { name, .. }) = Target::read(&request.body) {
                self.portal_described(name, frame, usable, turn.info);
            }
            self.queue.recycle(request.body);
            return;
        }
        if let Some(request) = self.queue.pop() {
            self.queue.recycle(request.body);
        }
    }

    fn portal_described(&mut self, name: &[u8], frame: &Frame<'_>, usable: bool, info: &SessionInfo) {
        let Some(portal) = self.names.portal(name) else { return };
        portal.bytes_out = portal.bytes_out.saturating_add(frame.wire);
        portal.touched |= frame.holed;
        if frame.tag != b'T' || !usable {
            portal.columns = None;
            return;
        }
        let Some(known) = portal.statement.as_ref() else {
            let columns = self.columns(frame.body(), info);
            if let Some(portal) = self.names.portal(name) {
                portal.columns = Some(columns);
            }
            return;
        };
        if let Some(same) = known.described.as_ref().filter(|described| *described.bytes == *frame.body()) {
            portal.columns = Some(Arc::clone(&same.columns));
            return;
        }
        let described = Described::read(frame.body(), info.client_encoding);
        portal.columns = Some(Arc::clone(&described.columns));
        let known = Arc::clone(known);
        let learned = Arc::new(Prepared { described: Some(described), ..Prepared::clone(&known) });
        portal.statement = Some(Arc::clone(&learned));
        let name = portal.body.get(name.len() + 1..).and_then(|rest| rest.split(|byte| *byte == 0).next());
        let name: Box<[u8]> = name.unwrap_or_default().into();
        self.names.learn(&name, &known, &learned);
    }

    /// Columns of a RowDescription that belongs to no prepared statement: the same as the last, mostly.
    fn columns(&mut self, body: &[u8], info: &SessionInfo) -> Arc<[Column]> {
        match &self.row_description {
            Some(last) if *last.bytes == *body => Arc::clone(&last.columns),
            _ => {
                let described = Described::read(body, info.client_encoding);
                let columns = Arc::clone(&described.columns);
                self.row_description = Some(described);
                columns
            }
        }
    }

    /// The head, an Execute, has a reply: opens its row.
    pub(super) fn in_execute(&mut self) {
        if self.run.active {
            return;
        }
        let Some(head) = self.queue.head() else { return };
        let portal = Execute::read(&head.body).and_then(|execute| self.names.portal(execute.portal));
        let (mut range, mut begun) = (head.range(), None);
        let (mut bytes_in, mut bytes_out) = (head.wire, 0);
        let (mut truncated, mut touched) = (head.truncated, head.holed);
        if let Some(portal) = portal {
            if portal.bytes_in > 0 {
                range.0 = portal.offset;
            }
            bytes_in += std::mem::take(&mut portal.bytes_in);
            bytes_out = std::mem::take(&mut portal.bytes_out);
            truncated |= portal.truncated | portal.statement.as_ref().is_some_and(|known| known.truncated);
            touched |= portal.touched;
            self.run.columns.clone_from(&portal.columns);
            begun = Some((
                portal.statement.as_ref().and_then(|statement| statement.sql.clone()),
                portal.statement_name.clone(),
            ));
        }
        let at = head.at;
        let (sql, name) = begun.unwrap_or_default();
        self.begin(Begun { protocol: Protocol::Extended, at, sql, name, range, bytes_in });
        self.exchange.bytes_out = bytes_out;
        self.exchange.params_truncated = truncated;
        self.run.touched |= touched;
    }

    /// The head, an Execute, is done. Its parameters are lent to the row while it is handed out.
    pub(super) fn finish_execute(&mut self, ended: Ended, turn: &mut Turn<'_, impl Sink>) {
        let Some(request) = self.queue.pop() else { return };
        let name: Option<Box<[u8]>> = Execute::read(&request.body).map(|execute| execute.portal.into());
        let done = ended.status == Status::Completed;
        self.lend_params(name.as_deref());
        self.conclude(ended, turn.at);
        self.unsettled = Some(name);
        if !done || self.queue.head().is_some_and(|next| next.kind != Kind::Sync) {
            self.settle(turn);
        }
        self.queue.recycle(request.body);
    }

    /// A completed Execute is followed by a Sync, at which the server commits: what it answers to that decides.
    fn settle_before(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        match frame.tag {
            b'N' | b'A' | b'S' => return,
            b'E' if self.head() == Some(Kind::Sync) => {
                let fields = ErrorFields::read(frame.body());
                self.exchange.status = Status::Failed;
                self.exchange.sqlstate = SqlState::new(fields.code);
                let message = turn.info.client_encoding.decode(fields.message);
                self.exchange.error_message = Some(message.into_owned());
                self.exchange.bytes_out = self.exchange.bytes_out.saturating_add(frame.wire);
            }
            _ => {}
        }
        self.settle(turn);
    }

    /// Hands out the Execute that was done last, and gives its portal its parameters back.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_, impl Sink>) {
        let Some(name) = self.unsettled.take() else { return };
        turn.sink.statement(turn.info, &self.exchange);
        self.lend_params(name.as_deref());
        if self.exchange.status == Status::Completed
            && let Some(name) = name
            && let Some(portal) = self.names.portal(&name)
            && portal.body.capacity() > LARGE_PARAMS
        {
            // It can be run again only to say that there is nothing more.
            portal.body = Vec::new();
            portal.params.clear();
            portal.truncated = true;
        }
    }

    /// Swaps the parameters of the portal and of the row.
    fn lend_params(&mut self, name: Option<&[u8]>) {
        if let Some(portal) = name.and_then(|name| self.names.portal(name)) {
            std::mem::swap(&mut self.exchange.params, &mut portal.params);
            std::mem::swap(&mut self.exchange.params_body, &mut portal.body);
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

fn param(value: Option<std::ops::Range<usize>>) -> Param {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Param { type_oid: 0, format: 0, value: value.map(|range| (place(range.start), place(range.end))) }
}

/// Whether the server reported an error from its scanner or grammar: then it has not seen statements yet.
fn is_parser(file: &[u8]) -> bool {
    matches!(file, b"scan.l" | b"gram.y" | b"parser.c")
}

/// SQLSTATE 57014.
const QUERY_CANCELED: &[u8] = b"57014";
/// Parameters whose places may be kept for the next Bind.
const SPARE_PARAMS: usize = 256;
/// Parameters of a statement that ran are dropped if they are larger than this.
const LARGE_PARAMS: usize = 64 << 10;
