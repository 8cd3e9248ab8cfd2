//! Where the bytes on a client's socket cease to be clear text: the two ways in which a session begins encryption
//! ([Encrypted Sessions](https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL)).
//!
//! A session that was open before the hooks shows neither; it is known to be encrypted once its plaintext passes.

use aya_ebpf::helpers::bpf_probe_read_user;
use capture_common::{BACKEND, FRONTEND, STATE_ENCRYPTED, STATE_FOUND, Tracked};

/// Direct negotiation (PostgreSQL 17): the client's first byte begins a TLS handshake record.
#[inline(always)]
pub fn begins_with(backend: &mut Tracked, direction: u16, position: u64, buf: u64) {
    if direction == FRONTEND
        && position == 0
        && backend.state & STATE_FOUND == 0
        && first_byte(buf) == TLS_HANDSHAKE
    {
        backend.state |= STATE_ENCRYPTED;
    }
}

/// The server's one-byte answer to SSLRequest or GSSENCRequest, which comes first, or second after it declined the
/// other. No message is that short, and none that a server begins with starts with these letters.
#[inline(always)]
pub fn begins_after(backend: &mut Tracked, direction: u16, position: u64, buf: u64, len: u64) {
    if direction == BACKEND && len == 1 && position <= 1 && backend.state & STATE_FOUND == 0 {
        let answer = first_byte(buf);
        if answer == b'S' || answer == b'G' {
            backend.state |= STATE_ENCRYPTED;
        }
    }
}

#[inline(always)]
fn first_byte(buf: u64) -> u8 {
    // SAFETY: the helper checks the address and fails on one that cannot be read.
    unsafe { bpf_probe_read_user(buf as *const u8) }.unwrap_or(0)
}

/// `handshake(22)`, the record type of RFC 8446, section 5.1.
const TLS_HANDSHAKE: u8 = 0x16;
