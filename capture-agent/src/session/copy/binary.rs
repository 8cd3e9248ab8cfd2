//! COPY's binary format.

use std::borrow::Cow;

use super::{Fields, Found, State};

/// The header: a signature, flags, and an extension of any length.
pub(super) fn header(data: &[u8]) -> Found {
    let Some(rest) = data.strip_prefix(SIGNATURE) else {
        return if SIGNATURE.starts_with(data) { Found::More(0) } else { Found::End };
    };
    let Some(extension) = rest.get(4..8).and_then(|bytes| bytes.first_chunk()) else {
        return Found::More(0);
    };
    let end = (SIGNATURE.len() + 8).saturating_add(u32::from_be_bytes(*extension) as usize);
    if end <= data.len() { Found::Row(end) } else { Found::More(0) }
}

/// Finds a row's end, going on at the field that begins at `from`.
pub(super) fn inspect(data: &[u8], from: usize, state: &mut State) -> Found {
    let mut at = from;
    if state.fields.is_none() {
        match data.first_chunk().map(|count| i16::from_be_bytes(*count)) {
            None => return Found::More(0),
            Some(count) if count < 0 => return Found::End,
            Some(count) => state.fields = Some(count.cast_unsigned()),
        }
        at = 2;
    }
    while let Some(left) = state.fields.filter(|left| *left > 0) {
        let Some(length) = data.get(at..).and_then(|rest| rest.first_chunk()) else {
            return Found::More(at);
        };
        let length = i32::from_be_bytes(*length);
        let Ok(length) =
            usize::try_from(length.max(0)).map(|bytes| if length < -1 { usize::MAX } else { bytes })
        else {
            return Found::End;
        };
        let Some(end) = at.checked_add(4).and_then(|start| start.checked_add(length)) else {
            return Found::End;
        };
        if end > data.len() {
            return Found::More(at);
        }
        at = end;
        state.fields = Some(left - 1);
    }
    Found::Row(at)
}

/// The fields of a whole row.
pub(super) fn fields(row: &[u8]) -> Fields<'_> {
    let mut rest = row.get(2..).unwrap_or_default();
    let mut fields = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            fields.push(None);
            rest = after;
            continue;
        };
        let Some((value, after)) = after.split_at_checked(length) else { break };
        fields.push(Some(Cow::Borrowed(value)));
        rest = after;
    }
    fields
}

/// What every file begins with.
const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
