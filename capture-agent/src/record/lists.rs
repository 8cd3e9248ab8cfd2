//! Builders of list columns: flat, so that a row's elements are appended without a look-up of child builders.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, Int16Array, ListArray, NullBufferBuilder, StringBuilder, StructArray, UInt32Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use super::labels::{text_bytes, texts};
use super::repeats::Repeats;
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

/// A list of texts that may be null per row.
#[derive(Debug)]
pub(super) struct TextLists {
    rows: Rows,
    elements: StringBuilder,
}

impl TextLists {
    /// An empty column.
    pub(super) fn new() -> Self {
        Self { rows: Rows::new(), elements: StringBuilder::new() }
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

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        text_bytes(&self.elements)
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let elements = texts(&mut self.elements);
        self.rows.finish(DataType::Utf8, true, elements)
    }
}

/// A list of texts that repeat per row.
#[derive(Debug)]
pub(super) struct RepeatLists {
    rows: Rows,
    elements: Repeats,
}

impl RepeatLists {
    /// An empty column.
    pub(super) fn new() -> Self {
        Self { rows: Rows::new(), elements: Repeats::new() }
    }

    /// Appends a row: a list, or null.
    pub(super) fn append<T: AsRef<str>>(&mut self, texts: Option<&[T]>) {
        texts.unwrap_or_default().iter().for_each(|text| self.elements.append_value(text.as_ref()));
        self.rows.end(self.elements.len(), texts.is_some());
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.elements.bytes()
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let elements = self.elements.finish()?;
        self.rows.finish(elements.data_type().clone(), false, elements)
    }
}

/// The column `params`.
#[derive(Debug)]
pub(super) struct ParamLists {
    rows: Rows,
    type_oids: Vec<u32>,
    formats: Repeats,
    values: StringBuilder,
}

impl ParamLists {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows::new(),
            type_oids: Vec::new(),
            formats: Repeats::new(),
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
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(std::mem::take(&mut self.type_oids))),
            self.formats.finish()?,
            texts(&mut self.values),
        ];
        let elements = structs(&param_fields(), arrays)?;
        self.rows.finish(elements.data_type().clone(), false, elements)
    }
}

/// The column `columns`.
#[derive(Debug)]
pub(super) struct ColumnLists {
    rows: Rows,
    names: Repeats,
    type_oids: Vec<u32>,
    table_oids: Vec<u32>,
    attnums: Vec<i16>,
}

impl ColumnLists {
    pub(super) fn new() -> Self {
        Self {
            rows: Rows::new(),
            names: Repeats::new(),
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
        self.names.bytes() + self.attnums.len() * 10
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let arrays: Vec<ArrayRef> = vec![
            self.names.finish()?,
            Arc::new(UInt32Array::from(std::mem::take(&mut self.type_oids))),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.table_oids))),
            Arc::new(Int16Array::from(std::mem::take(&mut self.attnums))),
        ];
        let elements = structs(&column_fields(), arrays)?;
        self.rows.finish(elements.data_type().clone(), false, elements)
    }
}

/// Structs whose texts may have their distinct texts apart.
fn structs(fields: &Fields, columns: Vec<ArrayRef>) -> Result<ArrayRef, ArrowError> {
    let field = |(field, column): (&Arc<Field>, &ArrayRef)| {
        field.as_ref().clone().with_data_type(column.data_type().clone())
    };
    let fields: Fields = fields.iter().zip(&columns).map(field).collect();
    Ok(Arc::new(StructArray::try_new(fields, columns, None)?))
}
