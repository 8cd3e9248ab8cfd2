//! Merging: many small files of a table and day become one, whose rows are sorted within each row group.
//!
//! The new file is complete and on the disk under a hidden name before its line goes to the chain of seals; then it gets its
//! name, and at once those that it replaces go. Only the time between these last two steps shows rows twice.

use std::fs::File;
use std::io::{self, Seek as _};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, ParquetMetaData};
use uuid::Uuid;

use super::archive::{Archive, StoredFile};
use super::file::GrowingFile;
use super::keys::Keys;
use super::layout::Layout;
use super::lsn::{Piece, Spans};
use super::row_group::MOST_ROWS;
use super::table::Table;
use super::{journal, sealing, settled};
use crate::seal::{Contents, Merged, Replaced, Sealed, What, hex};

/// A file that has the rows of others, and does not stand in their place yet.
pub struct Merging {
    file: GrowingFile,
    merged: Merged,
    sealed: bool,
    named: bool,
}

/// Why files are not merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// This one cannot be merged, now or ever.
    #[error("{file} stays as it is: {why}")]
    Unsuitable {
        /// The file.
        file: String,
        /// What is the matter.
        why: String,
    },
    /// The disk fails.
    #[error("cannot merge files: {0}")]
    Io(#[from] io::Error),
    /// Somebody wants it to end.
    #[error("merging was stopped")]
    Stopped,
}

