//! Builders of list columns: flat, so that a row's elements are appended without a look-up of child builders.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Int16Array, ListArray, NullBufferBuilder, StringBuilder, StructArray, UInt32Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::labels::{text_bytes, texts};
use super::table::{column_fields, element, param_fields};
use crate::session::Column;

/// Where each row's elements begin and end, and which rows have no list.
#[derive(Debug)]
struct Rows {
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Rows {
    fn new() -> Self {
        Self { offsets: vec![0], nulls: NullBufferBuilder::new(0) }
    }

    /// Ends a row whose list reaches up to element `end`.
    fn end(&mut self, end: usize, present: bool) {
        // A batch is cut long before it has 2^31 elements.
        self.offsets.push(i32::try_from(end).unwrap_or(i32::MAX));
        self.nulls.append(present);
    }

    fn finish(
        &mut self,
        data_type: DataType,
        nullable: bool,
        elements: ArrayRef,
    ) -> Result<ArrayRef, ArrowError> {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
        let list = ListArray::try_new(element(data_type, nullable), offsets, elements, self.nulls.finish())?;
        Ok(Arc::new(list))
    }
}

/// A list of texts per row.
#[derive(Debug)]
pub(super) struct TextLists {
    rows: Rows,
    elements: StringBuilder,
    nullable: bool,
}

impl TextLists {
    /// An empty column; `nullable` if an element may be null.
    pub(super) fn new(nullable: bool) -> Self {
        Self { rows: Rows::new(), elements: StringBuilder::new(), nullable }
    }

    /// The elements of the row that is being built.
    pub(super) fn elements(&mut self) -> &mut StringBuilder {
        &mut self.elements
    }

    /// Ends a row.
    pub(super) fn end_row(&mut self) {
        let end = self.elements.offsets_slice().len() - 1;
        self.rows.end(end, true);
    }

    /// Appends a row: a list, or null.
    pub(super) fn append<T: AsRef<str>>(&mut self, texts: Option<&[T]>) {
        for text in texts.unwrap_or_default() {
            self.elements.append_value(text);
        }
        self.rows.end(self.elements.offsets_slice().len() - 1, texts.is_some());
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        text_bytes(&self.elements)
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let elements = texts(&mut self.elements);
        self.rows.finish(DataType::Utf8, self.nullable, elements)
    }
}

/// The column `params`.
#[derive(Debug)]
pub(super) struct ParamLists {
    rows: Rows,
    type_oids: Vec<u32>,
    formats: StringBuilder,
    values: StringBuilder,
}

impl ParamLists {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows::new(),
            type_oids: Vec::new(),
            formats: StringBuilder::new(),
            values: StringBuilder::new(),
        }
    }

    /// Appends a parameter to the row that is being built, but for its value, which the caller appends to the
    /// builder that this returns.
    pub(super) fn param(&mut self, type_oid: u32, format: i16) -> &mut StringBuilder {
        self.type_oids.push(type_oid);
        self.formats.append_value(if format == 0 { "text" } else { "binary" });
        &mut self.values
    }

    /// Ends a row.
    pub(super) fn end_row(&mut self) {
        self.rows.end(self.type_oids.len(), true);
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        text_bytes(&self.values) + self.type_oids.len() * 16
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let fields = param_fields();
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(std::mem::take(&mut self.type_oids))),
            texts(&mut self.formats),
            texts(&mut self.values),
        ];
        let elements = StructArray::try_new(fields.clone(), arrays, None)?;
        self.rows.finish(DataType::Struct(fields), false, Arc::new(elements))
    }
}

/// The column `columns`.
#[derive(Debug)]
pub(super) struct ColumnLists {
    rows: Rows,
    names: StringBuilder,
    type_oids: Vec<u32>,
    table_oids: Vec<u32>,
    attnums: Vec<i16>,
}

impl ColumnLists {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows::new(),
            names: StringBuilder::new(),
            type_oids: Vec::new(),
            table_oids: Vec::new(),
            attnums: Vec::new(),
        }
    }

    /// Appends a row: a list, or null.
    pub(super) fn append(&mut self, columns: Option<&[Column]>) {
        for column in columns.unwrap_or_default() {
            self.names.append_value(&column.name);
            self.type_oids.push(column.type_oid);
            self.table_oids.push(column.table_oid);
            self.attnums.push(column.attnum);
        }
        self.rows.end(self.attnums.len(), columns.is_some());
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        text_bytes(&self.names) + self.attnums.len() * 10
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let fields = column_fields();
        let arrays: Vec<ArrayRef> = vec![
            texts(&mut self.names),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.type_oids))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.table_oids))),
            Arc::new(Int16Array::from(std::mem::take(&mut self.attnums))),
        ];
        let elements = StructArray::try_new(fields.clone(), arrays, None)?;
        self.rows.finish(DataType::Struct(fields), false, Arc::new(elements))
    }
}
