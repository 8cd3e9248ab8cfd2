//! Rows, encoded: batches go into column encoders in memory, and come out as one row group of a file.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, RecordBatch};
use arrow::datatypes::Schema;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;
use zstd::bulk::Compressor;

use super::chunk::{self, Leaf, TextChunk};
use super::layout::{self, Layout};
use super::loss::{Loss, Losses};
use super::lsn::{Piece, Spans};
use super::table::Table;

/// A row group that grows in memory, already encoded and compressed page by page.
pub(super) struct Encoder {
    /// Those of each field of the table.
    fields: Vec<Vec<Column>>,
    compressor: Compressor<'static>,
    /// Memory that it took when it was empty: the library makes room for a megabyte in each column of differences.
    empty: usize,
    /// Memory of what was added to each field, before it was encoded.
    added: Vec<usize>,
    rows: usize,
    stake: Losses,
    spans: Spans,
}

/// A column that grows.
enum Column {
    /// Of texts that repeat.
    Texts(Box<TextChunk>),
    /// As the library encodes it.
    Other(Box<ArrowColumnWriter>),
}

/// A column that is ready for a file.
#[derive(Debug)]
pub(super) enum Chunk {
    Texts(Bytes, Box<ColumnCloseResult>),
    Other(Box<ArrowColumnChunk>),
}

/// A row group that is ready for a file.
#[derive(Debug)]
pub(super) struct RowGroup {
    /// Its columns.
    pub(super) columns: Vec<Chunk>,
    /// How many rows it has.
    pub(super) rows: usize,
    /// What is lost with it.
    pub(super) stake: Losses,
    /// Where its rows stand in the journal.
    pub(super) spans: Spans,
}

impl Encoder {
    /// An empty row group, for any file that is recorded and not encrypted.
    pub(super) fn new(table: Table) -> Result<Self> {
        let properties = layout::properties(Layout::Recorded, None);
        Self::of_file(table, &RowGroup::file_writer(table, properties, Vec::new())?, 0)
    }

    /// An empty row group for this file: laid out, and if it is encrypted, encrypted to be its row group `number`.
    pub(super) fn of_file<W: Write + Send>(
        table: Table,
        file: &SerializedFileWriter<W>,
        number: usize,
    ) -> Result<Self> {
        let (schema, properties) = (file.schema_descr(), file.properties());
        let texts = table.repeats() && chunk::may_serve(properties);
        let is_texts = |column| texts && chunk::serves(column, properties);
        let mut has_others = vec![false; table.schema().fields().len()];
        for (at, column) in schema.columns().iter().enumerate() {
            has_others[schema.get_column_root_idx(at)] |= !is_texts(column);
        }
        let mut others = match texts {
            true => others(table, &has_others, properties)?,
            false => ArrowRowGroupWriterFactory::new(file, table.schema()).create_column_writers(number)?,
        }
        .into_iter();
        let mut fields: Vec<Vec<Column>> = has_others.iter().map(|_| Vec::new()).collect();
        for (at, column) in schema.columns().iter().enumerate() {
            let field = schema.get_column_root_idx(at);
            let other = if has_others[field] { others.next() } else { None };
            fields[field].push(match other.filter(|_| !is_texts(column)) {
                Some(other) => Column::Other(Box::new(other)),
                None => Column::Texts(Box::new(TextChunk::new(column, properties))),
            });
        }
        let compressor = Compressor::new(layout::ZSTD_LEVEL)?;
        Ok(Self {
            compressor,
            empty: memory(&fields),
            added: vec![0; fields.len()],
            fields,
            rows: 0,
            stake: Losses::default(),
            spans: Spans::default(),
        })
    }

    /// Adds rows. After an error it is of no use but to say what is lost with it, these rows among it.
    pub(super) fn add(&mut self, batch: &RecordBatch, stake: &[Loss], piece: Option<Piece>) -> Result<()> {
        self.rows += batch.num_rows();
        self.stake.add(stake);
        piece.into_iter().for_each(|piece| self.spans.push(piece));
        for (added, array) in self.added.iter_mut().zip(batch.columns()) {
            *added += array.get_buffer_memory_size();
        }
        let schema = batch.schema();
        for ((field, array), columns) in schema.fields().iter().zip(batch.columns()).zip(&mut self.fields) {
            let others = columns.iter().any(|column| matches!(column, Column::Other(_)));
            let leaves = if others { compute_leaves(field, array)? } else { Vec::new() };
            for (at, column) in columns.iter_mut().enumerate() {
                match column {
                    Column::Texts(chunk) => {
                        chunk.add(&Leaf::of(array, at, chunk.most())?, &mut self.compressor)?;
                    }
                    Column::Other(writer) => leaves.get(at).map_or(Ok(()), |leaf| writer.write(leaf))?,
                }
            }
        }
        Ok(())
    }

    /// Where its rows stand in the journal.
    pub(super) fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Whether its rows are enough for a row group.
    pub(super) fn is_full(&self) -> bool {
        self.rows >= MOST_ROWS
            || self.added.iter().any(|added| *added >= MOST_OF_FIELD)
            || memory(&self.fields).saturating_sub(self.empty) >= MOST_MEMORY
    }

