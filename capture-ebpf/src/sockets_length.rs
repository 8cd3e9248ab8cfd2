//! What the kernel tells of each operation on a socket that moved bytes (Linux 6.3): no cost for any other system call of the
//! host, and no function is patched. The operation's buffer stands in the registers that the system call saved.
//!
//! Most operations of a host are not those of a server's sessions. These end at the socket's own port, which costs less than
//! to look the process up.
//!
//! Nothing tells of connections being accepted: see [`crate::accepted`].

use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_pt_regs};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use capture_common::{BACKEND, FRONTEND};

use crate::{arch, ports, sockets};

/// `TP_PROTO(struct sock *sk, int ret, int flags)`, `include/trace/events/sock.h`
#[btf_tracepoint(function = "sock_recv_length")]
pub fn sock_received(ctx: BtfTracePointContext) -> i32 {
    moved(FRONTEND, arch::RECVFROM, ctx.arg(0), ctx.arg(1))
}

/// `TP_PROTO(struct sock *sk, int ret, int flags)`, `include/trace/events/sock.h`
#[btf_tracepoint(function = "sock_send_length")]
pub fn sock_sent(ctx: BtfTracePointContext) -> i32 {
    moved(BACKEND, arch::SENDTO, ctx.arg(0), ctx.arg(1))
}

#[inline(always)]
fn moved(direction: u16, call: u64, socket: *const u8, ret: i32) -> i32 {
    // SAFETY: the verifier knows the type of the hook's argument, and checks the load.
    if ret <= 0 || !ports::may_be_of_session(unsafe { ports::own(socket) }) {
        return 0;
    }
    // SAFETY: the helpers have no precondition: each task has saved registers. The verifier knows the type of what they
    // return, and checks each load.
    let regs = unsafe { &*(bpf_task_pt_regs(bpf_get_current_task_btf()) as *const arch::Regs) };
    if arch::number(regs) == call {
        sockets::moved(direction, arch::arg0(regs), arch::arg1(regs), arch::arg3(regs), i64::from(ret));
    }
    0
}
