//! Passes over rows that nobody wants: follows the headers of what the server sends, from a message on that user space has
//! named, and hands out nothing of it until one comes that is no row. See [`capture_common::Pass`].
//!
//! A window of the call is copied and looked at there: for rows of a hundred bytes, a read of the server's memory for
//! each would cost more than all of them together.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use capture_common::{
    BACKEND, FLAG_SEALED, PASS_ASKED, PASS_ASTRAY, PASS_LEAST, PASS_ON, PASS_OVER, PASS_WINDOW, Pass,
    Tracked, counter, slot_of,
};

use crate::emit::count;
use crate::maps::PASSES;
use crate::process;

/// How many bytes at the front of a call are passed over, which moved the `len` bytes at the user address `buf`; they stand at
/// `start` in the stream of `direction`.
#[inline(always)]
pub fn over(backend: &Tracked, direction: u16, start: u64, flags: u32, buf: u64, len: u64) -> u64 {
    if direction != BACKEND || flags & FLAG_SEALED != 0 {
        return 0;
    }
    let Some(slot) = Slot::of(backend.session.tgid) else { return 0 };
    let state = slot.state();
    if state != PASS_ON && (state != PASS_ASKED || len < PASS_LEAST) {
        return 0;
    }
    capture_pass(start, buf, len)
}

/// A global function: see [`crate::piece`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_pass(start: u64, buf: u64, len: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let Some(slot) = Slot::of(backend.session.tgid) else { return 0 };
    if slot.born() != backend.session.born {
        return 0;
    }
    let next = slot.next();
    if slot.state() == PASS_ASKED {
        // It has run past what user space knows of it.
        if next < start {
            return 0;
        }
        slot.begin(start);
    } else if slot.seen() != start {
        slot.set_state(PASS_ASTRAY);
        return 0;
    }
    slot.set_seen(start.wrapping_add(len));
    for _ in 0..WINDOWS {
        if capture_pass_window(buf.wrapping_sub(start)) == 0 {
            break;
        }
    }
    let seen = start.wrapping_add(len);
    let mut passed = len;
    if slot.state() != PASS_ON {
        // A message that is no row.
        passed = slot.seen().wrapping_sub(start);
    } else if slot.next() < seen && slot.have() == 0 {
        // More than it had patience for.
        passed = slot.next().wrapping_sub(start);
        slot.set_seen(slot.next());
        slot.set_state(PASS_OVER);
    }
    if passed > len {
        return 0;
    }
    count(counter::PASSED_BYTES, passed);
    passed
}

/// Passes over the messages that begin in the next [`PASS_WINDOW`] bytes of the call; `base` is the user address of the
/// stream's position 0. 0 if nothing is left to pass over.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_pass_window(base: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let Some(slot) = Slot::of(backend.session.tgid) else { return 0 };
    let (mut next, have) = (slot.next(), u64::from(slot.have()) & 7);
    let left = slot.seen().wrapping_sub(next);
    // The present message ends with the call, or behind it.
    if (left as i64) <= have as i64 {
        return 0;
    }
    let fresh = at_most::<{ PASS_WINDOW - 8 }>(left - have);
    let from = base.wrapping_add(next).wrapping_add(have);
    // SAFETY: at most 7 bytes and then `PASS_WINDOW - 8`, which the window holds; the helper checks the user address.
    let failed =
        unsafe { bpf_probe_read_user(slot.window(have).cast(), fresh as u32, from as *const _) != 0 };
    if failed {
        return slot.end(next, have);
    }
    let filled = have + fresh;
    slot.set_filled(filled as u32);
    let mut at = 0u64;
    let mut messages = slot.messages();
    for _ in 0..HEADERS {
        if at >= u64::from(slot.filled()) {
            break;
        }
        if u32::from(slot.byte(at)) != slot.tag() {
            slot.set_messages(messages);
            return slot.end(next, if at == 0 { have } else { 0 });
        }
        if at + 5 > u64::from(slot.filled()) {
            break;
        }
        let length = slot.length(at);
        if length < 4 {
            slot.set_messages(messages);
            return slot.end(next, if at == 0 { have } else { 0 });
        }
        messages += 1;
        at += 1 + length;
        next = next.wrapping_add(1 + length);
    }
    slot.set_messages(messages);
    slot.set_next(next);
    slot.set_have(0);
    let seen = slot.seen();
    if next >= seen {
        return 0;
    }
    let rest = seen - next;
    if rest >= 5 || at + rest != filled {
        // Another header lies in the call, or more of this one behind the window.
        return 1;
    }
    // The front of a header, whose rest comes with the next call.
    for i in 0..4u64 {
        slot.set_byte(i, slot.byte(at + i));
    }
    slot.set_have(rest as u32);
    0
}

