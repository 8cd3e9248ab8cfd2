//! The kernel side's names in the BPF file system: what holds it while no agent runs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::MapInfo;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::loaded_programs;
use rustix::fs::statfs;

use super::processes;

/// The folder in which one data directory's kernel side is pinned: maps, and the links that keep its programs
/// attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// The pins of the agent of `data_dir`, below `root`; none if nothing is to be pinned.
    pub fn of(root: &Path, data_dir: &Path) -> Option<Self> {
        let data_dir = fs::canonicalize(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        (!root.as_os_str().is_empty()).then(|| Self { folder: root.join(name(&data_dir)) })
    }

    /// All pins below `root`, whosever they are.
    pub fn all(root: &Path) -> Vec<Self> {
        let folders = fs::read_dir(root).into_iter().flatten().flatten();
        let mut all: Vec<_> = folders.map(|entry| Self { folder: entry.path() }).collect();
        all.sort_by(|a, b| a.folder.cmp(&b.folder));
        all
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder's own name, which no other data directory's has.
    pub fn name(&self) -> &OsStr {
        self.folder.file_name().unwrap_or_default()
    }

    /// Whether anything is pinned.
    pub fn exist(&self) -> bool {
        fs::read_dir(&self.folder).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The process that uses what is pinned, if one does.
    pub fn user(&self) -> Option<u32> {
        let ring = MapInfo::from_pin(self.map("RING")).ok()?.id();
        processes::all().into_iter().find(|pid| processes::maps_held(*pid).contains(&ring))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.folder.join(format!("map_{name}"))
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.folder.join(format!("link_{name}"))
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(format!("prog_{name}"))
    }

    /// The names of the links that are pinned.
    pub(super) fn links(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("link_")?.to_owned()))
            .collect()
    }

    /// Makes the folder, and mounts the BPF file system first if it is not.
    pub(super) fn prepare(&self) -> io::Result<()> {
        let mount = self.folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
        if statfs(mount)?.f_type != BPF_FS_MAGIC {
            if !self.folder.starts_with(MOUNT) {
                return Err(io::Error::other(format!("{} is not in a BPF file system", mount.display())));
            }
            mount_bpf(Path::new(MOUNT))?;
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// Removes the pins of everything that is attached, and with it all hooks; the maps stay. No agent adopts what is
    /// left. No program runs any more when this returns, if nobody else holds one.
    pub(super) fn clear_hooks(&self) -> io::Result<()> {
        let attached = self.attached();
        // Without it the rest counts as incomplete.
        fs::remove_file(self.map("META"))?;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with("map_") {
                fs::remove_file(entry.path())?;
            }
        }
        wait_gone(&attached);
        Ok(())
    }

    /// Removes every pin. With the last name of a link, the kernel detaches its program; waits until it has. Returns how many
    /// there were.
    pub fn clear(&self) -> io::Result<usize> {
        let attached = self.attached();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for entry in entries {
            fs::remove_file(entry?.path())?;
            removed += 1;
        }
        fs::remove_dir(&self.folder)?;
        wait_gone(&attached);
        Ok(removed)
    }

    /// The programs that are attached by what is pinned, by the kernel's numbers.
    fn attached(&self) -> HashSet<u32> {
        let program = |name: String| {
            let link = PinnedLink::from_pin(self.link(&name)).ok()?;
            Some(FdLink::from(link).info().ok()?.program_id())
        };
        self.links().into_iter().filter_map(program).collect()
    }
}

/// Waits until none of these programs is loaded. The kernel leaves it to a thread of its own to detach what had a name
/// (`bpf_link_put` in `kernel/bpf/syscall.c`); on a busy host that takes milliseconds.
fn wait_gone(programs: &HashSet<u32>) {
    let any = || loaded_programs().flatten().any(|program| programs.contains(&program.id()));
    for _ in 0..GONE_LOOKS {
        if programs.is_empty() || !any() {
            return;
        }
        std::thread::park_timeout(GONE_PAUSE);
    }
    tracing::warn!("the kernel still has hooks seconds after they were removed: somebody else holds them");
}

/// Three seconds and more.
const GONE_LOOKS: u32 = 1_500;
const GONE_PAUSE: Duration = Duration::from_millis(2);

/// A file name that no other data directory has. The BPF file system allows no dots.
fn name(data_dir: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    // FNV-1a, 64 bits: the name must be the same in every version.
    let hash = data_dir.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

fn mount_bpf(at: &Path) -> io::Result<()> {
    rustix::mount::mount("bpf", at, "bpf", rustix::mount::MountFlags::empty(), None)?;
    tracing::info!(at = %at.display(), "mounted the BPF file system");
    Ok(())
}

const MOUNT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `include/uapi/linux/magic.h`
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_data_directory_has_its_own_name_and_keeps_it() {
        assert_eq!(name(Path::new("/var/lib/capture")), name(Path::new("/var/lib/capture")));
        assert_ne!(name(Path::new("/a")), name(Path::new("/b")));
        assert_eq!(name(Path::new("")), "cbf29ce484222325");
    }
}
