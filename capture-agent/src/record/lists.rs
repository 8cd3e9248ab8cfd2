//! Builders of list columns: flat, so that a row's elements are appended without a look-up of child builders.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, Int16Array, ListArray, NullBufferBuilder, StructArray, UInt32Array,
};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field, Fields};
use arrow::error::ArrowError;

use super::repeats::{Repeats, either, spread, spread_nulls};
use super::table::{column_fields, element, param_fields};
use super::texts::Texts;
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
    #[inline]
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

    /// Makes row `n` what was row `rows[n]`: yields the place of each of its elements.
    fn spread(&mut self, rows: &[u32]) -> Vec<u32> {
        if rows.len() + 1 == self.offsets.len() {
            // Each is there once, in order.
            let end = self.offsets.last().map_or(0, |end| end.cast_unsigned());
            return (0..end).collect();
        }
        let mut places = Vec::new();
        if self.offsets.last().is_some_and(|end| *end > 0) {
            places.reserve(rows.len());
            let mut offsets = Vec::with_capacity(rows.len() + 1);
            offsets.push(0);
            for row in rows {
                let ends = self.offsets.get(*row as usize..).and_then(<[i32]>::first_chunk);
                let [from, to] = ends.map_or([0, 0], |ends| ends.map(i32::cast_unsigned));
                if to == from + 1 {
                    places.push(from);
                } else {
                    places.extend(from..to);
                }
                offsets.push(i32::try_from(places.len()).unwrap_or(i32::MAX));
            }
            self.offsets = offsets;
        } else {
            self.offsets = vec![0; rows.len() + 1];
        }
        if let Some(nulls) = self.nulls.finish() {
            self.nulls.append_buffer(&spread_nulls(&nulls, rows));
        } else {
            self.nulls.append_n_non_nulls(rows.len());
        }
        places
    }
}

/// A list of texts that may be null per row.
#[derive(Debug)]
pub(super) struct TextLists {
    rows: Rows,
    elements: Texts,
}

impl TextLists {
    /// An empty column.
    pub(super) fn new() -> Self {
        Self { rows: Rows::new(), elements: Texts::new() }
    }

    /// The elements of the row that is being built.
    pub(super) fn elements(&mut self) -> &mut Texts {
        &mut self.elements
    }

    /// Ends a row.
    pub(super) fn end_row(&mut self) {
        self.rows.end(self.elements.len(), true);
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.elements.bytes()
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let elements = self.elements.finish()?;
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

    /// Memory in use for the distinct texts.
    pub(super) fn texts_bytes(&self) -> usize {
        self.elements.texts_bytes()
    }

    /// Memory in use for the lists.
    pub(super) fn rows_bytes(&self) -> usize {
        self.elements.rows_bytes()
    }

    /// The column whose row `n` has what was appended as number `rows[n]`, and an empty one in its place: as
    /// [`Repeats::spread`].
    pub(super) fn spread(&mut self, rows: &[u32]) -> Result<ArrayRef, ArrowError> {
        let places = self.rows.spread(rows);
        let elements = self.elements.spread(&places)?;
        self.rows.finish(elements.data_type().clone(), false, elements)
    }
}

/// The column `params`.
#[derive(Debug)]
pub(super) struct ParamLists {
    rows: Rows,
    type_oids: Vec<u32>,
    /// Whether each is binary.
    binary: Vec<bool>,
    values: Texts,
}

impl ParamLists {
    pub(super) fn new() -> Self {
        Self { rows: Rows::new(), type_oids: Vec::new(), binary: Vec::new(), values: Texts::new() }
    }

    /// Appends a parameter to the row that is being built, but for its value, which the caller appends to the
    /// builder that this returns.
    pub(super) fn param(&mut self, type_oid: u32, format: i16) -> &mut Texts {
        self.type_oids.push(type_oid);
        self.binary.push(format != 0);
        &mut self.values
    }

    /// Ends a row.
    pub(super) fn end_row(&mut self) {
        self.rows.end(self.type_oids.len(), true);
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.values.bytes() + self.type_oids.len() * 16
    }

    /// The column, and an empty one in its place.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt32Array::from(std::mem::take(&mut self.type_oids))),
            either(std::mem::take(&mut self.binary), ["text", "binary"])?,
            self.values.finish()?,
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

    /// Memory in use for the distinct names.
    pub(super) fn texts_bytes(&self) -> usize {
        self.names.texts_bytes()
    }

    /// Memory in use for the lists.
    pub(super) fn rows_bytes(&self) -> usize {
        self.names.rows_bytes() + self.attnums.len() * 10
    }

    /// The column whose row `n` has what was appended as number `rows[n]`, and an empty one in its place: as
    /// [`Repeats::spread`].
    pub(super) fn spread(&mut self, rows: &[u32]) -> Result<ArrayRef, ArrowError> {
        let places = self.rows.spread(rows);
        let arrays: Vec<ArrayRef> = vec![
            self.names.spread(&places)?,
            Arc::new(UInt32Array::from(spread(&self.type_oids, &places))),
            Arc::new(UInt32Array::from(spread(&self.table_oids, &places))),
            Arc::new(Int16Array::from(spread(&self.attnums, &places))),
        ];
        self.type_oids.clear();
        self.table_oids.clear();
        self.attnums.clear();
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