impl Archive {
    /// Writes a hidden file with the rows of `files`, which are of one table and day and follow each other. Between batches it asks
    /// whether to go on. Nothing else has changed when it returns.
    ///
    /// # Errors
    ///
    /// See [`MergeError`].
    pub fn merge(
        &self,
        files: &[(&StoredFile, &Sealed)],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Merging, MergeError> {
        let Some((last, _)) = files.last() else { return Err(MergeError::Stopped) };
        // Between its neighbours by its name, as its rows are: the order of names is that of rows.
        let time = last.id.timestamp_ms();
        let mut file = GrowingFile::with_layout(&self.place, last.table, last.day, time, Layout::Merged)?;
        match self.fill(&mut file, files, go_on) {
            Ok((contents, replaced)) => {
                Ok(Merging { file, merged: Merged { contents, replaced }, sealed: false, named: false })
            }
            Err(error) => {
                file.discard();
                Err(error)
            }
        }
    }

    fn fill(
        &self,
        file: &mut GrowingFile,
        files: &[(&StoredFile, &Sealed)],
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(Contents, Vec<Replaced>), MergeError> {
        let oldest = journal::oldest(&self.place.journal())?;
        let mut spans = Spans::default();
        let mut replaced = Vec::new();
        let mut sorter: Option<Sorter> = None;
        for (source, sealed) in files {
            let unsuitable = |why: &dyn ToString| MergeError::Unsuitable {
                file: source.name.clone(),
                why: why.to_string(),
            };
            let mut opened = File::open(&source.path)?;
            let sha256 = sealing::hash_of(&mut opened)?;
            if sha256 != hex(&sealed.sha256) {
                return Err(unsuitable(&"it is not what was sealed (see `capture-agent verify`)"));
            }
            opened.rewind()?;
            let (metadata, reader) =
                open(opened, source.table, self.place.keys()).map_err(|why| unsuitable(&why))?;
            for span in settled::rows_in(&metadata, self.journal)?.iter().filter(|span| span.last >= oldest) {
                spans.push(Piece { span, after: None });
            }
            let sorter = sorter.get_or_insert_with(|| Sorter::new(source.table));
            for rows in reader.build().map_err(|error| unsuitable(&error))? {
                if !go_on() {
                    return Err(MergeError::Stopped);
                }
                sorter.add(rows.map_err(|error| unsuitable(&error))?);
                if sorter.is_full() {
                    sorter.flush(file)?;
                }
            }
            replaced.push(Replaced { file: source.name.clone(), sha256 });
        }
        sorter.map_or(Ok(()), |mut sorter| sorter.flush(file))?;
        let count = KeyValue::new(MERGED.to_owned(), files.len().to_string());
        let said = settled::footer(self.journal, &spans).into_iter().chain([count]);
        Ok((file.complete(&self.place, said)?, replaced))
    }
}

impl Merging {
    /// Puts the file in the place of those that it replaces. May be tried again after an error; until it succeeds, readers find
    /// each row in the new file or in the old ones, or in both.
    ///
    /// # Errors
    ///
    /// The disk does not take it.
    pub fn finish(&mut self, archive: &Archive) -> io::Result<()> {
        // Held until the others are gone: what is unfinished is always what was sealed last.
        let mut seals = archive.chain()?;
        if !self.named {
            self.file.keep(&archive.place)?;
            if !self.sealed {
                seals.append(What::Merged(self.merged.clone()))?;
                self.sealed = true;
            }
            self.file.rename(&archive.place)?;
            self.named = true;
        }
        for replaced in &self.merged.replaced {
            sealing::remove(&archive.place, &replaced.file)?;
        }
        self.file.keep(&archive.place)
    }

    /// How many files it replaces.
    pub fn replaced(&self) -> u64 {
        self.merged.replaced.len() as u64
    }

    /// Gives up, as long as nothing was sealed; otherwise the next start finishes it.
    pub fn discard(self) {
        if !self.sealed {
            self.file.discard();
        }
    }
}

/// A reader of a file's rows, if they can be merged within bounds.
fn open(
    file: File,
    table: Table,
    keys: &Keys,
) -> Result<(Arc<ParquetMetaData>, ParquetRecordBatchReaderBuilder<File>), String> {
    let said = |error: ParquetError| error.to_string();
    let plain = ArrowReaderMetadata::load(&file, keys.reader_options()).map_err(said)?;
    let fields = |schema: &Schema| {
        schema
            .fields()
            .iter()
            .map(|field| (field.name().clone(), field.data_type().clone()))
            .collect::<Vec<_>>()
    };
    if fields(plain.schema()) != fields(&table.schema()) {
        return Err("another version wrote it, with other columns".to_owned());
    }
    let metadata = Arc::clone(plain.metadata());
    let sizes = metadata.row_groups().iter().flat_map(|group| group.columns());
    if sizes.map(|column| column.uncompressed_size()).any(|size| size > LARGEST_CHUNK) {
        return Err("it has values that are too large to be held in memory".to_owned());
    }
    let options = keys.reader_options().with_schema(with_dictionaries(plain.schema()));
    let metadata_with = ArrowReaderMetadata::try_new(Arc::clone(&metadata), options).map_err(said)?;
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata_with);
    Ok((metadata, builder.with_batch_size(BATCH_ROWS)))
}

/// The same columns; texts keep their dictionaries, so that a large one that repeats is held once.
fn with_dictionaries(schema: &Schema) -> SchemaRef {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Field::new(field.name(), dictionary.clone(), field.is_nullable()),
        _ => field.as_ref().clone(),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Collects rows until they are a row group, and sorts them.
struct Sorter {
    table: Table,
    batches: Vec<RecordBatch>,
    keys: Vec<(Key, (usize, usize))>,
    bytes: usize,
}

/// What rows are sorted by: the session, and the order within it.
type Key = (u128, i64, i64);

impl Sorter {
    fn new(table: Table) -> Self {
        Self { table, batches: Vec::new(), keys: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, rows: RecordBatch) {
        let at = self.batches.len();
        self.keys.extend(keys(self.table, &rows).into_iter().enumerate().map(|(row, key)| (key, (at, row))));
        self.bytes += self.held_by(&rows);
        self.batches.push(rows);
    }

    /// Memory of a batch. Dictionaries of a column are shared by the batches of a row group.
    fn held_by(&self, rows: &RecordBatch) -> usize {
        let before = self.batches.last();
        let size = |(at, column): (usize, &ArrayRef)| match column.as_any_dictionary_opt() {
            None => column.get_array_memory_size(),
            Some(dictionary) => {
                let known = before
                    .and_then(|rows| rows.column(at).as_any_dictionary_opt())
                    .is_some_and(|before| before.values().to_data().ptr_eq(&dictionary.values().to_data()));
                let values = if known { 0 } else { dictionary.values().get_array_memory_size() };
                dictionary.keys().get_array_memory_size() + values
            }
        };
        rows.columns().iter().enumerate().map(size).sum()
    }

    fn is_full(&self) -> bool {
        self.bytes >= GROUP_BYTES || self.keys.len() >= MOST_ROWS
    }

    /// Writes what was collected as one row group.
    fn flush(&mut self, file: &mut GrowingFile) -> Result<(), MergeError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let failed = |error: ParquetError| io::Error::other(error);
        let mut encoder = file.encoder().map_err(failed)?;
        self.keys.sort();
        let batches: Vec<_> = self.batches.iter().collect();
        let places: Vec<_> = self.keys.iter().map(|(_, place)| *place).collect();
        for places in places.chunks(BATCH_ROWS) {
            let rows = interleave_record_batch(&batches, places).map_err(io::Error::other)?;
            encoder.add(&rows, &[], None).map_err(failed)?;
        }
        self.batches.clear();
        self.keys.clear();
        self.bytes = 0;
        let row_group = encoder.finish().map_err(failed)?;
        file.reserve(&row_group)?;
        file.append(row_group.columns)?;
        Ok(())
    }
}

fn keys(table: Table, rows: &RecordBatch) -> Vec<Key> {
    let (second, third) = match table {
        Table::Statements => ("seq", None),
        Table::Results => ("seq", Some("row")),
        Table::Sessions => ("started_at", None),
        Table::Gaps | Table::Decisions => ("at", None),
    };
    let sessions = sessions(rows);
    let second = numbers(rows, second);
    let third = third.map(|name| numbers(rows, name));
    let number = |column: &Vec<i64>, at: usize| column.get(at).copied().unwrap_or(0);
    (0..rows.num_rows())
        .map(|at| {
            let session = sessions.get(at).copied().unwrap_or(0);
            (session, number(&second, at), third.as_ref().map_or(0, |column| number(column, at)))
        })
        .collect()
}

/// The sessions of rows; 0 for those that have none.
fn sessions(rows: &RecordBatch) -> Vec<u128> {
    let Some(column) =
        rows.column_by_name("session_id").and_then(|column| column.as_dictionary_opt::<Int32Type>())
    else {
        return Vec::new();
    };
    let ids = column.values().as_string_opt::<i32>().into_iter().flatten();
    let ids: Vec<u128> =
        ids.map(|id| id.and_then(|id| id.parse::<Uuid>().ok()).map_or(0, |id| id.as_u128())).collect();
    let id = |key: Option<i32>| key.and_then(|key| ids.get(usize::try_from(key).ok()?)).copied().unwrap_or(0);
    column.keys().iter().map(id).collect()
}

fn numbers(rows: &RecordBatch, name: &str) -> Vec<i64> {
    let Some(column) = rows.column_by_name(name) else { return Vec::new() };
    match column.data_type() {
        DataType::Timestamp(..) => {
            column.as_primitive_opt::<TimestampMicrosecondType>().map(|column| column.values().to_vec())
        }
        _ => column.as_primitive_opt::<Int64Type>().map(|column| column.values().to_vec()),
    }
    .unwrap_or_default()
}

/// The footer's key for how many files were merged.
const MERGED: &str = "capture.merged";

/// Rows that are read, and written, at once.
const BATCH_ROWS: usize = 1_024;

/// Memory of rows that become a row group: as much again is taken while they are sorted.
const GROUP_BYTES: usize = 16 << 20;

/// Bytes of one column in one row group, uncompressed. Larger ones may hold a value of 64 MiB, which would stand in memory four
/// times.
const LARGEST_CHUNK: i64 = 16 << 20;
