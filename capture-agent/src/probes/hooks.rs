//! Which hooks there are, and in which order they are tried.

use std::fmt;

/// How the calls on client sockets are seen, cheapest for the host first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketHooks {
    /// Exits of `__sys_recvfrom`, `__sys_sendto` and `__sys_accept4`: no cost for any other system call.
    Fexit,
    /// `tp_btf/sock_recv_length` and `sock_send_length` (Linux 6.3): no cost but for what moves bytes over a socket.
    SockLength,
    /// `tp_btf/sys_exit`: one program, which every system call of the host passes through (about 25 ns).
    SysExit,
    /// The tracepoints of each call's entry and exit: an extra map entry per call, and tracefs must be mounted.
    Tracepoints,
}

impl SocketHooks {
    /// All of them, in the order in which they are tried.
    pub const ALL: [Self; 4] = [Self::Fexit, Self::SockLength, Self::SysExit, Self::Tracepoints];

    /// The programs of this family.
    pub(super) fn programs(self) -> &'static [HookProgram] {
        match self {
            Self::Fexit => FEXIT,
            Self::SockLength => SOCK_LENGTH,
            Self::SysExit => SYS_EXIT,
            Self::Tracepoints => TRACEPOINTS,
        }
    }
}

impl fmt::Display for SocketHooks {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Fexit => "fexit on the socket functions",
            Self::SockLength => "tp_btf/sock_recv_length and sock_send_length",
            Self::SysExit => "tp_btf/sys_exit",
            Self::Tracepoints => "system call tracepoints",
        })
    }
}

impl std::str::FromStr for SocketHooks {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "fexit" => Ok(Self::Fexit),
            "sock_length" => Ok(Self::SockLength),
            "sys_exit" => Ok(Self::SysExit),
            "tracepoints" => Ok(Self::Tracepoints),
            _ => Err(format!("`{name}` is not one of fexit, sock_length, sys_exit, tracepoints")),
        }
    }
}

impl SocketHooks {
    /// Its number in `Meta::sockets`.
    pub(super) fn number(self) -> u32 {
        match self {
            Self::Fexit => 1,
            Self::SysExit => 2,
            Self::Tracepoints => 3,
            Self::SockLength => 4,
        }
    }

    /// The family of this number.
    pub(super) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.number() == number)
    }
}

/// What was attached, and what was tried before it and why that failed.
#[derive(Debug)]
pub struct Plan {
    /// The hooks in use.
    pub sockets: SocketHooks,
    /// The cheaper ones that did not load, with the kernel's reason.
    pub refused: Vec<(SocketHooks, String)>,
}

/// A program of the object, and what it attaches to.
#[derive(Clone, Copy)]
pub(super) enum HookProgram {
    /// `tp_btf`: program and tracepoint.
    BtfTracepoint(&'static str, &'static str),
    /// `fexit`: program and kernel function.
    Fexit(&'static str, &'static str),
    /// A classic tracepoint of category `syscalls`: program and tracepoint.
    Syscall(&'static str, &'static str),
}

/// Death of processes, and servers that start: needed with every plan.
pub(super) const LIFECYCLE: &[HookProgram] = &[
    HookProgram::BtfTracepoint("process_exit", "sched_process_exit"),
    HookProgram::BtfTracepoint("process_exec", "sched_process_exec"),
];

/// Birth of backends, where a hook sees connections being accepted.
const FORK: HookProgram = HookProgram::BtfTracepoint("process_fork", "sched_process_fork");

const FEXIT: &[HookProgram] = &[
    FORK,
    HookProgram::Fexit("fexit_recvfrom", "__sys_recvfrom"),
    HookProgram::Fexit("fexit_sendto", "__sys_sendto"),
    HookProgram::Fexit("fexit_accept", "__sys_accept4"),
];

const SOCK_LENGTH: &[HookProgram] = &[
    HookProgram::BtfTracepoint("process_fork_found", "sched_process_fork"),
    HookProgram::BtfTracepoint("sock_received", "sock_recv_length"),
    HookProgram::BtfTracepoint("sock_sent", "sock_send_length"),
];

const SYS_EXIT: &[HookProgram] = &[FORK, HookProgram::BtfTracepoint("sys_exit", "sys_exit")];

const TRACEPOINTS: &[HookProgram] = &[
    FORK,
    HookProgram::Syscall("enter_recvfrom", "sys_enter_recvfrom"),
    HookProgram::Syscall("exit_recvfrom", "sys_exit_recvfrom"),
    HookProgram::Syscall("enter_sendto", "sys_enter_sendto"),
    HookProgram::Syscall("exit_sendto", "sys_exit_sendto"),
    HookProgram::Syscall("enter_accept", "sys_enter_accept"),
    HookProgram::Syscall("exit_accept", "sys_exit_accept"),
    HookProgram::Syscall("enter_accept", "sys_enter_accept4"),
    HookProgram::Syscall("exit_accept", "sys_exit_accept4"),
    HookProgram::Syscall("enter_close", "sys_enter_close"),
];

impl HookProgram {
    /// The name of its pin: a program may have several tracepoints.
    pub(super) fn pin_name(self) -> String {
        match self {
            Self::BtfTracepoint(program, point)
            | Self::Fexit(program, point)
            | Self::Syscall(program, point) => format!("{program}-{point}"),
        }
    }

    /// The program's name in the object.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::BtfTracepoint(program, _) | Self::Fexit(program, _) | Self::Syscall(program, _) => program,
        }
    }
}

impl fmt::Display for HookProgram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BtfTracepoint(_, tracepoint) => write!(out, "tp_btf/{tracepoint}"),
            Self::Fexit(_, function) => write!(out, "fexit/{function}"),
            Self::Syscall(_, tracepoint) => write!(out, "tracepoint/syscalls/{tracepoint}"),
        }
    }
}
