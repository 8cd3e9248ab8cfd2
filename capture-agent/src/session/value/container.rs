//! Values made of values: arrays, records, ranges, multiranges, and the lists that print without quotes.

use std::fmt::Write;

use super::types::{self, Kind};
use super::{Bounded, Context, Failure, Reader, number, write_binary};

/// `MAXDIM`: the most dimensions that an array has.
const MAX_DIMENSIONS: usize = 6;

/// `array_send` and `array_out` in `src/backend/utils/adt/arrayfuncs.c`.
pub(super) fn write_array(
    reader: &mut Reader<'_>,
    context: Context,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let header = ArrayHeader::read(reader)?;
    let kind = Kind::of(header.element);
    if kind == Kind::Unknown {
        return Err(Failure::Malformed);
    }
    let dimensions = header.dimensions.get(..header.count).unwrap_or_default();
    if dimensions.is_empty() || dimensions.iter().any(|dimension| dimension.length == 0) {
        reader.end()?;
        return Ok(out.write_str("{}")?);
    }
    if dimensions.iter().any(|dimension| dimension.lower_bound != 1) {
        for dimension in dimensions {
            let upper = i64::from(dimension.lower_bound) + dimension.length as i64 - 1;
            write!(out, "[{}:{upper}]", dimension.lower_bound)?;
        }
        out.write_char('=')?;
    }
    let delimiter = types::delimiter(header.element);
    let quoting = Quoting::array(delimiter);
    let mut scratch = Bounded::new(reader.remaining());
    // How many elements of each dimension are done.
    let mut done = [0usize; MAX_DIMENSIONS];
    loop {
        // Opens each dimension that begins here.
        let fresh = done.iter().take(header.count).rev().take_while(|&&done| done == 0).count();
        for _ in 0..fresh {
            out.write_char('{')?;
        }
        match reader.field()? {
            None => out.write_str("NULL")?,
            Some(element) => {
                scratch.text.clear();
                write_binary(kind, element, context, &mut scratch)?;
                quoting.write(&scratch.text, out)?;
            }
        }
        // Counts up, closing each dimension that is complete.
        let mut dimension = header.count;
        loop {
            let Some(level) = dimension.checked_sub(1) else {
                return reader.end();
            };
            dimension = level;
            let (Some(done), Some(whole)) = (done.get_mut(level), dimensions.get(level)) else {
                return Err(Failure::Malformed);
            };
            *done += 1;
            if *done < whole.length {
                out.write_char(delimiter)?;
                break;
            }
            *done = 0;
            out.write_char('}')?;
        }
    }
}

/// What stands before an array's elements.
struct ArrayHeader {
    element: u32,
    /// How many dimensions there are.
    count: usize,
    dimensions: [Dimension; MAX_DIMENSIONS],
}

#[derive(Clone, Copy, Default)]
struct Dimension {
    length: usize,
    lower_bound: i32,
}

impl ArrayHeader {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Failure> {
        let count = usize::try_from(reader.i32()?).map_err(|_| Failure::Malformed)?;
        let flags = reader.i32()?;
        let element = reader.u32()?;
        let mut dimensions = [Dimension::default(); MAX_DIMENSIONS];
        if count > MAX_DIMENSIONS || !matches!(flags, 0 | 1) {
            return Err(Failure::Malformed);
        }
        let mut elements = 1usize;
        for dimension in dimensions.iter_mut().take(count) {
            dimension.length = usize::try_from(reader.i32()?).map_err(|_| Failure::Malformed)?;
            dimension.lower_bound = reader.i32()?;
            elements = elements.checked_mul(dimension.length).ok_or(Failure::Malformed)?;
        }
        // Each element has a length word at least.
        if count > 0 && elements > reader.remaining() / 4 {
            return Err(Failure::Malformed);
        }
        Ok(Self { element, count, dimensions })
    }
}

/// `int2vector` and `oidvector` (`int.c`, `oid.c`): an array, printed as numbers with spaces between.
pub(super) fn write_vector(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let header = ArrayHeader::read(reader)?;
    let kind = Kind::of(header.element);
    if header.count > 1 || !matches!(kind, Kind::Int2 | Kind::Uint4) {
        return Err(Failure::Malformed);
    }
    let [Dimension { length, .. }, ..] = header.dimensions;
    for index in 0..length {
        if index > 0 {
            out.write_char(' ')?;
        }
        let mut element = Reader::new(reader.field()?.ok_or(Failure::Malformed)?);
        match kind {
            Kind::Int2 => number::write_signed(i16::from_be_bytes(element.all()?).into(), out)?,
            _ => number::write_unsigned(u32::from_be_bytes(element.all()?).into(), out)?,
        }
    }
    reader.end()
}

