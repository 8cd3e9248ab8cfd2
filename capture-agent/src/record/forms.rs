//! What the executions of one prepared statement have in common: most columns of `statements`.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;

use super::callers::same;
use super::lists::{ColumnLists, RepeatLists};
use super::repeats::Repeats;
use crate::session::{Column, Exchange, Judged, Protocol, Status, Tag, Verdict};
use crate::sql::Analysis;

/// Builds the columns that executions have in common: each form of a batch has a number, which is all that a row needs.
#[derive(Debug)]
pub(super) struct Forms {
    protocol: Repeats,
    sql: Repeats,
    statement_name: Repeats,
    kinds: RepeatLists,
    tables_read: RepeatLists,
    tables_written: RepeatLists,
    functions: RepeatLists,
    fingerprint: Repeats,
    columns: ColumnLists,
    command_tag: Repeats,
    status: Repeats,
    sqlstate: Repeats,
    error_message: Repeats,
    verdict: Repeats,
    guardrail: Repeats,
    decided_by: Repeats,
    sql_unknown: Repeats,
    /// What a row of each form takes.
    weights: Vec<usize>,
    /// Bytes of distinct texts.
    texts: usize,
    known: Vec<Option<Known>>,
}

/// A form, and what makes it: kept alive, so that the same pointer means the same.
#[derive(Debug)]
struct Known {
    sql: Arc<str>,
    standard_conforming_strings: bool,
    protocol: Protocol,
    status: Status,
    statement_name: Option<Arc<str>>,
    columns: Option<Arc<[Column]>>,
    command_tag: Option<Tag>,
    number: u32,
}

/// The columns of [`Forms`].
pub(super) struct Columns {
    pub(super) protocol: ArrayRef,
    pub(super) sql: ArrayRef,
    pub(super) statement_name: ArrayRef,
    pub(super) kinds: ArrayRef,
    pub(super) tables_read: ArrayRef,
    pub(super) tables_written: ArrayRef,
    pub(super) functions: ArrayRef,
    pub(super) fingerprint: ArrayRef,
    pub(super) columns: ArrayRef,
    pub(super) command_tag: ArrayRef,
    pub(super) status: ArrayRef,
    pub(super) sqlstate: ArrayRef,
    pub(super) error_message: ArrayRef,
    pub(super) verdict: ArrayRef,
    pub(super) guardrail: ArrayRef,
    pub(super) decided_by: ArrayRef,
    pub(super) sql_unknown: ArrayRef,
}

impl Forms {
    /// Knows none.
    pub(super) fn new() -> Self {
        Self {
            protocol: Repeats::new(),
            sql: Repeats::new(),
            statement_name: Repeats::new(),
            kinds: RepeatLists::new(),
            tables_read: RepeatLists::new(),
            tables_written: RepeatLists::new(),
            functions: RepeatLists::new(),
            fingerprint: Repeats::new(),
            columns: ColumnLists::new(),
            command_tag: Repeats::new(),
            status: Repeats::new(),
            sqlstate: Repeats::new(),
            error_message: Repeats::new(),
            verdict: Repeats::new(),
            guardrail: Repeats::new(),
            decided_by: Repeats::new(),
            sql_unknown: Repeats::new(),
            weights: Vec::new(),
            texts: 0,
            known: (0..SLOTS).map(|_| None).collect(),
        }
    }

    /// The number of a statement's form, and the bytes that a row of it takes. `analyze` tells what its text does, none if it
    /// has no known text. Each number is given out when it is asked for, and in order.
    #[inline]
    pub(super) fn number(
        &mut self,
        exchange: &Exchange,
        standard_conforming_strings: bool,
        analyze: impl FnOnce() -> Option<Arc<Analysis>>,
    ) -> (u32, usize) {
        let slot = slot(exchange);
        if let Some(known) = slot.and_then(|slot| self.known[slot].as_ref())
            && known.is(exchange, standard_conforming_strings)
        {
            return (known.number, self.weights[known.number as usize]);
        }
        let number = self.add(exchange, analyze().as_deref());
        if let Some((slot, sql)) = slot.zip(exchange.sql.as_ref()) {
            self.known[slot] = Some(Known {
                sql: Arc::clone(sql),
                standard_conforming_strings,
                protocol: exchange.protocol,
                status: exchange.status,
                statement_name: exchange.statement_name.clone(),
                columns: exchange.columns.clone(),
                command_tag: exchange.command_tag.clone(),
                number,
            });
        }
        (number, self.weights[number as usize])
    }

    fn add(&mut self, exchange: &Exchange, analysis: Option<&Analysis>) -> u32 {
        let before = self.rows_bytes();
        self.protocol.append_value(exchange.protocol.name());
        self.sql.append_option(exchange.sql.as_deref());
        self.statement_name.append_option(exchange.statement_name.as_deref());
        self.append_analysis(analysis);
        self.columns.append(exchange.columns.as_deref());
        self.command_tag.append_option(exchange.command_tag.as_deref());
        self.status.append_value(status(exchange));
        self.sqlstate.append_option(exchange.sqlstate.as_deref());
        self.error_message.append_option(exchange.error_message.as_deref());
        self.append_judged(exchange.judged.as_deref());
        self.texts = self.texts_bytes();
        // A batch is cut long before it has 2^32 rows.
        let number = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
        self.weights.push(self.rows_bytes() - before);
        number
    }

