//! The one way out: every event enters the ring here.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use capture_common::{
    CloseInfo, EventHeader, FLAG_END_OF_CALL, FLAG_SEALED, FRONTEND, KIND_CLOSE, KIND_EXEC, KIND_OPEN,
    LOSS_NONE, ORDER_GUARDS, OpenInfo, STATE_CLOSED, SessionKey, Tracked, counter,
};

use crate::maps::{COUNTERS, DEFAULTS, RING};
use crate::piece::{PIECE, Small, capture_piece, capture_pieces};
use crate::{hold, pass};

/// `len` bytes at the user address `buf`, at position `start` of a stream of the session's: that of `direction`, or,
/// as `flags` say, the socket's. Whoever calls has counted them already, whatever becomes of the event.
#[inline(always)]
pub fn data(backend: &mut Tracked, direction: u16, start: u64, mut flags: u32, buf: u64, len: u64) {
    let passed = pass::over(backend, direction, start, flags, buf, len);
    if passed >= len {
        return;
    }
    let (start, buf, len) = (start.wrapping_add(passed), buf.wrapping_add(passed), len - passed);
    // SAFETY: the helper has no precondition.
    let at = unsafe { bpf_ktime_get_ns() };
    // Before the event: user space may answer it at once.
    if direction == FRONTEND && guards() {
        flags |= hold::guard(backend, start, at, buf, len, flags);
    }
    // The mask tells the verifier what the caller knows.
    let index = usize::from(direction & 1);
    let (tgid, loss) = (backend.session.tgid, backend.loss[index]);
    if len > PIECE {
        let small = Small::new(tgid, direction, loss, flags, 0);
        capture_pieces(start, at, buf, len, small.bits());
        return;
    }
    let small = Small::new(tgid, direction, loss, flags | FLAG_END_OF_CALL, len);
    let outcome = capture_piece(backend.session.born, start, at, buf, small.bits()) as u32;
    backend.loss[index] = outcome;
    if outcome == LOSS_NONE {
        count(counter::EVENTS, 1);
        count(counter::BYTES, len);
    } else if flags & FLAG_SEALED != 0 || !hold::overrun(start, buf, len, direction, flags) {
        count(counter::LOST_EVENTS, 1);
        count(counter::LOST_BYTES, len);
    } else {
        return;
    }
    if flags & FLAG_SEALED == 0 {
        backend.told[index] = start.wrapping_add(len);
    }
}

/// A session began.
#[inline(always)]
pub fn open(backend: &Tracked) {
    let header = EventHeader {
        kind: KIND_OPEN,
        len: size_of::<OpenInfo>() as u32,
        session: backend.session,
        at: backend.session.born,
        ..EventHeader::default()
    };
    // If the ring is full, user space finds the same facts in `TRACKED` when it meets the session.
    fixed(&header, backend.open);
}

/// A process that was followed exits. Whether user space was told; if not, the entry is marked.
#[inline(always)]
pub fn close(entry: &mut Tracked) -> bool {
    let header = EventHeader {
        kind: KIND_CLOSE,
        len: size_of::<CloseInfo>() as u32,
        session: entry.session,
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_ns() },
        ..EventHeader::default()
    };
    let info = CloseInfo {
        end: entry.offset,
        socket: entry.socket,
        loss: entry.loss,
        exit_code: entry.exit_code,
        reserved: 0,
    };
    let told = fixed(&header, info);
    if !told {
        entry.state |= STATE_CLOSED;
    }
    told
}

/// A program with a server's name was executed in process `tgid`.
#[inline(always)]
pub fn exec(tgid: u32) {
    let header = EventHeader {
        kind: KIND_EXEC,
        session: SessionKey { born: 0, tgid, reserved: 0 },
        // SAFETY: the helper has no precondition.
        at: unsafe { bpf_ktime_get_ns() },
        ..EventHeader::default()
    };
    fixed(&header, [0u64; 0]);
}

/// Adds to a counter; `index` is one of [`capture_common::counter`].
#[inline(always)]
pub fn count(index: u32, n: u64) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a pointer into this CPU's own slot of the map.
        unsafe { *value = (*value).wrapping_add(n) };
    }
}

#[repr(C)]
struct Fixed<T> {
    header: EventHeader,
    payload: T,
}

/// An event whose payload is a small struct. Whether it entered the ring.
#[inline(always)]
fn fixed<T: Copy + 'static>(header: &EventHeader, payload: T) -> bool {
    let Some(mut entry) = RING.reserve::<Fixed<T>>(0) else {
        count(counter::LOST_EVENTS, 1);
        return false;
    };
    entry.write(Fixed { header: *header, payload });
    entry.submit(FORCE_WAKEUP);
    count(counter::EVENTS, 1);
    true
}

/// Whether there is any guardrail.
#[inline(always)]
fn guards() -> bool {
    DEFAULTS.get(0).is_some_and(|orders| orders.flags & ORDER_GUARDS != 0)
}

/// `include/uapi/linux/bpf.h`
pub const NO_WAKEUP: u64 = 1;
pub const FORCE_WAKEUP: u64 = 2;
