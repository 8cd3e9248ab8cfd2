//! The parse tree as plain nodes and fields, whatever their types: what walks it sees every node that the grammar
//! can make, not only those that someone thought of.

use std::fmt;

use serde::ser::{self, Serialize};

/// One node of the parse tree.
#[derive(Debug)]
pub(crate) struct Node {
    /// The node's type as in `src/include/nodes/parsenodes.h`, without underscores.
    pub(crate) name: &'static str,
    /// The fields that are neither zero, false nor empty.
    fields: Vec<(&'static str, Value)>,
}

/// What a field holds.
#[derive(Debug)]
pub(crate) enum Value {
    True,
    Number(i64),
    Text(Box<str>),
    List(Vec<Value>),
    Node(Node),
}

impl Node {
    /// The tree of a parse result.
    pub(crate) fn of(result: &pg_query::protobuf::ParseResult) -> Option<Self> {
        match result.serialize(Builder) {
            Ok(Some(Value::Node(node))) => Some(node),
            _ => None,
        }
    }

    /// The fields, in the order of the declaration.
    pub(crate) fn fields(&self) -> impl DoubleEndedIterator<Item = (&'static str, &Value)> {
        self.fields.iter().map(|(name, value)| (*name, value))
    }

    /// A field; none if it is empty.
    pub(crate) fn field(&self, name: &str) -> Option<&Value> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        self.field(name).and_then(Value::as_node)
    }

    /// The members of a list; none if the field is empty.
    pub(crate) fn list(&self, name: &str) -> &[Value] {
        match self.field(name) {
            Some(Value::List(values)) => values,
            _ => &[],
        }
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.field(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn number(&self, name: &str) -> i32 {
        match self.field(name) {
            Some(Value::Number(number)) => i32::try_from(*number).unwrap_or(0),
            _ => 0,
        }
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        matches!(self.field(name), Some(Value::True))
    }
}

impl Value {
    pub(crate) fn as_node(&self) -> Option<&Node> {
        match self {
            Self::Node(node) => Some(node),
            _ => None,
        }
    }

    /// The text of a `String` node.
    pub(crate) fn as_string(&self) -> Option<&str> {
        self.as_node().filter(|node| node.name == "String").map(|node| node.text("sval").unwrap_or_default())
    }
}

/// Builds a value from anything that serializes; none for what is zero, false or empty.
struct Builder;

type Built = Result<Option<Value>, Unsupported>;

/// The parse tree has no values of this type.
#[derive(Debug)]
struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a value of a parse tree")
    }
}

impl std::error::Error for Unsupported {}

impl ser::Error for Unsupported {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct NodeBuilder(Node);

impl ser::SerializeStruct for NodeBuilder {
    type Ok = Option<Value>;
    type Error = Unsupported;

    fn serialize_field<T: ?Sized + Serialize>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Unsupported> {
        if let Some(value) = value.serialize(Builder)? {
            self.0.fields.push((name, value));
        }
        Ok(())
    }

    fn end(mut self) -> Built {
        // protobuf's wrapper around the node of any type.
        if self.0.name == "Node" {
            return Ok(self.0.fields.pop().map(|(_, value)| value));
        }
        Ok(Some(Value::Node(self.0)))
    }
}

struct ListBuilder(Vec<Value>);

impl ser::SerializeSeq for ListBuilder {
    type Ok = Option<Value>;
    type Error = Unsupported;

    fn serialize_element<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Unsupported> {
        self.0.extend(value.serialize(Builder)?);
        Ok(())
    }

    fn end(self) -> Built {
        Ok((!self.0.is_empty()).then_some(Value::List(self.0)))
    }
}

fn number(value: i64) -> Built {
    Ok((value != 0).then_some(Value::Number(value)))
}

impl ser::Serializer for Builder {
    type Ok = Option<Value>;
    type Error = Unsupported;
    type SerializeSeq = ListBuilder;
    type SerializeTuple = ser::Impossible<Option<Value>, Unsupported>;
    type SerializeTupleStruct = ser::Impossible<Option<Value>, Unsupported>;
    type SerializeTupleVariant = ser::Impossible<Option<Value>, Unsupported>;
    type SerializeMap = ser::Impossible<Option<Value>, Unsupported>;
    type SerializeStruct = NodeBuilder;
    type SerializeStructVariant = ser::Impossible<Option<Value>, Unsupported>;

    fn serialize_bool(self, value: bool) -> Built {
        Ok(value.then_some(Value::True))
    }

    fn serialize_i8(self, value: i8) -> Built {
        number(value.into())
    }

    fn serialize_i16(self, value: i16) -> Built {
        number(value.into())
    }

    fn serialize_i32(self, value: i32) -> Built {
        number(value.into())
    }

    fn serialize_i64(self, value: i64) -> Built {
        number(value)
    }

    fn serialize_u8(self, value: u8) -> Built {
        number(value.into())
    }

    fn serialize_u16(self, value: u16) -> Built {
        number(value.into())
    }

    fn serialize_u32(self, value: u32) -> Built {
        number(value.into())
    }

    fn serialize_u64(self, value: u64) -> Built {
        number(value.cast_signed())
    }

    fn serialize_f32(self, _: f32) -> Built {
        Ok(None)
    }

    fn serialize_f64(self, _: f64) -> Built {
        Ok(None)
    }

    fn serialize_char(self, value: char) -> Built {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Built {
        Ok((!value.is_empty()).then(|| Value::Text(value.into())))
    }

    fn serialize_bytes(self, _: &[u8]) -> Built {
        Err(Unsupported)
    }

    fn serialize_none(self) -> Built {
        Ok(None)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Built {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Built {
        Ok(None)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Built {
        Ok(None)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Built {
        Ok(None)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(self, _: &'static str, value: &T) -> Built {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Built {
        value.serialize(self)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<ListBuilder, Unsupported> {
        Ok(ListBuilder(Vec::with_capacity(length.unwrap_or(0))))
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Unsupported> {
        Err(Unsupported)
    }

    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, Unsupported> {
        Err(Unsupported)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, Unsupported> {
        Err(Unsupported)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Unsupported> {
        Err(Unsupported)
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<NodeBuilder, Unsupported> {
        Ok(NodeBuilder(Node { name, fields: Vec::new() }))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, Unsupported> {
        Err(Unsupported)
    }
}
