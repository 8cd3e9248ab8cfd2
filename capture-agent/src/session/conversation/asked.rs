//! What the server has received and not looked at: what a verdict is about.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::Conversation;
use super::fate::may_touch_names;
use super::names::{Prepared, oid_at};
use super::request::{Kind, Request};
use crate::frames::frontend::{Bind, Execute, FunctionCall, Parse, Query, Target, format_at};
use crate::session::value::write_text;
use crate::session::{Asked, Judged, SessionInfo, What};

/// What the names stand for once the requests so far are done.
#[derive(Default)]
struct Pending<'a> {
    /// None for one that was closed.
    statements: Vec<(&'a [u8], Option<Statement<'a>>)>,
    portals: Vec<(&'a [u8], Bound<'a>)>,
    /// Whether any name may stand for anything else.
    blind: bool,
}

/// A prepared statement: its text, and the types of its parameters as far as they are known.
#[derive(Clone)]
struct Statement<'a> {
    text: Cow<'a, str>,
    types: &'a [u8],
}

/// A portal; what is none is not known.
#[derive(Clone, Default)]
struct Bound<'a> {
    text: Option<Cow<'a, str>>,
    params: Option<Vec<Option<String>>>,
}

impl Conversation {
    /// What the requests ask for whose last byte stands behind `since` in the client's stream, in their order.
    pub(in crate::session) fn asked_since(&self, since: u64, info: &SessionInfo) -> Vec<Asked> {
        let mut asked = Vec::new();
        let mut pending = Pending::default();
        if self.confused || self.given_up > since {
            asked.push(Asked { range: (since, since), what: What::Unseen });
        }
        for request in self.queue.iter() {
            let what = self.what(request, &mut pending, info);
            if let Some(what) = what.filter(|_| request.range().1 > since || request.kind == Kind::Lost) {
                asked.push(Asked { range: request.range(), what });
            }
        }
        asked
    }

    /// Whether a request that stands before `end` in the client's stream waits for its reply.
    pub(in crate::session) fn waits_before(&self, end: u64) -> bool {
        self.queue.head().is_some_and(|head| head.offset < end)
    }

    /// The text of the prepared statement that `name` stands for once the requests before `offset` of the client's stream
    /// are done; none if that is not known.
    pub(in crate::session) fn prepared_text(
        &self,
        name: &str,
        offset: u64,
        info: &SessionInfo,
    ) -> Option<Arc<str>> {
        let mut pending = Pending::default();
        for request in self.queue.iter().take_while(|request| request.range().0 < offset) {
            self.what(request, &mut pending, info);
        }
        let statement = self.named(name.as_bytes(), &pending).filter(|_| !self.confused)?;
        Some(statement.text.into())
    }

