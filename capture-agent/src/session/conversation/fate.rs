//! Statements that get no reply of their own: skipped after an error, in flight when the session ended, or
//! swallowed by lost bytes.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::names::{Names, Portal, Prepared};
use super::request::{Kind, Request};
use super::running::{Begun, Ended, Run};
use super::{Conversation, Phase, Turn};
use crate::frames::frontend::{Bind, Execute, Parse, Target};
use crate::session::lexer::{Lexer, TokenKind};
use crate::session::split::statements;
use crate::session::{Limits, Micros, Protocol, SessionInfo, Sink, Status};

/// What the requests that are passed over would have defined.
///
/// The server does not define it, or it is not known whether it did; but a statement behind them means it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Overlay {
    statements: Vec<(Box<[u8]>, Definition)>,
    portals: Vec<(Box<[u8]>, Box<Portal>)>,
    /// Whether a name that is not listed stands for nothing known, instead of what the server has.
    blind: bool,
    blind_portals: bool,
    /// The statement whose Parse failed, where it stands in the client's stream, and when it came.
    failed: Option<(Arc<Prepared>, (u64, u64), Micros)>,
}

/// What a name stands for; none if it was closed.
type Definition = Option<Arc<Prepared>>;

impl Overlay {
    pub(super) fn clear(&mut self) {
        let Self { statements, portals, blind, blind_portals, failed } = self;
        if !statements.is_empty() || !portals.is_empty() || *blind || *blind_portals || failed.is_some() {
            *self = Self::default();
        }
    }

    fn define(&mut self, name: &[u8], prepared: Definition) {
        self.statements.retain(|(known, _)| **known != *name);
        if self.statements.len() < OVERLAY {
            self.statements.push((name.into(), prepared));
        } else {
            self.no_statement_known();
        }
    }

    /// A name that cannot be told was given a statement, or lost it: any may be the one.
    fn no_statement_known(&mut self) {
        self.statements.clear();
        self.blind = true;
    }

    /// Sync: what stood before it meant the statement of its own Parse, or was skipped with it. What follows runs
    /// also if that Parse failed, and then the name stands for something else.
    fn doubt_statements(&mut self) {
        for (_, prepared) in &mut self.statements {
            *prepared = None;
        }
    }

    fn statement(&self, name: &[u8], names: &Names) -> Definition {
        match self.statements.iter().find(|(known, _)| **known == *name) {
            Some((_, prepared)) => prepared.clone(),
            None if self.blind => None,
            None => names.statement(name).cloned(),
        }
    }

    fn open(&mut self, name: &[u8], portal: Box<Portal>, limits: &Limits) {
        self.close(name);
        let held: usize = self.portals.iter().map(|(_, portal)| portal.body.capacity()).sum();
        if self.portals.len() < OVERLAY && held <= limits.kept {
            self.portals.push((name.into(), portal));
        } else {
            self.no_portal_known();
        }
    }

    /// A portal whose name cannot be told was opened: any may be the one.
    fn no_portal_known(&mut self) {
        self.portals.clear();
        self.blind_portals = true;
    }

    fn close(&mut self, name: &[u8]) -> Option<Box<Portal>> {
        let at = self.portals.iter().position(|(known, _)| **known == *name)?;
        Some(self.portals.swap_remove(at).1)
    }

    /// Takes the portal that `name` stands for.
    fn portal(&mut self, name: &[u8], names: &mut Names) -> Option<Box<Portal>> {
        match self.close(name) {
            Some(portal) => Some(portal),
            None if self.blind_portals => None,
            None => names.close(name),
        }
    }
}

/// An error, and the request that it answered.
struct Blame {
    on: BlameOn,
    ended: Ended,
}

enum BlameOn {
    Statement(Box<[u8]>),
    Portal(Box<[u8]>),
}

impl Blame {
    /// Whether `request` gives the name another meaning: no Execute behind it depends on what failed.
    fn ends_with(&self, request: &Request) -> bool {
        match (&self.on, request.kind) {
            (BlameOn::Portal(on), Kind::Bind) => {
                Bind::names(&request.body).is_none_or(|(portal, _)| **on == *portal)
            }
            (BlameOn::Statement(on), Kind::Parse) => {
                Parse::read(&request.body).is_none_or(|parse| **on == *parse.name)
            }
            _ => false,
        }
    }
}

