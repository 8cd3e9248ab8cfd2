//! Rows, encoded: batches go into column encoders in memory, and come out as one row group of a file.

use std::io::Write;
use std::sync::LazyLock;

use arrow::array::RecordBatch;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::errors::Result;
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::TypePtr;

use super::layout::{self, Layout};
use super::loss::{Loss, Losses};
use super::lsn::{Piece, Spans};
use super::table::Table;

/// A row group that grows in memory, already encoded and compressed page by page.
pub(super) struct Encoder {
    table: Table,
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
    stake: Losses,
    spans: Spans,
}

/// A row group that is ready for a file.
#[derive(Debug)]
pub(super) struct RowGroup {
    /// Its columns.
    pub(super) columns: Vec<ArrowColumnChunk>,
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
        let columns = ArrowRowGroupWriterFactory::new(file, table.schema()).create_column_writers(number)?;
        Ok(Self { table, columns, rows: 0, stake: Losses::default(), spans: Spans::default() })
    }

    /// Adds rows.
    pub(super) fn add(&mut self, batch: &RecordBatch, stake: &[Loss], piece: Option<Piece>) -> Result<()> {
        let schema = self.table.schema();
        let mut columns = self.columns.iter_mut();
        for (field, array) in schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, array)? {
                if let Some(column) = columns.next() {
                    column.write(&leaf)?;
                }
            }
        }
        self.rows += batch.num_rows();
        self.stake.add(stake);
        piece.into_iter().for_each(|piece| self.spans.push(piece));
        Ok(())
    }

    /// Where its rows stand in the journal.
    pub(super) fn spans(&self) -> &Spans {
        &self.spans
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::memory_size).sum()
    }

    /// Ends the row group.
    pub(super) fn finish(self) -> Result<RowGroup> {
        let columns = self.columns.into_iter().map(ArrowColumnWriter::close).collect::<Result<_>>()?;
        Ok(RowGroup { columns, rows: self.rows, stake: self.stake, spans: self.spans })
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
        let size = |column: &ArrowColumnChunk| column.close().metadata.compressed_size();
        self.columns.iter().map(size).map(|size| u64::try_from(size).unwrap_or(0)).sum()
    }

    /// Appends its columns to a file.
    pub(super) fn append<W: Write + Send>(
        columns: Vec<ArrowColumnChunk>,
        file: &mut SerializedFileWriter<W>,
    ) -> Result<()> {
        let mut row_group = file.next_row_group()?;
        for column in columns {
            column.append_to_row_group(&mut row_group)?;
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