/// Windows of a call that are looked at.
const WINDOWS: u32 = 32;
/// Messages that are passed over between two reads: of shorter ones, a window is read again from where they end. The verifier
/// walks through all of them.
const HEADERS: usize = 48;

/// `len`, and never more than `N`, in a way that the verifier sees whatever the compiler knows.
#[inline(always)]
fn at_most<const N: usize>(mut len: u64) -> u64 {
    // SAFETY: changes nothing; it only hides from the compiler what it knows.
    unsafe { core::arch::asm!("{0} += 0", inout(reg) len) };
    if len > N as u64 { N as u64 } else { len }
}

/// A session's slot. What one function, or one round of a loop, hands to the next goes through it: see
/// [`crate::walk`].
#[derive(Clone, Copy)]
struct Slot(*mut Pass);

macro_rules! fields {
    ($($field:ident, $set:ident: $type:ty;)*) => {$(
        #[inline(always)]
        fn $field(self) -> $type {
            // SAFETY: a pointer into the map; volatile, because the other side writes too.
            unsafe { (&raw const (*self.0).$field).read_volatile() }
        }

        #[inline(always)]
        fn $set(self, value: $type) {
            // SAFETY: as above.
            unsafe { (&raw mut (*self.0).$field).write_volatile(value) }
        }
    )*};
}

impl Slot {
    #[inline(always)]
    fn of(tgid: u32) -> Option<Self> {
        PASSES.get_ptr_mut(slot_of(tgid)).map(Self)
    }

    fields! {
        state, set_state: u32;
        next, set_next: u64;
        seen, set_seen: u64;
        messages, set_messages: u64;
        have, set_have: u32;
        filled, set_filled: u32;
    }

    #[inline(always)]
    fn tag(self) -> u32 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).tag).read_volatile() }
    }

    #[inline(always)]
    fn born(self) -> u64 {
        // SAFETY: as above.
        unsafe { (&raw const (*self.0).session.born).read_volatile() }
    }

    #[inline(always)]
    fn begin(self, start: u64) {
        // SAFETY: as above.
        unsafe { (&raw mut (*self.0).from).write_volatile(start) };
        self.set_messages(0);
        self.set_have(0);
        self.set_state(PASS_ON);
    }

    /// The message at `next` is no row, or cannot be told; `have` bytes of it came with an earlier call, and are gone.
    #[inline(always)]
    fn end(self, next: u64, have: u64) -> u64 {
        self.set_seen(next.wrapping_add(have));
        self.set_state(if have == 0 { PASS_OVER } else { PASS_ASTRAY });
        0
    }

    /// The window from `at` on.
    #[inline(always)]
    fn window(self, at: u64) -> *mut u8 {
        // SAFETY: in bounds.
        unsafe { (&raw mut (*self.0).window).cast::<u8>().add((at & 7) as usize) }
    }

    #[inline(always)]
    fn at(self, mut at: u64) -> *mut u8 {
        const MASK: usize = PASS_WINDOW - 1;
        // SAFETY: masks a register, so that the verifier sees what the callers know.
        unsafe { core::arch::asm!("{0} &= {1}", inout(reg) at, const MASK) };
        // SAFETY: within the window.
        unsafe { (&raw mut (*self.0).window).cast::<u8>().add(at as usize) }
    }

    #[inline(always)]
    fn byte(self, at: u64) -> u8 {
        // SAFETY: within the window.
        unsafe { self.at(at).read_volatile() }
    }

    #[inline(always)]
    fn set_byte(self, at: u64, byte: u8) {
        // SAFETY: within the window.
        unsafe { self.at(at).write_volatile(byte) }
    }

    /// The length field of the message that begins at `at`.
    #[inline(always)]
    fn length(self, at: u64) -> u64 {
        let header = self.at(at);
        // SAFETY: within the window and its margin.
        let [a, b, c, d] = unsafe { [1, 2, 3, 4].map(|i| header.add(i).read_volatile()) };
        u64::from(u32::from_be_bytes([a, b, c, d]))
    }
}
