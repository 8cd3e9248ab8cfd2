//! What the socket hook families share: a finished call on a socket, judged and handed on.
//!
//! `secure_raw_read` and `secure_raw_write` (`src/backend/libpq/be-secure.c`) use `recv` and `send`, which
//! libc turns into `recvfrom` and `sendto`; the postmaster uses `accept`.

use aya_ebpf::helpers::{bpf_probe_read_user, bpf_probe_read_user_buf};
use capture_common::{FLAG_SEALED, MAX_SEALED, OpenInfo, STATE_ENCRYPTED, STATE_PLAINTEXT};

use crate::kernel::Task;
use crate::{emit, encryption, process};

/// `recvfrom(fd, buf, size, flags, …)` or `sendto` with the same arguments returned `ret`.
#[inline(always)]
pub fn moved(direction: u16, fd: u64, buf: u64, flags: u64, ret: i64) {
    // A peeked byte is received again later; the flag means nothing for a send.
    if ret <= 0 || flags & MSG_PEEK != 0 {
        return;
    }
    let Some(backend) = process::backend() else { return };
    // The upper half of a 32-bit argument's register is undefined.
    if u64::from(backend.open.fd) != fd & 0xffff_ffff {
        return;
    }
    let len = ret as u64;
    // The mask tells the verifier what the caller knows.
    let index = usize::from(direction & 1);
    let position = backend.socket[index];
    backend.socket[index] = position.wrapping_add(len);
    // The call of the TLS library that moves bytes over the client's socket is one on the client's `SSL`.
    if backend.call.ssl != 0 {
        backend.ssl = backend.call.ssl;
    }
    encryption::begins_with(backend, direction, position, buf);
    let (start, flags) = if backend.state & STATE_ENCRYPTED == 0 {
        let start = backend.offset[index];
        backend.offset[index] = start.wrapping_add(len);
        (start, 0)
    } else {
        if backend.state & STATE_PLAINTEXT != 0 || position >= MAX_SEALED {
            return;
        }
        (position, FLAG_SEALED)
    };
    encryption::begins_after(backend, direction, position, buf, len);
    emit::data(backend, direction, start, flags, buf, len);
}

/// `accept(fd, address, …)` returned `ret`. The next process that this postmaster forks serves it.
#[inline(always)]
pub fn accepted(address: u64, ret: i64) {
    if ret < 0 {
        return;
    }
    let Some(postmaster) = process::postmaster() else { return };
    let fd = ret as u32;
    let mut open = OpenInfo { postmaster: postmaster.open.postmaster, fd, ..peer(address) };
    if open.family == AF_UNIX {
        open.peer_pid = Task::current().unix_peer(fd);
    }
    postmaster.open = open;
    postmaster.accepted = 1;
}

/// `close(fd)` was called. A postmaster that closes a connection before it forked for it has given up on it.
#[inline(always)]
pub fn closed(fd: u64) {
    let Some(postmaster) = process::postmaster() else { return };
    if u64::from(postmaster.open.fd) == fd {
        postmaster.accepted = 0;
    }
}

/// Family, port and address of the `struct sockaddr` that `accept` filled in.
#[inline(always)]
fn peer(address: u64) -> OpenInfo {
    let mut open = OpenInfo::default();
    if address == 0 {
        return open;
    }
    // SAFETY: the helpers check the address and fail on one that cannot be read.
    unsafe {
        open.family = bpf_probe_read_user(address as *const u16).unwrap_or(0);
        if open.family == AF_INET || open.family == AF_INET6 {
            open.port = bpf_probe_read_user((address + 2) as *const u16).unwrap_or(0);
        }
        if open.family == AF_INET {
            let _ = bpf_probe_read_user_buf((address + 4) as *const u8, &mut open.addr[..4]);
        } else if open.family == AF_INET6 {
            let _ = bpf_probe_read_user_buf((address + 8) as *const u8, &mut open.addr);
        }
    }
    open
}

/// `include/linux/socket.h`
const MSG_PEEK: u64 = 2;
pub const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
