//! Rows of `statements`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanBuilder, Int64Builder, RecordBatch, StringBuilder, UInt32Builder};
use arrow::error::ArrowError;

use super::labels::Labels;
use super::lists::{ColumnLists, ParamLists, RepeatLists};
use super::loss::{Loss, Stake};
use super::repeats::{Repeats, constant};
use super::sessions::{number, numbers, times};
use super::table::Table;
use crate::session::value::write_text;
use crate::session::{Direction, Exchange, Judged, Protocol, SessionInfo, Status, Verdict};
use crate::sql::Analysis;
use crate::telemetry::metrics::{self, Metric};

/// Builds the table `statements`.
#[derive(Debug)]
pub(super) struct Statements {
    session_id: Repeats,
    seq: Vec<i64>,
    started_at: Vec<i64>,
    duration_us: Int64Builder,
    first_row_us: Int64Builder,
    pg_user: Repeats,
    database: Repeats,
    application_name: Repeats,
    client_addr: Repeats,
    protocol: Repeats,
    sql: Repeats,
    statement_name: Repeats,
    params: ParamLists,
    kinds: RepeatLists,
    tables_read: RepeatLists,
    tables_written: RepeatLists,
    functions: RepeatLists,
    fingerprint: Repeats,
    columns: ColumnLists,
    rows: Int64Builder,
    command_tag: Repeats,
    status: Repeats,
    sqlstate: Repeats,
    error_message: Repeats,
    bytes_in: Vec<i64>,
    bytes_out: Vec<i64>,
    verdict: Repeats,
    guardrail: Repeats,
    decided_by: Repeats,
    held_us: Int64Builder,
    complete: BooleanBuilder,
    results_truncated: BooleanBuilder,
    params_truncated: BooleanBuilder,
    sql_unknown: Repeats,
    stream_start: Vec<i64>,
    stream_end: Vec<i64>,
    masked: UInt32Builder,
    stake: Stake,
}

impl Statements {
    pub(super) fn new() -> Self {
        Self {
            session_id: Repeats::new(),
            seq: Vec::new(),
            started_at: Vec::new(),
            duration_us: Int64Builder::new(),
            first_row_us: Int64Builder::new(),
            pg_user: Repeats::new(),
            database: Repeats::new(),
            application_name: Repeats::new(),
            client_addr: Repeats::new(),
            protocol: Repeats::new(),
            sql: Repeats::new(),
            statement_name: Repeats::new(),
            params: ParamLists::new(),
            kinds: RepeatLists::new(),
            tables_read: RepeatLists::new(),
            tables_written: RepeatLists::new(),
            functions: RepeatLists::new(),
            fingerprint: Repeats::new(),
            columns: ColumnLists::new(),
            rows: Int64Builder::new(),
            command_tag: Repeats::new(),
            status: Repeats::new(),
            sqlstate: Repeats::new(),
            error_message: Repeats::new(),
            bytes_in: Vec::new(),
            bytes_out: Vec::new(),
            verdict: Repeats::new(),
            guardrail: Repeats::new(),
            decided_by: Repeats::new(),
            held_us: Int64Builder::new(),
            complete: BooleanBuilder::new(),
            results_truncated: BooleanBuilder::new(),
            params_truncated: BooleanBuilder::new(),
            sql_unknown: Repeats::new(),
            stream_start: Vec::new(),
            stream_end: Vec::new(),
            masked: UInt32Builder::new(),
            stake: Stake::default(),
        }
    }

    /// Appends a statement. `analysis` is what its text does; none if it has no known text.
    pub(super) fn append(
        &mut self,
        labels: &Labels,
        session: &SessionInfo,
        exchange: &Exchange,
        analysis: Option<&Analysis>,
    ) {
        let origin = &session.origin;
        self.session_id.append_value(labels.id());
        self.seq.push(number(exchange.seq));
        self.started_at.push(exchange.started_at.0);
        self.duration_us.append_option(exchange.duration_us);
        self.first_row_us.append_option(exchange.first_row_us);
        self.pg_user.append_option(session.user.as_deref().or(origin.user.as_deref()));
        self.database.append_option(session.database.as_deref().or(origin.database.as_deref()));
        self.application_name.append_option(session.application_name.as_deref());
        self.client_addr.append_option(labels.client_addr.as_deref());
        self.protocol.append_value(protocol(exchange.protocol));
        self.sql.append_option(exchange.sql.as_deref());
        self.statement_name.append_option(exchange.statement_name.as_deref());
        let params_cut = self.append_params(session, exchange);
        self.append_analysis(analysis);
        self.columns.append(exchange.columns.as_deref());
        self.rows.append_option(exchange.rows.map(number));
        self.command_tag.append_option(exchange.command_tag.as_deref());
        self.status.append_value(status(exchange));
        self.sqlstate.append_option(exchange.sqlstate.as_deref());
        self.error_message.append_option(exchange.error_message.as_deref());
        self.bytes_in.push(number(exchange.bytes_in));
        self.bytes_out.push(number(exchange.bytes_out));
        self.append_judged(exchange.judged.as_deref());
        self.complete.append_value(exchange.complete);
        self.results_truncated.append_value(exchange.results_truncated);
        self.params_truncated.append_value(exchange.params_truncated || params_cut);
        let (start, end) = exchange.frontend_range;
        self.stream_start.push(number(start));
        self.stream_end.push(number(end));
        self.masked.append_value(exchange.masked);
        self.stake.note(Loss {
            session: Some(origin.id),
            table: Table::Statements,
            direction: Direction::Frontend,
            range: Some((start, end)),
            statements: Some((exchange.seq, exchange.seq)),
            rows: 1,
            at: exchange.started_at,
        });
    }

