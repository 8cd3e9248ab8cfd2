//! File systems of a test's own, in loop devices: what becomes of them harms nobody else.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::deps;

/// A file system in a file, mounted or not.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    folder: PathBuf,
    _parent: tempfile::TempDir,
}

impl Disk {
    /// Makes a file system of `bytes` with this program, such as `mkfs.ext4`. It is not mounted yet.
    ///
    /// # Errors
    /// The program is missing, or fails.
    pub fn make(program: &str, bytes: u64) -> anyhow::Result<Self> {
        deps::require_root()?;
        // In memory: what the device has taken is there at once, however busy the machine's own disk is.
        let parent = tempfile::tempdir_in("/dev/shm")?;
        let disk =
            Self { image: parent.path().join("image"), folder: parent.path().join("disk"), _parent: parent };
        fs::create_dir(&disk.folder)?;
        File::create(&disk.image)?.set_len(bytes)?;
        deps::run(Command::new(program).arg("-q").arg(&disk.image))?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Mounts it.
    ///
    /// # Errors
    /// The kernel does not know its kind, or it is damaged.
    pub fn mount(&self) -> anyhow::Result<()> {
        deps::run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.folder)).map(drop)
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// Somebody uses it.
    pub fn unmount(&self) -> anyhow::Result<()> {
        deps::run(Command::new("umount").arg(&self.folder)).map(drop)
    }

    /// Cuts the power of an ext4 that is mounted: what is not on the disk is dropped, for good (`EXT4_IOC_SHUTDOWN` with
    /// `EXT4_GOING_FLAGS_NOLOGFLUSH`, `fs/ext4/ext4.h`, as the kernel's own tests do it). It takes nothing any more until it is
    /// mounted again.
    ///
    /// # Errors
    /// It is no ext4.
    pub fn cut_power(&self) -> anyhow::Result<()> {
        let program = "import fcntl, os, struct, sys\n\
            fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        let mut python = Command::new(deps::python()?);
        deps::run(python.args(["-c", program]).arg(&self.folder)).context("cannot cut the power").map(drop)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Of a test that failed in between.
        let _ = Command::new("umount").arg("-lq").arg(&self.folder).status();
    }
}