    /// What a request asks for, if it has anything run or prepared; and what it does to the names.
    fn what<'a>(
        &'a self,
        request: &'a Request,
        pending: &mut Pending<'a>,
        info: &SessionInfo,
    ) -> Option<What> {
        let whole = !request.holed && !request.truncated;
        match request.kind {
            Kind::Query => {
                let query = Query::read(&request.body);
                // What stands behind a zero byte is part of what is decided about, though no server takes it.
                let whole_body = request.body.strip_suffix(&[0]).unwrap_or(&request.body);
                let text = if query.exact { query.text } else { whole_body };
                pending.blind |= may_touch_names(&info.client_encoding.decode(text));
                pending.statements.push((b"", None));
                pending.portals.clear();
                Some(if whole { What::Query(text.into()) } else { What::Unseen })
            }
            Kind::Parse => {
                let Some(parse) = Parse::read(&request.body).filter(|parse| whole && parse.exact) else {
                    pending.blind = true;
                    return Some(What::Unseen);
                };
                let text = info.client_encoding.decode(parse.text);
                pending.statements.push((parse.name, Some(Statement { text, types: parse.types })));
                Some(What::Parse { text: parse.text.into(), types: parse.types.len() / 4 })
            }
            Kind::Bind => {
                match Bind::names(&request.body) {
                    Some((portal, statement)) => {
                        let bound = self.bound_to(request, statement, pending, info);
                        pending.portals.push((portal, bound));
                    }
                    None => pending.blind = true,
                }
                None
            }
            Kind::Close => {
                match Target::read(&request.body) {
                    Some(Target { portal: false, name, .. }) => pending.statements.push((name, None)),
                    Some(Target { .. }) => {}
                    None => pending.blind = true,
                }
                None
            }
            Kind::Execute => {
                let Some(execute) = Execute::read(&request.body) else { return Some(What::Unseen) };
                let bound = self.portal_of(execute.portal, pending, info);
                pending.blind |= bound.text.as_deref().is_none_or(may_touch_names);
                Some(What::Execute { text: bound.text.map(Into::into), params: bound.params })
            }
            Kind::Function => {
                let mut places = Vec::new();
                let call = FunctionCall::read(&request.body, |place| places.push(place)).filter(|_| whole);
                Some(match call {
                    Some(call) => {
                        let body = &request.body;
                        let params = places
                            .iter()
                            .enumerate()
                            .map(|(index, place)| {
                                let bytes = body.get(place.clone()?)?;
                                Some(text_of(0, format_at(call.formats, index), bytes, info))
                            })
                            .collect();
                        What::Function { oid: call.oid, params }
                    }
                    None => What::Unseen,
                })
            }
            Kind::Lost => {
                pending.blind = true;
                Some(What::Unseen)
            }
            Kind::Describe | Kind::Flush | Kind::Sync | Kind::CopyData | Kind::CopyDone | Kind::CopyFail => {
                None
            }
        }
    }

    /// The prepared statement that a name stands for.
    fn named<'a>(&'a self, name: &[u8], pending: &Pending<'a>) -> Option<Statement<'a>> {
        match pending.statements.iter().rev().find(|(known, _)| *known == name) {
            Some((_, statement)) => statement.clone(),
            None if pending.blind => None,
            None => self.names.statement(name).and_then(|known| prepared(known)),
        }
    }

    fn bound_to<'a>(
        &'a self,
        request: &'a Request,
        name: &[u8],
        pending: &Pending<'a>,
        info: &SessionInfo,
    ) -> Bound<'a> {
        let Some(Statement { text, types }) = self.named(name, pending) else { return Bound::default() };
        let mut places = Vec::new();
        let bind = Bind::read(&request.body, |place| places.push(place));
        let params = bind.filter(|bind| !bind.cut && !request.holed && !request.truncated).map(|bind| {
            let text = |(index, place): (usize, &Option<Range<usize>>)| {
                let bytes = request.body.get(place.clone()?)?;
                Some(text_of(oid_at(types, index), format_at(bind.formats, index), bytes, info))
            };
            places.iter().enumerate().map(text).collect()
        });
        Bound { text: Some(text), params }
    }

    fn portal_of<'a>(&'a self, name: &[u8], pending: &Pending<'a>, info: &SessionInfo) -> Bound<'a> {
        if let Some((_, bound)) = pending.portals.iter().rev().find(|(known, _)| *known == name) {
            return bound.clone();
        }
        let Some(portal) = self.names.portal_ref(name).filter(|_| !pending.blind) else {
            return Bound::default();
        };
        let statement = portal.statement.as_deref().and_then(prepared);
        let params = portal.params.iter().map(|param| {
            let (start, end) = param.value?;
            let bytes = portal.body.get(start as usize..end as usize)?;
            Some(text_of(param.type_oid, param.format, bytes, info))
        });
        Bound {
            text: statement.map(|statement| statement.text),
            params: (!portal.truncated && !portal.touched).then(|| params.collect()),
        }
    }
}

fn prepared(known: &Prepared) -> Option<Statement<'_>> {
    let text = known.sql.as_deref().filter(|_| !known.truncated)?;
    Some(Statement { text: Cow::Borrowed(text), types: &known.types })
}

/// A value as text.
fn text_of(type_oid: u32, format: i16, bytes: &[u8], info: &SessionInfo) -> String {
    let mut text = String::new();
    // A string takes everything.
    let _ = write_text(type_oid, format, bytes, info.client_encoding, &mut text);
    text
}

impl Conversation {
    /// What was decided about the message that begins at `offset`.
    pub(in crate::session) fn judge(&mut self, offset: u64, judged: Arc<Judged>) {
        if self.judged.len() < self.limits.requests {
            self.judged.push((offset, judged));
        }
    }

    /// The strictest word on the messages of the statement that stands in `range` of the client's stream. Of what stands
    /// before it nothing will be asked any more.
    pub(super) fn judged_in(&mut self, range: (u64, u64)) -> Option<Arc<Judged>> {
        if self.judged.is_empty() {
            return None;
        }
        self.judged.retain(|(offset, _)| *offset >= range.0);
        let within = self.judged.iter().filter(|(offset, _)| *offset < range.1).map(|(_, judged)| judged);
        within.max_by_key(|judged| judged.verdict.stops()).cloned()
    }
}
