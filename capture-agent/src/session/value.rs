//! PostgreSQL values, as text: binary formats decoded by type, text formats by the session's encoding.

use std::fmt;

mod container;
mod datetime;
mod encoding;
mod float;
mod geometry;
mod network;
mod number;
mod reader;
mod search;
mod types;

pub use encoding::Encoding;
use reader::Reader;
use types::Kind;

/// Writes a value as text, as PostgreSQL prints it with its default settings and in UTC: `DateStyle` ISO,
/// `IntervalStyle` postgres, `bytea_output` hex, `extra_float_digits` 1, `lc_monetary` C.
///
/// `type_oid` is its type in `pg_type`, `format` its format code: 0 text, 1 binary. A value in text format is
/// decoded and otherwise left as it is. A binary value of a type without a fixed OID, and one that is not a valid
/// value of its type, is written as `\x` and its bytes in hexadecimal. Names that only the server's catalog knows
/// (`regclass` and its kin) are written as their OIDs.
///
/// What is written is bounded by the value's length, except that a numeric may take up to 150 kB.
///
/// # Errors
///
/// Only `out`'s own.
pub fn write_text(
    type_oid: u32,
    format: i16,
    bytes: &[u8],
    encoding: Encoding,
    out: &mut impl fmt::Write,
) -> fmt::Result {
    if format == TEXT_FORMAT {
        return out.write_str(&encoding.decode(bytes));
    }
    let kind = if format == BINARY_FORMAT { Kind::of(type_oid) } else { Kind::Unknown };
    let context = Context { encoding, depth: 0 };
    let result = if kind.is_composed() {
        // What turns out to be malformed in its middle must not leave a half behind.
        let mut text = Bounded::new(bytes.len());
        write_binary(kind, bytes, context, &mut text)
            .map_err(|_| Failure::Malformed)
            .and_then(|()| Ok(out.write_str(&text.text)?))
    } else {
        write_binary(kind, bytes, context, out)
    };
    match result {
        Ok(()) => Ok(()),
        Err(Failure::Malformed) => write_hex(bytes, out),
        Err(Failure::Out(error)) => Err(error),
    }
}

/// Format code of the text format (`Bind` and `RowDescription` in the protocol's message formats).
const TEXT_FORMAT: i16 = 0;
/// Format code of the binary format.
const BINARY_FORMAT: i16 = 1;

/// Values nest at most this deep; each level may double the quotes of the one below it.
const MAX_DEPTH: u8 = 8;

/// What every level of a nested value is written with.
#[derive(Clone, Copy)]
struct Context {
    encoding: Encoding,
    depth: u8,
}

