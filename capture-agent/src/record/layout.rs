//! How columns are laid out in Parquet: while they are recorded, and when files are merged.

use std::sync::{Arc, LazyLock};

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterPropertiesPtr, WriterVersion,
};
use parquet::schema::types::ColumnPath;

use crate::telemetry;

/// What a file is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// To be complete soon, with little work and memory.
    Recorded,
    /// To be searched.
    Merged,
}

/// How the columns of a file are encoded, and encrypted if a key is given. Names of columns that a table does not have are no
/// matter.
pub(super) fn properties(
    layout: Layout,
    encryption: Option<&Arc<FileEncryptionProperties>>,
) -> WriterPropertiesPtr {
    if let Some(encryption) = encryption {
        return Arc::new(encrypted(layout, Arc::clone(encryption)).build());
    }
    static RECORDED: LazyLock<WriterPropertiesPtr> = LazyLock::new(|| Arc::new(recorded().build()));
    static MERGED: LazyLock<WriterPropertiesPtr> = LazyLock::new(|| Arc::new(merged().build()));
    Arc::clone(match layout {
        Layout::Recorded => &RECORDED,
        Layout::Merged => &MERGED,
    })
}

fn recorded() -> WriterPropertiesBuilder {
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
    properties
}

/// The same, encrypted. Without Bloom filters, which nobody encrypts; and with pages of version 1, since DuckDB reads no
/// encrypted ones of version 2.
fn encrypted(layout: Layout, encryption: Arc<FileEncryptionProperties>) -> WriterPropertiesBuilder {
    let properties = match layout {
        Layout::Recorded => recorded(),
        Layout::Merged => paged(),
    };
    properties.set_writer_version(WriterVersion::PARQUET_1_0).with_file_encryption_properties(encryption)
}

/// Written once and read for long: found through an index of the pages, whose rows are sorted, and through filters.
fn merged() -> WriterPropertiesBuilder {
    let mut properties = paged();
    for path in FILTERED {
        properties = properties
            .set_column_bloom_filter_fpp(column(path), FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(column(path), DISTINCT);
    }
    properties
}

/// With an index of the pages.
fn paged() -> WriterPropertiesBuilder {
    let mut properties = recorded()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(MERGED_ZSTD_LEVEL).unwrap_or_default()))
        .set_offset_index_disabled(false)
        .set_data_page_row_count_limit(PAGE_ROWS);
    for path in PAGED {
        properties = properties.set_column_statistics_enabled(column(path), EnabledStatistics::Page);
    }
    properties
}

/// How often a Bloom filter of this column may err, if it has one.
pub(super) fn filter(column: &ColumnPath) -> Option<f64> {
    FILTERED.contains(&column.string().as_str()).then_some(FALSE_POSITIVES)
}

fn column(path: &str) -> ColumnPath {
    ColumnPath::from(path.split('.').map(str::to_owned).collect::<Vec<_>>())
}

/// Columns that the rows are sorted by, or nearly.
const PAGED: [&str; 5] = ["session_id", "seq", "row", "started_at", "at"];

/// Columns in which single values are looked for that lie anywhere.
const FILTERED: [&str; 4] =
    ["session_id", "fingerprint", "tables_read.list.element", "tables_written.list.element"];

/// One row group in a hundred is read for nothing.
const FALSE_POSITIVES: f64 = 0.01;

/// Values for which a filter has room before it is folded to what it holds: more sessions or shapes than that
/// hardly meet in a row group.
const DISTINCT: u64 = 32_768;

/// Rows of a page: what is read at least to find a session.
const PAGE_ROWS: usize = 4_096;

/// Nobody waits for it, and it is kept for long.
const MERGED_ZSTD_LEVEL: i32 = 3;

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
pub(super) const ZSTD_LEVEL: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_columns_have_neither_statistics_nor_copies() {
        for layout in [Layout::Recorded, Layout::Merged] {
            let properties = properties(layout, None);
            for path in LARGE {
                let path = ColumnPath::from(path.split('.').map(str::to_owned).collect::<Vec<_>>());
                assert_eq!(properties.statistics_enabled(&path), EnabledStatistics::None);
            }
        }
    }
}
