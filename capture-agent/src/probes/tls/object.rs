//! The files that a server runs: its executable, and the TLS library that it has mapped.
//!
//! They are opened through `/proc`, so that it does not matter which mount namespace the server lives in, nor whether a
//! package upgrade has replaced the file since.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::probes::processes::proc;

/// A file that a process runs.
#[derive(Debug)]
pub(super) struct Object {
    /// Where this process can open it.
    pub(super) path: PathBuf,
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
    /// The executable of process `pid`.
    pub(super) fn executable(pid: u32) -> std::io::Result<Self> {
        let path = proc(pid, "exe");
        let name = fs::read_link(&path)?.display().to_string();
        Self::open(path, name)
    }

    /// The TLS library that process `pid` has mapped; none if it has none.
    pub(super) fn tls_library(pid: u32) -> std::io::Result<Option<Self>> {
        let maps = fs::read_to_string(proc(pid, "maps"))?;
        let Some((range, name)) = maps.lines().find_map(tls_mapping) else { return Ok(None) };
        // The mapping leads to the file itself, also when its path leads to another one by now. It needs
        // CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
        let mapping = proc(pid, "map_files").join(range);
        let within = name.trim_start_matches('/');
        Self::open(mapping, name.to_owned())
            .or_else(|_| Self::open(proc(pid, "root").join(within), name.to_owned()))
            .map(Some)
    }

    fn open(path: PathBuf, name: String) -> std::io::Result<Self> {
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        Ok(Self { path, name, id: FileId { device: metadata.dev(), inode: metadata.ino() }, file })
    }
}

/// A line of `/proc/PID/maps`, `range permissions offset device inode path`, if it maps the code of OpenSSL's libssl:
/// the range and the path.
fn tls_mapping(line: &str) -> Option<(&str, &str)> {
    let mut fields = line.splitn(6, ' ');
    let range = fields.next()?;
    let permissions = fields.next()?;
    let path = fields.nth(3)?.trim_start();
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let name = Path::new(path).file_name()?.to_str()?;
    (permissions.contains('x') && name.starts_with("libssl") && name.contains(".so")).then_some((range, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_by_its_code() {
        let code =
            "7f00-7f10 r-xp 0001d000 fe:01 1234                       /usr/lib/x86_64-linux-gnu/libssl.so.3";
        assert_eq!(tls_mapping(code), Some(("7f00-7f10", "/usr/lib/x86_64-linux-gnu/libssl.so.3")));
        let replaced = format!("{code} (deleted)");
        assert_eq!(tls_mapping(&replaced), tls_mapping(code));
        assert_eq!(tls_mapping(&code.replace("r-xp", "r--p")), None);
        assert_eq!(tls_mapping(&code.replace("libssl", "libcrypto")), None);
        assert_eq!(tls_mapping("7f00-7f10 r-xp 0 00:00 0"), None);
        assert_eq!(tls_mapping(""), None);
    }

    #[test]
    fn this_process_has_an_executable() {
        let executable = Object::executable(std::process::id()).unwrap();
        assert_eq!(executable.name, std::env::current_exe().unwrap().display().to_string());
    }
}
