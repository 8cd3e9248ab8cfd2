//! Geometric types (`src/backend/utils/adt/geo_ops.c`).

use std::fmt::Write;

use super::number::write_float8;
use super::{Failure, Reader};

pub(super) fn write_point(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let [point] = points(reader)?;
    pair(point, out)
}

pub(super) fn write_lseg(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let ends: [_; 2] = points(reader)?;
    out.write_char('[')?;
    list(ends, out)?;
    Ok(out.write_char(']')?)
}

pub(super) fn write_box(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let corners: [_; 2] = points(reader)?;
    list(corners, out)
}

pub(super) fn write_path(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let closed = reader.u8()? != 0;
    let (open, close) = if closed { ('(', ')') } else { ('[', ']') };
    out.write_char(open)?;
    counted(reader, out)?;
    Ok(out.write_char(close)?)
}

pub(super) fn write_polygon(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    out.write_char('(')?;
    counted(reader, out)?;
    Ok(out.write_char(')')?)
}

pub(super) fn write_line(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let (a, b, c) = (reader.f64()?, reader.f64()?, reader.f64()?);
    reader.end()?;
    out.write_char('{')?;
    write_float8(a, out)?;
    out.write_char(',')?;
    write_float8(b, out)?;
    out.write_char(',')?;
    write_float8(c, out)?;
    Ok(out.write_char('}')?)
}

pub(super) fn write_circle(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let center = (reader.f64()?, reader.f64()?);
    let radius = reader.f64()?;
    reader.end()?;
    out.write_char('<')?;
    pair(center, out)?;
    out.write_char(',')?;
    write_float8(radius, out)?;
    Ok(out.write_char('>')?)
}

fn points<const N: usize>(reader: &mut Reader<'_>) -> Result<[(f64, f64); N], Failure> {
    let mut points = [(0.0, 0.0); N];
    for point in &mut points {
        *point = (reader.f64()?, reader.f64()?);
    }
    reader.end()?;
    Ok(points)
}

/// A count and as many points.
fn counted(reader: &mut Reader<'_>, out: &mut dyn Write) -> Result<(), Failure> {
    let count = reader.count(2 * size_of::<f64>())?;
    for index in 0..count {
        if index > 0 {
            out.write_char(',')?;
        }
        pair((reader.f64()?, reader.f64()?), out)?;
    }
    reader.end()
}

fn list<const N: usize>(points: [(f64, f64); N], out: &mut dyn Write) -> Result<(), Failure> {
    for (index, point) in points.into_iter().enumerate() {
        if index > 0 {
            out.write_char(',')?;
        }
        pair(point, out)?;
    }
    Ok(())
}

fn pair((x, y): (f64, f64), out: &mut dyn Write) -> Result<(), Failure> {
    out.write_char('(')?;
    write_float8(x, out)?;
    out.write_char(',')?;
    write_float8(y, out)?;
    Ok(out.write_char(')')?)
}
