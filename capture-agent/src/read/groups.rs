//! Where in a file a session's rows can be: by statistics, by filters and by the index of pages, from the coarsest to the
//! finest. A file that has none of them is read whole.

use std::fs::File;

use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection, RowSelector};
use parquet::errors::Result;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::scan::SESSION_ID;

/// The row groups that can hold rows of a session.
pub(super) fn of_session(builder: &ParquetRecordBatchReaderBuilder<File>, id: &str) -> Result<Vec<usize>> {
    let mut found = Vec::new();
    for (at, group) in builder.metadata().row_groups().iter().enumerate() {
        let Some(column) = column(group) else { continue };
        if !may_hold(group, column, id) {
            continue;
        }
        let filter = builder.get_row_group_column_bloom_filter(at, column)?;
        if filter.is_none_or(|filter| filter.check(id.as_bytes())) {
            found.push(at);
        }
    }
    Ok(found)
}

/// Of these row groups, the rows in pages that can hold a session's.
pub(super) fn rows_of_session(metadata: &ParquetMetaData, groups: &[usize], id: &str) -> RowSelection {
    let mut rows = Vec::new();
    for at in groups {
        let group = metadata.row_group(*at);
        let all = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        match pages(metadata, *at, id, all) {
            Some(pages) => rows.extend(pages),
            None => rows.push(RowSelector::select(all)),
        }
    }
    rows.into()
}

/// The pages of a row group with `all` rows, as its index describes them; none if it has no index.
fn pages(metadata: &ParquetMetaData, group: usize, id: &str, all: usize) -> Option<Vec<RowSelector>> {
    let column = column(metadata.row_group(group))?;
    let ColumnIndexMetaData::BYTE_ARRAY(values) = metadata.column_index()?.get(group)?.get(column)? else {
        return None;
    };
    let locations = metadata.offset_index()?.get(group)?.get(column)?.page_locations();
    let start = |page: usize| {
        locations.get(page).map_or(Some(all), |location| usize::try_from(location.first_row_index).ok())
    };
    let mut rows = Vec::new();
    for page in 0..locations.len() {
        let length = start(page + 1)?.checked_sub(start(page)?)?;
        let holds = match (values.min_value(page), values.max_value(page)) {
            (Some(min), Some(max)) => min <= id.as_bytes() && id.as_bytes() <= max,
            // A page of nulls only has neither.
            _ => !values.is_null_page(page),
        };
        rows.push(if holds { RowSelector::select(length) } else { RowSelector::skip(length) });
    }
    Some(rows)
}

/// Whether a row group can hold rows of a session, by its statistics.
fn may_hold(group: &RowGroupMetaData, column: usize, id: &str) -> bool {
    let statistics = group.column(column).statistics();
    match statistics.map(|statistics| (statistics.min_bytes_opt(), statistics.max_bytes_opt())) {
        Some((Some(min), Some(max))) => min <= id.as_bytes() && id.as_bytes() <= max,
        _ => true,
    }
}

fn column(group: &RowGroupMetaData) -> Option<usize> {
    group.columns().iter().position(|column| column.column_path().string() == SESSION_ID)
}
