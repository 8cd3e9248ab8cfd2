//! Values out of Arrow columns: typed, or as JSON. A column that a file does not have is null.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt32Type};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::session::Micros;

/// One row of a batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    rows: &'a RecordBatch,
    at: usize,
}

impl<'a> Row<'a> {
    /// All rows of a batch.
    pub(super) fn all(rows: &'a RecordBatch) -> impl Iterator<Item = Self> {
        (0..rows.num_rows()).map(move |at| Self { rows, at })
    }

    fn column(&self, name: &str) -> Option<&'a dyn Array> {
        let column = self.rows.column_by_name(name)?;
        column.is_valid(self.at).then_some(column.as_ref())
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        Some(self.column(name)?.as_string_opt::<i32>()?.value(self.at))
    }

    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    pub(super) fn number(&self, name: &str) -> Option<i64> {
        let column = self.column(name)?;
        match column.data_type() {
            DataType::Int32 => Some(column.as_primitive_opt::<Int32Type>()?.value(self.at).into()),
            _ => Some(column.as_primitive_opt::<Int64Type>()?.value(self.at)),
        }
    }

    pub(super) fn time(&self, name: &str) -> Option<Micros> {
        Some(Micros(self.column(name)?.as_primitive_opt::<TimestampMicrosecondType>()?.value(self.at)))
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        Some(self.column(name)?.as_boolean_opt()?.value(self.at))
    }

    /// A list of texts.
    pub(super) fn texts(&self, name: &str) -> Vec<Option<String>> {
        let list =
            self.column(name).and_then(|column| column.as_list_opt::<i32>()).map(|list| list.value(self.at));
        let Some(list) = &list else { return Vec::new() };
        let Some(list) = list.as_string_opt::<i32>() else { return Vec::new() };
        list.iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// One text field of each struct in a list.
    pub(super) fn texts_in(&self, name: &str, field: &str) -> Vec<Option<String>> {
        let list =
            self.column(name).and_then(|column| column.as_list_opt::<i32>()).map(|list| list.value(self.at));
        let Some(list) = &list else { return Vec::new() };
        let field = list.as_struct_opt().and_then(|list| list.column_by_name(field));
        let Some(texts) = field.and_then(|field| field.as_string_opt::<i32>()) else { return Vec::new() };
        texts.iter().map(|text| text.map(str::to_owned)).collect()
    }

    /// The row as an object, with the names of its columns.
    pub(super) fn json(&self) -> Map<String, Value> {
        let schema = self.rows.schema_ref();
        let columns = schema.fields().iter().zip(self.rows.columns());
        columns.map(|(field, column)| (field.name().clone(), json(column.as_ref(), self.at))).collect()
    }
}

/// A point in time as RFC 3339 writes it, in UTC.
pub fn rfc3339(at: Micros) -> String {
    Timestamp::from_microsecond(at.0).map_or_else(|_| at.0.to_string(), |at| at.to_string())
}

fn json(column: &dyn Array, at: usize) -> Value {
    if column.is_null(at) {
        return Value::Null;
    }
    let value = match column.data_type() {
        DataType::Utf8 => column.as_string_opt::<i32>().map(|column| column.value(at).into()),
        DataType::Boolean => column.as_boolean_opt().map(|column| column.value(at).into()),
        DataType::Int16 => column.as_primitive_opt::<Int16Type>().map(|column| column.value(at).into()),
        DataType::Int32 => column.as_primitive_opt::<Int32Type>().map(|column| column.value(at).into()),
        DataType::Int64 => column.as_primitive_opt::<Int64Type>().map(|column| column.value(at).into()),
        DataType::UInt32 => column.as_primitive_opt::<UInt32Type>().map(|column| column.value(at).into()),
        DataType::Timestamp(..) => column
            .as_primitive_opt::<TimestampMicrosecondType>()
            .map(|column| rfc3339(Micros(column.value(at))).into()),
        DataType::List(_) => column.as_list_opt::<i32>().map(|column| {
            let list = column.value(at);
            (0..list.len()).map(|at| json(list.as_ref(), at)).collect()
        }),
        DataType::Struct(fields) => column.as_struct_opt().map(|column| {
            let fields = fields.iter().zip(column.columns());
            Value::Object(fields.map(|(field, of)| (field.name().clone(), json(of.as_ref(), at))).collect())
        }),
        _ => None,
    };
    // A type that this version does not write.
    value.unwrap_or(Value::Null)
}
