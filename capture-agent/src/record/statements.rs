//! Rows of `statements`.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::buffer::BooleanBuffer;
use arrow::error::ArrowError;

use super::callers::Callers;
use super::forms::Forms;
use super::labels::Labels;
use super::lists::ParamLists;
use super::loss::{Loss, Stake};
use super::repeats::constant;
use super::sessions::{Numbers, number, numbers, times};
use super::table::Table;
use super::texts::Texts;
use crate::session::value::write_text;
use crate::session::{Direction, Exchange, SessionInfo, Status};
use crate::sql::Analysis;
use crate::telemetry::metrics::{self, Metric};

/// Builds the table `statements`.
#[derive(Debug)]
pub(super) struct Statements {
    /// The number of each row's caller.
    caller: Vec<u32>,
    callers: Callers,
    /// The number of each row's form.
    form: Vec<u32>,
    forms: Forms,
    /// Bytes that the rows take in columns of their forms.
    weight: usize,
    seq: Vec<i64>,
    started_at: Vec<i64>,
    duration_us: Numbers,
    first_row_us: Numbers,
    params: ParamLists,
    rows: Numbers,
    bytes_in: Vec<i64>,
    bytes_out: Vec<i64>,
    /// How long the few were held that were, by row.
    held_us: Vec<(usize, i64)>,
    /// For each row [`COMPLETE`], [`RESULTS_TRUNCATED`] and [`PARAMS_TRUNCATED`].
    truths: Vec<u8>,
    stream_start: Vec<i64>,
    stream_end: Vec<i64>,
    masked: Vec<u32>,
    stake: Stake,
}

impl Statements {
    pub(super) fn new() -> Self {
        Self {
            caller: Vec::new(),
            callers: Callers::new(),
            form: Vec::new(),
            forms: Forms::new(),
            weight: 0,
            seq: Vec::new(),
            started_at: Vec::new(),
            duration_us: Numbers::new(),
            first_row_us: Numbers::new(),
            params: ParamLists::new(),
            rows: Numbers::new(),
            bytes_in: Vec::new(),
            bytes_out: Vec::new(),
            held_us: Vec::new(),
            truths: Vec::new(),
            stream_start: Vec::new(),
            stream_end: Vec::new(),
            masked: Vec::new(),
            stake: Stake::default(),
        }
    }

