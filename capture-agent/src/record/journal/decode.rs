//! Records of the journal, read back. Whatever the bytes are, this yields records or says that they are malformed;
//! it allocates no more than the bytes that are there account for.

use std::sync::Arc;

use uuid::Uuid;

use super::super::batch::Day;
use super::super::decision::Decision;
use super::super::loss::Loss;
use super::super::lsn::{Lsn, Span};
use super::super::table::Table;
use super::decision::{decision, judged};
use super::dictionary::{COLUMNS, SESSIONS, TEXTS};
use super::encode::{BINARY_FIELDS, DATA_ROW, TEXT_FIELDS};
use super::kind;
use super::wire::{Cursor, Malformed, Read};
use crate::session::{
    Column, Direction, EndReason, Exchange, Gap, GapReason, Micros, Param, Protocol, RowRun, SessionEnd,
    SessionId, SessionInfo, SqlState, Status, Tag, data_row,
};

/// A record that is more than a definition.
#[derive(Debug)]
pub(super) enum Record<'a> {
    /// A row of a result.
    Row(&'a SessionInfo, Row<'a>),
    /// Rows of a result that follow each other.
    Rows(&'a SessionInfo, RowRun<'a>),
    /// A statement.
    Statement(&'a SessionInfo, Box<Exchange>),
    /// A gap in a stream.
    Gap(&'a SessionInfo, Gap),
    /// A session's end.
    End(&'a SessionInfo, SessionEnd),
    /// A decision, about a session if there is one.
    Decision(Option<&'a SessionInfo>, Box<Decision>),
    /// Rows that could not be stored.
    Loss(Loss),
    /// Rows of a table and day that need no replay.
    Settled(Table, Day, Vec<Span>),
    /// A session's state.
    State([u8; 16], &'a [u8]),
    /// A session's state is no longer needed.
    ForgetState([u8; 16]),
    /// The states that follow are all there are.
    Checkpoint,
    /// The end of a transaction, with the reader's position.
    Commit(Option<u64>),
    /// Nothing but a definition for later records.
    Definition,
}

/// A row of a result, whose values are still in the record.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) seq: u64,
    pub(super) row: u64,
    pub(super) started_at: Micros,
    pub(super) columns: &'a [Column],
    pub(super) body: RowBody<'a>,
}

/// The values of a row.
#[derive(Debug)]
pub(super) enum RowBody<'a> {
    /// A DataRow's body.
    DataRow(&'a [u8]),
    /// Values apart, and whether they are binary.
    Fields(Vec<Option<&'a [u8]>>, bool),
}

/// Reads the records of one segment, in their order.
#[derive(Debug)]
pub(super) struct Decoder {
    sessions: Vec<Option<SessionInfo>>,
    texts: Vec<Option<Arc<str>>>,
    /// The last text without a slot.
    text: Option<Arc<str>>,
    columns: Vec<Option<Arc<[Column]>>>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self {
            sessions: vec![None; SESSIONS],
            texts: vec![None; TEXTS],
            text: None,
            columns: vec![None; COLUMNS],
        }
    }

    /// Reads a record. What it yields borrows from `body`, or takes it.
    pub(super) fn decode<'a>(&'a mut self, kind: u8, body: &'a mut Vec<u8>) -> Read<Record<'a>> {
        if kind == kind::STATEMENT {
            return self.statement(body);
        }
        let mut body = Cursor::new(body);
        let record = match kind {
            kind::ROW => return self.row(body),
            kind::ROWS => return self.rows(body),
            kind::GAP => Record::Gap(self.session(&mut body)?, gap(&mut body)?),
            kind::END => Record::End(self.session(&mut body)?, session_end(&mut body)?),
            kind::DECISION => {
                let session = match body.narrow::<usize>()?.checked_sub(1) {
                    None => None,
                    Some(slot) => Some(self.sessions.get(slot).and_then(Option::as_ref).ok_or(Malformed)?),
                };
                Record::Decision(session, Box::new(decision(&mut body)?))
            }
            kind::LOSS => Record::Loss(loss(&mut body)?),
            kind::SETTLED => settled(&mut body)?,
            kind::STATE => Record::State(body.array()?, body.take(body.left())?),
            kind::FORGET_STATE => Record::ForgetState(body.array()?),
            kind::CHECKPOINT => Record::Checkpoint,
            kind::COMMIT => Record::Commit(if body.bool()? { Some(body.number()?) } else { None }),
            kind::SESSION => {
                let slot = self.sessions.get_mut(body.narrow::<usize>()?).ok_or(Malformed)?;
                *slot = Some(session_info(&mut body)?);
                Record::Definition
            }
            kind::TEXT => {
                let slot = match body.narrow::<usize>()? {
                    1 => &mut self.text,
                    slot => slot.checked_sub(2).and_then(|slot| self.texts.get_mut(slot)).ok_or(Malformed)?,
                };
                *slot = Some(body.characters(body.left())?.into());
                Record::Definition
            }
            kind::COLUMNS => {
                let slot = self.columns.get_mut(body.narrow::<usize>()?).ok_or(Malformed)?;
                *slot = Some(columns(&mut body)?);
                Record::Definition
            }
            kind::FORGET_TEXTS => {
                self.texts.fill(None);
                self.columns.fill(None);
                Record::Definition
            }
            _ => return Err(Malformed),
        };
        body.end()?;
        Ok(record)
    }

    fn row<'a>(&'a self, mut body: Cursor<'a>) -> Read<Record<'a>> {
        let session = self.session(&mut body)?;
        let columns = self.columns(&mut body)?.map_or(&[][..], |columns| columns);
        let (seq, row, started_at) = (body.number()?, body.number()?, time(&mut body)?);
        let binary = match body.byte()? {
            DATA_ROW => {
                let body = RowBody::DataRow(body.take(body.left())?);
                return Ok(Record::Row(session, Row { seq, row, started_at, columns, body }));
            }
            TEXT_FIELDS => false,
            BINARY_FIELDS => true,
            _ => return Err(Malformed),
        };
        let count = count(&mut body, 1)?;
        let lengths = (0..count).map(|_| body.narrow::<usize>()).collect::<Read<Vec<_>>>()?;
        let field = |length: usize| length.checked_sub(1).map(|length| body.take(length)).transpose();
        let fields = lengths.into_iter().map(field).collect::<Read<_>>()?;
        body.end()?;
        let body = RowBody::Fields(fields, binary);
        Ok(Record::Row(session, Row { seq, row, started_at, columns, body }))
    }

    fn rows<'a>(&'a self, mut body: Cursor<'a>) -> Read<Record<'a>> {
        let session = self.session(&mut body)?;
        let columns = self.columns(&mut body)?.map_or(&[][..], |columns| columns);
        let (seq, first, started_at) = (body.number()?, body.number()?, time(&mut body)?);
        let copied = match body.byte()? {
            DATA_ROW => None,
            TEXT_FIELDS => Some(false),
            BINARY_FIELDS => Some(true),
            _ => return Err(Malformed),
        };
        let messages = body.take(body.left())?;
        let count = data_row::count(messages).ok_or(Malformed)?;
        Ok(Record::Rows(
            session,
            RowRun { seq, first, count, sql: None, started_at, columns, copied, messages },
        ))
    }

    fn statement<'a>(&'a self, record: &'a mut Vec<u8>) -> Read<Record<'a>> {
        let mut body = Cursor::new(record);
        let session = self.session(&mut body)?;
        let columns = self.columns(&mut body)?.cloned();
        let (seq, started_at) = (body.number()?, time(&mut body)?);
        let (duration_us, first_row_us) = (body.option()?, body.option()?);
        let (protocol, status) = (protocol(body.byte()?)?, status(body.byte()?)?);
        let truths = body.byte()?;
        let sql = match body.narrow::<usize>()? {
            0 => None,
            1 => Some(self.text.clone().ok_or(Malformed)?),
            slot => Some(self.texts.get(slot - 2).cloned().flatten().ok_or(Malformed)?),
        };
        let statement_name = body.text()?.map(Arc::from);
        let count = count(&mut body, 3)?;
        let params = (0..count).map(|_| param(&mut body)).collect::<Read<_>>()?;
        let rows = if body.bool()? { Some(body.number()?) } else { None };
        let command_tag = body.text()?.map(Tag::from);
        let sqlstate = match body.text()? {
            None => None,
            Some(text) => Some(SqlState::new(text.as_bytes()).ok_or(Malformed)?),
        };
        let (bytes_in, bytes_out) = (body.number()?, body.number()?);
        let frontend_range = (body.number()?, body.number()?);
        let judged = if truths & 8 != 0 { Some(Arc::new(judged(&mut body)?)) } else { None };
        let masked = if truths & 16 != 0 { body.narrow::<u32>()? } else { 0 };
        let error_message = match body.narrow::<usize>()?.checked_sub(1) {
            None => None,
            Some(length) => Some(body.characters(length)?.to_owned()),
        };
        let at = record.len() - body.left();
        // A large value is not copied: what stands before it is taken away.
        let params_body = if record.len() - at >= LARGE {
            record.drain(..at);
            std::mem::take(record)
        } else {
            record.split_off(at)
        };
        let exchange = Exchange {
            seq,
            started_at,
            duration_us,
            first_row_us,
            protocol,
            sql,
            statement_name,
            params,
            params_body,
            columns,
            rows,
            command_tag,
            status,
            sqlstate,
            error_message,
            bytes_in,
            bytes_out,
            frontend_range,
            complete: truths & 4 != 0,
            results_truncated: truths & 2 != 0,
            params_truncated: truths & 1 != 0,
            masked,
            judged,
        };
        Ok(Record::Statement(session, Box::new(exchange)))
    }

    fn session(&self, body: &mut Cursor<'_>) -> Read<&SessionInfo> {
        self.sessions.get(body.narrow::<usize>()?).and_then(Option::as_ref).ok_or(Malformed)
    }

    fn columns(&self, body: &mut Cursor<'_>) -> Read<Option<&Arc<[Column]>>> {
        static EMPTY: std::sync::LazyLock<Arc<[Column]>> = std::sync::LazyLock::new(|| Arc::from([]));
        match body.narrow::<usize>()? {
            0 => Ok(None),
            1 => Ok(Some(&EMPTY)),
            slot => self.columns.get(slot - 2).and_then(Option::as_ref).map(Some).ok_or(Malformed),
        }
    }
}

/// A number of things of which each takes at least `least` bytes: no more than the record has room for.
fn count(body: &mut Cursor<'_>, least: usize) -> Read<usize> {
    let count = body.narrow::<usize>()?;
    if count <= body.left() / least { Ok(count) } else { Err(Malformed) }
}

fn time(body: &mut Cursor<'_>) -> Read<Micros> {
    body.array().map(i64::from_le_bytes).map(Micros)
}

fn session_id(body: &mut Cursor<'_>) -> Read<SessionId> {
    body.array().map(Uuid::from_bytes).map(SessionId)
}

fn session_info(body: &mut Cursor<'_>) -> Read<SessionInfo> {
    postcard::from_bytes(body.rest()).map_err(|_| Malformed)
}

fn columns(body: &mut Cursor<'_>) -> Read<Arc<[Column]>> {
    let count = count(body, 5)?;
    let column = |_| {
        let name = str::from_utf8(body.bytes()?).map_err(|_| Malformed)?;
        Ok(Column {
            name: name.into(),
            type_oid: body.narrow()?,
            table_oid: body.narrow()?,
            attnum: i16::try_from(body.signed()?).map_err(|_| Malformed)?,
            format: i16::try_from(body.signed()?).map_err(|_| Malformed)?,
        })
    };
    (0..count).map(column).collect()
}

fn param(body: &mut Cursor<'_>) -> Read<Param> {
    Ok(Param {
        type_oid: body.narrow()?,
        format: i16::try_from(body.signed()?).map_err(|_| Malformed)?,
        value: if body.bool()? { Some((body.narrow()?, body.narrow()?)) } else { None },
    })
}

fn gap(body: &mut Cursor<'_>) -> Read<Gap> {
    Ok(Gap {
        direction: direction(body)?,
        offset: body.number()?,
        length: body.number()?,
        at: time(body)?,
        reason: match body.byte()? {
            0 => GapReason::RingFull,
            1 => GapReason::Unreadable,
            2 => GapReason::Oversize,
            3 => GapReason::Resync,
            4 => GapReason::ProtocolError,
            5 => GapReason::Encrypted,
            6 => GapReason::AgentStopped,
            _ => return Err(Malformed),
        },
    })
}

fn session_end(body: &mut Cursor<'_>) -> Read<SessionEnd> {
    Ok(SessionEnd {
        ended_at: body.option()?.map(Micros),
        reason: match body.byte()? {
            0 => EndReason::Terminate,
            1 => EndReason::CancelRequest,
            2 => EndReason::Disconnected,
            3 => EndReason::AgentStopped,
            4 => EndReason::Fatal(str::from_utf8(body.bytes()?).map_err(|_| Malformed)?.to_owned()),
            5 => EndReason::Signal(body.byte()?),
            _ => return Err(Malformed),
        },
        statements: body.number()?,
        errors: body.number()?,
        bytes_in: body.number()?,
        bytes_out: body.number()?,
        gap_bytes: body.number()?,
        socket_bytes_in: body.number()?,
        socket_bytes_out: body.number()?,
        protocol_error: body.text()?.map(str::to_owned),
    })
}

fn loss(body: &mut Cursor<'_>) -> Read<Loss> {
    let range = |body: &mut Cursor<'_>| -> Read<Option<(u64, u64)>> {
        if body.bool()? { Ok(Some((body.number()?, body.number()?))) } else { Ok(None) }
    };
    Ok(Loss {
        session: if body.bool()? { Some(session_id(body)?) } else { None },
        table: table(body)?,
        direction: direction(body)?,
        range: range(body)?,
        statements: range(body)?,
        rows: body.number()?,
        at: time(body)?,
    })
}

fn settled<'a>(body: &mut Cursor<'_>) -> Read<Record<'a>> {
    let (table, day) = (table(body)?, Day(body.signed()?));
    let count = count(body, 2)?;
    let span = |_| {
        let span = Span { first: Lsn(body.number()?), last: Lsn(body.number()?) };
        if span.first <= span.last { Ok(span) } else { Err(Malformed) }
    };
    Ok(Record::Settled(table, day, (0..count).map(span).collect::<Read<_>>()?))
}

fn table(body: &mut Cursor<'_>) -> Read<Table> {
    let number = body.byte()?;
    Table::ALL.into_iter().find(|table| table.number() == number).ok_or(Malformed)
}

fn direction(body: &mut Cursor<'_>) -> Read<Direction> {
    Ok(if body.bool()? { Direction::Backend } else { Direction::Frontend })
}

fn protocol(number: u8) -> Read<Protocol> {
    Ok(match number {
        0 => Protocol::Simple,
        1 => Protocol::Extended,
        2 => Protocol::Function,
        3 => Protocol::Copy,
        4 => Protocol::Replication,
        _ => return Err(Malformed),
    })
}

fn status(number: u8) -> Read<Status> {
    Ok(match number {
        0 => Status::Completed,
        1 => Status::Failed,
        2 => Status::Skipped,
        3 => Status::Suspended,
        4 => Status::Canceled,
        5 => Status::InFlight,
        6 => Status::Unknown,
        _ => return Err(Malformed),
    })
}

/// From this size on parameters keep the memory that they were read into.
const LARGE: usize = 64 << 10;
