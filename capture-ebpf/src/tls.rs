//! Probes in the server's own code, and in its TLS library's, where what is encrypted is in clear.
//!
//! ```c
//! ssize_t be_tls_read(Port *port, void *ptr, size_t len, int *waitfor);     // src/backend/libpq/be-secure-openssl.c
//! ssize_t be_gssapi_read(Port *port, void *ptr, size_t len);                // src/backend/libpq/be-secure-gssapi.c
//! int SSL_read(SSL *ssl, void *buf, int num);                               // ssl/ssl_lib.c
//! int SSL_read_ex(SSL *ssl, void *buf, size_t num, size_t *readbytes);
//! ```
//!
//! User space chooses the instructions and tells, in each probe's cookie, where buffer and result stand there. Where
//! probes have no cookies (before Linux 5.15), the programs `…_by_address` look the same up in a map.

use aya_ebpf::helpers::generated::bpf_get_attach_cookie;
use aya_ebpf::helpers::{bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::uprobe;
use aya_ebpf::programs::ProbeContext;
use capture_common::{
    FLAG_GSS, FLAG_PLAINTEXT, Operand, SITE_ADDRESS, STATE_ENCRYPTED, STATE_FOUND, STATE_PLAINTEXT, Site,
    TlsCall, Tracked,
};

use crate::maps::{SITE_SETS, SITES};
use crate::{arch, emit, process};

/// At the call of the function that `SSL_read` and its siblings share: `(SSL *ssl, void *buf, size_t num,
/// size_t *moved)`, `ssl_read_internal` and `ssl_write_internal` in `ssl/ssl_lib.c`.
#[uprobe]
pub fn tls_before(ctx: ProbeContext) -> u32 {
    if let Some(backend) = process::backend() {
        before(&ctx, backend, cookie(&ctx));
    }
    0
}

/// The same, without a cookie.
#[uprobe]
pub fn tls_before_by_address(ctx: ProbeContext) -> u32 {
    if let Some(backend) = process::backend()
        && let Some(site) = by_address(&ctx)
    {
        before(&ctx, backend, site);
    }
    0
}

/// After a call that moves bytes, by its result.
#[uprobe]
pub fn tls_after(ctx: ProbeContext) -> u32 {
    if let Some(backend) = process::backend() {
        after(&ctx, backend, cookie(&ctx));
    }
    0
}

/// The same, without a cookie.
#[uprobe]
pub fn tls_after_by_address(ctx: ProbeContext) -> u32 {
    if let Some(backend) = process::backend()
        && let Some(site) = by_address(&ctx)
    {
        after(&ctx, backend, site);
    }
    0
}

#[inline(always)]
fn before(ctx: &ProbeContext, backend: &mut Tracked, site: Site) {
    if !is_of_server(backend, &site) {
        return;
    }
    backend.call = TlsCall {
        ssl: word(ctx, arch::CALL_ARG0),
        buffer: word(ctx, arch::CALL_ARG1),
        length: word(ctx, arch::CALL_ARG3),
    };
}

#[inline(always)]
fn after(ctx: &ProbeContext, backend: &mut Tracked, site: Site) {
    if !is_of_server(backend, &site) {
        return;
    }
    let call = backend.call;
    if call.ssl != 0 {
        backend.call.ssl = 0;
    }
    let mut result = operand(ctx, site.result) as i64;
    if site.int {
        result = i64::from(result as i32);
    }
    if result <= 0 {
        return;
    }
    let moved = match site.buffer {
        Some(buffer) => Some((operand(ctx, buffer), result as u64)),
        None => kept(backend, &call),
    };
    if let Some((buffer, len)) = moved {
        let flags = if site.gss { FLAG_PLAINTEXT | FLAG_GSS } else { FLAG_PLAINTEXT };
        plaintext(backend, site.direction, flags, buffer, len);
    }
}

/// Whether the site is one of those that were chosen for the backend's server. They stay the same as long as that runs.
#[inline(always)]
fn is_of_server(backend: &mut Tracked, site: &Site) -> bool {
    let wanted = u32::from(site.set);
    if backend.site_set == wanted {
        return true;
    }
    // SAFETY: the value is a plain number that user space writes whole.
    let found = unsafe { SITE_SETS.get(backend.open.postmaster) }.is_some_and(|set| *set == wanted);
    if found {
        backend.site_set = wanted;
    }
    found
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
fn plaintext(backend: &mut Tracked, direction: u16, flags: u32, buffer: u64, len: u64) {
    if len == 0 || backend.state & (STATE_ENCRYPTED | STATE_FOUND) == 0 {
        return;
    }
    // What was counted of a session that was open before its encryption showed was the socket's: its streams begin here.
    if backend.state & STATE_ENCRYPTED == 0 {
        backend.offset = [0; 2];
    }
    backend.state |= STATE_ENCRYPTED | STATE_PLAINTEXT;
    // The mask tells the verifier what the cookie's reader knows.
    let index = usize::from(direction & 1);
    let start = backend.offset[index];
    backend.offset[index] = start.wrapping_add(len);
    emit::data(backend, direction, start, flags, buffer, len);
}

#[inline(always)]
fn cookie(ctx: &ProbeContext) -> Site {
    // SAFETY: the helper takes the program's own context.
    Site::from_cookie(unsafe { bpf_get_attach_cookie(ctx.regs.cast()) })
}

#[inline(always)]
fn by_address(ctx: &ProbeContext) -> Option<Site> {
    // SAFETY: the context of such a program is a `struct pt_regs`; the verifier checks the load.
    let address = unsafe { ctx.regs.cast::<u64>().add(arch::INSTRUCTION).read() };
    // SAFETY: the value is copied at once; user space writes it before it attaches the probe.
    let cookie = unsafe { SITES.get((address & SITE_ADDRESS) as u32) }.copied()?;
    Some(Site::from_cookie(cookie))
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
