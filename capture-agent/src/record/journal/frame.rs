//! Frames: what the journal's file is made of. One write is one frame, and the last frame of a transaction says so.
//!
//! ```text
//! crc u32 | length u32 | flags u8 | lsn u64 | payload
//! ```
//!
//! The checksum, CRC-32C, covers everything after itself. The position tells a frame from one that an older file
//! left on the same block. Records may run from one frame into the next of the same transaction.

use std::io::{self, Read};

use super::super::lsn::Lsn;

/// Bytes of a frame before its payload.
pub(super) const HEADER: usize = 17;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    crc: u32,
    /// Bytes of the payload.
    pub(super) length: u32,
    /// Whether it ends a transaction.
    pub(super) commits: bool,
    lsn: Lsn,
}

/// Fills in the header at the beginning of `buffer`, whose payload is the rest of it and `tail`.
pub(super) fn seal(buffer: &mut [u8], tail: &[u8], lsn: Lsn, commits: bool) {
    let Some((header, payload)) = buffer.split_first_chunk_mut::<HEADER>() else { return };
    // The buffer is flushed long before it has 4 GiB, and no message body has.
    let length = u32::try_from(payload.len() + tail.len()).unwrap_or(u32::MAX);
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8] = u8::from(commits);
    header[9..].copy_from_slice(&lsn.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&buffer[4..]), tail);
    buffer[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A frame whose payload is written piece by piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pieces {
    crc: u32,
}

impl Pieces {
    /// Begins a frame that does not end a transaction: yields its header, but for the checksum, which stands first.
    pub(super) fn begin(length: u32, lsn: Lsn) -> (Self, [u8; HEADER]) {
        let mut header = [0; HEADER];
        header[4..8].copy_from_slice(&length.to_le_bytes());
        header[9..].copy_from_slice(&lsn.0.to_le_bytes());
        (Self { crc: crc32c::crc32c(&header[4..]) }, header)
    }

    /// A piece of the payload.
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, piece);
    }

    /// The checksum.
    pub(super) fn finish(self) -> [u8; 4] {
        self.crc.to_le_bytes()
    }
}

impl Header {
    /// Reads a header at `lsn`; none if there is none.
    pub(super) fn parse(bytes: &[u8; HEADER], lsn: Lsn) -> Option<Self> {
        let [c0, c1, c2, c3, l0, l1, l2, l3, flags, position @ ..] = *bytes;
        let header = Self {
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
            length: u32::from_le_bytes([l0, l1, l2, l3]),
            commits: flags == 1,
            lsn: Lsn(u64::from_le_bytes(position)),
        };
        (header.lsn == lsn && flags <= 1).then_some(header)
    }
}

/// Where the last complete transaction ends, as an offset from where `file` stands, which is `lsn`. Holds a block
/// of the file at a time, whatever its lengths claim.
///
/// # Errors
///
/// The file cannot be read.
pub(super) fn committed(mut file: impl Read, lsn: Lsn) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let (mut offset, mut committed) = (0u64, 0u64);
    loop {
        let mut bytes = [0; HEADER];
        if !fill(&mut file, &mut bytes)? {
            return Ok(committed);
        }
        let Some(at) = lsn.0.checked_add(offset) else { return Ok(committed) };
        let Some(header) = Header::parse(&bytes, Lsn(at)) else { return Ok(committed) };
        let mut crc = crc32c::crc32c(&bytes[4..]);
        let mut left = header.length as usize;
        while left > 0 {
            let part = &mut block[..left.min(BLOCK)];
            if !fill(&mut file, part)? {
                return Ok(committed);
            }
            crc = crc32c::crc32c_append(crc, part);
            left -= part.len();
        }
        if crc != header.crc {
            return Ok(committed);
        }
        offset += HEADER as u64 + u64::from(header.length);
        if header.commits {
            committed = offset;
        }
    }
}

/// Fills `bytes`. False if the file ends before.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Bytes that are read at a time.
const BLOCK: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frames one after the other, and where each transaction ends.
    fn file(frames: &[(Vec<u8>, bool)], lsn: u64) -> (Vec<u8>, Vec<usize>) {
        let (mut file, mut ends) = (Vec::new(), vec![0]);
        for (payload, commits) in frames {
            let (head, tail) = payload.split_at(payload.len() / 2);
            let mut buffer = vec![0; HEADER];
            buffer.extend_from_slice(head);
            seal(&mut buffer, tail, Lsn(lsn + file.len() as u64), *commits);
            file.extend_from_slice(&buffer);
            file.extend_from_slice(tail);
            if *commits {
                ends.push(file.len());
            }
        }
        (file, ends)
    }

    fn frames() -> impl Strategy<Value = Vec<(Vec<u8>, bool)>> {
        let payload = proptest::collection::vec(any::<u8>(), 0..40);
        proptest::collection::vec((payload, any::<bool>()), 0..8)
    }

    proptest! {
        #[test]
        fn a_file_cut_anywhere_ends_with_its_last_complete_transaction(frames in frames(), lsn in 0u64..1 << 60) {
            let (file, ends) = file(&frames, lsn);
            for cut in 0..=file.len() {
                let expected = ends.iter().copied().filter(|end| *end <= cut).max().unwrap_or(0);
                prop_assert_eq!(committed(&file[..cut], Lsn(lsn)).unwrap(), expected as u64);
            }
        }

        #[test]
        fn a_flipped_bit_ends_the_file_before_its_transaction(frames in frames(), bit: prop::sample::Index) {
            let (mut file, ends) = file(&frames, 7);
            prop_assume!(!file.is_empty());
            let bit = bit.index(file.len() * 8);
            file[bit / 8] ^= 1 << (bit % 8);
            let expected = ends.iter().copied().filter(|end| *end <= bit / 8).max().unwrap_or(0);
            prop_assert_eq!(committed(&file[..], Lsn(7)).unwrap(), expected as u64);
        }
    }

    #[test]
    fn a_frame_of_another_place_is_no_frame() {
        let (file, _) = file(&[(b"rows".to_vec(), true)], 64);
        assert_eq!(committed(&file[..], Lsn(65)).unwrap(), 0);
        assert_eq!(committed(&file[..], Lsn(64)).unwrap(), file.len() as u64);
    }
}
