//! Follows the headers of what an armed session's client sends, to know when a message is complete that a guardrail may be
//! about. [Message Formats](https://www.postgresql.org/docs/current/protocol-message-formats.html)

use aya_ebpf::helpers::bpf_probe_read_user;
use capture_common::{
    ORDER_PREPARED, Orders, Tracked, WALK_ASTRAY, WALK_DOUBT, WALK_GUARDED, WALK_LOST, WALK_MESSAGES,
    WALK_MESSAGES_MOST, WALK_PREPARED, WALK_REACHED, Walk,
};

use crate::process;

/// Whether the `len` bytes at the user address `buf`, which stand at `start` in the client's stream, complete such
/// a message, or may do so as far as it can be told.
#[inline(always)]
pub fn reaches(backend: &mut Tracked, orders: &Orders, start: u64, buf: u64, len: u64) -> bool {
    let place = Place(&raw mut backend.walk);
    let mut walk = place.load();
    if walk.seen != start {
        // It was not armed for a while, or bytes were lost.
        walk.state = WALK_LOST;
    }
    walk.seen = start.wrapping_add(len);
    if walk.state & WALK_ASTRAY != 0 {
        place.store(walk);
        // A message that ends behind its first byte was not seen from its beginning.
        if orders.frame <= start {
            return true;
        }
        let seen = walk.seen;
        let state = WALK_MESSAGES | WALK_DOUBT;
        walk = Walk { seen, next: orders.frame - 1, state, ..Walk::default() };
        if walk.next > start {
            walk.state |= WALK_GUARDED;
        }
    }
    walk.state &= !(WALK_REACHED | WALK_PREPARED);
    if orders.flags & ORDER_PREPARED != 0 && walk.state & WALK_DOUBT == 0 {
        walk.state |= WALK_PREPARED;
    }
    place.store(walk);
    for _ in 0..WALK_MESSAGES_MOST / STRIDE {
        if capture_stride(buf.wrapping_sub(start)) == 0 {
            return place.load().state & (WALK_REACHED | WALK_ASTRAY) != 0;
        }
    }
    walk = place.load();
    walk.state = WALK_LOST;
    place.store(walk);
    true
}

/// A message passes without the verdict that it needed.
#[inline(always)]
pub fn doubt(backend: &mut Tracked) {
    let place = Place(&raw mut backend.walk);
    let walk = place.load();
    place.store(Walk { state: walk.state | WALK_DOUBT, ..walk });
}

/// Whether the way is lost.
#[inline(always)]
pub fn is_astray(backend: &mut Tracked) -> bool {
    Place(&raw mut backend.walk).load().state & WALK_ASTRAY != 0
}

/// Passes over messages of the current process's session, [`STRIDE`] at most; `base` is the user address of the stream's
/// position 0. 0 if nothing is left to pass over.
///
/// A global function: see [`crate::piece`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_stride(base: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let place = Place(&raw mut backend.walk);
    for _ in 0..STRIDE {
        let mut walk = place.load();
        let more = pass(&mut walk, base);
        place.store(walk);
        if !more {
            return 0;
        }
    }
    1
}

/// Messages between two looks for the session: most receives hold no more.
const STRIDE: u32 = 8;
const _: () = assert!(WALK_MESSAGES_MOST % STRIDE == 0);

/// Where a walk stands in the map. What one round hands to the next goes through it: a number that is loaded from there is
/// unknown to the verifier, so that all paths through a round look alike to it. Two functions hold such a pointer at once, so
/// nobody may believe to know what it leads to.
#[derive(Clone, Copy)]
struct Place(*mut Walk);

impl Place {
    #[inline(always)]
    fn load(self) -> Walk {
        let place = self.0;
        // SAFETY: a pointer into the map that was a reference; volatile, lest the compiler see through it.
        unsafe {
            Walk {
                seen: (&raw const (*place).seen).read_volatile(),
                next: (&raw const (*place).next).read_volatile(),
                head: (&raw const (*place).head).read_volatile(),
                have: (&raw const (*place).have).read_volatile(),
                state: (&raw const (*place).state).read_volatile(),
            }
        }
    }

    #[inline(always)]
    fn store(self, walk: Walk) {
        let place = self.0;
        // SAFETY: as above.
        unsafe {
            (&raw mut (*place).seen).write_volatile(walk.seen);
            (&raw mut (*place).next).write_volatile(walk.next);
            (&raw mut (*place).head).write_volatile(walk.head);
            (&raw mut (*place).have).write_volatile(walk.have);
            (&raw mut (*place).state).write_volatile(walk.state);
        }
    }
}

/// Passes over one message, or one byte of a header that did not come in one piece. False if nothing is left to pass over.
#[inline(always)]
fn pass(walk: &mut Walk, base: u64) -> bool {
    if walk.next > walk.seen {
        return false;
    }
    if walk.state & WALK_GUARDED != 0 {
        walk.state = walk.state & !WALK_GUARDED | WALK_REACHED;
    }
    let position = walk.next.wrapping_add(u64::from(walk.have));
    if position >= walk.seen {
        return false;
    }
    let messages = walk.state & WALK_MESSAGES != 0;
    let address = base.wrapping_add(position);
    if walk.have == 0 && walk.seen - position >= 8 {
        // SAFETY: the helper checks the address and fails on one that cannot be read.
        match unsafe { bpf_probe_read_user(address as *const u64) } {
            Ok(head) => walk.head = head.to_be(),
            Err(_) => return lost(walk),
        }
    } else {
        // SAFETY: as above.
        match unsafe { bpf_probe_read_user(address as *const u8) } {
            Ok(byte) => walk.head = walk.head << 8 | u64::from(byte),
            Err(_) => return lost(walk),
        }
        walk.have += 1;
        let size = if messages { 5 } else { 8 };
        if walk.have < size {
            return true;
        }
        walk.head <<= 64 - 8 * size;
    }
    walk.have = 0;
    if messages {
        let (tag, length) = ((walk.head >> 56) as u8, (walk.head >> 24) as u32);
        if length < 4 {
            return lost(walk);
        }
        walk.next = walk.next.wrapping_add(1 + u64::from(length));
        let execute = tag == b'E' && walk.state & WALK_PREPARED == 0;
        if tag == b'Q' || tag == b'P' || execute || tag == b'F' {
            walk.state |= WALK_GUARDED;
        }
    } else {
        let (length, code) = ((walk.head >> 32) as u32, walk.head as u32);
        if length < 8 {
            return lost(walk);
        }
        walk.next = walk.next.wrapping_add(u64::from(length));
        // Another startup packet follows the request for encryption.
        if code != SSL_REQUEST && code != GSS_REQUEST {
            walk.state |= WALK_MESSAGES;
        }
    }
    true
}

#[inline(always)]
fn lost(walk: &mut Walk) -> bool {
    walk.state = WALK_LOST;
    false
}

/// `src/include/libpq/pqcomm.h`
const SSL_REQUEST: u32 = 1234 << 16 | 5679;
const GSS_REQUEST: u32 = 1234 << 16 | 5680;
