//! Birth and death of the processes that are followed.

use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::warn;
use capture_common::{OpenInfo, ROLE_BACKEND, ROLE_POSTMASTER, SessionKey, Tracked, counter};

use crate::kernel::Task;
use crate::maps::TRACKED;
use crate::{accepted, emit, hold, process};

/// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, `include/trace/events/sched.h`
///
/// Runs in the parent, before the child first runs.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    let Some(postmaster) = process::postmaster() else { return 0 };
    // A child without a connection is one of the server's own workers.
    if postmaster.accepted == 0 {
        return 0;
    }
    // Hooks on the exits of functions do not see that the server closed a connection for which it could not fork.
    if !Task::current().has_open(postmaster.open.fd) {
        postmaster.accepted = 0;
        return 0;
    }
    let child = Task::from_address(ctx.arg::<u64>(1));
    let Some(tgid) = child.process() else { return 0 };
    postmaster.accepted = 0;
    follow(&ctx, child, tgid, postmaster.open)
}

/// The same, where no hook sees connections being accepted.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork_found(ctx: BtfTracePointContext) -> i32 {
    let Some(postmaster) = process::postmaster() else { return 0 };
    let child = Task::from_address(ctx.arg::<u64>(1));
    let Some(tgid) = child.process() else { return 0 };
    let Some(open) = accepted::connection(postmaster.open.postmaster) else { return 0 };
    follow(&ctx, child, tgid, open)
}

/// A backend begins to serve a connection.
#[inline(always)]
fn follow(ctx: &BtfTracePointContext, child: Task, tgid: u32, open: OpenInfo) -> i32 {
    // SAFETY: the helper has no precondition.
    let born = unsafe { bpf_ktime_get_ns() };
    let backend = Tracked {
        role: ROLE_BACKEND,
        session: SessionKey { born, tgid, reserved: 0 },
        open: OpenInfo { own_pid: child.own_pid(), ..open },
        ..Tracked::default()
    };
    if TRACKED.insert(tgid, backend, 0).is_err() {
        emit::count(counter::UNTRACKED, 1);
        warn!(ctx, "backend {} is not followed: the table of processes is full", tgid);
        return 0;
    }
    emit::open(&backend);
    0
}

/// `TP_PROTO(struct task_struct *p)`, `include/trace/events/sched.h`
///
/// Runs in the task that exits, once for each thread.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_ctx: BtfTracePointContext) -> i32 {
    let id = bpf_get_current_pid_tgid();
    let (tgid, pid) = ((id >> 32) as u32, id as u32);
    if tgid != pid {
        return 0;
    }
    let Some(entry) = process::tracked() else { return 0 };
    hold::forget(tgid);
    entry.exit_code = Task::current().exit_code();
    // What could not be told stays in the map, marked, until user space collects it.
    if emit::close(entry) || entry.role == ROLE_POSTMASTER {
        let _ = TRACKED.remove(tgid);
    }
    0
}

/// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`,
/// `include/trace/events/sched.h`
///
/// Tells user space that a server may be starting, so that it is followed before its first connection. The
/// program's name is all that is looked at.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(_ctx: BtfTracePointContext) -> i32 {
    let Ok(name) = bpf_get_current_comm() else { return 0 };
    if starts_with(&name, b"postgres\0") || starts_with(&name, b"postmaster\0") {
        emit::exec((bpf_get_current_pid_tgid() >> 32) as u32);
    }
    0
}

#[inline(always)]
fn starts_with<const N: usize>(name: &[u8; 16], prefix: &[u8; N]) -> bool {
    let mut i = 0;
    while i < N {
        if name[i] != prefix[i] {
            return false;
        }
        i += 1;
    }
    true
}
