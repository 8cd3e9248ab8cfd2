//! A segment: one file of the journal, named by the position at which it begins.
//!
//! ```text
//! magic [u8; 8] | version u32 | interrupted u32 | journal id u128 | first lsn u64 | created u64 | agent [u8; 24] | crc u32
//! ```
//!
//! Little-endian. The checksum, CRC-32C, covers everything before itself but `interrupted`, which is set later.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::super::lsn::Lsn;
use super::frame::Pieces;
use crate::telemetry;

/// The format of this build, which reads all before it too: 2 has decisions, 3 what was masked, 4 rows that follow each other.
pub(in crate::record) const VERSION: u32 = 4;

/// Bytes of a segment before its first frame.
pub(super) const HEADER: usize = 76;

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The journal that it belongs to.
    pub(super) journal: u128,
    /// The position of its first byte.
    pub(super) first: Lsn,
    /// When it was made: Unix time in milliseconds, never less than that of a file or segment before it.
    pub(super) created: u64,
    /// Whether something was recorded after its last transaction that the journal could not take.
    pub(super) interrupted: bool,
}

/// Why a segment's beginning cannot be used.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// A later version wrote it: its number.
    Newer(u32),
    /// It is torn, or no segment.
    Torn,
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof { Self::Torn } else { Self::Io(error) }
    }
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::from(self.interrupted).to_le_bytes());
        bytes[16..32].copy_from_slice(&self.journal.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.created.to_le_bytes());
        let agent = telemetry::version().as_bytes();
        for (place, byte) in bytes[48..72].iter_mut().zip(agent) {
            *place = *byte;
        }
        let crc = checksum(&bytes);
        bytes[72..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the beginning of a segment.
    pub(super) fn read(mut file: impl Read) -> Result<Self, HeaderError> {
        let mut known = [0; 12];
        file.read_exact(&mut known)?;
        let version = u32::from_le_bytes([known[8], known[9], known[10], known[11]]);
        if &known[..8] != MAGIC {
            return Err(HeaderError::Torn);
        }
        if version > VERSION {
            return Err(HeaderError::Newer(version));
        }
        let mut bytes = [0; HEADER];
        bytes[..12].copy_from_slice(&known);
        file.read_exact(&mut bytes[12..])?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| bytes[at + n]));
        if u32::from_le_bytes(std::array::from_fn(|n| bytes[72 + n])) != checksum(&bytes) {
            return Err(HeaderError::Torn);
        }
        Ok(Self {
            journal: u128::from_le_bytes(std::array::from_fn(|n| bytes[16 + n])),
            first: Lsn(number(32)),
            created: number(40),
            interrupted: bytes[12] != 0,
        })
    }
}

fn checksum(header: &[u8; HEADER]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..12]), &header[16..72])
}

/// A file for the next segment, with space reserved. Whoever makes it may have to wait for the disk.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    path: PathBuf,
}

impl Spare {
    /// Makes one in `folder` with space for `size` bytes, and with their memory if it is to be `warm`. There is one at a time.
    /// Leaves nothing behind on an error.
    pub(super) fn create(folder: &Path, size: u64, warm: bool) -> io::Result<Self> {
        let path = folder.join(SPARE);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let spare = Self { file, path };
        let made =
            reserve(&spare.file, size).and_then(|()| if warm { warm_up(&spare.file, size) } else { Ok(()) });
        match made {
            Ok(()) => Ok(spare),
            Err(error) => {
                spare.remove();
                Err(error)
            }
        }
    }

    /// Nobody needs it.
    pub(super) fn remove(self) {
        // If it cannot be removed now, the next agent does.
        let _ = fs::remove_file(&self.path);
    }

    /// Removes one that an earlier agent left.
    pub(super) fn remove_left(folder: &Path) {
        let _ = fs::remove_file(folder.join(SPARE));
    }
}

