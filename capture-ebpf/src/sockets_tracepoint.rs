//! The classic system call tracepoints. An exit does not see the arguments, so the entry keeps them in
//! `CALLS`. Layouts: `events/syscalls/*/format` in tracefs; they are part of the kernel's stable interface.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use capture_common::{BACKEND, FRONTEND};

use crate::maps::{CALLS, Call};
use crate::{process, sockets};

/// `sys_enter_recvfrom`: fd at 16, ubuf at 24, size at 32, flags at 40
#[tracepoint]
pub fn enter_recvfrom(ctx: TracePointContext) -> u32 {
    entered(&ctx)
}

/// `sys_enter_sendto`: fd at 16, buff at 24, len at 32, flags at 40
#[tracepoint]
pub fn enter_sendto(ctx: TracePointContext) -> u32 {
    entered(&ctx)
}

/// `sys_enter_accept`: fd at 16, upeer_sockaddr at 24
#[tracepoint]
pub fn enter_accept(ctx: TracePointContext) -> u32 {
    entered(&ctx)
}

/// `sys_exit_recvfrom`: ret at 16
#[tracepoint]
pub fn exit_recvfrom(ctx: TracePointContext) -> u32 {
    if let Some((call, ret)) = left(&ctx) {
        sockets::moved(FRONTEND, call.fd, call.buf, call.flags, ret);
    }
    0
}

/// `sys_exit_sendto`: ret at 16
#[tracepoint]
pub fn exit_sendto(ctx: TracePointContext) -> u32 {
    if let Some((call, ret)) = left(&ctx) {
        sockets::moved(BACKEND, call.fd, call.buf, call.flags, ret);
    }
    0
}

/// `sys_exit_accept`: ret at 16
#[tracepoint]
pub fn exit_accept(ctx: TracePointContext) -> u32 {
    if let Some((call, ret)) = left(&ctx) {
        sockets::accepted(call.buf, ret);
    }
    0
}

/// `sys_enter_close`: fd at 16
#[tracepoint]
pub fn enter_close(ctx: TracePointContext) -> u32 {
    sockets::closed(word(&ctx, 16));
    0
}

#[inline(always)]
fn entered(ctx: &TracePointContext) -> u32 {
    if process::tracked().is_some() {
        let call = Call { fd: word(ctx, 16), buf: word(ctx, 24), flags: word(ctx, 40) };
        let _ = CALLS.insert(bpf_get_current_pid_tgid(), call, 0);
    }
    0
}

#[inline(always)]
fn left(ctx: &TracePointContext) -> Option<(Call, i64)> {
    process::tracked()?;
    // SAFETY: the value is copied at once; only this thread writes this key.
    let call = unsafe { CALLS.get(bpf_get_current_pid_tgid()) }.copied()?;
    Some((call, word(ctx, 16) as i64))
}

#[inline(always)]
fn word(ctx: &TracePointContext, offset: usize) -> u64 {
    // SAFETY: the offsets above lie within the record of each tracepoint that uses them.
    unsafe { ctx.read_at(offset) }.unwrap_or(0)
}
