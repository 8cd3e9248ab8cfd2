//! What of a decoder is saved with its session.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Decoder, HEADER, Mode, Partial, Side, public};

/// A [`Decoder`] as it is saved: without secrets, and with a bound.
#[derive(Serialize, Deserialize)]
struct Saved<'a> {
    side: Side,
    mode: Mode,
    offset: u64,
    head: [u8; HEADER],
    head_len: usize,
    partial: Option<Partial>,
    /// Bytes in the buffer. What `kept` lacks of them is secret: its place is filled with zeros.
    buffered: usize,
    #[serde(borrow, with = "serde_bytes")]
    kept: Cow<'a, [u8]>,
}

impl Serialize for Decoder {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { side, mode, offset, head, head_len, mut partial, ref buffer, spent } = *self;
        let head_len = if spent { 0 } else { head_len };
        partial = partial.filter(|_| !spent);
        let mut kept = buffer.as_slice();
        let mut buffered = 0;
        match &mut partial {
            None => kept = &[],
            Some(partial) => {
                if let Some(first) = kept.get(..MOST) {
                    kept = first;
                    partial.room = 0;
                    partial.truncated = true;
                }
                buffered = kept.len();
                kept = public(side, partial.tag, kept);
            }
        }
        Saved { side, mode, offset, head, head_len, partial, buffered, kept: kept.into() }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Decoder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Saved { side, mode, offset, head, head_len, partial, buffered, kept } =
            Saved::deserialize(deserializer)?;
        let mut buffer = kept.into_owned();
        buffer.resize(buffered.min(MOST), 0);
        Ok(Self { side, mode, offset, head, head_len: head_len.min(HEADER), partial, buffer, spent: false })
    }
}

/// Bytes of an incomplete message that are saved. It is saved again with each step of its session; a message that
/// is longer when the agent dies is recorded as cut off.
const MOST: usize = 1 << 20;