fn reserve(file: &File, size: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        // Not every file system can reserve; then a full disk is found out later.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Has the kernel hold the first `size` bytes of an empty file in memory, as zeros: whoever writes them does not wait for pages,
/// which a virtual machine's host may have to find first. Where frames end, zeros are none.
fn warm_up(mut file: &File, size: u64) -> io::Result<()> {
    file.set_len(size)?;
    let mut block = vec![0; COPIED_AT_ONCE];
    while file.read(&mut block)? > 0 {}
    file.rewind()
}

/// A segment that grows.
#[derive(Debug)]
pub(super) struct Segment {
    file: Arc<File>,
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// Bytes so far.
    bytes: u64,
}

impl Segment {
    /// Begins a segment in `folder`, with space for `size` bytes, so that what is recorded next cannot fail for lack
    /// of it: in `spare`, if there is one. Leaves nothing behind on an error.
    pub(super) fn create(folder: &Path, header: Header, size: u64, spare: Option<Spare>) -> io::Result<Self> {
        let path = folder.join(name(header.first));
        // The folder may have been removed since.
        let spare = spare.filter(|spare| fs::rename(&spare.path, &path).is_ok());
        let (file, reserved) = match spare {
            Some(spare) => (spare.file, true),
            None => {
                let mut options = OpenOptions::new();
                (options.read(true).write(true).create_new(true).mode(0o600).open(&path)?, false)
            }
        };
        let mut segment = Self { file: Arc::new(file), path, header, bytes: 0 };
        let begun = if reserved { Ok(()) } else { reserve(&segment.file, size) };
        let begun = begun.and_then(|()| segment.write(&header.bytes(), &[]));
        if let Err(error) = begun {
            let _ = fs::remove_file(&segment.path);
            return Err(error);
        }
        Ok(segment)
    }

    /// Appends `head` and `tail`, in one call if the system takes all at once.
    pub(super) fn write(&mut self, head: &[u8], tail: &[u8]) -> io::Result<()> {
        let (mut head, mut tail) = (head, tail);
        while !head.is_empty() || !tail.is_empty() {
            let written = match (&*self.file).write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.bytes += written as u64;
            let of_head = written.min(head.len());
            head = &head[of_head..];
            tail = &tail[written - of_head..];
        }
        Ok(())
    }

    /// Appends a frame whose payload stands in another file, without holding it in memory.
    pub(super) fn copy(&mut self, from: &File, offset: u64, length: u64) -> io::Result<()> {
        let too_long = |_| io::Error::other("a frame has less than 4 GiB");
        let start = self.bytes;
        let lsn = Lsn(self.header.first.0 + start);
        let (mut pieces, header) = Pieces::begin(u32::try_from(length).map_err(too_long)?, lsn);
        self.write(&header, &[])?;
        let mut block = vec![0; COPIED_AT_ONCE];
        let mut copied = 0;
        while copied < length {
            let left = usize::try_from(length - copied).unwrap_or(usize::MAX);
            let piece = &mut block[..left.min(COPIED_AT_ONCE)];
            from.read_exact_at(piece, offset + copied)?;
            pieces.add(piece);
            self.write(piece, &[])?;
            copied += piece.len() as u64;
        }
        self.file.write_all_at(&pieces.finish(), start)
    }

    /// Bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A handle on the file.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Whether somebody removed it, or its folder.
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

/// Gives back the space that an earlier agent reserved in its segment and did not use: one that is ended again and again
/// would fill the disk.
pub(super) fn give_back(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(file.metadata()?.len())
}

/// Says in a segment's header that more was recorded than the journal could take. The place was written before, so
/// that a full disk takes it.
pub(super) fn set_interrupted(file: &File) -> io::Result<()> {
    file.write_all_at(&1u32.to_le_bytes(), 12)
}

/// A segment's name: the position of its first byte.
fn name(first: Lsn) -> String {
    format!("{:020}{SUFFIX}", first.0)
}

/// The segments in a folder by their names, in their order.
pub(super) fn list(folder: &Path) -> io::Result<Vec<(Lsn, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let first = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(SUFFIX))
            .filter(|name| name.len() == 20)
            .and_then(|name| name.parse().ok());
        if let Some(first) = first {
            found.push((Lsn(first), path));
        }
    }
    found.sort();
    Ok(found)
}

