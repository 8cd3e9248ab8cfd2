//! Fields of the kernel's own structs. Rust's eBPF target has no CO-RE: user space looks the offsets up in
//! the running kernel's BTF and sets them before the load.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::maps::{
    FDTABLE_FD, FDTABLE_MAX_FDS, FDTABLE_OPEN_FDS, FILE_F_INODE, FILE_PRIVATE_DATA, FILES_FDT, INET_SPORT,
    INODE_I_MODE, PID_LEVEL, PID_NUMBER, SKC_DADDR, SKC_DPORT, SKC_FAMILY, SKC_NUM, SKC_STATE, SKC_V6_DADDR,
    SOCK_PEER_PID, SOCKET_SK, SOCKET_TYPE, TASK_EXIT_CODE, TASK_FILES, TASK_PID, TASK_TGID, TASK_THREAD_PID,
    UNIX_SOCK_ADDR,
};

/// A `struct task_struct *`.
#[derive(Clone, Copy)]
pub struct Task(u64);

impl Task {
    /// The task that runs the hook.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper has no precondition.
        Self(unsafe { bpf_get_current_task() })
    }

    /// A task that a hook got as an argument.
    #[inline(always)]
    pub fn from_address(address: u64) -> Self {
        Self(address)
    }

    /// The process id in the initial PID namespace, if the task is a process's first thread.
    #[inline(always)]
    pub fn process(self) -> Option<u32> {
        let (pid, tgid): (u32, u32) = (field(self.0, &TASK_PID)?, field(self.0, &TASK_TGID)?);
        (pid == tgid).then_some(tgid)
    }

    /// The process id in the task's own PID namespace; 0 if unknown.
    #[inline(always)]
    pub fn own_pid(self) -> u32 {
        self.read_own_pid().unwrap_or(0)
    }

    /// `task->thread_pid->numbers[level].nr`
    #[inline(always)]
    fn read_own_pid(self) -> Option<u32> {
        let pid: u64 = field(self.0, &TASK_THREAD_PID)?;
        let level: u32 = field(pid, &PID_LEVEL)?;
        field(pid.wrapping_add(u64::from(level) * UPID_SIZE), &PID_NUMBER)
    }

    /// The exit code, as `wait(2)` reports it.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        field(self.0, &TASK_EXIT_CODE).unwrap_or(0)
    }

    /// Whether the descriptor `fd` is open; also if that cannot be told.
    #[inline(always)]
    pub fn has_open(self, fd: u32) -> bool {
        self.file(fd) != Some(0)
    }

    /// `task->files->fdt`, a `struct fdtable *`
    #[inline(always)]
    pub fn descriptors(self) -> Option<u64> {
        let files: u64 = field(self.0, &TASK_FILES)?;
        field(files, &FILES_FDT)
    }

    /// `table->open_fds[word]`: a bit for each of 64 descriptors that is open
    #[inline(always)]
    pub fn open_descriptors(table: u64, word: u64) -> u64 {
        let read_word = || {
            let most: u32 = field(table, &FDTABLE_MAX_FDS)?;
            let words: u64 = field(table, &FDTABLE_OPEN_FDS)?;
            if 64 * word < u64::from(most) { read(words.wrapping_add(8 * word)) } else { None }
        };
        read_word().unwrap_or(0)
    }

    /// `task->files->fdt->fd[fd]`, a `struct file *`
    #[inline(always)]
    fn file(self, fd: u32) -> Option<u64> {
        file(self.descriptors()?, u64::from(fd))
    }

    /// The socket behind `fd`, if it is a stream's.
    #[inline(always)]
    pub fn socket(self, fd: u32) -> Option<Socket> {
        Socket::of_descriptor(self.descriptors()?, u64::from(fd))
    }

    /// Process id of whoever connected the Unix socket behind `fd`, as `SO_PEERCRED` tells it; 0 if unknown.
    #[inline(always)]
    pub fn unix_peer(self, fd: u32) -> u32 {
        self.read_unix_peer(fd).unwrap_or(0)
    }

    /// `file->private_data->sk->sk_peer_pid->numbers[0].nr`
    #[inline(always)]
    fn read_unix_peer(self, fd: u32) -> Option<u32> {
        let file = self.file(fd)?;
        let socket: u64 = field(file, &FILE_PRIVATE_DATA)?;
        let sock: u64 = field(socket, &SOCKET_SK)?;
        let pid: u64 = field(sock, &SOCK_PEER_PID)?;
        if pid == 0 {
            return None;
        }
        field(pid, &PID_NUMBER)
    }
}

/// A `struct sock *`.
#[derive(Clone, Copy)]
pub struct Socket(u64);

impl Socket {
    /// That behind descriptor `fd` of a `struct fdtable`, if it is a stream's: `file->private_data->sk`
    #[inline(always)]
    pub fn of_descriptor(table: u64, fd: u64) -> Option<Self> {
        let file = file(table, fd)?;
        if file == 0 {
            return None;
        }
        let inode: u64 = field(file, &FILE_F_INODE)?;
        let mode: u16 = field(inode, &INODE_I_MODE)?;
        if mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket: u64 = field(file, &FILE_PRIVATE_DATA)?;
        let kind: u16 = field(socket, &SOCKET_TYPE)?;
        let sock: u64 = field(socket, &SOCKET_SK)?;
        (kind == SOCK_STREAM && sock != 0).then_some(Self(sock))
    }

    #[inline(always)]
    pub fn family(self) -> Option<u16> {
        field(self.0, &SKC_FAMILY)
    }

    #[inline(always)]
    pub fn state(self) -> Option<u8> {
        field(self.0, &SKC_STATE)
    }

    /// Where a Unix socket's name stands in the kernel's memory; 0 if it has none.
    #[inline(always)]
    pub fn unix_name(self) -> Option<u64> {
        field(self.0, &UNIX_SOCK_ADDR)
    }

    /// In network byte order. It outlasts a connection that is reset.
    #[inline(always)]
    pub fn own_port(self) -> Option<u16> {
        field(self.0, &INET_SPORT)
    }

    /// The same in host byte order, until the connection is reset; 0 then. See [`crate::ports`].
    #[inline(always)]
    pub fn bound_port(self) -> Option<u16> {
        field(self.0, &SKC_NUM)
    }

    /// In network byte order.
    #[inline(always)]
    pub fn peer_port(self) -> Option<u16> {
        field(self.0, &SKC_DPORT)
    }

    #[inline(always)]
    pub fn peer_ipv4(self) -> Option<[u8; 4]> {
        field(self.0, &SKC_DADDR)
    }

    #[inline(always)]
    pub fn peer_ipv6(self) -> Option<[u8; 16]> {
        field(self.0, &SKC_V6_DADDR)
    }
}

/// `table->fd[fd]`, a `struct file *`
#[inline(always)]
fn file(table: u64, fd: u64) -> Option<u64> {
    let array: u64 = field(table, &FDTABLE_FD)?;
    read(array.wrapping_add(fd * 8))
}

/// `include/uapi/linux/stat.h`, `include/linux/net.h`
const S_IFMT: u16 = 0o170000;
const S_IFSOCK: u16 = 0o140000;
const SOCK_STREAM: u16 = 1;

/// Size of `struct upid`, an int and a pointer (`include/linux/pid.h`).
const UPID_SIZE: u64 = 16;

#[inline(always)]
fn field<T>(base: u64, offset: &Global<u32>) -> Option<T> {
    read(base.wrapping_add(u64::from(offset.load())))
}

#[inline(always)]
fn read<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}
