//! Rows of a table, batch by batch: only the columns that are asked for, and only the row groups that can hold
//! them.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int32Type, Schema};
use arrow::error::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowPredicate, ArrowPredicateFn, ArrowReaderMetadata, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder, RowFilter,
};
use parquet::file::metadata::PageIndexPolicy;

use super::{ReadError, groups};
use crate::record::Keys;

/// Which statements are looked for: those with both.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// This in their text, in lower case.
    pub(super) text: Option<String>,
    /// This status.
    pub(super) status: Option<String>,
}

/// Reads files one after the other; one batch is in memory at a time.
pub(super) struct Scan {
    keys: Keys,
    files: std::vec::IntoIter<PathBuf>,
    columns: Option<&'static [&'static str]>,
    session: Option<String>,
    current: Option<(PathBuf, ParquetRecordBatchReader)>,
}

impl Scan {
    /// All rows of `files`, with these columns; with all if there is no choice.
    pub(super) fn new(keys: &Keys, files: Vec<PathBuf>, columns: Option<&'static [&'static str]>) -> Self {
        Self { keys: keys.clone(), files: files.into_iter(), columns, session: None, current: None }
    }

    /// Only the rows of one session.
    pub(super) fn of_session(mut self, id: &str) -> Self {
        self.session = Some(id.to_owned());
        self
    }

    fn open(&self, path: &Path) -> Result<Option<ParquetRecordBatchReader>, ReadError> {
        let broken = |source| ReadError::File { path: path.to_owned(), source };
        let file = open(path)?;
        let options = match &self.session {
            // The index of pages, where the file has one, says which of them a session can be in.
            Some(_) => self.keys.reader_options().with_page_index_policy(PageIndexPolicy::Optional),
            None => self.keys.reader_options(),
        };
        let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).map_err(broken)?;
        let schema = builder.parquet_schema();
        let mask = match self.columns {
            Some(columns) => ProjectionMask::columns(schema, columns.iter().copied()),
            None => ProjectionMask::all(),
        };
        let mut builder = builder.with_batch_size(BATCH_ROWS).with_projection(mask);
        if let Some(id) = &self.session {
            let groups = groups::of_session(&builder, id).map_err(broken)?;
            if groups.is_empty() {
                return Ok(None);
            }
            let rows = groups::rows_of_session(builder.metadata(), &groups, id);
            let wanted = id.clone();
            let mask = ProjectionMask::columns(builder.parquet_schema(), [SESSION_ID]);
            let predicate = ArrowPredicateFn::new(mask, move |rows| is_session(&rows, &wanted));
            builder = builder
                .with_row_groups(groups)
                .with_row_selection(rows)
                .with_row_filter(RowFilter::new(vec![Box::new(predicate)]));
        }
        builder.build().map(Some).map_err(broken)
    }
}

