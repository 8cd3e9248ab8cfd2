//! Numbers, texts and bytes as a record holds them: little-endian, numbers of seven bits a byte where small ones
//! are common.

/// A record that does not say what its kind says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What reading a record yields.
pub(super) type Read<T> = Result<T, Malformed>;

/// Appends a number: seven bits a byte, the lowest first, the highest bit set in all but the last.
#[inline]
pub(super) fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Appends a number that may be negative: the sign in the lowest bit.
#[inline]
pub(super) fn put_signed(out: &mut Vec<u8>, number: i64) {
    put(out, ((number << 1) ^ (number >> 63)) as u64);
}

/// Appends a number that may be none.
#[inline]
pub(super) fn put_option(out: &mut Vec<u8>, number: Option<i64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_signed(out, number);
    }
}

/// Appends a length and bytes.
#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a text that may be none: its length and one, then the text; 0 if it is none.
#[inline]
pub(super) fn put_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        None => out.push(0),
        Some(text) => {
            put(out, text.len() as u64 + 1);
            out.extend_from_slice(text.as_bytes());
        }
    }
}

/// What is left of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(super) fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(super) fn number(&mut self) -> Read<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// A number of a narrower type.
    pub(super) fn narrow<T: TryFrom<u64>>(&mut self) -> Read<T> {
        T::try_from(self.number()?).map_err(|_| Malformed)
    }

    pub(super) fn signed(&mut self) -> Read<i64> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn option(&mut self) -> Read<Option<i64>> {
        if self.bool()? { self.signed().map(Some) } else { Ok(None) }
    }

    pub(super) fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = self.narrow()?;
        self.take(length)
    }

    pub(super) fn text(&mut self) -> Read<Option<&'a str>> {
        match self.narrow::<usize>()?.checked_sub(1) {
            None => Ok(None),
            Some(length) => self.characters(length).map(Some),
        }
    }

    /// The next `length` bytes, which are text.
    pub(super) fn characters(&mut self, length: usize) -> Read<&'a str> {
        str::from_utf8(self.take(length)?).map_err(|_| Malformed)
    }

    /// Checks that nothing is left.
    pub(super) fn end(self) -> Read<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_and_texts_come_back(n: u64, i: i64, option: Option<i64>, text: Option<String>) {
            let mut out = Vec::new();
            put(&mut out, n);
            put_signed(&mut out, i);
            put_option(&mut out, option);
            put_text(&mut out, text.as_deref());
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.number(), Ok(n));
            prop_assert_eq!(cursor.signed(), Ok(i));
            prop_assert_eq!(cursor.option(), Ok(option));
            prop_assert_eq!(cursor.text(), Ok(text.as_deref()));
            prop_assert_eq!(cursor.end(), Ok(()));
        }
    }

    #[test]
    fn a_number_that_does_not_fit_is_malformed() {
        assert_eq!(Cursor::new(&[0xff; 10]).number(), Err(Malformed));
        assert_eq!(Cursor::new(&[0x80; 20]).number(), Err(Malformed));
        assert_eq!(Cursor::new(&[0x80, 0x80, 0x04]).narrow::<u16>(), Err(Malformed));
        assert_eq!(Cursor::new(&[5, b'a']).text(), Err(Malformed));
    }
}
