//! One program for all socket calls: every system call of the host passes through it, so the number is the
//! first thing it looks at.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use capture_common::{BACKEND, FRONTEND};

use crate::{arch, sockets};

/// `TP_PROTO(struct pt_regs *regs, long ret)`, `include/trace/events/syscalls.h`
#[btf_tracepoint(function = "sys_exit")]
pub fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let regs: *const arch::Regs = ctx.arg(0);
    // SAFETY: the first argument of this tracepoint is a valid `struct pt_regs`; the verifier knows its type
    // and checks each load.
    let regs = unsafe { &*regs };
    let number = arch::number(regs);
    // One call site for both directions: the code behind it is inlined, and verified, once.
    if number == arch::RECVFROM || number == arch::SENDTO {
        let direction = if number == arch::RECVFROM { FRONTEND } else { BACKEND };
        let flags = arch::arg3(regs);
        sockets::moved(direction, arch::arg0(regs), arch::arg1(regs), flags, ctx.arg(1));
    } else if number == arch::ACCEPT || number == arch::ACCEPT4 {
        sockets::accepted(arch::arg1(regs), ctx.arg(1));
    } else if number == arch::CLOSE {
        sockets::closed(arch::arg0(regs));
    }
    0
}
