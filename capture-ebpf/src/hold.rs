//! Stops a backend at the end of its system call, before it runs on: the signal takes effect on the way back to user
//! space. What it was about to do, or has just done, waits with it.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_send_signal;
use capture_common::{
    FLAG_ENDED, FLAG_GSS, FLAG_HELD, FLAG_PLAINTEXT, FLAG_SEALED, FLAG_UNHELD, FRONTEND, HOLD_ASTRAY,
    HOLD_CLOSED, HOLD_GSS, HOLD_GUARD, HOLD_PASSED, HOLD_PLAINTEXT, HOLD_UNREAD, HOLD_WAITING, Hold,
    ORDER_ARMED, ORDER_CLOSED, ORDER_GUARD_CLOSED, ORDER_REQUIRED, Orders, STALE_NS, Tracked, WALK_ASTRAY,
    beat, counter,
};

use crate::maps::{BEATS, DEFAULTS, HOLDS, ORDERS, SITE_SETS};
use crate::{emit, walk};

/// Bytes of the session found no way into the ring: `len` at the user address `buf`; `backend.start` and
/// `backend.passing` say where they belong. If they must not be lost the backend is stopped, so that user space can
/// read them from its memory. Whether it was.
///
/// A function of its own, which the verifier walks through once for each call rather than for each path to it.
#[inline(never)]
pub fn overrun(backend: &mut Tracked, buf: u64, len: u64) -> bool {
    if (backend.passing >> 16) & FLAG_HELD != 0 {
        return unread(backend.session.tgid);
    }
    let orders = orders(backend);
    // What an armed session's client asks for must be known, lest a later verdict be a guess.
    let armed = orders.flags & ORDER_ARMED != 0 && backend.passing as u16 == FRONTEND;
    if orders.flags & ORDER_REQUIRED == 0 && !armed {
        return false;
    }
    let closed = orders.flags & (if armed { ORDER_GUARD_CLOSED | ORDER_CLOSED } else { ORDER_CLOSED }) != 0;
    // SAFETY: the helper has no precondition.
    let at = unsafe { bpf_ktime_get_ns() };
    if passed(backend) || !(beats(beat::AGENT, at, STALE_NS) || beats(beat::SHIM, at, STALE_NS)) {
        if closed {
            signal(SIGTERM);
        }
        return false;
    }
    let wait_ms = if orders.flags & ORDER_REQUIRED != 0 { orders.wait_ms } else { orders.guard_ms };
    let flags = HOLD_UNREAD | if closed { HOLD_CLOSED } else { 0 };
    let hold = hold(backend, at, wait_ms, flags, buf, len);
    stop(&hold, counter::HELD) & FLAG_HELD != 0
}

/// The client has sent `len` bytes, which the server has received at the user address `buf` and not looked at. If they
/// complete a message that a guardrail may be about, the backend is stopped, and waits for a verdict from `at` on. What became
/// of that is added to the event's flags in `backend.passing`, by way of which the verifier forgets it.
///
/// A function of its own, as [`overrun`] is.
#[inline(never)]
pub fn guard(backend: &mut Tracked, buf: u64, len: u64, at: u64) {
    let orders = orders(backend);
    if orders.flags & ORDER_ARMED == 0 {
        backend.walk.state = WALK_ASTRAY;
        return;
    }
    let sealed = (backend.passing >> 16) & FLAG_SEALED != 0;
    if sealed {
        // SAFETY: the value is looked for, not at.
        if unsafe { SITE_SETS.get(backend.open.postmaster) }.is_some() {
            return;
        }
        // Nothing will tell what the client asks for.
        backend.walk.state = WALK_ASTRAY;
    } else if !walk::reaches(backend, orders.frame, buf, len) {
        return;
    }
    let closed = orders.flags & ORDER_GUARD_CLOSED != 0;
    // The shim decides nothing; and an agent that was not seen for so long decides nothing in time.
    if passed(backend) || !beats(beat::AGENT, at, u64::from(orders.guard_ms) * 1_000_000) {
        if closed {
            signal(SIGTERM);
        }
        return;
    }
    let astray = backend.walk.state & WALK_ASTRAY != 0;
    let flags = HOLD_GUARD | if closed { HOLD_CLOSED } else { 0 } | if astray { HOLD_ASTRAY } else { 0 };
    let hold = hold(backend, at, orders.guard_ms, flags, buf, len);
    backend.passing |= stop(&hold, counter::GUARDED) << 16;
}

