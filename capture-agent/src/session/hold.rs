//! Rows and statements that are held back until it is certain that replies were paired rightly.

use std::sync::Arc;

use super::saved::clipped;
use super::{Column, Exchange, Gap, Micros, RowValues, SessionEnd, SessionInfo, Sink, Status, Values};
use serde::{Deserialize, Serialize};

/// Holds what a conversation says, from the point where a stream was found again until the next ReadyForQuery.
///
/// The server may still have had requests to answer whose bytes were lost. If it had, then a reply too many
/// comes, and none of the replies of this cycle is certain.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Hold {
    held: Vec<Held>,
    bytes: usize,
    statements: usize,
    /// Whether an error was among the replies of an extended query: it may answer a request that was lost.
    doubtful: bool,
}

#[derive(Debug, Serialize, Deserialize)]
enum Held {
    Row {
        seq: u64,
        row: u64,
        #[serde(serialize_with = "clipped::text")]
        sql: Option<Arc<str>>,
        started_at: Micros,
        columns: Box<[Column]>,
        values: HeldValues,
    },
    Statement(Box<Exchange>),
}

#[derive(Debug, Serialize, Deserialize)]
enum HeldValues {
    DataRow(Box<[u8]>),
    Fields { fields: Vec<Option<Box<[u8]>>>, binary: bool },
}

impl Hold {
    /// Whether more than a cycle's ordinary replies are held: no more is waited for.
    pub(super) fn is_full(&self) -> bool {
        self.statements > MOST_STATEMENTS
    }

    /// Hands everything out: the pairing was right.
    pub(super) fn release(self, info: &SessionInfo, sink: &mut impl Sink) {
        if self.doubtful {
            return self.doubt(info, sink);
        }
        for held in self.held {
            match held {
                Held::Row { seq, row, sql, started_at, columns, values } => {
                    let (data, fields, binary) = match &values {
                        HeldValues::DataRow(data) => (Some(&**data), Vec::new(), false),
                        HeldValues::Fields { fields, binary } => {
                            (None, fields.iter().map(Option::as_deref).collect(), *binary)
                        }
                    };
                    let values = match data {
                        Some(data) => Values::DataRow(data),
                        None => Values::Fields { fields: &fields, binary },
                    };
                    let sql = sql.as_ref();
                    sink.row(info, RowValues { seq, row, sql, started_at, columns: &columns, values });
                }
                Held::Statement(exchange) => sink.statement(info, &exchange),
            }
        }
    }

    /// Hands the statements out without what their replies seemed to say.
    pub(super) fn doubt(self, info: &SessionInfo, sink: &mut impl Sink) {
        for held in self.held {
            if let Held::Statement(mut exchange) = held {
                exchange.status = Status::Unknown;
                exchange.duration_us = None;
                exchange.first_row_us = None;
                exchange.columns = None;
                exchange.rows = None;
                exchange.command_tag = None;
                exchange.sqlstate = None;
                exchange.error_message = None;
                exchange.complete = false;
                exchange.results_truncated = true;
                sink.statement(info, &exchange);
            }
        }
    }
}

impl Sink for Hold {
    fn row(&mut self, _session: &SessionInfo, row: RowValues<'_>) {
        let values = match row.values {
            Values::DataRow(data) => HeldValues::DataRow(data.into()),
            Values::Fields { fields, binary } => HeldValues::Fields {
                fields: fields.iter().map(|field| field.map(Box::from)).collect(),
                binary,
            },
        };
        let size = match &values {
            HeldValues::DataRow(data) => data.len(),
            HeldValues::Fields { fields, .. } => fields.iter().flatten().map(|field| field.len() + 16).sum(),
        };
        self.bytes = self.bytes.saturating_add(size + size_of::<Held>() + size_of_val(row.columns));
        if self.bytes <= MOST {
            let columns = row.columns.into();
            self.held.push(Held::Row {
                seq: row.seq,
                row: row.row,
                sql: row.sql.cloned(),
                started_at: row.started_at,
                columns,
                values,
            });
        }
    }

    fn statement(&mut self, _session: &SessionInfo, exchange: &Exchange) {
        let mut exchange = exchange.clone();
        let size = exchange.params_body.len() + exchange.params.len() * size_of::<super::Param>();
        self.bytes = self.bytes.saturating_add(size + size_of::<Exchange>());
        self.doubtful |= exchange.sqlstate.is_some() && exchange.protocol == super::Protocol::Extended;
        if self.bytes > MOST {
            exchange.results_truncated = true;
            exchange.params_truncated = true;
            exchange.params_body = Vec::new();
            for param in &mut exchange.params {
                param.value = None;
            }
        }
        self.statements += 1;
        self.held.push(Held::Statement(Box::new(exchange)));
    }

    fn gap(&mut self, _session: &SessionInfo, _gap: &Gap) {}

    fn end(&mut self, _session: &SessionInfo, _end: &SessionEnd) {}
}

/// Bytes held back of one session at a time.
const MOST: usize = 1 << 20;
/// Statements held back.
const MOST_STATEMENTS: usize = 1_024;
