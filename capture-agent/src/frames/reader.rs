//! A cursor over a message body.

/// Reads integers and strings off the front of a body. Every read gives none when the bytes are not there, and
/// then leaves the cursor where it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn i16(&mut self) -> Option<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    /// A count of things of at least `size` bytes each, all of which are there. The protocol's counts are signed
    /// in its documentation and unsigned in the server's code (`pq_getmsgint(…, 2)`).
    pub(super) fn count(&mut self, size: usize) -> Option<usize> {
        let mut ahead = *self;
        let count = usize::from(ahead.array().map(u16::from_be_bytes)?);
        (count * size <= ahead.0.len()).then(|| {
            *self = ahead;
            count
        })
    }

    /// A string up to its terminating zero, which is not part of it.
    pub(super) fn cstr(&mut self) -> Option<&'a [u8]> {
        // Names and tags are short, many of them empty.
        let end = match self.0.iter().take(SHORT).position(|byte| *byte == 0) {
            Some(end) => end,
            None => memchr::memchr(0, self.0)?,
        };
        let (text, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(text)
    }

    /// Everything that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Bytes that are looked at one by one.
const SHORT: usize = 16;