    /// Ends the row group. After an error the encoder still says what is lost with it.
    pub(super) fn finish(&mut self) -> Result<RowGroup> {
        let columns = std::mem::take(&mut self.fields).into_iter().flatten();
        let columns = columns.map(|column| column.finish(&mut self.compressor)).collect::<Result<_>>()?;
        let (stake, spans) = (std::mem::take(&mut self.stake), std::mem::take(&mut self.spans));
        Ok(RowGroup { columns, rows: self.rows, stake, spans })
    }

    /// What is lost with it, and where its rows stand in the journal.
    pub(super) fn into_loss(self) -> (Vec<Loss>, Spans) {
        (self.stake.into_losses(), self.spans)
    }
}

impl Column {
    fn bytes(&self) -> usize {
        match self {
            Self::Texts(chunk) => chunk.bytes(),
            Self::Other(writer) => writer.memory_size(),
        }
    }

    fn finish(self, compressor: &mut Compressor<'_>) -> Result<Chunk> {
        match self {
            Self::Texts(chunk) => {
                let (bytes, close) = chunk.finish(compressor)?;
                Ok(Chunk::Texts(bytes, Box::new(close)))
            }
            Self::Other(writer) => Ok(Chunk::Other(Box::new(writer.close()?))),
        }
    }
}

impl Chunk {
    /// Its size in a file.
    fn bytes(&self) -> u64 {
        let close = match self {
            Self::Texts(_, close) => close,
            Self::Other(chunk) => chunk.close(),
        };
        let filter = close.bloom_filter.as_ref().map_or(0, |filter| filter.num_blocks() * 32 + FILTER_HEADER);
        u64::try_from(close.metadata.compressed_size()).unwrap_or(0) + filter as u64
    }
}

impl RowGroup {
    /// A writer of files for a table.
    pub(super) fn file_writer<W: Write + Send>(
        table: Table,
        properties: WriterPropertiesPtr,
        to: W,
    ) -> Result<SerializedFileWriter<W>> {
        SerializedFileWriter::new(to, parquet_schema(table)?, properties)
    }

    /// Its size in a file, without what the footer says of it.
    pub(super) fn bytes(&self) -> u64 {
        self.columns.iter().map(Chunk::bytes).sum()
    }

    /// Appends its columns to a file.
    pub(super) fn append<W: Write + Send>(
        columns: Vec<Chunk>,
        file: &mut SerializedFileWriter<W>,
    ) -> Result<()> {
        let mut row_group = file.next_row_group()?;
        for column in columns {
            match column {
                Chunk::Texts(bytes, close) => row_group.append_column(&bytes, *close)?,
                Chunk::Other(chunk) => chunk.append_to_row_group(&mut row_group)?,
            }
        }
        row_group.close()?;
        Ok(())
    }
}

/// The library's encoders of the fields that need any: one has a quarter of a megabyte of its own.
fn others(
    table: Table,
    has_others: &[bool],
    properties: &WriterPropertiesPtr,
) -> Result<Vec<ArrowColumnWriter>> {
    let schema = table.schema();
    let fields = schema.fields().iter().zip(has_others).filter(|(_, has_others)| **has_others);
    let schema = Arc::new(Schema::new(fields.map(|(field, _)| Arc::clone(field)).collect::<Vec<_>>()));
    let parquet = ArrowSchemaConverter::new().convert(&schema)?.root_schema_ptr();
    let file = SerializedFileWriter::new(Vec::new(), parquet, Arc::clone(properties))?;
    ArrowRowGroupWriterFactory::new(&file, schema).create_column_writers(0)
}

fn parquet_schema(table: Table) -> Result<TypePtr> {
    static SCHEMAS: LazyLock<[Result<TypePtr>; 5]> = LazyLock::new(|| {
        Table::ALL.map(|table| Ok(ArrowSchemaConverter::new().convert(&table.schema())?.root_schema_ptr()))
    });
    let [sessions, statements, results, gaps, decisions] = &*SCHEMAS;
    let schema = match table {
        Table::Sessions => sessions,
        Table::Statements => statements,
        Table::Results => results,
        Table::Gaps => gaps,
        Table::Decisions => decisions,
    };
    match schema {
        Ok(schema) => Ok(schema.clone()),
        Err(error) => Err(ParquetError::General(error.to_string())),
    }
}

/// Memory in use.
fn memory(fields: &[Vec<Column>]) -> usize {
    fields.iter().flatten().map(Column::bytes).sum()
}

/// Rows that make a row group.
pub(super) const MOST_ROWS: usize = 256 << 10;

/// Bytes of one field that do, as they were before they were encoded: files whose columns are larger are not merged.
const MOST_OF_FIELD: usize = 8 << 20;

/// Memory that does, of encoded rows.
const MOST_MEMORY: usize = 8 << 20;

/// Bytes before a Bloom filter in a file, at most.
const FILTER_HEADER: usize = 64;
