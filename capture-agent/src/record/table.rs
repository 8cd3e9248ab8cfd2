//! The tables: their names, columns and how each column is laid out in Parquet. `docs/schema.md` says what the
//! columns mean.

use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr, WriterVersion};
use parquet::schema::types::ColumnPath;

use crate::telemetry;

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
        let fields = fields.map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()));
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)
    }

    /// How its columns are encoded.
    pub(super) fn properties(self) -> WriterPropertiesPtr {
        static PROPERTIES: LazyLock<[WriterPropertiesPtr; 2]> =
            LazyLock::new(|| [false, true].map(|filters| Arc::new(properties(filters))));
        // Column names that a table does not have are no matter.
        let [few_rows, many_rows] = &*PROPERTIES;
        Arc::clone(if self.repeats() { many_rows } else { few_rows })
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

fn properties(filters: bool) -> WriterProperties {
    let column = |path: &str| ColumnPath::from(path.split('.').map(str::to_owned).collect::<Vec<_>>());
    let mut properties = WriterProperties::builder()
        .set_created_by(format!("capture-agent {}", telemetry::version()))
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()))
        .set_max_row_group_row_count(None)
        // A page of version 1 is one buffer, levels and values, and so a further copy of a large value.
        .set_writer_version(WriterVersion::PARQUET_2_0)
        // Where there is no dictionary: the other encodings of version 2 keep copies too.
        .set_encoding(Encoding::PLAIN)
        // Values are found through the row groups' statistics; an index of pages would double the footer.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_statistics_truncate_length(Some(64));
    for path in DELTAS {
        properties = properties
            .set_column_dictionary_enabled(column(path), false)
            .set_column_encoding(column(path), Encoding::DELTA_BINARY_PACKED);
    }
    for path in ["duration_us", "first_row_us"] {
        properties = properties.set_column_dictionary_enabled(column(path), false);
    }
    for path in UNORDERED {
        properties = properties.set_column_statistics_enabled(column(path), EnabledStatistics::None);
    }
    for path in LARGE {
        // Statistics keep a copy of the least and the greatest value, a dictionary one of each.
        properties = properties
            .set_column_statistics_enabled(column(path), EnabledStatistics::None)
            .set_column_dictionary_enabled(column(path), path == "sql");
    }
    if filters {
        for path in LOOKED_FOR {
            properties = properties
                .set_column_bloom_filter_enabled(column(path), true)
                .set_column_bloom_filter_fpp(column(path), FALSE_FINDS);
        }
    }
    properties.build()
}

/// Numbers that grow, or hardly change: their differences are small, and cheaper to find than a number in a dictionary.
const DELTAS: [&str; 14] = [
    "started_at",
    "ended_at",
    "seq",
    "row",
    "stream_start",
    "stream_end",
    "bytes_in",
    "bytes_out",
    "rows",
    "masked",
    "params.list.element.type_oid",
    "columns.list.element.type_oid",
    "columns.list.element.table_oid",
    "columns.list.element.attnum",
];

/// Columns whose values can be of any size.
const LARGE: [&str; 3] = ["sql", "params.list.element.value", "values.list.element"];

/// Texts that are looked for one by one: Bloom filters say in which row groups they are not. They are made of the
/// dictionaries, and so cost next to nothing.
const LOOKED_FOR: [&str; 4] =
    ["session_id", "fingerprint", "tables_read.list.element", "tables_written.list.element"];

/// How often a Bloom filter leads to a row group in vain.
const FALSE_FINDS: f64 = 0.01;

/// Texts that repeat and that nobody looks for by a range: their dictionaries say which there are, and to compare each
/// value with the least and the greatest so far costs as much as to look it up.
const UNORDERED: [&str; 16] = [
    "node",
    "application_name",
    "client_addr",
    "protocol",
    "statement_name",
    "params.list.element.format",
    "kinds.list.element",
    "tables_read.list.element",
    "tables_written.list.element",
    "functions.list.element",
    "fingerprint",
    "columns.list.element.name",
    "command_tag",
    "status",
    "verdict",
    "sqlstate",
];

/// Level 1 costs about a third of level 3's time and a tenth more space on statements.
const ZSTD_LEVEL: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_columns_have_neither_statistics_nor_copies() {
        let properties = properties(true);
        for path in LARGE {
            let path = ColumnPath::from(path.split('.').map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(properties.statistics_enabled(&path), EnabledStatistics::None);
        }
    }
}
