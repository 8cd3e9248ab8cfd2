//! The answers to [`Question`]s, for whoever has CAP_SYS_PTRACE: the agent where it is alone, or the shim beside it. Nothing
//! that depends on what another process says is parsed here, but for the kernel's own short lines.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::net::sockopt::socket_peercred;
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::access::{Answer, Question, ServerFile};
use super::processes::{all, proc};
use super::servers::is_postgres;

/// Answers with the rights of this process.
///
/// # Errors
///
/// The process is gone, is no server's ([`ErrorKind::PermissionDenied`]), or the kernel refuses.
pub(super) fn answer(question: Question) -> io::Result<Answer> {
    match question {
        Question::Servers => {
            let runs = |pid: &u32| fs::read_link(proc(*pid, "exe")).is_ok_and(|path| is_postgres(&path));
            Ok(Answer::of_numbers(all().into_iter().filter(runs).map(u64::from)))
        }
        Question::Executable(pid) => {
            let path = fs::read_link(proc(pid, "exe"))?;
            Ok(Answer { bytes: path.into_os_string().into_vec(), file: None })
        }
        Question::Sockets(pid) => of_server(pid, |_| Ok(Answer::of_numbers(sockets(pid)?))),
        Question::Peer(pid, fd) => of_server(pid, |_| Ok(Answer::of_numbers([unix_peer(pid, fd)?]))),
        Question::Moved(pid, fd) => of_server(pid, |_| Ok(Answer::of_numbers(tcp_moved(pid, fd)?))),
        Question::Sleeps(pid) => of_server(pid, |_| Ok(Answer::of_numbers([waits_for_events(pid)?]))),
        Question::File(pid, file) => of_server(pid, |process| Ok(Answer::of_file(open(process, file)?))),
    }
}

/// Answers of a process that runs a server's executable, before and after: its handle cannot come to mean another
/// process, and it may execute something else in between.
fn of_server(pid: u32, answer: impl FnOnce(&OwnedFd) -> io::Result<Answer>) -> io::Result<Answer> {
    let process = open_process(pid)?;
    if !runs_postgres(&process) {
        return Err(ErrorKind::PermissionDenied.into());
    }
    let answer = answer(&process)?;
    if !runs_postgres(&process) {
        return Err(ErrorKind::PermissionDenied.into());
    }
    Ok(answer)
}

/// A handle of a process: its folder, which is empty once the process has ended.
fn open_process(pid: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, proc(pid, ""), flags, Mode::empty())?)
}

fn runs_postgres(process: &OwnedFd) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let path = readlinkat(process, "exe", Vec::new());
    path.is_ok_and(|path| is_postgres(Path::new(OsStr::from_bytes(path.as_bytes()))))
}

fn open(process: &OwnedFd, file: ServerFile) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = |name: &str, flags| openat(process, name, flags, Mode::empty()).map(File::from);
    // A file of the server's own folder could be anything: neither another file's name nor a pipe to wait at.
    let own = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match file {
        ServerFile::Executable => object(open("exe", flags)?),
        // Its addresses only; the kernel has asked for the right by the time it is open.
        ServerFile::Maps => Ok(open("maps", flags)?),
        ServerFile::PidFile => regular(open("cwd/postmaster.pid", own)?),
        ServerFile::Version => regular(open("cwd/PG_VERSION", own)?),
        // The mapping leads to the file itself, also when its path leads to another one by now. It needs
        // CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
        ServerFile::Library { start, end } => object(open(&format!("map_files/{start:x}-{end:x}"), flags)?),
    }
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Only what is an object file: shared memory is mapped from files too.
fn object(file: File) -> io::Result<File> {
    let file = regular(file)?;
    let mut magic = [0; ELF.len()];
    file.read_exact_at(&mut magic, 0)?;
    if magic == *ELF { Ok(file) } else { Err(ErrorKind::PermissionDenied.into()) }
}

