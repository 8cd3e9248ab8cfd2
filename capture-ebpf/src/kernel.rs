//! Fields of the kernel's own structs. Rust's eBPF target has no CO-RE: user space looks the offsets up in
//! the running kernel's BTF and sets them before the load.

use aya_ebpf::Global;
use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};

use crate::maps::{
    FDTABLE_FD, FILE_PRIVATE_DATA, FILES_FDT, PID_LEVEL, PID_NUMBER, SOCK_PEER_PID, SOCKET_SK,
    TASK_EXIT_CODE, TASK_FILES, TASK_PID, TASK_TGID, TASK_THREAD_PID,
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

    /// Thread id and process id (thread group id), in the initial PID namespace.
    #[inline(always)]
    pub fn ids(self) -> Option<(u32, u32)> {
        Some((field(self.0, &TASK_PID)?, field(self.0, &TASK_TGID)?))
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

    /// `task->files->fdt->fd[fd]`, a `struct file *`
    #[inline(always)]
    fn file(self, fd: u32) -> Option<u64> {
        let files: u64 = field(self.0, &TASK_FILES)?;
        let table: u64 = field(files, &FILES_FDT)?;
        let array: u64 = field(table, &FDTABLE_FD)?;
        read(array.wrapping_add(u64::from(fd) * 8))
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
