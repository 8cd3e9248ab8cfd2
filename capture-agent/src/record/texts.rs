//! A column of texts that rarely repeat: one behind the other.

use std::fmt;
use std::sync::Arc;

use arrow::array::{ArrayRef, NullBufferBuilder, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

/// Builds a column of texts, each of which is written to it piece by piece and then ended.
#[derive(Debug)]
pub(super) struct Texts {
    /// Nothing but UTF-8.
    text: Vec<u8>,
    /// Where each text ends, behind where the first begins.
    ends: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl Texts {
    /// An empty column.
    pub(super) fn new() -> Self {
        Self { text: Vec::new(), ends: vec![0], nulls: NullBufferBuilder::new(0) }
    }

    /// Writes `bytes`, if they are ASCII: that is text in every encoding.
    #[inline]
    pub(super) fn write_ascii(&mut self, bytes: &[u8]) -> bool {
        let is_ascii = bytes.is_ascii();
        if is_ascii {
            self.text.extend_from_slice(bytes);
        }
        is_ascii
    }

    /// Ends the text that was written since the last one.
    #[inline]
    pub(super) fn end(&mut self) {
        // A batch is cut long before it has 2^31 bytes; one that is not is malformed.
        self.ends.push(i32::try_from(self.text.len()).unwrap_or(i32::MAX));
        self.nulls.append_non_null();
    }

    /// Appends that there is no text.
    #[inline]
    pub(super) fn append_null(&mut self) {
        self.ends.push(i32::try_from(self.text.len()).unwrap_or(i32::MAX));
        self.nulls.append_null();
    }

    /// Texts so far.
    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Memory in use.
    pub(super) fn bytes(&self) -> usize {
        self.text.len() + size_of_val(self.ends.as_slice())
    }

    /// The column, and in its place an empty one with room for as much again, and some more: growing would copy each text once
    /// more.
    ///
    /// # Errors
    ///
    /// The texts are too many bytes for a column.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let room = Vec::with_capacity(some_more(self.text.len()).min(MOST_ROOM));
        let text = Buffer::from(std::mem::replace(&mut self.text, room));
        let mut room = Vec::with_capacity(some_more(self.ends.len()));
        room.push(0);
        let ends = ScalarBuffer::from(std::mem::replace(&mut self.ends, room));
        let nulls = self.nulls.finish();
        if usize::try_from(ends.last().copied().unwrap_or(0)) != Ok(text.len()) {
            return Err(ArrowError::OffsetOverflowError(text.len()));
        }
        Ok(Arc::new(StringArray::try_new(OffsetBuffer::new(ends), text, nulls)?))
    }
}

impl fmt::Write for Texts {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A little more than `length`, and the same for lengths that differ little: what one batch gives back then fits the next.
fn some_more(length: usize) -> usize {
    let step = (length.next_power_of_two() / 4).max(64);
    (length + length / 8).next_multiple_of(step)
}

/// Bytes of text that an empty column has room for at most. Most batches have less.
const MOST_ROOM: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use arrow::array::AsArray as _;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn texts_come_back(rows: Vec<Option<String>>) {
            let mut column = Texts::new();
            for _ in 0..2 {
                for row in &rows {
                    match row {
                        Some(text) => {
                            if !column.write_ascii(text.as_bytes()) {
                                text.chars().for_each(|c| column.write_char(c).unwrap());
                            }
                            column.end();
                        }
                        None => column.append_null(),
                    }
                }
                prop_assert_eq!(column.len(), rows.len());
                let finished = column.finish().unwrap();
                let texts: Vec<_> = finished.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect();
                prop_assert_eq!(&texts, &rows);
            }
        }
    }
}