fn sockets(pid: u32) -> io::Result<Vec<u64>> {
    let sockets = fs::read_dir(proc(pid, "fd"))?.flatten().filter_map(|entry| {
        let fd = entry.file_name().to_str()?.parse().ok()?;
        let target = fs::read_link(entry.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
        Some([fd, inode])
    });
    Ok(sockets.flatten().collect())
}

/// `SO_PEERCRED`, asked of a copy of the descriptor.
fn unix_peer(pid: u32, fd: u32) -> io::Result<u64> {
    let peer = socket_peercred(descriptor(pid, fd)?)?.pid;
    u64::try_from(peer.as_raw_nonzero().get()).map_err(|_| ErrorKind::InvalidData.into())
}

fn tcp_moved(pid: u32, fd: u32) -> io::Result<[u64; 2]> {
    let socket = descriptor(pid, fd)?;
    let before = tcp_counts(&socket).ok_or(ErrorKind::InvalidInput)?;
    let [unread, unsent] = [libc::FIONREAD, libc::TIOCOUTQ].map(|queue| queued(&socket, queue));
    let moved = |[received, acknowledged]: [u64; 2]| {
        Some([received.checked_sub(unread?)?, acknowledged.checked_add(unsent?)?])
    };
    let still = tcp_counts(&socket) == Some(before);
    moved(before).filter(|_| still).ok_or_else(|| ErrorKind::WouldBlock.into())
}

fn waits_for_events(pid: u32) -> io::Result<u64> {
    let call = fs::read_to_string(proc(pid, "syscall"))?;
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    Ok(u64::from(number.is_some_and(|number: i64| WAITING_CALLS.contains(&number))))
}

/// A descriptor of another process (pidfd_getfd(2)): to ask of it, never to be handed on.
fn descriptor(pid: u32, fd: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(ErrorKind::InvalidInput)?;
    let fd = ForeignRawFd::try_from(fd).map_err(|_| ErrorKind::InvalidInput)?;
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    Ok(pidfd_getfd(process, fd, PidfdGetfdFlags::empty())?)
}

/// `tcpi_bytes_received` and `tcpi_bytes_acked` (`struct tcp_info` in `include/uapi/linux/tcp.h`). Of an accepted
/// connection they count data alone.
fn tcp_counts(socket: &OwnedFd) -> Option<[u64; 2]> {
    let mut info = [0u64; 32];
    let mut length = libc::socklen_t::try_from(size_of_val(&info)).ok()?;
    // SAFETY: `info` has room for `length` bytes, and both are alive during the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    let whole = result == 0 && length as usize >= (TCPI_BYTES_RECEIVED + 1) * size_of::<u64>();
    whole.then_some([info[TCPI_BYTES_RECEIVED], info[TCPI_BYTES_RECEIVED - 1]])
}

/// What an ioctl tells of a socket's queue.
fn queued(socket: &OwnedFd, request: libc::c_ulong) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int, which is alive during the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    (result == 0).then_some(u64::try_from(bytes).ok()).flatten()
}

/// Where the number stands among the 64-bit words of `struct tcp_info`; the one before it is `tcpi_bytes_acked`.
const TCPI_BYTES_RECEIVED: usize = 16;
/// How a backend sleeps (`src/backend/storage/ipc/latch.c`, `waiteventset.c`).
const WAITING_CALLS: &[i64] = &[
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];
/// [ELF](https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html), `e_ident`.
const ELF: &[u8; 4] = b"\x7fELF";

#[cfg(test)]
mod tests {
    use super::*;

    /// This test is no server.
    #[test]
    fn of_a_stranger_nothing_is_told_but_its_executable() {
        let pid = std::process::id();
        let path = answer(Question::Executable(pid)).unwrap().bytes;
        assert_eq!(path, std::env::current_exe().unwrap().into_os_string().into_vec());
        let files = [
            ServerFile::Executable,
            ServerFile::Maps,
            ServerFile::PidFile,
            ServerFile::Version,
            ServerFile::Library { start: 0, end: 4096 },
        ];
        let questions = files.map(|file| Question::File(pid, file));
        for question in questions.into_iter().chain([
            Question::Sockets(pid),
            Question::Peer(pid, 0),
            Question::Moved(pid, 0),
            Question::Sleeps(pid),
        ]) {
            let refused = answer(question).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::PermissionDenied, "{question:?}");
        }
        let this = u64::from(pid).to_le_bytes();
        assert!(answer(Question::Servers).unwrap().bytes.chunks(8).all(|server| server != this));
    }

    #[test]
    fn only_an_object_file_passes_for_one() {
        assert!(object(File::open(std::env::current_exe().unwrap()).unwrap()).is_ok());
        assert!(object(File::open("/proc/self/maps").unwrap()).is_err());
        assert!(object(tempfile::tempfile().unwrap()).is_err());
        assert!(object(File::open("/").unwrap()).is_err());
    }
}