    /// Appends the parameters. Returns whether one was too long for the record.
    fn append_params(&mut self, session: &SessionInfo, exchange: &Exchange) -> bool {
        let mut cut = false;
        for param in &exchange.params {
            let column = self.params.param(param.type_oid, param.format);
            match param.value {
                None => column.append_null(),
                Some((start, end)) => {
                    let bytes = exchange.params_body.get(start as usize..end as usize).unwrap_or_default();
                    let mut text = Capped { column, left: VALUE_BYTES };
                    let encoding = session.client_encoding;
                    cut |= write_text(param.type_oid, param.format, bytes, encoding, &mut text).is_err();
                    column.append_value("");
                }
            }
        }
        self.params.end_row();
        cut
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
        self.held_us.append_option(judged.map(|judged| number(judged.held_us)));
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

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.seq.len()
    }

    /// Memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        let texts = [&self.sql, &self.statement_name, &self.error_message];
        texts.map(Repeats::bytes).iter().sum::<usize>()
            + self.params.bytes()
            + self.tables_read.bytes()
            + self.tables_written.bytes()
            + self.functions.bytes()
            + self.columns.bytes()
            + self.len() * 300
    }

    /// The rows, what is lost if they are, and an empty table in their place.
    pub(super) fn finish(&mut self, node: &str) -> Result<(RecordBatch, Vec<Loss>), ArrowError> {
        let rows = self.len();
        let columns: Vec<ArrayRef> = vec![
            self.session_id.finish()?,
            numbers(&mut self.seq),
            constant(node, rows)?,
            times(&mut self.started_at),
            Arc::new(self.duration_us.finish()),
            Arc::new(self.first_row_us.finish()),
            self.pg_user.finish()?,
            self.database.finish()?,
            self.application_name.finish()?,
            self.client_addr.finish()?,
            self.protocol.finish()?,
            self.sql.finish()?,
            self.statement_name.finish()?,
            self.params.finish()?,
            self.kinds.finish()?,
            self.tables_read.finish()?,
            self.tables_written.finish()?,
            self.functions.finish()?,
            self.fingerprint.finish()?,
            self.columns.finish()?,
            Arc::new(self.rows.finish()),
            self.command_tag.finish()?,
            self.status.finish()?,
            self.sqlstate.finish()?,
            self.error_message.finish()?,
            numbers(&mut self.bytes_in),
            numbers(&mut self.bytes_out),
            self.verdict.finish()?,
            self.guardrail.finish()?,
            self.decided_by.finish()?,
            Arc::new(self.held_us.finish()),
            Arc::new(self.complete.finish()),
            Arc::new(self.results_truncated.finish()),
            Arc::new(self.params_truncated.finish()),
            self.sql_unknown.finish()?,
            numbers(&mut self.stream_start),
            numbers(&mut self.stream_end),
            Arc::new(self.masked.finish()),
        ];
        Ok((Table::Statements.batch(columns)?, self.stake.take()))
    }
}

/// A value's text, up to a length.
struct Capped<'a> {
    column: &'a mut StringBuilder,
    left: usize,
}

impl fmt::Write for Capped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.get(..text.floor_char_boundary(self.left)).unwrap_or_default();
        self.column.write_str(fits)?;
        self.left -= fits.len();
        if fits.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Simple => "simple",
        Protocol::Extended => "extended",
        Protocol::Function => "function",
        Protocol::Copy => "copy",
        Protocol::Replication => "replication",
    }
}

/// The metric that counts a statement.
pub(super) fn metric(exchange: &Exchange) -> &'static Metric {
    match status(exchange) {
        "completed" => &metrics::COMPLETED,
        "failed" => &metrics::FAILED,
        "blocked" => &metrics::BLOCKED,
        "canceled" => &metrics::CANCELED,
        _ => &metrics::OTHER_STATEMENTS,
    }
}

fn status(exchange: &Exchange) -> &'static str {
    if exchange.judged.as_ref().is_some_and(|judged| judged.verdict.stops()) {
        // Whatever the client got in its place.
        return "blocked";
    }
    match exchange.status {
        Status::Completed => "completed",
        Status::Failed => "failed",
        Status::Skipped => "skipped",
        Status::Suspended => "suspended",
        Status::Canceled => "canceled",
        Status::InFlight => "in_flight",
        Status::Unknown => "unknown",
    }
}

/// Bytes of text that are recorded of one parameter: a text of 64 MiB whole. A binary value can be longer as text
/// than on the wire (`bytea` twice), and the writer needs three times the length.
const VALUE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn a_value_is_cut_between_characters_and_says_so() {
        let mut column = StringBuilder::new();
        let mut text = Capped { column: &mut column, left: 4 };
        assert_eq!(text.write_str("aé"), Ok(()));
        assert_eq!(text.write_str("éb"), Err(fmt::Error));
        assert_eq!(text.write_str("c"), Ok(()));
        assert_eq!(text.write_str("d"), Err(fmt::Error));
        column.append_value("");
        assert_eq!(column.finish().value(0), "aéc");
    }
}
