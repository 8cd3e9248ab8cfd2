//! DataRow messages: a tag and a length, then a 16-bit count, and a 32-bit length (-1 for NULL) and bytes of each value
//! (`doc/src/sgml/protocol.sgml`).

/// The values of a DataRow's body. Ends where the body does, whatever its count and lengths claim.
#[derive(Clone, Debug)]
pub struct DataRow<'a> {
    rest: &'a [u8],
    left: u16,
}

impl<'a> DataRow<'a> {
    /// Of this body.
    #[inline]
    pub fn new(body: &'a [u8]) -> Self {
        match body.split_first_chunk() {
            Some((count, rest)) => Self { rest, left: u16::from_be_bytes(*count) },
            None => Self { rest: &[], left: 0 },
        }
    }
}

impl<'a> Iterator for DataRow<'a> {
    type Item = Option<&'a [u8]>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (length, rest) = self.rest.split_first_chunk()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.rest = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(Some(value))
    }
}

/// The bodies of whole messages, whatever their type.
pub fn bodies(messages: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let (_, body, after) = split(rest)?;
        rest = after;
        Some(body)
    })
}

/// How many whole DataRow messages `bytes` are; none if they are anything else.
pub fn count(bytes: &[u8]) -> Option<usize> {
    let (mut rest, mut count) = (bytes, 0);
    while !rest.is_empty() {
        let (tag, _, after) = split(rest)?;
        if tag != TAG {
            return None;
        }
        rest = after;
        count += 1;
    }
    Some(count)
}

/// The first message's type and body, and what follows it.
#[inline]
fn split(messages: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([tag, length @ ..], rest) = messages.split_first_chunk::<HEADER>()?;
    let length = u32::from_be_bytes(*length).checked_sub(4)?;
    let (body, after) = rest.split_at_checked(length as usize)?;
    Some((*tag, body, after))
}

/// Begins a message at the end of `out`: yields where, for [`end`].
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[TAG, 0, 0, 0, 0, 0, 0]);
    at
}

/// Appends a value to a body. False, and nothing is appended, if it is longer than any can be.
pub fn put(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    let Some(value) = value else {
        out.extend_from_slice(&(-1_i32).to_be_bytes());
        return true;
    };
    let Ok(length) = i32::try_from(value.len()) else { return false };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value);
    true
}

/// Ends the message that began at `at` and has so many values. False if no message can have so many, or be so long.
pub(super) fn end(out: &mut [u8], at: usize, values: usize) -> bool {
    let Some((head, body)) = out.get_mut(at..).and_then(<[u8]>::split_first_chunk_mut::<HEADER>) else {
        return false;
    };
    let Some(count) = body.first_chunk_mut() else { return false };
    let Ok(values) = u16::try_from(values) else { return false };
    *count = values.to_be_bytes();
    let Ok(length) = i32::try_from(body.len() + 4) else { return false };
    head[1..].copy_from_slice(&length.to_be_bytes());
    true
}

const TAG: u8 = b'D';
/// Bytes of a message's header.
pub(super) const HEADER: usize = 5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_data_row_gives_its_values_and_nulls() {
        let body = b"\0\x03\0\0\0\x02ab\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(DataRow::new(body).collect::<Vec<_>>(), [Some(&b"ab"[..]), None, Some(&b""[..])]);
    }

    #[test]
    fn more_values_than_a_message_can_have_are_none() {
        let mut out = Vec::new();
        let at = begin(&mut out);
        assert!(!end(&mut out, at, 65_536));
    }

    proptest! {
        #[test]
        fn a_data_row_that_lies_ends_with_its_bytes(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let values: Vec<_> = DataRow::new(&body).collect();
            let claimed: usize = values.iter().map(|value| 4 + value.map_or(0, <[u8]>::len)).sum();
            prop_assert!(claimed <= body.len());
            prop_assert!(bodies(&body).map(<[u8]>::len).sum::<usize>() <= body.len());
        }

        #[test]
        fn what_is_put_comes_back(
            rows in prop::collection::vec(prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..9)), 0..5), 0..9)
        ) {
            let mut out = Vec::new();
            for row in &rows {
                let at = begin(&mut out);
                prop_assert!(row.iter().all(|value| put(value.as_deref(), &mut out)));
                prop_assert!(end(&mut out, at, row.len()));
            }
            prop_assert_eq!(count(&out), Some(rows.len()));
            prop_assert_eq!(count(&out[..out.len().saturating_sub(1)]).is_some(), out.is_empty());
            let read: Vec<Vec<_>> =
                bodies(&out).map(|body| DataRow::new(body).map(|value| value.map(<[u8]>::to_vec)).collect()).collect();
            prop_assert_eq!(read, rows);
        }
    }
}
