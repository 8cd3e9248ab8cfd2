//! The bodies of the server's messages
//! ([Message Formats](https://www.postgresql.org/docs/current/protocol-message-formats.html)).

use super::reader::Reader;

/// Authentication…: a request, or that it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authentication<'a> {
    /// The kind: an `AUTH_REQ_*` constant of `src/include/libpq/protocol.h`.
    pub kind: u32,
    /// The names of the SASL mechanisms that the server offers, each with a zero behind it; for kind 10 only.
    mechanisms: &'a [u8],
}

impl<'a> Authentication<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let kind = reader.u32()?;
        let mechanisms = if kind == AUTH_SASL { reader.rest() } else { &[] };
        Some(Self { kind, mechanisms })
    }

    /// The names of the SASL mechanisms that the server offers, best first.
    pub fn mechanisms(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut reader = Reader(self.mechanisms);
        std::iter::from_fn(move || reader.cstr().filter(|name| !name.is_empty()))
    }

    /// How much of a body holds no secret: salts, SASL and GSS payloads stay in this room.
    pub(super) fn public_len(body: &[u8]) -> usize {
        match Reader(body).u32() {
            Some(AUTH_SASL) => body.len(),
            _ => 4,
        }
    }
}

/// AuthenticationOk.
pub const AUTH_OK: u32 = 0;
/// AuthenticationCleartextPassword.
pub const AUTH_PASSWORD: u32 = 3;
/// AuthenticationMD5Password.
pub const AUTH_MD5: u32 = 5;
/// AuthenticationGSS.
pub const AUTH_GSS: u32 = 7;
/// AuthenticationSSPI.
pub const AUTH_SSPI: u32 = 9;
/// AuthenticationSASL.
pub const AUTH_SASL: u32 = 10;

/// BackendKeyData's process id; its key stays in this room.
pub fn backend_pid(body: &[u8]) -> Option<u32> {
    Reader(body).u32()
}

/// ReadyForQuery's transaction status: `I` idle, `T` in a transaction block, `E` in a failed one.
pub fn ready_for_query(body: &[u8]) -> Option<u8> {
    match body {
        [status @ (b'I' | b'T' | b'E')] => Some(*status),
        _ => None,
    }
}

/// ParameterStatus: a setting's name and value.
pub fn parameter_status(body: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = Reader(body);
    Some((reader.cstr()?, reader.cstr()?))
}

/// CommandComplete's tag.
pub fn command_tag(body: &[u8]) -> &[u8] {
    Reader(body).cstr().unwrap_or(body)
}

/// NegotiateProtocolVersion: the newest minor version that the server knows of the major one asked for, and the
/// `_pq_.` options that it does not know.
pub fn negotiated(body: &[u8]) -> Option<(u32, impl Iterator<Item = &[u8]>)> {
    let mut reader = Reader(body);
    let version = reader.u32()?;
    let count = reader.u32()?;
    // Each takes a byte at least, so the bytes bound the loop, whatever the count claims.
    let options = std::iter::from_fn(move || reader.cstr()).take(count as usize);
    // The documentation speaks of the minor version; servers of all versions send the whole one.
    Some((version & 0xffff, options))
}

/// NotificationResponse: the notifying process, the channel and the payload.
pub fn notification(body: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let mut reader = Reader(body);
    Some((reader.u32()?, reader.cstr()?, reader.cstr()?))
}

/// ParameterDescription's types: an OID of four bytes each, in network byte order.
pub fn parameter_types(body: &[u8]) -> Option<&[u8]> {
    let mut reader = Reader(body);
    let count = reader.count(4)?;
    reader.take(count * 4)
}

/// One column of a RowDescription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The column's name.
    pub name: &'a [u8],
    /// The table's OID, or 0.
    pub table_oid: u32,
    /// The column's number in the table, or 0.
    pub attnum: i16,
    /// The type's OID.
    pub type_oid: u32,
    /// The type's size; negative if it varies.
    pub type_len: i16,
    /// The type's modifier.
    pub type_mod: i32,
    /// 0 text, 1 binary. Zero in the answer to a Describe of a prepared statement, where it is not known yet.
    pub format: i16,
}

/// RowDescription's columns, as far as they are there.
pub fn row_description(body: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut reader = Reader(body);
    let count = reader.count(FIELD).unwrap_or(0);
    std::iter::from_fn(move || {
        Some(Field {
            name: reader.cstr()?,
            table_oid: reader.u32()?,
            attnum: reader.i16()?,
            type_oid: reader.u32()?,
            type_len: reader.i16()?,
            type_mod: reader.i32()?,
            format: reader.i16()?,
        })
    })
    .take(count)
}

/// CopyInResponse, CopyOutResponse or CopyBothResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyResponse {
    /// Whether the whole COPY is binary, else it is text or CSV.
    pub binary: bool,
    /// How many columns a row has.
    pub columns: usize,
}

impl CopyResponse {
    /// Reads a body.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let binary = reader.u8()? != 0;
        Some(Self { binary, columns: reader.count(2)? })
    }
}

/// FunctionCallResponse's value: none for NULL.
pub fn function_result(body: &[u8]) -> Option<Option<&[u8]>> {
    let mut reader = Reader(body);
    match reader.i32()? {
        -1 => Some(None),
        length => Some(Some(reader.take(usize::try_from(length).ok()?)?)),
    }
}

/// What an ErrorResponse or NoticeResponse says, of the fields that matter here
/// ([Error and Notice Message Fields](https://www.postgresql.org/docs/current/protocol-error-fields.html)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// `ERROR`, `FATAL`, `PANIC` and so on: not translated, unless the server is older than 9.6.
    pub severity: &'a [u8],
    /// SQLSTATE.
    pub code: &'a [u8],
    /// The primary message.
    pub message: &'a [u8],
    /// The server's source file that reported it.
    pub file: &'a [u8],
    /// Whether it arose inside a statement or function that the client did not send itself.
    pub inner: bool,
}

impl<'a> ErrorFields<'a> {
    /// Reads a body.
    pub fn read(body: &'a [u8]) -> Self {
        let mut reader = Reader(body);
        let mut fields = Self::default();
        while let Some(kind) = reader.u8().filter(|kind| *kind != 0) {
            let Some(value) = reader.cstr() else { break };
            match kind {
                b'V' => fields.severity = value,
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'C' => fields.code = value,
                b'M' => fields.message = value,
                b'F' => fields.file = value,
                b'W' | b'p' | b'q' => fields.inner = true,
                _ => {}
            }
        }
        fields
    }

    /// Whether the server ends the session with it.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }
}

/// The least bytes of a column in a RowDescription: an empty name's zero and the fixed fields.
const FIELD: usize = 19;