impl Iterator for Scan {
    type Item = Result<RecordBatch, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((path, reader)) = &mut self.current {
                match reader.next() {
                    Some(Ok(rows)) if rows.num_rows() == 0 => continue,
                    Some(Ok(rows)) => return Some(Ok(rows)),
                    Some(Err(error)) => {
                        let path = path.clone();
                        self.current = None;
                        return Some(Err(ReadError::File { path, source: error.into() }));
                    }
                    None => self.current = None,
                }
            }
            let path = self.files.next()?;
            match self.open(&path) {
                Ok(reader) => self.current = reader.map(|reader| (path, reader)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The session ids of each row group in `path`, without looking at its rows: what the dictionary of the column
/// names. Ids may repeat.
pub(super) fn session_ids(
    keys: &Keys,
    path: &Path,
    mut found: impl FnMut(usize, &str),
) -> Result<(), ReadError> {
    let broken = |source| ReadError::File { path: path.to_owned(), source };
    let file = open(path)?;
    let metadata = with_dictionaries(keys, &file, &[SESSION_ID]).map_err(broken)?;
    for group in 0..metadata.metadata().num_row_groups() {
        let file = file.try_clone().map_err(|error| broken(error.into()))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
        let mask = ProjectionMask::columns(builder.parquet_schema(), [SESSION_ID]);
        let reader =
            builder.with_projection(mask).with_row_groups(vec![group]).with_batch_size(DICTIONARY_ROWS);
        for rows in reader.build().map_err(broken)? {
            let rows = rows.map_err(|error| broken(error.into()))?;
            if let Some((_, ids)) = dictionary(&rows) {
                ids.iter().flatten().for_each(|id| found(group, id));
            }
        }
    }
    Ok(())
}

/// The sessions that have such a statement in some row groups of a file. Ids may repeat. What is looked for is looked for once in
/// each distinct value, not in each row.
pub(super) fn sessions_with(
    keys: &Keys,
    path: &Path,
    groups: Vec<usize>,
    wanted: &Wanted,
    mut found: impl FnMut(&str),
) -> Result<(), ReadError> {
    let broken = |source| ReadError::File { path: path.to_owned(), source };
    let file = open(path)?;
    let metadata = with_dictionaries(keys, &file, &[SESSION_ID, "sql", "status"]).map_err(broken)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata);
    let schema = builder.parquet_schema();
    let ids = ProjectionMask::columns(schema, [SESSION_ID]);
    let mut filters: Vec<Box<dyn ArrowPredicate>> = Vec::new();
    if let Some(status) = wanted.status.clone() {
        let mask = ProjectionMask::columns(schema, ["status"]);
        filters
            .push(Box::new(ArrowPredicateFn::new(mask, move |rows| those(&rows, |value| value == status))));
    }
    if let Some(part) = wanted.text.clone() {
        let mask = ProjectionMask::columns(schema, ["sql"]);
        let has = move |value: &str| value.contains(&part) || value.to_lowercase().contains(&part);
        filters.push(Box::new(ArrowPredicateFn::new(mask, move |rows| those(&rows, &has))));
    }
    let builder = builder.with_projection(ids).with_row_groups(groups).with_batch_size(DICTIONARY_ROWS);
    for rows in builder.with_row_filter(RowFilter::new(filters)).build().map_err(broken)? {
        let rows = rows.map_err(|error| broken(error.into()))?;
        let Some((keys, values)) = dictionary(&rows) else { continue };
        // The dictionary also has what other rows say.
        let used: HashSet<i32> = keys.iter().flatten().collect();
        let ids = used.into_iter().filter_map(|key| usize::try_from(key).ok());
        ids.filter(|key| values.is_valid(*key)).for_each(|key| found(values.value(key)));
    }
    Ok(())
}

/// Which rows of a batch's only column have such a value.
fn those(rows: &RecordBatch, is: impl Fn(&str) -> bool) -> Result<BooleanArray, ArrowError> {
    let (keys, values) =
        dictionary(rows).ok_or_else(|| ArrowError::SchemaError("it is no text".to_owned()))?;
    let fits: Vec<bool> = values.iter().map(|value| value.is_some_and(&is)).collect();
    let fits = |key: Option<i32>| {
        key.and_then(|key| fits.get(usize::try_from(key).ok()?)).copied().unwrap_or_default()
    };
    Ok(keys.iter().map(|key| Some(fits(key))).collect())
}

/// The first column of a batch, as keys into its distinct values.
fn dictionary(rows: &RecordBatch) -> Option<(&Int32Array, &StringArray)> {
    let column = rows.columns().first()?.as_dictionary_opt::<Int32Type>()?;
    Some((column.keys(), column.values().as_string_opt::<i32>()?))
}

/// How a file is read so that the distinct values of these columns come without one copy per row.
fn with_dictionaries(
    keys: &Keys,
    file: &File,
    columns: &[&str],
) -> parquet::errors::Result<ArrowReaderMetadata> {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let plain = ArrowReaderMetadata::load(file, keys.reader_options())?;
    let fields = plain.schema().fields().iter().map(|field| {
        if columns.contains(&field.name().as_str()) {
            Field::new(field.name(), dictionary.clone(), field.is_nullable())
        } else {
            field.as_ref().clone()
        }
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    ArrowReaderMetadata::try_new(plain.metadata().clone(), keys.reader_options().with_schema(schema))
}

/// Some row groups of a file.
pub(super) fn row_groups(
    keys: &Keys,
    path: &Path,
    groups: Vec<usize>,
    columns: &'static [&'static str],
) -> Result<ParquetRecordBatchReader, ReadError> {
    let broken = |source| ReadError::File { path: path.to_owned(), source };
    let file = open(path)?;
    let builder =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, keys.reader_options()).map_err(broken)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    let builder = builder.with_batch_size(BATCH_ROWS).with_projection(mask).with_row_groups(groups);
    builder.build().map_err(broken)
}

/// A file, unless it went after the folder was listed.
fn open(path: &Path) -> Result<File, ReadError> {
    match File::open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(ReadError::Moved { path: path.to_owned() })
        }
        Err(error) => Err(ReadError::File { path: path.to_owned(), source: error.into() }),
    }
}

fn is_session(rows: &RecordBatch, id: &str) -> Result<BooleanArray, ArrowError> {
    let ids = rows.columns().first().and_then(|ids| ids.as_string_opt::<i32>());
    let ids = ids.ok_or_else(|| ArrowError::SchemaError(format!("{SESSION_ID} is no text")))?;
    Ok(ids.iter().map(|value| Some(value == Some(id))).collect())
}

/// The column by which sessions are told apart.
pub(super) const SESSION_ID: &str = "session_id";

/// Rows of a batch whose values are keys.
const DICTIONARY_ROWS: usize = 1 << 16;

/// Rows of a batch: values of a few kilobytes each stay within a few megabytes.
const BATCH_ROWS: usize = 1_024;
