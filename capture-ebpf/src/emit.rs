//! The one way out: every event enters the ring here.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_ebpf::helpers::generated::bpf_probe_read_user;
use capture_common::{
    CloseInfo, EventHeader, FLAG_END_OF_CALL, FLAG_HELD, FLAG_SEALED, FRONTEND, KIND_CLOSE, KIND_DATA,
    KIND_EXEC, KIND_OPEN, LOSS_NONE, LOSS_OVERSIZE, LOSS_RING_FULL, LOSS_UNREADABLE, MAX_CHUNKS,
    ORDER_GUARDS, OpenInfo, STATE_CLOSED, SessionKey, TIERS, Tracked, counter, reader,
};

use crate::hold;
use crate::maps::{COUNTERS, DEFAULTS, READER, RING, WAKE_BYTES};

/// `len` bytes at the user address `buf`, at position `start` of a stream of the session's: that of `direction`, or,
/// as `flags` say, the socket's. Whoever calls has counted them already, whatever becomes of the event.
///
/// What follows is long, and the verifier would walk through all of it once for each way to get here. So what it knows
/// of the arguments passes through the map: a number that is loaded from there is unknown to it.
#[inline(always)]
pub fn data(backend: &mut Tracked, direction: u16, start: u64, flags: u32, buf: u64, len: u64) {
    backend.passing = flags << 16 | u32::from(direction);
    let start = unknown(&mut backend.start, start);
    // SAFETY: the helper has no precondition.
    let at = unsafe { bpf_ktime_get_ns() };
    // Before the event: user space may answer it at once.
    if direction == FRONTEND && guards() {
        hold::guard(backend, buf, len, at);
    }
    let passing = backend.passing;
    let passing = unknown(&mut backend.passing, passing);
    let (direction, flags) = (passing as u16 & 1, passing >> 16);
    // The mask tells the verifier what the caller knows.
    let index = usize::from(direction & 1);
    let header = EventHeader {
        kind: KIND_DATA,
        direction,
        len: len as u32,
        session: backend.session,
        at,
        offset: start,
        loss: backend.loss[index],
        flags: flags | FLAG_END_OF_CALL,
    };
    let passed = start ^ start.wrapping_add(len);
    let wakeup = if flags & FLAG_HELD != 0 && !watched() { FORCE_WAKEUP } else { wakeup(passed) };
    let outcome = if len <= TIERS[0] as u64 {
        piece::<{ TIERS[0] }>(&header, buf, wakeup)
    } else if len <= TIERS[1] as u64 {
        piece::<{ TIERS[1] }>(&header, buf, wakeup)
    } else if len <= TIERS[2] as u64 {
        piece::<{ TIERS[2] }>(&header, buf, wakeup)
    } else if len <= TIERS[3] as u64 {
        piece::<{ TIERS[3] }>(&header, buf, wakeup)
    } else if len <= TIERS[4] as u64 {
        piece::<{ TIERS[4] }>(&header, buf, wakeup)
    } else {
        return large(backend, index, header, buf, len, wakeup);
    };
    backend.loss[index] = outcome;
    if outcome == LOSS_NONE {
        count(counter::EVENTS, 1);
        count(counter::BYTES, len);
    } else if flags & FLAG_SEALED != 0 || !hold::overrun(backend, buf, len) {
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
struct Event<const N: usize> {
    header: EventHeader,
    payload: [u8; N],
}

#[repr(C)]
struct Fixed<T> {
    header: EventHeader,
    payload: T,
}

/// One event with the `header.len <= N` bytes at `buf`. Returns why it failed, or [`LOSS_NONE`].
#[inline(always)]
fn piece<const N: usize>(header: &EventHeader, buf: u64, wakeup: u64) -> u32 {
    let Some(mut entry) = RING.reserve::<Event<N>>(0) else { return LOSS_RING_FULL };
    let event = entry.as_mut_ptr();
    let len = clamp::<N>(u64::from(header.len));
    // SAFETY: `event` points to a reservation of this size; `len` is at most the payload's size; the helper
    // checks the user address.
    let failed = unsafe {
        (&raw mut (*event).header).write(*header);
        bpf_probe_read_user((&raw mut (*event).payload).cast(), len as u32, buf as *const _) != 0
    };
    if failed {
        entry.discard(NO_WAKEUP);
        return LOSS_UNREADABLE;
    }
    entry.submit(wakeup);
    LOSS_NONE
}

/// A number of which the verifier knows nothing any more, by way of a `place` in a map.
#[inline(always)]
fn unknown<T: Copy>(place: &mut T, value: T) -> T {
    let place = &raw mut *place;
    // SAFETY: a pointer that was a reference; volatile, lest the compiler see through it.
    unsafe {
        place.write_volatile(value);
        place.read_volatile()
    }
}

/// A call that moved more than fits the smaller tiers: several events, each of the largest tier. With a piece that
/// fails, the rest of the call is missing.
///
/// What one round hands to the next passes through the map: a number that is loaded from there is unknown to the
/// verifier, so all paths through a round look alike to it and the loop stays within its budget.
#[inline(always)]
fn large(backend: &mut Tracked, index: usize, mut header: EventHeader, buf: u64, len: u64, wakeup: u64) {
    const PIECE: u64 = TIERS[TIERS.len() - 1] as u64;
    let flags = header.flags & !FLAG_END_OF_CALL;
    let start = header.offset;
    let mut done = 0u64;
    let mut missing = LOSS_OVERSIZE;
    for _ in 0..MAX_CHUNKS {
        if done >= len {
            break;
        }
        let left = len - done;
        let n = if left < PIECE { left } else { PIECE };
        header.len = n as u32;
        header.flags = flags | u32::from(left <= PIECE);
        header.loss = backend.loss[index];
        let outcome = piece::<{ TIERS[TIERS.len() - 1] }>(&header, buf.wrapping_add(done), wakeup);
        backend.loss[index] = outcome;
        if outcome != LOSS_NONE {
            missing = outcome;
            break;
        }
        header.offset = header.offset.wrapping_add(n);
        done += PIECE;
    }
    let done = unknown(&mut backend.start, done);
    count(counter::EVENTS, 1);
    count(counter::BYTES, if done < len { done } else { len });
    if done < len {
        backend.loss[index] = missing;
        backend.start = start.wrapping_add(done);
        if flags & FLAG_SEALED == 0 && hold::overrun(backend, buf.wrapping_add(done), len - done) {
            return;
        }
        count(counter::LOST_BYTES, len - done);
    }
    if flags & FLAG_SEALED == 0 {
        backend.told[index] = start.wrapping_add(len);
    }
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

/// `len`, and never more than `N`, in a way that the verifier sees: the compiler knows the bound from the
/// callers and would drop the comparison, were the value not opaque to it here. The mask changes nothing that can be;
/// verifiers before Linux 6.8 follow paths on which they have already ruled `len` out, and lose its sign there.
#[inline(always)]
fn clamp<const N: usize>(mut len: u64) -> u64 {
    const MASK: usize = 2 * TIERS[TIERS.len() - 1] - 1;
    // SAFETY: masks a register.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) len, const MASK) };
    if len > N as u64 { N as u64 } else { len }
}

/// Whether there is any guardrail.
#[inline(always)]
fn guards() -> bool {
    DEFAULTS.get(0).is_some_and(|orders| orders.flags & ORDER_GUARDS != 0)
}

/// Wakes the reader only if it sleeps, or if much waits for it: a wake-up per event would cost the server
/// more than the event. How much waits is looked at when a stream passes a multiple of [`LOOK_BYTES`], that is
/// when `passed`, its offset before xor after, has a higher bit: the look touches what the reader writes.
#[inline(always)]
fn wakeup(passed: u64) -> u64 {
    if called() || (passed >= LOOK_BYTES && RING.query(AVAIL_DATA) > WAKE_BYTES.load()) {
        FORCE_WAKEUP
    } else {
        NO_WAKEUP
    }
}

const LOOK_BYTES: u64 = 4096;

/// Whether the reader sleeps and waits to be called. It is called once: if it is dead, nobody is.
#[inline(always)]
fn called() -> bool {
    let Some(state) = READER.get_ptr_mut(0) else { return false };
    // SAFETY: a pointer into the map. Two processors that see it set at once both wake the reader: no harm.
    unsafe {
        let called = state.read_volatile() == reader::SLEEPS;
        if called {
            state.write_volatile(reader::LOOKS);
        }
        called
    }
}

/// Whether the reader watches the ring.
#[inline(always)]
fn watched() -> bool {
    // SAFETY: a pointer into the map.
    READER.get_ptr_mut(0).is_some_and(|state| unsafe { state.read_volatile() } == reader::WATCHES)
}

/// `include/uapi/linux/bpf.h`
const NO_WAKEUP: u64 = 1;
const FORCE_WAKEUP: u64 = 2;
const AVAIL_DATA: u64 = 0;