    /// Appends a statement. `analyze` tells what its text does; none if it has no known text.
    pub(super) fn append(
        &mut self,
        labels: &Labels,
        session: &SessionInfo,
        exchange: &Exchange,
        analyze: impl FnOnce() -> Option<Arc<Analysis>>,
    ) {
        let origin = &session.origin;
        self.caller.push(self.callers.number(labels, session));
        let (form, weight) = self.forms.number(exchange, session.standard_conforming_strings, analyze);
        self.form.push(form);
        self.weight += weight;
        if let Some(judged) = &exchange.judged {
            self.held_us.push((self.seq.len(), number(judged.held_us)));
        }
        self.seq.push(number(exchange.seq));
        self.started_at.push(exchange.started_at.0);
        self.duration_us.append(exchange.duration_us);
        self.first_row_us.append(exchange.first_row_us);
        let params_cut = self.append_params(session, exchange);
        self.rows.append(exchange.rows.map(number));
        self.bytes_in.push(number(exchange.bytes_in));
        self.bytes_out.push(number(exchange.bytes_out));
        let params_truncated = exchange.params_truncated || params_cut;
        self.truths.push(
            truth(exchange.complete, COMPLETE)
                | truth(exchange.results_truncated, RESULTS_TRUNCATED)
                | truth(params_truncated, PARAMS_TRUNCATED),
        );
        let (start, end) = exchange.frontend_range;
        self.stream_start.push(number(start));
        self.stream_end.push(number(end));
        self.masked.push(exchange.masked);
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
                    if param.format != 0 || bytes.len() > VALUE_BYTES || !column.write_ascii(bytes) {
                        let mut text = Capped { column: &mut *column, left: VALUE_BYTES };
                        let encoding = session.client_encoding;
                        cut |= write_text(param.type_oid, param.format, bytes, encoding, &mut text).is_err();
                    }
                    column.end();
                }
            }
        }
        self.params.end_row();
        cut
    }

    /// Rows so far.
    pub(super) fn len(&self) -> usize {
        self.seq.len()
    }

    /// Memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        self.forms.bytes() + self.weight + self.params.bytes() + self.len() * 300
    }

    /// The rows, and an empty table in their place.
    pub(super) fn finish(&mut self, node: &str) -> Result<RecordBatch, ArrowError> {
        let rows = self.len();
        let [session_id, pg_user, database, application_name, client_addr] =
            self.callers.finish(&self.caller)?;
        let forms = self.forms.finish(&self.form)?;
        self.caller.clear();
        self.form.clear();
        self.weight = 0;
        let truths = std::mem::take(&mut self.truths);
        let bit = |bit: u8| -> ArrayRef {
            Arc::new(BooleanArray::from(BooleanBuffer::collect_bool(rows, |row| truths[row] & bit != 0)))
        };
        let columns: Vec<ArrayRef> = vec![
            session_id,
            numbers(&mut self.seq),
            constant(node, rows)?,
            times(&mut self.started_at),
            self.duration_us.finish(),
            self.first_row_us.finish(),
            pg_user,
            database,
            application_name,
            client_addr,
            forms.protocol,
            forms.sql,
            forms.statement_name,
            self.params.finish()?,
            forms.kinds,
            forms.tables_read,
            forms.tables_written,
            forms.functions,
            forms.fingerprint,
            forms.columns,
            self.rows.finish(),
            forms.command_tag,
            forms.status,
            forms.sqlstate,
            forms.error_message,
            numbers(&mut self.bytes_in),
            numbers(&mut self.bytes_out),
            forms.verdict,
            forms.guardrail,
            forms.decided_by,
            held(&std::mem::take(&mut self.held_us), rows),
            bit(COMPLETE),
            bit(RESULTS_TRUNCATED),
            bit(PARAMS_TRUNCATED),
            forms.sql_unknown,
            numbers(&mut self.stream_start),
            numbers(&mut self.stream_end),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.masked))),
        ];
        Table::Statements.batch(columns)
    }

    /// What is lost if the rows that were finished are.
    pub(super) fn take_stake(&mut self) -> Vec<Loss> {
        self.stake.take()
    }
}

/// The bit, if it is true.
fn truth(is: bool, bit: u8) -> u8 {
    if is { bit } else { 0 }
}

/// The column `held_us`.
fn held(held: &[(usize, i64)], rows: usize) -> ArrayRef {
    if held.is_empty() {
        return Arc::new(Int64Array::new_null(rows));
    }
    let mut values = vec![None; rows];
    held.iter().for_each(|(row, us)| values[*row] = Some(*us));
    Arc::new(Int64Array::from(values))
}

/// A value's text, up to a length.
struct Capped<'a> {
    column: &'a mut Texts,
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

/// The metric that counts a statement.
pub(super) fn metric(exchange: &Exchange) -> &'static Metric {
    if exchange.judged.as_ref().is_some_and(|judged| judged.verdict.stops()) {
        return &metrics::BLOCKED;
    }
    match exchange.status {
        Status::Completed => &metrics::COMPLETED,
        Status::Failed => &metrics::FAILED,
        Status::Canceled => &metrics::CANCELED,
        Status::Skipped | Status::Suspended | Status::InFlight | Status::Unknown => {
            &metrics::OTHER_STATEMENTS
        }
    }
}

/// Whether no gap touched a statement.
const COMPLETE: u8 = 1;
/// Whether rows of its result are not recorded.
const RESULTS_TRUNCATED: u8 = 2;
/// Whether something of what was asked is not.
const PARAMS_TRUNCATED: u8 = 4;

/// Bytes of text that are recorded of one parameter: a text of 64 MiB whole. A binary value can be longer as text
/// than on the wire (`bytea` twice), and the writer needs three times the length.
const VALUE_BYTES: usize = 64 << 20;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use arrow::array::AsArray as _;

    use super::*;

    #[test]
    fn a_value_is_cut_between_characters_and_says_so() {
        let mut column = Texts::new();
        let mut text = Capped { column: &mut column, left: 4 };
        assert_eq!(text.write_str("aé"), Ok(()));
        assert_eq!(text.write_str("éb"), Err(fmt::Error));
        assert_eq!(text.write_str("c"), Ok(()));
        assert_eq!(text.write_str("d"), Err(fmt::Error));
        column.end();
        assert_eq!(column.finish().unwrap().as_string::<i32>().value(0), "aéc");
    }
}
