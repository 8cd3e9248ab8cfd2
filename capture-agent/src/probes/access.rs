//! What the kernel tells of another process only to whoever might trace it: `ptrace_may_access` in `kernel/ptrace.c`, which
//! asks for CAP_SYS_PTRACE. All of it is asked here, as one of a closed set of questions, so that a process that has the
//! right can answer for one that has not.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use super::guarded;

/// A question about another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Which processes run a server's executable.
    Servers,
    /// The path of a process's executable. This and the former are answered of every process, all others of those that
    /// run a server's executable.
    Executable(u32),
    /// The descriptors of a process that are sockets, with the inode of each.
    Sockets(u32),
    /// Which process connected to the Unix socket behind a process's descriptor.
    Peer(u32, u32),
    /// How many bytes a process has received from the TCP socket behind its descriptor, and sent to it.
    Moved(u32, u32),
    /// Whether a process sleeps until one of its descriptors is ready.
    Sleeps(u32),
    /// A file, to be read.
    File(u32, ServerFile),
}

/// What can be opened of a process that runs a server's executable. Never a folder, which would lead to everything
/// beside it, and never its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerFile {
    /// What it runs.
    Executable,
    /// The list of its mappings.
    Maps,
    /// `postmaster.pid` in its working directory.
    PidFile,
    /// `PG_VERSION` in its working directory.
    Version,
    /// The object file that is mapped in this range of addresses.
    Library {
        /// The first.
        start: u64,
        /// The one after the last.
        end: u64,
    },
}

/// The answer. Which part of it there is depends on the question.
#[derive(Debug, Default)]
pub struct Answer {
    /// Numbers, or a text.
    pub bytes: Vec<u8>,
    /// A file that is open for reading.
    pub file: Option<File>,
}

/// Somebody who answers: this process, or one that has more rights.
pub trait Access {
    /// Asks.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotConnected`]: nobody is there to answer. All others are about the process: it is gone, or the kernel
    /// refuses.
    fn ask(&self, question: Question) -> io::Result<Answer>;

    /// The processes that run a server's executable.
    fn servers(&self) -> io::Result<Vec<u32>> {
        Ok(self.ask(Question::Servers)?.numbers().filter_map(|pid| u32::try_from(pid).ok()).collect())
    }

    /// The path of a process's executable; none if the process is gone.
    fn executable(&self, pid: u32) -> io::Result<Option<PathBuf>> {
        use std::os::unix::ffi::OsStringExt as _;
        let answer = if_any(self.ask(Question::Executable(pid)))?;
        Ok(answer.map(|answer| std::ffi::OsString::from_vec(answer.bytes).into()))
    }

    /// The descriptors of a server's process that are sockets, with the inode of each.
    fn sockets(&self, pid: u32) -> Vec<(u32, u64)> {
        let Ok(answer) = self.ask(Question::Sockets(pid)) else { return Vec::new() };
        let numbers: Vec<u64> = answer.numbers().collect();
        numbers.chunks_exact(2).filter_map(|pair| Some((u32::try_from(pair[0]).ok()?, pair[1]))).collect()
    }

    /// The process that connected to the Unix socket behind a descriptor of a server's process.
    fn unix_peer(&self, pid: u32, fd: u32) -> Option<u32> {
        u32::try_from(self.ask(Question::Peer(pid, fd)).ok()?.numbers().next()?).ok()
    }

    /// Bytes that a server's process has received from its TCP socket and sent to it, since it was connected. None if that
    /// cannot be told: of another socket, or while more pass.
    fn tcp_moved(&self, pid: u32, fd: u32) -> Option<[u64; 2]> {
        let answer = self.ask(Question::Moved(pid, fd)).ok()?;
        let mut numbers = answer.numbers();
        Some([numbers.next()?, numbers.next()?])
    }

    /// Whether a server's process sleeps until one of its descriptors is ready: then it is in no call that moves bytes.
    fn waits_for_events(&self, pid: u32) -> bool {
        self.ask(Question::Sleeps(pid)).is_ok_and(|answer| answer.numbers().next() == Some(1))
    }

    /// Opens a file of a server's process.
    ///
    /// # Errors
    ///
    /// As [`Access::ask`].
    fn open(&self, pid: u32, file: ServerFile) -> io::Result<File> {
        self.ask(Question::File(pid, file))?.file.ok_or_else(|| ErrorKind::InvalidData.into())
    }

    /// Opens a file of a server's process, if the process is there and has it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotConnected`]: nobody is there to answer.
    fn open_if_any(&self, pid: u32, file: ServerFile) -> io::Result<Option<File>> {
        if_any(self.open(pid, file))
    }
}

/// What there is; an error only if nobody is there to answer.
fn if_any<T>(answer: io::Result<T>) -> io::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.kind() == ErrorKind::NotConnected => Err(error),
        Err(_) => Ok(None),
    }
}

/// This process answers for itself: it needs CAP_SYS_PTRACE.
#[derive(Clone, Copy, Debug)]
pub struct OwnRights;

impl Access for OwnRights {
    fn ask(&self, question: Question) -> io::Result<Answer> {
        guarded::answer(question)
    }
}

impl Answer {
    pub(super) fn of_numbers(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self { bytes: numbers.into_iter().flat_map(u64::to_le_bytes).collect(), file: None }
    }

    pub(super) fn of_file(file: File) -> Self {
        Self { bytes: Vec::new(), file: Some(file) }
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.bytes.chunks_exact(8).filter_map(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?)))
    }
}

/// Where this process can open again what it has open.
pub(super) fn path_of(file: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// What the kernel calls an open file.
pub(super) fn name_of(file: &File) -> Option<PathBuf> {
    fs::read_link(path_of(file)).ok()
}
