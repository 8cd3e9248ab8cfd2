//! The tables: their names, columns and how each column is laid out in Parquet. `docs/schema.md` says what the
//! columns mean.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

/// A table of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One row per session, when it ends.
    Sessions,
    /// One row per executed statement.
    Statements,
    /// One row per row that a statement returned or copied.
    Results,
    /// One row per stretch that is not in the record.
    Gaps,
    /// One row per decision of the policy or about it.
    Decisions,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 5] = [Self::Sessions, Self::Statements, Self::Results, Self::Gaps, Self::Decisions];

    /// Its folder in the data directory.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sessions => "sessions",
            Self::Statements => "statements",
            Self::Results => "results",
            Self::Gaps => "gaps",
            Self::Decisions => "decisions",
        }
    }

    /// Its number in the journal.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Sessions => 0,
            Self::Statements => 1,
            Self::Results => 2,
            Self::Gaps => 3,
            Self::Decisions => 4,
        }
    }

    /// Its columns.
    pub fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 5]> = LazyLock::new(|| {
            [sessions(), statements(), results(), gaps(), decisions()]
                .map(|fields| Arc::new(Schema::new(fields)))
        });
        let [sessions, statements, results, gaps, decisions] = &*SCHEMAS;
        Arc::clone(match self {
            Self::Sessions => sessions,
            Self::Statements => statements,
            Self::Results => results,
            Self::Gaps => gaps,
            Self::Decisions => decisions,
        })
    }

    /// Whether its builder tells texts that repeat apart: that of a table with many rows.
    pub(super) fn repeats(self) -> bool {
        matches!(self, Self::Statements | Self::Results)
    }

    /// Rows of it, from all its columns: those of texts may have their distinct texts apart.
    pub(super) fn batch(self, columns: Vec<ArrayRef>) -> Result<RecordBatch, ArrowError> {
        let schema = self.schema();
        let fields = schema.fields().iter().zip(&columns);
        let fields =
            fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
    }
}

/// The type of every timestamp.
pub(super) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The fields of one element of `params`.
pub(super) fn param_fields() -> Fields {
    Fields::from(vec![
        Field::new("type_oid", DataType::UInt32, false),
        Field::new("format", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, true),
    ])
}

/// The fields of one element of `columns`.
pub(super) fn column_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, false),
        Field::new("type_oid", DataType::UInt32, false),
        Field::new("table_oid", DataType::UInt32, false),
        Field::new("attnum", DataType::Int16, false),
    ])
}

/// The element of a list, under the name that the Parquet format gives it.
pub(super) fn element(data_type: DataType, nullable: bool) -> Arc<Field> {
    Arc::new(Field::new("element", data_type, nullable))
}

fn sessions() -> Vec<Field> {
    vec![
        text("session_id").required(),
        text("node").required(),
        Field::new("started_at", timestamp(), false),
        Field::new("ended_at", timestamp(), true),
        text("end_reason").required(),
        text("pg_user"),
        text("database"),
        text("application_name"),
        text("client_addr"),
        Field::new("client_port", DataType::Int32, true),
        text("transport").required(),
        Field::new("tls", DataType::Boolean, false),
        text("auth_method"),
        Field::new("backend_pid", DataType::Int32, false),
        text("server_version"),
        Field::new("peer_pid", DataType::Int32, true),
        text("peer_exe"),
        text("container_id"),
        text("pod"),
        text("namespace"),
        text("subject"),
        count("statements"),
        count("errors"),
        count("bytes_in"),
        count("bytes_out"),
        count("gap_bytes"),
        Field::new("partial", DataType::Boolean, false),
        text("protocol_error"),
        Field::new("host_pid", DataType::Int32, false),
        Field::new("server_pid", DataType::Int32, true),
        Field::new("server_port", DataType::Int32, true),
        text("pod_uid"),
        text("tls_version"),
        text("tls_cipher"),
        count("socket_bytes_in"),
        count("socket_bytes_out"),
        Field::new("gss_encrypted", DataType::Boolean, false),
    ]
}

fn statements() -> Vec<Field> {
    vec![
        text("session_id").required(),
        count("seq"),
        text("node").required(),
        Field::new("started_at", timestamp(), false),
        Field::new("duration_us", DataType::Int64, true),
        Field::new("first_row_us", DataType::Int64, true),
        text("pg_user"),
        text("database"),
        text("application_name"),
        text("client_addr"),
        text("protocol").required(),
        text("sql"),
        text("statement_name"),
        list("params", DataType::Struct(param_fields()), false).required(),
        list("kinds", DataType::Utf8, false),
        list("tables_read", DataType::Utf8, false),
        list("tables_written", DataType::Utf8, false),
        list("functions", DataType::Utf8, false),
        text("fingerprint"),
        list("columns", DataType::Struct(column_fields()), false),
        Field::new("rows", DataType::Int64, true),
        text("command_tag"),
        text("status").required(),
        text("sqlstate"),
        text("error_message"),
        count("bytes_in"),
        count("bytes_out"),
        text("verdict").required(),
        text("guardrail"),
        text("decided_by"),
        Field::new("held_us", DataType::Int64, true),
        Field::new("complete", DataType::Boolean, false),
        Field::new("results_truncated", DataType::Boolean, false),
        Field::new("params_truncated", DataType::Boolean, false),
        text("sql_unknown"),
        count("stream_start"),
        count("stream_end"),
        Field::new("masked", DataType::UInt32, false),
    ]
}

fn results() -> Vec<Field> {
    vec![
        text("session_id").required(),
        count("seq"),
        count("row"),
        list("values", DataType::Utf8, true).required(),
    ]
}

fn gaps() -> Vec<Field> {
    vec![
        text("session_id"),
        text("direction").required(),
        Field::new("offset", DataType::Int64, true),
        Field::new("length", DataType::Int64, true),
        Field::new("at", timestamp(), false),
        text("reason").required(),
        text("node").required(),
        text("lost_table"),
        Field::new("lost_rows", DataType::Int64, true),
        Field::new("first_seq", DataType::Int64, true),
        Field::new("last_seq", DataType::Int64, true),
    ]
}

fn decisions() -> Vec<Field> {
    vec![
        text("node").required(),
        Field::new("at", timestamp(), false),
        text("kind").required(),
        text("session_id"),
        Field::new("seq", DataType::Int64, true),
        text("pg_user"),
        text("database"),
        text("application_name"),
        text("client_addr"),
        text("guardrail"),
        text("action"),
        text("verdict"),
        text("reason"),
        text("decided_by"),
        Field::new("held_us", DataType::Int64, true),
        text("sql"),
        text("message"),
    ]
}

/// A column of text that may be null.
fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, true)
}

/// A number that counts something. Signed: unsigned 64-bit columns are not read by every engine.
fn count(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}

/// A list that may be null.
fn list(name: &str, of: DataType, nullable_elements: bool) -> Field {
    Field::new(name, DataType::List(element(of, nullable_elements)), true)
}

trait Required {
    /// The same column, never null.
    fn required(self) -> Self;
}

impl Required for Field {
    fn required(self) -> Self {
        self.with_nullable(false)
    }
}