impl Conversation {
    /// The server discards everything until Sync. `failed` is the request that it could not do, if that was no
    /// Execute: the first Execute that depends on it is the one that failed; without one, the request itself is
    /// recorded as a statement that failed.
    pub(super) fn skip_to_sync(&mut self, failed: Option<(Request, Ended)>, turn: &mut Turn<'_, impl Sink>) {
        self.overlay.clear();
        let mut blame = failed.and_then(|(request, ended)| self.blame(request, ended, turn));
        self.skipping = true;
        while let Some(head) = self.queue.head() {
            if head.kind == Kind::Sync {
                self.skipping = false;
                break;
            }
            if head.kind == Kind::Lost {
                break;
            }
            if let Some(request) = self.queue.pop() {
                self.pass(request, Status::Skipped, &mut blame, turn);
            }
        }
        if let Some(blame) = blame {
            self.record_blame(blame, turn);
        }
    }

    /// A request that comes while the server discards everything until Sync.
    pub(super) fn skip(&mut self, request: Request, turn: &mut Turn<'_, impl Sink>) {
        self.pass(request, Status::Skipped, &mut None, turn);
    }

    /// No reply to what was asked so far will be told apart: all of it is unknown.
    pub(in crate::session) fn abandon(&mut self, turn: &mut Turn<'_, impl Sink>) {
        let lost = self.queue.is_lost();
        self.end_all(Status::Unknown, turn);
        if lost {
            // What the lost requests did to the names is not known.
            self.names.forget_statements();
            self.close_portals();
            self.unsynced = false;
        }
        self.run = Run::default();
        self.confused = false;
        self.skipping = false;
    }

    /// No reply will come any more.
    pub(in crate::session) fn end_all(&mut self, status: Status, turn: &mut Turn<'_, impl Sink>) {
        self.settle(turn);
        if self.phase != Phase::Ready {
            // What is sent before the server let the client in is never run.
            while self.queue.pop().is_some() {}
        }
        if self.run.active {
            match self.head() {
                Some(Kind::Execute) => self.finish_execute(Ended::with(status), turn),
                _ => self.finish(Ended::with(status), turn),
            }
        }
        if self.progress.is_some() {
            self.end_query(status, turn);
            self.progress = None;
            self.queue.pop();
        }
        self.overlay.clear();
        while let Some(request) = self.queue.pop() {
            self.pass(request, status, &mut None, turn);
        }
        self.overlay.clear();
    }

    /// Records what a request without a reply would have run.
    fn pass(
        &mut self,
        request: Request,
        status: Status,
        blame: &mut Option<Blame>,
        turn: &mut Turn<'_, impl Sink>,
    ) {
        let unknown = status == Status::Unknown;
        if let Some(blame) = blame.take_if(|blame| blame.ends_with(&request)) {
            self.record_blame(blame, turn);
        }
        match request.kind {
            Kind::Parse => {
                if let Some(parse) = Parse::read(&request.body) {
                    let prepared = self.prepare(&parse, &request, turn.info);
                    self.overlay.define(parse.name, Some(prepared));
                    if unknown {
                        self.names.forget(parse.name);
                    }
                } else {
                    self.overlay.no_statement_known();
                    if unknown {
                        self.names.forget_statements();
                    }
                }
            }
            Kind::Bind => self.pass_bind(request, turn.info),
            Kind::Close => match Target::read(&request.body) {
                Some(Target { portal: false, name, .. }) => {
                    self.overlay.define(name, None);
                    if unknown {
                        self.names.forget(name);
                    }
                }
                Some(Target { name, .. }) => {
                    self.overlay.close(name);
                }
                None => {
                    self.overlay.no_statement_known();
                    self.overlay.no_portal_known();
                    if unknown {
                        self.names.forget_statements();
                    }
                }
            },
            Kind::Execute => self.pass_execute(&request, status, blame, turn),
            Kind::Query => self.pass_query(request, status, turn),
            Kind::Function => {
                self.queue.push_front(request);
                self.in_function(turn);
                self.exchange.complete &= !unknown;
                self.finish(Ended::with(status), turn);
                self.queue.pop();
            }
            Kind::Sync => self.overlay.doubt_statements(),
            _ => {}
        }
    }