/// `record_send` and `record_out` in `src/backend/utils/adt/rowtypes.c`.
pub(super) fn write_record(
    reader: &mut Reader<'_>,
    context: Context,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    // A field has its type and its length at least.
    let count = reader.count(8)?;
    let mut scratch = Bounded::new(reader.remaining());
    out.write_char('(')?;
    for index in 0..count {
        if index > 0 {
            out.write_char(',')?;
        }
        let kind = Kind::of(reader.u32()?);
        if let Some(field) = reader.field()? {
            scratch.text.clear();
            write_binary(kind, field, context, &mut scratch)?;
            Quoting::RECORD.write(&scratch.text, out)?;
        }
    }
    out.write_char(')')?;
    reader.end()
}

/// `range_send` and `range_out` in `src/backend/utils/adt/rangetypes.c`.
pub(super) fn write_range(
    reader: &mut Reader<'_>,
    bound: u32,
    context: Context,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let flags = reader.u8()?;
    if flags & RANGE_EMPTY != 0 {
        reader.end()?;
        return Ok(out.write_str("empty")?);
    }
    out.write_char(if flags & RANGE_LB_INC != 0 { '[' } else { '(' })?;
    if flags & RANGE_LB_INF == 0 {
        write_bound(reader, bound, context, out)?;
    }
    out.write_char(',')?;
    if flags & RANGE_UB_INF == 0 {
        write_bound(reader, bound, context, out)?;
    }
    out.write_char(if flags & RANGE_UB_INC != 0 { ']' } else { ')' })?;
    reader.end()
}

const RANGE_EMPTY: u8 = 0x01;
const RANGE_LB_INC: u8 = 0x02;
const RANGE_UB_INC: u8 = 0x04;
const RANGE_LB_INF: u8 = 0x08;
const RANGE_UB_INF: u8 = 0x10;

fn write_bound(
    reader: &mut Reader<'_>,
    bound: u32,
    context: Context,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let bytes = reader.field()?.ok_or(Failure::Malformed)?;
    let mut text = Bounded::new(bytes.len());
    write_binary(Kind::of(bound), bytes, context, &mut text)?;
    Quoting::RANGE.write(&text.text, out)
}

/// `multirange_send` and `multirange_out` in `src/backend/utils/adt/multirangetypes.c`.
pub(super) fn write_multirange(
    reader: &mut Reader<'_>,
    bound: u32,
    context: Context,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let count = reader.count(4)?;
    out.write_char('{')?;
    for index in 0..count {
        if index > 0 {
            out.write_char(',')?;
        }
        let range = reader.field()?.ok_or(Failure::Malformed)?;
        write_range(&mut Reader::new(range), bound, context, out)?;
    }
    out.write_char('}')?;
    reader.end()
}

/// `pg_snapshot_send` and `pg_snapshot_out` in `src/backend/utils/adt/xid8funcs.c`.
pub(super) fn write_snapshot(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let count = usize::try_from(reader.i32()?).map_err(|_| Failure::Malformed)?;
    let (xmin, xmax) = (reader.u64()?, reader.u64()?);
    write!(out, "{xmin}:{xmax}:")?;
    for index in 0..count {
        if index > 0 {
            out.write_char(',')?;
        }
        number::write_unsigned(reader.u64()?, out)?;
    }
    reader.end()
}

/// When and how a member of a composed value is quoted.
struct Quoting {
    /// Besides white space, quotes and backslashes: what calls for quotes.
    special: &'static str,
    /// Whether the word NULL, in any case, calls for quotes.
    null: bool,
    /// Whether a quote or backslash is escaped with a backslash; otherwise it is doubled.
    backslash: bool,
}

impl Quoting {
    const RECORD: Self = Self { special: "(),", null: false, backslash: false };
    const RANGE: Self = Self { special: "()[],", null: false, backslash: false };

    fn array(delimiter: char) -> Self {
        Self { special: if delimiter == ';' { "{};" } else { "{}," }, null: true, backslash: true }
    }

    fn write(&self, text: &str, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.applies(text) {
            return Ok(out.write_str(text)?);
        }
        out.write_char('"')?;
        let mut rest = text;
        while let Some(found) = rest.find(['"', '\\']) {
            let (plain, from) = rest.split_at(found);
            out.write_str(plain)?;
            let mut chars = from.chars();
            if let Some(char) = chars.next() {
                out.write_char(if self.backslash { '\\' } else { char })?;
                out.write_char(char)?;
            }
            rest = chars.as_str();
        }
        out.write_str(rest)?;
        Ok(out.write_char('"')?)
    }

    fn applies(&self, text: &str) -> bool {
        text.is_empty()
            || self.null && text.eq_ignore_ascii_case("null")
            || text.bytes().any(|byte| {
                matches!(byte, b'"' | b'\\' | b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
                    || self.special.as_bytes().contains(&byte)
            })
    }
}