impl Context {
    fn deeper(self) -> Result<Self, Failure> {
        if self.depth >= MAX_DEPTH {
            return Err(Failure::Malformed);
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

/// Why a value was not written.
#[derive(Debug)]
enum Failure {
    /// The bytes are no value of the type. For types that are not composed, nothing was written yet.
    Malformed,
    /// The sink refused.
    Out(fmt::Error),
}

impl From<fmt::Error> for Failure {
    fn from(error: fmt::Error) -> Self {
        Self::Out(error)
    }
}

/// A buffer for composed values that refuses text out of all proportion to the bytes that it comes from.
struct Bounded {
    text: String,
    limit: usize,
}

impl Bounded {
    fn new(bytes: usize) -> Self {
        Self { text: String::new(), limit: bytes.saturating_mul(8).saturating_add(1 << 20) }
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.len().saturating_add(text.len()) > self.limit {
            return Err(fmt::Error);
        }
        self.text.push_str(text);
        Ok(())
    }
}

fn write_binary(kind: Kind, bytes: &[u8], context: Context, out: &mut dyn fmt::Write) -> Result<(), Failure> {
    let mut reader = Reader::new(bytes);
    let reader = &mut reader;
    match kind {
        Kind::Text => Ok(out.write_str(&context.encoding.decode(bytes))?),
        Kind::VersionedText => match bytes.split_first() {
            Some((1, text)) => Ok(out.write_str(&context.encoding.decode(text))?),
            _ => Err(Failure::Malformed),
        },
        Kind::Bool => {
            let [byte] = reader.all()?;
            Ok(out.write_str(if byte == 0 { "f" } else { "t" })?)
        }
        Kind::Char => write_char(reader, out),
        Kind::Bytea => Ok(write_hex(bytes, out)?),
        Kind::Int2 => number::write_signed(i16::from_be_bytes(reader.all()?).into(), out),
        Kind::Int4 => number::write_signed(i32::from_be_bytes(reader.all()?).into(), out),
        Kind::Int8 => number::write_signed(i64::from_be_bytes(reader.all()?), out),
        Kind::Uint4 => number::write_unsigned(u32::from_be_bytes(reader.all()?).into(), out),
        Kind::Uint8 => number::write_unsigned(u64::from_be_bytes(reader.all()?), out),
        Kind::Float4 => number::write_float4(f32::from_be_bytes(reader.all()?), out),
        Kind::Float8 => number::write_float8(f64::from_be_bytes(reader.all()?), out),
        Kind::Numeric => number::write_numeric(reader, out),
        Kind::Money => number::write_money(i64::from_be_bytes(reader.all()?), out),
        Kind::Date => datetime::write_date(i32::from_be_bytes(reader.all()?), out),
        Kind::Time => datetime::write_time(i64::from_be_bytes(reader.all()?), out),
        Kind::TimeTz => datetime::write_timetz(reader, out),
        Kind::Timestamp => datetime::write_timestamp(i64::from_be_bytes(reader.all()?), "", out),
        Kind::TimestampTz => datetime::write_timestamp(i64::from_be_bytes(reader.all()?), "+00", out),
        Kind::Interval => datetime::write_interval(reader, out),
        Kind::Uuid => network::write_uuid(reader.all()?, out),
        Kind::Inet => network::write_inet(reader, out),
        Kind::Macaddr => network::write_macaddr(&reader.all::<6>()?, out),
        Kind::Macaddr8 => network::write_macaddr(&reader.all::<8>()?, out),
        Kind::Lsn => network::write_lsn(u64::from_be_bytes(reader.all()?), out),
        Kind::Tid => network::write_tid(reader, out),
        Kind::Bits => number::write_bits(reader, out),
        Kind::Snapshot => container::write_snapshot(reader, out),
        Kind::Point => geometry::write_point(reader, out),
        Kind::Lseg => geometry::write_lseg(reader, out),
        Kind::Path => geometry::write_path(reader, out),
        Kind::Box => geometry::write_box(reader, out),
        Kind::Polygon => geometry::write_polygon(reader, out),
        Kind::Line => geometry::write_line(reader, out),
        Kind::Circle => geometry::write_circle(reader, out),
        Kind::TsVector => search::write_tsvector(reader, context.encoding, out),
        Kind::TsQuery => search::write_tsquery(reader, context.encoding, out),
        Kind::Vector => container::write_vector(reader, out),
        Kind::Array => container::write_array(reader, context.deeper()?, out),
        Kind::Record => container::write_record(reader, context.deeper()?, out),
        Kind::Range(bound) => container::write_range(reader, bound, context.deeper()?, out),
        Kind::Multirange(bound) => container::write_multirange(reader, bound, context.deeper()?, out),
        Kind::Unknown => Err(Failure::Malformed),
    }
}

/// `charout` in `char.c`: bytes outside of ASCII in octal, as of PostgreSQL 15.
fn write_char(reader: &mut Reader<'_>, out: &mut dyn fmt::Write) -> Result<(), Failure> {
    let [byte] = reader.all()?;
    match byte {
        0 => Ok(()),
        1..=0x7f => Ok(out.write_char(char::from(byte))?),
        _ => Ok(write!(out, "\\{byte:03o}")?),
    }
}

fn write_hex(bytes: &[u8], out: &mut dyn fmt::Write) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.write_str("\\x")?;
    let mut text = [0u8; 512];
    for chunk in bytes.chunks(text.len() / 2) {
        for (pair, byte) in text.chunks_exact_mut(2).zip(chunk) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        out.write_str(str::from_utf8(&text[..chunk.len() * 2]).map_err(|_| fmt::Error)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