    fn pass_bind(&mut self, request: Request, info: &SessionInfo) {
        let Some((portal_name, name)) = Bind::names(&request.body) else {
            return self.overlay.no_portal_known();
        };
        let statement = self.overlay.statement(name, &self.names);
        let name: Box<[u8]> = portal_name.into();
        let portal = self.portal(request, statement.as_ref(), info);
        self.overlay.open(&name, portal, &self.limits);
    }

    fn pass_execute(
        &mut self,
        request: &Request,
        status: Status,
        blame: &mut Option<Blame>,
        turn: &mut Turn<'_, impl Sink>,
    ) {
        let name = Execute::read(&request.body).map(|execute| execute.portal);
        let portal = name.and_then(|name| self.overlay.portal(name, &mut self.names));
        let guilty = blame.as_ref().is_some_and(|blame| match &blame.on {
            BlameOn::Portal(on) => name.is_some_and(|name| **on == *name),
            BlameOn::Statement(on) => portal.as_ref().is_some_and(|portal| portal.of_statement(on)),
        });
        let ended = match blame.take_if(|_| guilty) {
            Some(blame) => blame.ended,
            None => Ended::with(status),
        };
        self.record_portal(portal, name, Some(request), ended, turn);
    }

    /// Records an Execute, or a portal that could not be opened.
    fn record_portal(
        &mut self,
        portal: Option<Box<Portal>>,
        name: Option<&[u8]>,
        request: Option<&Request>,
        ended: Ended,
        turn: &mut Turn<'_, impl Sink>,
    ) {
        let unknown = ended.status == Status::Unknown;
        let known = portal.is_some();
        let mut portal = portal.unwrap_or_default();
        let mut range =
            request.map_or((portal.offset, portal.offset.saturating_add(portal.bytes_in)), Request::range);
        if portal.bytes_in > 0 {
            range.0 = portal.offset;
        }
        let bytes_in = portal.bytes_in.saturating_add(request.map_or(0, |request| request.wire));
        let at = request.map_or(turn.at, |request| request.at);
        let sql = portal.statement.as_ref().and_then(|statement| statement.sql.clone());
        let statement_name = portal.statement_name.clone();
        self.begin(Begun { protocol: Protocol::Extended, at, sql, name: statement_name, range, bytes_in });
        self.exchange.params_truncated =
            portal.truncated | portal.statement.as_ref().is_some_and(|known| known.truncated);
        self.run.touched |= unknown | portal.touched | request.is_some_and(|request| request.holed);
        std::mem::swap(&mut self.exchange.params, &mut portal.params);
        std::mem::swap(&mut self.exchange.params_body, &mut portal.body);
        if unknown && self.exchange.sql.as_deref().is_some_and(may_touch_names) {
            self.names.forget_statements();
        }
        self.finish(ended, turn);
        std::mem::swap(&mut self.exchange.params, &mut portal.params);
        std::mem::swap(&mut self.exchange.params_body, &mut portal.body);
        portal.bytes_in = 0;
        // A later Execute may mean the same portal.
        if let Some(name) = name.filter(|_| known) {
            self.overlay.open(name, portal, &self.limits);
        }
    }

    fn pass_query(&mut self, request: Request, status: Status, turn: &mut Turn<'_, impl Sink>) {
        let unknown = status == Status::Unknown;
        let progress = super::query::Progress::new(&request, turn.info);
        if unknown {
            self.names.forget(b"");
            if progress.text().is_none_or(may_touch_names) {
                self.names.forget_statements();
            }
        }
        self.progress = Some(progress);
        self.end_query(status, turn);
        self.progress = None;
    }

    /// What a request that the server could not do stands for.
    fn blame(&mut self, request: Request, ended: Ended, turn: &mut Turn<'_, impl Sink>) -> Option<Blame> {
        let on = match request.kind {
            Kind::Parse => {
                let parse = Parse::read(&request.body)?;
                let name: Box<[u8]> = parse.name.into();
                let prepared = self.prepare(&parse, &request, turn.info);
                if name.is_empty() {
                    // The server drops the unnamed statement before it looks at the new one.
                    self.names.forget(b"");
                }
                self.overlay.define(&name, Some(Arc::clone(&prepared)));
                self.overlay.failed = Some((prepared, request.range(), request.at));
                BlameOn::Statement(name)
            }
            Kind::Bind => {
                let name: Box<[u8]> = Bind::names(&request.body)?.0.into();
                self.pass_bind(request, turn.info);
                BlameOn::Portal(name)
            }
            Kind::Describe | Kind::Close => match Target::read(&request.body)? {
                Target { portal: true, name, .. } => BlameOn::Portal(name.into()),
                Target { name, .. } => BlameOn::Statement(name.into()),
            },
            _ => return None,
        };
        Some(Blame { on, ended })
    }

