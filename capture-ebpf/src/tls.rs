//! Probes in the server's own code, and in its TLS library's, where what is encrypted is in clear.
//!
//! ```c
//! ssize_t be_tls_read(Port *port, void *ptr, size_t len, int *waitfor);     // src/backend/libpq/be-secure-openssl.c
//! ssize_t be_gssapi_read(Port *port, void *ptr, size_t len);                // src/backend/libpq/be-secure-gssapi.c
//! int SSL_read(SSL *ssl, void *buf, int num);                               // ssl/ssl_lib.c
//! int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes);
//! ```
//!
//! User space chooses the instructions and tells, in each probe's cookie, where buffer and result stand there.

use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use capture_common::{
    FLAG_PLAINTEXT, Operand, STATE_ENCRYPTED, STATE_FOUND, STATE_PLAINTEXT, Site, TlsCall, Tracked,
};

use crate::{arch, emit, process};

/// At the call of the function that `SSL_read` and its siblings share: `(SSL *ssl, void *buf, size_t num,
/// size_t *moved)`, `ssl_read_internal` and `ssl_write_internal` in `ssl/ssl_lib.c`.
#[uprobe]
pub fn tls_before(ctx: ProbeContext) -> u32 {
    let Some(backend) = process::backend() else { return 0 };
    if backend.sites != u32::from(site(&ctx).set) {
        return 0;
    }
    backend.call = TlsCall {
        ssl: word(&ctx, arch::CALL_ARG0),
        buffer: word(&ctx, arch::CALL_ARG1),
        length: word(&ctx, arch::CALL_ARG3),
    };
    0
}

/// After a call that moves bytes, by its result.
#[uprobe]
pub fn tls_after(ctx: ProbeContext) -> u32 {
    let Some(backend) = process::backend() else { return 0 };
    let site = site(&ctx);
    if backend.sites != u32::from(site.set) {
        return 0;
    }
    let call = core::mem::take(&mut backend.call);
    let mut result = operand(&ctx, site.result) as i64;
    if site.int {
        result = i64::from(result as i32);
    }
    if result <= 0 {
        return 0;
    }
    let moved = match site.buffer {
        Some(buffer) => Some((operand(&ctx, buffer), result as u64)),
        None => kept(backend, &call),
    };
    if let Some((buffer, len)) = moved {
        plaintext(backend, site.direction, buffer, len);
    }
    0
}

/// What the site before the call kept, if the call was one on the client's connection.
#[inline(always)]
fn kept(backend: &Tracked, call: &TlsCall) -> Option<(u64, u64)> {
    if call.ssl == 0 || call.ssl != backend.ssl {
        return None;
    }
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    let len: u64 = unsafe { bpf_probe_read_user(call.length as *const u64) }.ok()?;
    Some((call.buffer, len))
}

#[inline(always)]
fn plaintext(backend: &mut Tracked, direction: u16, buffer: u64, len: u64) {
    if len == 0 || backend.state & (STATE_ENCRYPTED | STATE_FOUND) == 0 {
        return;
    }
    backend.state |= STATE_ENCRYPTED | STATE_PLAINTEXT;
    // The mask tells the verifier what the cookie's reader knows.
    let index = usize::from(direction & 1);
    let start = backend.offset[index];
    backend.offset[index] = start.wrapping_add(len);
    emit::data(backend, direction, start, FLAG_PLAINTEXT, buffer, len);
}

#[inline(always)]
fn site(ctx: &ProbeContext) -> Site {
    // SAFETY: the helper takes the program's own context.
    Site::from_cookie(unsafe { bpf_get_attach_cookie(ctx.regs.cast()) })
}

#[inline(always)]
fn operand(ctx: &ProbeContext, operand: Operand) -> u64 {
    let value = word(ctx, usize::from(operand.word));
    match operand.memory {
        None => value,
        Some(distance) => {
            let address = value.wrapping_add_signed(i64::from(distance));
            // SAFETY: the helper checks the address and fails on one that cannot be read.
            unsafe { bpf_probe_read_user(address as *const u64) }.unwrap_or(0)
        }
    }
}

/// A word of the saved registers. Read through a helper: the verifier allows loads from the context at constant
/// places only, and this place is the cookie's.
#[inline(always)]
fn word(ctx: &ProbeContext, index: usize) -> u64 {
    let address = (ctx.regs as *const u64).wrapping_add(index & 31);
    // SAFETY: the helper checks the address; the registers are 21 words and more, and whatever lies behind them is
    // only ever taken for an address or a number to be checked.
    unsafe { bpf_probe_read_kernel(address) }.unwrap_or(0)
}
