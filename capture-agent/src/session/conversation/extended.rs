//! Replies of the extended query protocol: to Parse, Bind, Describe, Execute and Close.

use std::sync::Arc;

use super::names::{Described, Portal, Prepared, bound_columns, renew};
use super::request::{Kind, Request};
use super::running::{Begun, Ended};
use super::{Conversation, Turn};
use crate::frames::Frame;
use crate::frames::backend::{self, ErrorFields};
use crate::frames::frontend::{Bind, Execute, Parse, Target, format_at};
use crate::session::{Column, Param, Protocol, SessionInfo, Sink, SqlState, Status};

impl Conversation {
    /// ParseComplete.
    pub(super) fn parsed(&mut self, turn: &mut Turn<'_, impl Sink>) {
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
            name: statement_name(parse.name, &self.unnamed, info),
            sql: (!request.holed).then(|| encoding.decode(parse.text).into()),
            truncated: request.truncated,
            declared: parse.types.into(),
            types: parse.types.into(),
            columns: None,
            described: None,
            bound: None,
        })
    }

    /// BindComplete.
    pub(super) fn bound(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
        let Some(request) = self.queue.pop() else { return };
        let spare = self.spare_portal.take().unwrap_or_default();
        let mut portal = opened(spare, request, |name| self.names.statement(name), &self.unnamed, turn.info);
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

    /// The portal that a Bind of `statement` opens.
    pub(super) fn portal(
        &mut self,
        request: Request,
        statement: Option<&Arc<Prepared>>,
        info: &SessionInfo,
    ) -> Box<Portal> {
        let spare = self.spare_portal.take().unwrap_or_default();
        opened(spare, request, |_| statement, &self.unnamed, info)
    }

    /// Keeps a portal for the next Bind, which is mostly of the same statement.
    pub(super) fn recycle_portal(&mut self, mut portal: Box<Portal>) {
        self.queue.recycle(std::mem::take(&mut portal.body));
        if portal.params.capacity() > SPARE_PARAMS {
            portal.params = Vec::new();
        }
        if portal.columns.is_some() {
            self.spare_columns = portal.columns.take();
        }
        self.spare_portal = Some(portal);
    }

    /// CloseComplete.
    pub(super) fn closed(&mut self) {
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
    pub(super) fn described(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
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

    pub(super) fn portal_described(
        &mut self,
        name: &[u8],
        frame: &Frame<'_>,
        usable: bool,
        info: &SessionInfo,
    ) {
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
            portal.columns = self.spare_columns.take();
            renew(&mut portal.columns, Some(&same.columns));
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
    pub(super) fn columns(&mut self, body: &[u8], info: &SessionInfo) -> Arc<[Column]> {
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
        let (mut range, mut sql, mut name) = (head.range(), None, None);
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
            // The same as of the statement before, mostly: what that has is taken over.
            let last = &mut self.exchange;
            renew(&mut last.columns, portal.columns.as_ref());
            renew(&mut last.sql, portal.statement.as_ref().and_then(|statement| statement.sql.as_ref()));
            renew(&mut last.statement_name, portal.statement_name.as_ref());
            self.run.columns = last.columns.take();
            (sql, name) = (last.sql.take(), last.statement_name.take());
        }
        let at = head.at;
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
    pub(super) fn settle_before(&mut self, frame: &Frame<'_>, turn: &mut Turn<'_, impl Sink>) {
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
    pub(super) fn lend_params(&mut self, name: Option<&[u8]>) {
        if let Some(portal) = name.and_then(|name| self.names.portal(name)) {
            std::mem::swap(&mut self.exchange.params, &mut portal.params);
            std::mem::swap(&mut self.exchange.params_body, &mut portal.body);
        }
    }
}

/// `spare` as the portal that a Bind opens; `find` tells the prepared statement of a name.
fn opened<'a>(
    spare: Box<Portal>,
    request: Request,
    find: impl FnOnce(&[u8]) -> Option<&'a Arc<Prepared>>,
    unnamed: &Arc<str>,
    info: &SessionInfo,
) -> Box<Portal> {
    let mut portal = spare;
    portal.params.clear();
    portal.columns = None;
    portal.offset = request.offset;
    portal.bytes_in = request.wire;
    portal.bytes_out = 0;
    portal.touched = request.holed;
    portal.truncated = request.truncated;
    let params = &mut portal.params;
    if let Some(bind) = Bind::read(&request.body, |value| params.push(param(value))) {
        let statement = find(bind.statement);
        for (index, param) in portal.params.iter_mut().enumerate() {
            param.format = format_at(bind.formats, index);
            param.type_oid = statement.map_or(0, |statement| statement.type_at(index));
        }
        portal.truncated |= bind.cut && !bind.exact && (request.holed || request.truncated);
        match statement {
            Some(statement) => renew(&mut portal.statement_name, Some(&statement.name)),
            None => portal.statement_name = Some(statement_name(bind.statement, unnamed, info)),
        }
        renew(&mut portal.statement, statement);
    } else {
        (portal.statement, portal.statement_name) = (None, None);
    }
    portal.body = request.body;
    portal
}

fn statement_name(name: &[u8], unnamed: &Arc<str>, info: &SessionInfo) -> Arc<str> {
    if name.is_empty() { Arc::clone(unnamed) } else { info.client_encoding.decode(name).into() }
}

pub(super) fn param(value: Option<std::ops::Range<usize>>) -> Param {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Param { type_oid: 0, format: 0, value: value.map(|range| (place(range.start), place(range.end))) }
}

/// Parameters whose places may be kept for the next Bind.
const SPARE_PARAMS: usize = 256;
/// Parameters of a statement that ran are dropped if they are larger than this.
const LARGE_PARAMS: usize = 64 << 10;
