//! Exits of the kernel's socket functions: no cost for any other system call of the host.
//!
//! A call that is under way when the hook is attached is not seen. A backend is never in one for long: its socket does
//! not block, it waits for its client in `epoll_wait` (`pq_init` in `src/backend/libpq/pqcomm.c`).

use aya_ebpf::macros::fexit;
use aya_ebpf::programs::FExitContext;
use capture_common::{BACKEND, FRONTEND};

use crate::sockets;

/// `int __sys_recvfrom(int fd, void __user *ubuf, size_t size, unsigned int flags,
///  struct sockaddr __user *addr, int __user *addr_len)`, `net/socket.c`
#[fexit(function = "__sys_recvfrom")]
pub fn fexit_recvfrom(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(6);
    sockets::moved(FRONTEND, ctx.arg(0), ctx.arg(1), ctx.arg(3), i64::from(ret));
    0
}

/// `int __sys_sendto(int fd, void __user *buff, size_t len, unsigned int flags,
///  struct sockaddr __user *addr, int addr_len)`, `net/socket.c`
#[fexit(function = "__sys_sendto")]
pub fn fexit_sendto(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(6);
    sockets::moved(BACKEND, ctx.arg(0), ctx.arg(1), ctx.arg(3), i64::from(ret));
    0
}

/// `int __sys_accept4(int fd, struct sockaddr __user *upeer_sockaddr, int __user *upeer_addrlen, int flags)`,
/// `net/socket.c`
#[fexit(function = "__sys_accept4")]
pub fn fexit_accept(ctx: FExitContext) -> i32 {
    let ret: i32 = ctx.arg(4);
    sockets::accepted(ctx.arg(1), i64::from(ret));
    0
}
