//! The files that a server runs: its executable, and the TLS library that it has mapped.
//!
//! They are opened through `/proc`, so that it does not matter which mount namespace the server lives in, nor whether a
//! package upgrade has replaced the file since.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::probes::access::{Access, ServerFile, name_of};
use crate::probes::processes::proc;

/// A file that a process runs.
#[derive(Debug)]
pub(super) struct Object {
    /// What the server calls it.
    pub(super) name: String,
    /// Which file it is.
    pub(super) id: FileId,
    pub(super) file: File,
}

/// A file's device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub(super) device: u64,
    pub(super) inode: u64,
}

impl Object {
    /// The executable of the server's process `pid`.
    pub(super) fn executable(pid: u32, access: &dyn Access) -> io::Result<Self> {
        Self::executable_in(access.open(pid, ServerFile::Executable)?)
    }

    /// The executable that `file` is, whether anybody runs it or not.
    pub(super) fn executable_in(file: File) -> io::Result<Self> {
        let name = name_of(&file).unwrap_or_default().display().to_string();
        Self::of(file, name)
    }

    /// The TLS library that the server's process `pid` has mapped; none if it has none.
    pub(super) fn tls_library(pid: u32, access: &dyn Access) -> io::Result<Option<Self>> {
        let maps = io::read_to_string(access.open(pid, ServerFile::Maps)?)?;
        let Some((start, end, name)) = maps.lines().find_map(tls_mapping) else { return Ok(None) };
        let mapped = access.open(pid, ServerFile::Library { start, end });
        // Without the right to follow a mapping, by its path.
        let file = mapped.or_else(|error| {
            File::open(proc(pid, "root").join(name.trim_start_matches('/'))).map_err(|_| error)
        })?;
        Self::of(file, name.to_owned()).map(Some)
    }

    fn of(file: File, name: String) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { name, id: FileId { device: metadata.dev(), inode: metadata.ino() }, file })
    }
}

/// A line of `/proc/PID/maps`, `range permissions offset device inode path`, if it maps the code of OpenSSL's libssl:
/// the range and the path.
fn tls_mapping(line: &str) -> Option<(u64, u64, &str)> {
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    let permissions = fields.next()?;
    let path = fields.nth(3)?.trim_start();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let name = Path::new(path).file_name()?.to_str()?;
    let is_tls = permissions.contains('x') && name.starts_with("libssl") && name.contains(".so");
    if is_tls { Some((address(start)?, address(end)?, path)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_by_its_code() {
        let code =
            "7f00-7f10 r-xp 0001d000 fe:01 1234                       /usr/lib/x86_64-linux-gnu/libssl.so.3";
        assert_eq!(tls_mapping(code), Some((0x7f00, 0x7f10, "/usr/lib/x86_64-linux-gnu/libssl.so.3")));
        let replaced = format!("{code} (deleted)");
        assert_eq!(tls_mapping(&replaced), tls_mapping(code));
        assert_eq!(tls_mapping(&code.replace("r-xp", "r--p")), None);
        assert_eq!(tls_mapping(&code.replace("libssl", "libcrypto")), None);
        assert_eq!(tls_mapping("7f00-7f10 r-xp 0 00:00 0"), None);
        assert_eq!(tls_mapping(""), None);
    }
}
