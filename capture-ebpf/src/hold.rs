//! Stops a backend at the end of its system call, before it runs on: the signal takes effect on the way back to user
//! space. What it was about to do, or has just done, waits with it.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_send_signal;
use capture_common::{
    FLAG_ENDED, FLAG_GSS, FLAG_HELD, FLAG_PLAINTEXT, FLAG_SEALED, FLAG_UNHELD, FRONTEND, HOLD_ASTRAY,
    HOLD_CLOSED, HOLD_GSS, HOLD_GUARD, HOLD_PASSED, HOLD_PLAINTEXT, HOLD_UNREAD, HOLD_WAITING, Hold,
    ORDER_ARMED, ORDER_CLOSED, ORDER_GUARD_CLOSED, ORDER_PREPARED, ORDER_REQUIRED, Orders, STALE_NS, Tracked,
    WALK_LOST, beat, counter,
};

use crate::maps::{BEATS, DEFAULTS, HOLDS, ORDERS, SITE_SETS};
use crate::piece::Small;
use crate::{emit, process, walk};

/// Bytes of the session found no way into the ring: `len` at the user address `buf`, at position `start` of the stream of
/// `direction`. If they must not be lost the backend is stopped, so that user space can read them from its memory. Whether it
/// was.
#[inline(always)]
pub fn overrun(start: u64, buf: u64, len: u64, direction: u16, flags: u32) -> bool {
    capture_overrun(start, buf, len, Small::new(0, direction, 0, flags, 0).bits()) != 0
}

/// A global function: see [`crate::piece`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_overrun(start: u64, buf: u64, len: u64, small: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let small = Small::of_bits(small);
    if small.flags() & FLAG_HELD != 0 {
        return u64::from(unread(backend.session.tgid));
    }
    let orders = orders(backend);
    // What an armed session's client asks for must be known, lest a later verdict be a guess.
    let armed = orders.flags & ORDER_ARMED != 0 && small.direction() == FRONTEND;
    if orders.flags & ORDER_REQUIRED == 0 && !armed {
        return 0;
    }
    let closed = orders.flags & (if armed { ORDER_GUARD_CLOSED | ORDER_CLOSED } else { ORDER_CLOSED }) != 0;
    // SAFETY: the helper has no precondition.
    let at = unsafe { bpf_ktime_get_ns() };
    if passed(backend) || !(beats(beat::AGENT, at, STALE_NS) || beats(beat::SHIM, at, STALE_NS)) {
        if closed {
            signal(SIGTERM);
        }
        return 0;
    }
    let wait_ms = if orders.flags & ORDER_REQUIRED != 0 { orders.wait_ms } else { orders.guard_ms };
    let flags = HOLD_UNREAD | if closed { HOLD_CLOSED } else { 0 };
    let hold = Hold { offset: start, buffer: buf, len, ..hold(backend, at, wait_ms, flags, small) };
    u64::from(stop(&hold, counter::HELD) & FLAG_HELD != 0)
}

/// The client has sent `len` bytes, which the server has received at the user address `buf` and not looked at; they stand at
/// `start` in its stream. If they complete a message that a guardrail may be about, the backend is stopped, and waits for a
/// verdict from `at` on. Which of the event's flags say what became of that.
#[inline(always)]
pub fn guard(backend: &mut Tracked, start: u64, at: u64, buf: u64, len: u64, flags: u32) -> u32 {
    if orders(backend).flags & ORDER_ARMED == 0 {
        backend.walk.state = WALK_LOST;
        return 0;
    }
    capture_guard(start, at, buf, len, Small::new(0, FRONTEND, 0, flags, 0).bits()) as u32
}

/// A global function: see [`crate::piece`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_guard(start: u64, at: u64, buf: u64, len: u64, small: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let small = Small::of_bits(small);
    let orders = orders(backend);
    if small.flags() & FLAG_SEALED != 0 {
        // SAFETY: the value is looked for, not at.
        if unsafe { SITE_SETS.get(backend.open.postmaster) }.is_some() {
            return 0;
        }
        // Nothing will tell what the client asks for.
        backend.walk.state = WALK_LOST;
    } else {
        if orders.flags & ORDER_PREPARED != 0 && is_overdue(backend) {
            walk::doubt(backend);
        }
        if !walk::reaches(backend, &orders, start, buf, len) {
            return 0;
        }
    }
    let closed = orders.flags & ORDER_GUARD_CLOSED != 0;
    // The shim decides nothing; and an agent that was not seen for so long decides nothing in time.
    if passed(backend) || !beats(beat::AGENT, at, u64::from(orders.guard_ms) * 1_000_000) {
        if closed {
            signal(SIGTERM);
        }
        walk::doubt(backend);
        return 0;
    }
    let astray = walk::is_astray(backend);
    let flags = HOLD_GUARD | if closed { HOLD_CLOSED } else { 0 } | if astray { HOLD_ASTRAY } else { 0 };
    let hold = Hold { offset: start, buffer: buf, len, ..hold(backend, at, orders.guard_ms, flags, small) };
    let stopped = stop(&hold, counter::GUARDED);
    if stopped & FLAG_HELD == 0 {
        walk::doubt(backend);
    }
    u64::from(stopped)
}

/// What is known of a hold but for its bytes.
#[inline(always)]
fn hold(backend: &Tracked, at: u64, wait_ms: u32, mut flags: u16, small: Small) -> Hold {
    if small.flags() & FLAG_PLAINTEXT != 0 {
        flags |= HOLD_PLAINTEXT;
    }
    if small.flags() & FLAG_GSS != 0 {
        flags |= HOLD_GSS;
    }
    Hold {
        session: backend.session,
        at,
        deadline: at.wrapping_add(u64::from(wait_ms) * 1_000_000),
        direction: small.direction(),
        flags,
        state: HOLD_WAITING,
        ..Hold::default()
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

/// Whether the session went on last without the verdict that it had waited for.
#[inline(always)]
fn is_overdue(backend: &Tracked) -> bool {
    // SAFETY: user space writes it while this process is stopped only.
    unsafe { HOLDS.get(backend.session.tgid) }.is_some_and(|hold| hold.state == HOLD_PASSED)
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
