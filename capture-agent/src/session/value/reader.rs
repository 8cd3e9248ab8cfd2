//! Fields of a binary value, in network byte order.

use super::Failure;

/// Reads a value's fields in order. What is not there is malformed.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let (field, rest) = self.rest.split_first_chunk().ok_or(Failure::Malformed)?;
        self.rest = rest;
        Ok(*field)
    }

    /// The next `N` bytes, which must be the last ones.
    pub(super) fn all<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let field = self.array()?;
        self.end()?;
        Ok(field)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Failure> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16, Failure> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Failure> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Failure> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Failure> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Failure> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Failure> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn f64(&mut self) -> Result<f64, Failure> {
        self.array().map(f64::from_be_bytes)
    }

    /// A count of items that take `size` bytes each or more: refused if they cannot be there.
    pub(super) fn count(&mut self, size: usize) -> Result<usize, Failure> {
        let count = usize::try_from(self.i32()?).map_err(|_| Failure::Malformed)?;
        if count > self.rest.len() / size.max(1) {
            return Err(Failure::Malformed);
        }
        Ok(count)
    }

    /// The next `length` bytes.
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], Failure> {
        let (field, rest) = self.rest.split_at_checked(length).ok_or(Failure::Malformed)?;
        self.rest = rest;
        Ok(field)
    }

    /// A length and as many bytes; none for length -1, which is NULL.
    pub(super) fn field(&mut self) -> Result<Option<&'a [u8]>, Failure> {
        match self.i32()? {
            -1 => Ok(None),
            length => self.bytes(usize::try_from(length).map_err(|_| Failure::Malformed)?).map(Some),
        }
    }

    /// A string that a zero byte ends, without that byte.
    pub(super) fn zero_terminated(&mut self) -> Result<&'a [u8], Failure> {
        let length = memchr::memchr(0, self.rest).ok_or(Failure::Malformed)?;
        let text = self.bytes(length)?;
        self.u8()?;
        Ok(text)
    }

    pub(super) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Failure> {
        if self.rest.is_empty() { Ok(()) } else { Err(Failure::Malformed) }
    }
}
