//! The bodies of the client's messages
//! ([Message Formats](https://www.postgresql.org/docs/current/protocol-message-formats.html)).
//!
//! Bodies may be cut off by a limit or a hole. Each reader gives what stands before the cut; `exact` says
//! whether the body had the message's structure and nothing else.

use std::ops::Range;

use super::reader::Reader;

/// Query: a query string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text.
    pub text: &'a [u8],
    /// Whether the text ended with its zero, and the body with it.
    pub exact: bool,
}

impl<'a> Query<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Self {
        let mut reader = Reader(body);
        match reader.cstr() {
            Some(text) => Self { text, exact: reader.is_empty() },
            None => Self { text: body, exact: false },
        }
    }
}

/// Parse: a statement to prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parse<'a> {
    /// The prepared statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    /// The types that the client gave: an OID of four bytes each, in network byte order.
    pub types: &'a [u8],
    /// Whether the body had exactly this structure.
    pub exact: bool,
}

impl<'a> Parse<'a> {
    /// Reads a body; none if not even the name is there.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let name = reader.cstr()?;
        let Some(text) = reader.cstr() else {
            return Some(Self { name, text: reader.rest(), types: &[], exact: false });
        };
        let types = reader.count(4).and_then(|count| reader.take(count * 4));
        Some(Self {
            name,
            text,
            types: types.unwrap_or_default(),
            exact: types.is_some() && reader.is_empty(),
        })
    }
}

/// Bind: a portal made of a prepared statement and parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The prepared statement's name.
    pub statement: &'a [u8],
    /// Format codes of the parameters, two bytes each.
    pub formats: &'a [u8],
    /// Format codes of the result's columns, two bytes each.
    pub result_formats: &'a [u8],
    /// Whether a parameter is missing or shorter than it was sent, since the body was cut off before its end.
    pub cut: bool,
    /// Whether the body had exactly this structure.
    pub exact: bool,
}

impl<'a> Bind<'a> {
    /// Reads the names of the portal and of the prepared statement alone.
    pub fn names(body: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let mut reader = Reader(body);
        Some((reader.cstr()?, reader.cstr()?))
    }

    /// Reads a body and calls `parameter` with the place of each parameter's value in the body, none for NULL.
    /// None if not even the names are there.
    pub fn read(body: &'a [u8], parameter: impl FnMut(Option<Range<usize>>)) -> Option<Self> {
        let mut reader = Reader(body);
        let portal = reader.cstr()?;
        let statement = reader.cstr()?;
        let mut bind = Self { portal, statement, formats: &[], result_formats: &[], cut: true, exact: false };
        let Some(formats) = reader.count(2).and_then(|count| reader.take(count * 2)) else {
            return Some(bind);
        };
        bind.formats = formats;
        bind.cut = !arguments(body, &mut reader, parameter);
        if !bind.cut
            && let Some(formats) = reader.count(2).and_then(|count| reader.take(count * 2))
        {
            bind.result_formats = formats;
            bind.exact = reader.is_empty();
        }
        Some(bind)
    }
}

/// FunctionCall: a function by its OID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// The function's OID in `pg_proc`.
    pub oid: u32,
    /// Format codes of the arguments, two bytes each.
    pub formats: &'a [u8],
    /// Format code of the result: 0 text, 1 binary.
    pub result_format: i16,
    /// Whether an argument is missing or shorter than it was sent.
    pub cut: bool,
    /// Whether the body had exactly this structure.
    pub exact: bool,
}

impl<'a> FunctionCall<'a> {
    /// Reads a body and calls `argument` with the place of each argument's value in the body, none for NULL.
    pub fn read(body: &'a [u8], argument: impl FnMut(Option<Range<usize>>)) -> Option<Self> {
        let mut reader = Reader(body);
        let oid = reader.u32()?;
        let mut call = Self { oid, formats: &[], result_format: 0, cut: true, exact: false };
        let Some(formats) = reader.count(2).and_then(|count| reader.take(count * 2)) else {
            return Some(call);
        };
        call.formats = formats;
        call.cut = !arguments(body, &mut reader, argument);
        if !call.cut
            && let Some(format) = reader.i16()
        {
            call.result_format = format;
            call.exact = reader.is_empty();
        }
        Some(call)
    }
}

/// Reads a count, then length and bytes of each value. Whether all of them were there.
fn arguments<'a>(
    body: &'a [u8],
    reader: &mut Reader<'a>,
    mut argument: impl FnMut(Option<Range<usize>>),
) -> bool {
    // A body that was cut off may hold fewer values than it counts: the count bounds the loop, the bytes end it.
    let Some(count) = reader.i16() else { return false };
    for _ in 0..count.cast_unsigned() {
        let Some(length) = reader.i32() else { return false };
        if length == -1 {
            argument(None);
            continue;
        }
        let Ok(length) = usize::try_from(length) else { return false };
        let start = body.len() - reader.0.len();
        if reader.take(length).is_none() {
            reader.rest();
            argument(Some(start..body.len()));
            return false;
        }
        argument(Some(start..start + length));
    }
    true
}

/// Describe or Close: a statement or a portal by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Whether it is a portal, else a prepared statement.
    pub portal: bool,
    /// Its name; empty for the unnamed one.
    pub name: &'a [u8],
    /// Whether the body had exactly this structure.
    pub exact: bool,
}

impl<'a> Target<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let portal = match reader.u8()? {
            b'P' => true,
            b'S' => false,
            _ => return None,
        };
        let name = reader.cstr()?;
        Some(Self { portal, name, exact: reader.is_empty() })
    }
}

/// Execute: runs a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execute<'a> {
    /// The portal's name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// The most rows to return; 0 for all.
    pub max_rows: i32,
    /// Whether the body had exactly this structure.
    pub exact: bool,
}

impl<'a> Execute<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let portal = reader.cstr()?;
        let max_rows = reader.i32()?;
        Some(Self { portal, max_rows, exact: reader.is_empty() })
    }
}

/// The format of the value at `index`, by the rule that Bind and FunctionCall share: no code means text for
/// all, one code is for all, else each has its own.
pub fn format_at(codes: &[u8], index: usize) -> i16 {
    let at = if codes.len() == 2 { 0 } else { index.saturating_mul(2) };
    codes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |code| i16::from_be_bytes(*code))
}