#[inline(always)]
fn hold(backend: &Tracked, at: u64, wait_ms: u32, mut flags: u16, buffer: u64, len: u64) -> Hold {
    if (backend.passing >> 16) & FLAG_PLAINTEXT != 0 {
        flags |= HOLD_PLAINTEXT;
    }
    if (backend.passing >> 16) & FLAG_GSS != 0 {
        flags |= HOLD_GSS;
    }
    Hold {
        session: backend.session,
        at,
        deadline: at.wrapping_add(u64::from(wait_ms) * 1_000_000),
        offset: backend.start,
        buffer,
        len,
        direction: backend.passing as u16,
        flags,
        state: HOLD_WAITING,
    }
}

/// Stops the backend; if that cannot be done and it must not go on, ends its session. Which of the event's flags say so.
#[inline(always)]
fn stop(hold: &Hold, counter: u32) -> u32 {
    // The signal first: who sees the hold may continue the backend at once.
    if signal(SIGSTOP) {
        if HOLDS.insert(hold.session.tgid, hold, 0).is_ok() {
            emit::count(counter, 1);
            return FLAG_HELD;
        }
        signal(SIGCONT);
    }
    emit::count(counter::UNHELD, 1);
    if hold.flags & HOLD_CLOSED != 0 && signal(SIGTERM) { FLAG_UNHELD | FLAG_ENDED } else { FLAG_UNHELD }
}

/// The event that was to tell of a hold found no room: user space finds it in the table.
#[inline(always)]
fn unread(tgid: u32) -> bool {
    let Some(hold) = HOLDS.get_ptr_mut(tgid) else { return false };
    // SAFETY: a pointer into the map. Nobody else writes to this hold yet: its event would have told of it.
    unsafe { (*hold).flags |= HOLD_UNREAD };
    emit::count(counter::HELD, 1);
    true
}

/// The process exits: what it was stopped for, and what was ordered for it, is void.
#[inline(always)]
pub fn forget(tgid: u32) {
    let _ = HOLDS.remove(tgid);
    let _ = ORDERS.remove(tgid);
}

#[inline(always)]
fn orders(backend: &Tracked) -> Orders {
    // SAFETY: user space replaces the value as a whole, and the hash table keeps the old one until no program uses it.
    let own = unsafe { ORDERS.get(backend.session.tgid) };
    match own {
        Some(orders) if orders.born == backend.session.born => *orders,
        _ => DEFAULTS.get(0).copied().unwrap_or_default(),
    }
}

/// Whether a deadline of the session has passed and the agent has not been seen since.
#[inline(always)]
fn passed(backend: &Tracked) -> bool {
    // SAFETY: user space writes it while this process is stopped only.
    let last = unsafe { HOLDS.get(backend.session.tgid) };
    last.is_some_and(|hold| {
        hold.state == HOLD_PASSED && BEATS.get(beat::AGENT).is_none_or(|seen| *seen < hold.deadline)
    })
}

/// Whether the agent, or the shim, was seen within this time.
#[inline(always)]
fn beats(index: u32, now: u64, within: u64) -> bool {
    // Written a moment ago on another processor it may lie ahead.
    BEATS.get(index).is_some_and(|last| now.saturating_sub(*last) < within)
}

/// Sends a signal to the current process. Whether it was taken.
///
/// Where a program may not wait, the kernel hands the signal to an interrupt of this processor, one at a time
/// (`bpf_send_signal_common` in `kernel/trace/bpf_trace.c`): the one before may be a moment from being taken.
#[inline(never)]
fn signal(number: u32) -> bool {
    for _ in 0..SIGNAL_ATTEMPTS {
        // SAFETY: the helper has no precondition.
        match unsafe { bpf_send_signal(number) } {
            0 => return true,
            BUSY => {}
            _ => return false,
        }
    }
    false
}

/// Each takes a fraction of a microsecond; the interrupt is due at once.
const SIGNAL_ATTEMPTS: u32 = 4;
/// `-EBUSY`: `include/uapi/asm-generic/errno-base.h`
const BUSY: i64 = -16;
/// `include/uapi/asm-generic/signal.h`
const SIGTERM: u32 = 15;
const SIGCONT: u32 = 18;
const SIGSTOP: u32 = 19;
