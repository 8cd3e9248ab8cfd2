//! Rows, encoded: batches go into column encoders in memory, and come out as one row group of a file.

use std::io::Write;
use std::sync::LazyLock;

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;

use super::chunk::{Leaf, TextChunk};
use super::loss::{Loss, Losses};
use super::lsn::{Piece, Spans};
use super::table::Table;

/// A row group that grows in memory, already encoded and compressed page by page.
pub(super) struct Encoder {
    /// Those of each field of the table.
    fields: Vec<Vec<Column>>,
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
    Other(ArrowColumnChunk),
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
    /// An empty row group.
    pub(super) fn new(table: Table) -> Result<Self> {
        let writer = RowGroup::file_writer(table, Vec::new())?;
        let columns = ArrowRowGroupWriterFactory::new(&writer, table.schema()).create_column_writers(0)?;
        let mut fields: Vec<Vec<Column>> = table.schema().fields().iter().map(|_| Vec::new()).collect();
        let schema = writer.schema_descr();
        for ((at, column), other) in schema.columns().iter().enumerate().zip(columns) {
            let column = if table.repeats() && TextChunk::serves(column, writer.properties()) {
                Column::Texts(Box::new(TextChunk::new(column, writer.properties())?))
            } else {
                Column::Other(Box::new(other))
            };
            if let Some(field) = fields.get_mut(schema.get_column_root_idx(at)) {
                field.push(column);
            }
        }
        Ok(Self { fields, rows: 0, stake: Losses::default(), spans: Spans::default() })
    }

    /// Adds rows.
    pub(super) fn add(&mut self, batch: &RecordBatch, stake: &[Loss], piece: Option<Piece>) -> Result<()> {
        let schema = batch.schema();
        for ((field, array), columns) in schema.fields().iter().zip(batch.columns()).zip(&mut self.fields) {
            let others = columns.iter().any(|column| matches!(column, Column::Other(_)));
            let leaves = if others { compute_leaves(field, array)? } else { Vec::new() };
            for (at, column) in columns.iter_mut().enumerate() {
                match column {
                    Column::Texts(chunk) => chunk.add(&Leaf::of(array, at, chunk.most())?)?,
                    Column::Other(writer) => leaves.get(at).map_or(Ok(()), |leaf| writer.write(leaf))?,
                }
            }
        }
        self.rows += batch.num_rows();
        self.stake.add(stake);
        piece.into_iter().for_each(|piece| self.spans.push(piece));
        Ok(())
    }

    /// Whether it has no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Where its rows stand in the journal.
    pub(super) fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.fields.iter().flatten().map(Column::bytes).sum()
    }

    /// Ends the row group.
    pub(super) fn finish(self) -> Result<RowGroup> {
        let columns = self.fields.into_iter().flatten().map(Column::finish).collect::<Result<_>>()?;
        Ok(RowGroup { columns, rows: self.rows, stake: self.stake, spans: self.spans })
    }
}

impl Column {
    fn bytes(&self) -> usize {
        match self {
            Self::Texts(chunk) => chunk.bytes(),
            Self::Other(writer) => writer.memory_size(),
        }
    }

    fn finish(self) -> Result<Chunk> {
        Ok(match self {
            Self::Texts(chunk) => {
                let (bytes, close) = chunk.finish()?;
                Chunk::Texts(bytes, Box::new(close))
            }
            Self::Other(writer) => Chunk::Other(writer.close()?),
        })
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
    pub(super) fn file_writer<W: Write + Send>(table: Table, to: W) -> Result<SerializedFileWriter<W>> {
        SerializedFileWriter::new(to, parquet_schema(table)?, table.properties())
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
        Err(error) => Err(parquet::errors::ParquetError::General(error.to_string())),
    }
}

/// Bytes before a Bloom filter in a file, at most.
const FILTER_HEADER: usize = 64;