    /// Records an error that no Execute depends on.
    fn record_blame(&mut self, blame: Blame, turn: &mut Turn<'_, impl Sink>) {
        match blame.on {
            BlameOn::Statement(_) => {
                if let Some((prepared, range, at)) = self.overlay.failed.take() {
                    let (sql, name) = (prepared.sql.clone(), Some(Arc::clone(&prepared.name)));
                    let bytes_in = range.1.saturating_sub(range.0);
                    self.begin(Begun { protocol: Protocol::Extended, at, sql, name, range, bytes_in });
                    self.exchange.params_truncated = prepared.truncated;
                    self.finish(blame.ended, turn);
                }
            }
            BlameOn::Portal(name) => {
                if let Some(portal) = self.overlay.close(&name) {
                    self.record_portal(Some(portal), Some(&name), None, blame.ended, turn);
                }
            }
        }
    }

    /// PREPARE, DEALLOCATE and DISCARD in SQL touch the same names as Parse and Close.
    pub(super) fn follow_names(&mut self, tag: &str, info: &SessionInfo) {
        match tag {
            "DEALLOCATE ALL" | "DISCARD ALL" => self.names.forget_statements(),
            "DEALLOCATE" | "PREPARE" => {
                let sql = self.exchange.sql.clone();
                let scs = info.standard_conforming_strings;
                match sql.as_deref().and_then(|sql| named(sql, scs)) {
                    Some((name, Some(inner))) if tag == "PREPARE" => {
                        let prepared = Prepared::of_sql(&name, inner);
                        self.names.define(name.as_bytes(), Arc::new(prepared), &self.limits);
                    }
                    Some((name, _)) => self.names.forget(name.as_bytes()),
                    None => self.names.forget_statements(),
                }
            }
            _ => {}
        }
    }
}

/// Whether [`Conversation::follow_names`] may have to follow a statement that ended with `tag`.
pub(super) fn is_of_names(tag: &str) -> bool {
    matches!(tag.as_bytes().first(), Some(b'D' | b'P'))
}

/// The name behind PREPARE, or `DEALLOCATE [PREPARE]`, as the server folds it; and the text behind the AS of a
/// PREPARE.
fn named(sql: &str, scs: bool) -> Option<(String, Option<&str>)> {
    let mut tokens = Lexer::new(sql, scs);
    let first = tokens.next()?;
    let mut name = tokens.next()?;
    let text = |start, end| sql.get(start..end);
    if text(first.start, first.end)?.eq_ignore_ascii_case("deallocate")
        && text(name.start, name.end)?.eq_ignore_ascii_case("prepare")
        && let Some(next) = tokens.next().filter(|token| !matches!(token.kind, TokenKind::Semicolon))
    {
        name = next;
    }
    let word = text(name.start, name.end)?;
    let folded = match name.kind {
        TokenKind::Word if word.is_ascii() => word.to_ascii_lowercase(),
        TokenKind::QuotedIdentifier => word.get(1..word.len().checked_sub(1)?)?.replace("\"\"", "\""),
        _ => return None,
    };
    let inner = tokens
        .find(|token| text(token.start, token.end).is_some_and(|word| word.eq_ignore_ascii_case("as")))
        .and_then(|token| sql.get(token.end..))
        .and_then(|rest| rest.get(statements(rest, scs).next()?));
    (folded.len() < NAMEDATALEN).then_some((folded, inner))
}

/// Whether a statement whose end is not known may have changed which names stand for which statement.
pub(super) fn may_touch_names(sql: &str) -> bool {
    const WORDS: [&str; 3] = ["prepare", "deallocate", "discard"];
    let lower = sql.to_ascii_lowercase();
    WORDS.iter().any(|word| lower.contains(word))
}

/// Names kept of what was passed over, of statements and of portals each.
const OVERLAY: usize = 64;
/// Bytes of an identifier, with its zero; a longer one is cut off (`NAMEDATALEN` in
/// `src/include/pg_config_manual.h`).
const NAMEDATALEN: usize = 64;
