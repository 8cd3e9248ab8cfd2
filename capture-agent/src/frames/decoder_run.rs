//! Messages of one type that follow each other, taken off together or passed over.

use super::{Decoder, Mode};

impl Decoder {
    /// Takes whole messages of type `tag` that follow each other off the front of `input`: at most `count` of them, whose
    /// bodies have at most `room` bytes together. Yields them in one piece, and how many they are.
    pub fn run<'i>(&mut self, tag: u8, input: &mut &'i [u8], count: u64, room: u64) -> (&'i [u8], usize) {
        let all = *input;
        let (mut rest, mut taken, mut left) = (all, 0, room);
        if self.mode != Mode::Messages || !(self.at_boundary() || self.spent) || all.first() != Some(&tag) {
            return (&[], 0);
        }
        // None of what is secret.
        let most = self.everyday_length(tag);
        while let [kind, a, b, c, d, after @ ..] = rest
            && *kind == tag
            && (taken as u64) < count
        {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            let Some(body) = length.checked_sub(4).filter(|_| length <= most) else { break };
            let Some(after) = after.get(body as usize..) else { break };
            let Some(less) = left.checked_sub(u64::from(body)) else { break };
            (rest, left) = (after, less);
            taken += 1;
        }
        let (run, _) = all.split_at(all.len() - rest.len());
        if taken > 0 {
            if self.spent {
                self.drop_partial();
            }
            *input = rest;
            self.offset = self.offset.saturating_add(run.len() as u64);
        }
        (run, taken)
    }

    /// The type of the message that is being gathered, once its header is complete.
    pub fn gathers(&self) -> Option<u8> {
        self.partial.filter(|_| !self.spent).map(|partial| partial.tag)
    }

    /// Passes over `length` bytes that are known to end where a message does, or with the stream. How many bytes of the
    /// message that was being gathered had come, if any had.
    pub fn pass(&mut self, length: u64) -> Option<u64> {
        let begun = (!self.at_boundary() && !self.spent).then(|| self.offset - self.frame_start());
        self.drop_partial();
        self.offset = self.offset.saturating_add(length);
        begun
    }
}