const MAGIC: &[u8; 8] = b"CAPTJRNL";

const SUFFIX: &str = ".seg";
const SPARE: &str = "spare";

/// Bytes that are copied at a time.
const COPIED_AT_ONCE: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 1 << 20;

    fn header() -> Header {
        Header { journal: 7, first: Lsn(1_000), created: 5, interrupted: false }
    }

    #[test]
    fn a_header_comes_back_also_when_it_is_marked() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), header(), SIZE, None).unwrap();
        assert_eq!(segment.path.file_name().unwrap(), "00000000000000001000.seg");
        assert_eq!(segment.file.metadata().unwrap().mode() & 0o777, 0o600);
        let read = || Header::read(File::open(&segment.path).unwrap()).unwrap();
        assert_eq!(read(), header());
        set_interrupted(&segment.file).unwrap();
        assert_eq!(read(), Header { interrupted: true, ..header() });
    }

    #[test]
    fn a_spare_becomes_a_segment_and_without_its_folder_another_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let spare = Spare::create(folder.path(), SIZE, false).unwrap();
        assert!(list(folder.path()).unwrap().is_empty());
        let segment = Segment::create(folder.path(), header(), SIZE, Some(spare)).unwrap();
        assert_eq!(Header::read(File::open(&segment.path).unwrap()).unwrap(), header());
        assert_eq!(list(folder.path()).unwrap().len(), 1);
        let spare = Spare::create(folder.path(), SIZE, true).unwrap();
        Spare::remove_left(folder.path());
        let other = Header { first: Lsn(2_000), ..header() };
        Segment::create(folder.path(), other, SIZE, Some(spare)).unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 2);
    }

    #[test]
    fn what_was_reserved_and_not_used_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let segment = Segment::create(folder.path(), header(), SIZE, None).unwrap();
        let file = || segment.file.metadata().unwrap();
        let (length, reserved) = (file().len(), file().blocks() * 512);
        give_back(&segment.path).unwrap();
        assert_eq!(file().len(), length);
        // Not every file system reserves.
        assert!(reserved < SIZE || file().blocks() * 512 < SIZE, "{} blocks", file().blocks());
    }

    #[test]
    fn a_torn_header_is_told_from_a_newer_one() {
        let bytes = header().bytes();
        for cut in 0..HEADER {
            assert!(matches!(Header::read(&bytes[..cut]), Err(HeaderError::Torn)), "{cut}");
        }
        for at in (0..HEADER).filter(|at| !(8..16).contains(at)) {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            assert!(matches!(Header::read(&bytes[..]), Err(HeaderError::Torn)), "{at}");
        }
        let mut newer = bytes;
        newer[8] = VERSION as u8 + 1;
        assert!(
            matches!(Header::read(&newer[..40]), Err(HeaderError::Newer(version)) if version == VERSION + 1)
        );
    }

    #[test]
    fn an_earlier_versions_segment_is_read() {
        let mut bytes = header().bytes();
        bytes[8] = 1;
        let crc = checksum(&bytes);
        bytes[72..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::read(&bytes[..]).unwrap(), header());
    }

    #[test]
    fn segments_are_listed_in_their_order_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for first in [30, 4, 100] {
            Segment::create(folder.path(), Header { first: Lsn(first), ..header() }, SIZE, None).unwrap();
        }
        fs::write(folder.path().join("lock"), "").unwrap();
        fs::write(folder.path().join("5.seg"), "").unwrap();
        let listed = list(folder.path()).unwrap();
        assert_eq!(listed.iter().map(|(first, _)| first.0).collect::<Vec<_>>(), [4, 30, 100]);
    }
}