    fn append_analysis(&mut self, analysis: Option<&Analysis>) {
        // Of what the parser cannot read nothing is claimed, not even that it reads no table.
        let known = analysis.filter(|analysis| analysis.unknown.is_none());
        self.kinds.append(known.map(|known| known.kinds.as_slice()));
        self.tables_read.append(known.map(|known| known.tables_read.as_slice()));
        self.tables_written.append(known.map(|known| known.tables_written.as_slice()));
        self.functions.append(known.map(|known| known.functions.as_slice()));
        self.fingerprint.append_option(known.and_then(|known| known.fingerprint.as_deref()));
        match analysis.and_then(|analysis| analysis.unknown) {
            Some(unknown) => self.sql_unknown.append_value(&unknown.to_string()),
            None => self.sql_unknown.append_null(),
        }
    }

    fn append_judged(&mut self, judged: Option<&Judged>) {
        self.verdict.append_value(judged.map_or("none", |judged| match judged.verdict {
            Verdict::Allowed => "allowed",
            Verdict::Blocked => "blocked",
            Verdict::Approved => "approved",
            Verdict::Denied => "denied",
        }));
        self.guardrail.append_option(judged.and_then(|judged| judged.guardrail.as_deref()));
        self.decided_by.append_option(judged.and_then(|judged| judged.decided_by.as_deref()));
    }

    /// Memory in use for texts, each once.
    pub(super) fn bytes(&self) -> usize {
        self.texts
    }

    fn texts_bytes(&self) -> usize {
        let texts = [&self.sql, &self.statement_name, &self.error_message];
        let lists = [&self.tables_read, &self.tables_written, &self.functions];
        texts.map(Repeats::texts_bytes).iter().sum::<usize>()
            + lists.map(RepeatLists::texts_bytes).iter().sum::<usize>()
            + self.columns.texts_bytes()
    }

    /// What takes memory in every row that has it.
    fn rows_bytes(&self) -> usize {
        let texts = [&self.sql, &self.statement_name, &self.error_message];
        let lists = [&self.tables_read, &self.tables_written, &self.functions];
        texts.map(Repeats::rows_bytes).iter().sum::<usize>()
            + lists.map(RepeatLists::rows_bytes).iter().sum::<usize>()
            + self.columns.rows_bytes()
    }

    /// The columns of rows whose forms have these numbers. None is known then.
    pub(super) fn finish(&mut self, rows: &[u32]) -> Result<Columns, ArrowError> {
        self.known.fill_with(|| None);
        self.weights.clear();
        self.texts = 0;
        Ok(Columns {
            protocol: self.protocol.spread(rows)?,
            sql: self.sql.spread(rows)?,
            statement_name: self.statement_name.spread(rows)?,
            kinds: self.kinds.spread(rows)?,
            tables_read: self.tables_read.spread(rows)?,
            tables_written: self.tables_written.spread(rows)?,
            functions: self.functions.spread(rows)?,
            fingerprint: self.fingerprint.spread(rows)?,
            columns: self.columns.spread(rows)?,
            command_tag: self.command_tag.spread(rows)?,
            status: self.status.spread(rows)?,
            sqlstate: self.sqlstate.spread(rows)?,
            error_message: self.error_message.spread(rows)?,
            verdict: self.verdict.spread(rows)?,
            guardrail: self.guardrail.spread(rows)?,
            decided_by: self.decided_by.spread(rows)?,
            sql_unknown: self.sql_unknown.spread(rows)?,
        })
    }
}

impl Known {
    fn is(&self, exchange: &Exchange, standard_conforming_strings: bool) -> bool {
        exchange.sql.as_ref().is_some_and(|sql| Arc::ptr_eq(&self.sql, sql))
            && same(&self.columns, &exchange.columns)
            && same(&self.statement_name, &exchange.statement_name)
            && self.command_tag == exchange.command_tag
            && self.standard_conforming_strings == standard_conforming_strings
            && (self.protocol, self.status) == (exchange.protocol, exchange.status)
    }
}

/// Where a form may be known; none if it will not come again: its text is its own, or something befell it.
fn slot(exchange: &Exchange) -> Option<usize> {
    let plain = exchange.sqlstate.is_none() && exchange.error_message.is_none() && exchange.judged.is_none();
    let sql = exchange.sql.as_ref().filter(|_| plain && exchange.protocol == Protocol::Extended)?;
    // Their low bits are alike.
    Some((sql.as_ptr().addr() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) as usize >> 40 & (SLOTS - 1))
}

/// What became of a statement, in a word.
fn status(exchange: &Exchange) -> &'static str {
    if exchange.judged.as_ref().is_some_and(|judged| judged.verdict.stops()) {
        // Whatever the client got in its place.
        return "blocked";
    }
    exchange.status.name()
}

/// Forms that are found again: some prepared statements of each of many sessions. A power of two.
const SLOTS: usize = 1_024;
