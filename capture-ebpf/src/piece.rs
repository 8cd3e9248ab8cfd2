//! Puts bytes of a session into the ring: one event, or as many as a large call needs.
//!
//! The functions here, and a few in `hold` and `walk`, are global functions of the object: the verifier walks through each of
//! them once and knows nothing of its caller, so that what a program costs it is the sum of its parts. Inlined, or static, they
//! would cost it a walk for each way that leads to them, which is more than Linux 5.10 has patience for. Their arguments
//! are numbers, because that is all that it can vouch for; what they need of the session beside those they look up again,
//! where it is rare that they are called.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use capture_common::{
    EventHeader, FLAG_END_OF_CALL, FLAG_HELD, FLAG_SEALED, KIND_DATA, LOSS_NONE, LOSS_OVERSIZE,
    LOSS_RING_FULL, LOSS_UNREADABLE, MAX_CHUNKS, SessionKey, TIERS, counter, reader,
};

use crate::emit::{FORCE_WAKEUP, NO_WAKEUP, count};
use crate::hold::overrun;
use crate::maps::{READER, RING, WAKE_BYTES};
use crate::process;

/// The most bytes that one event carries.
pub const PIECE: u64 = TIERS[TIERS.len() - 1] as u64;

/// An event's small numbers, so that they and the others fit the five arguments of a function: bits 0 to 19 are the length, 20
/// the direction, 21 to 23 the loss, 24 to 31 the flags, and the rest the process.
#[derive(Clone, Copy)]
pub struct Small(u64);

impl Small {
    #[inline(always)]
    pub fn new(tgid: u32, direction: u16, loss: u32, flags: u32, len: u64) -> Self {
        Self(
            len & LEN
                | u64::from(direction & 1) << 20
                | u64::from(loss & 7) << 21
                | u64::from(flags & 0xff) << 24
                | u64::from(tgid) << 32,
        )
    }

    #[inline(always)]
    pub fn len(self) -> u64 {
        self.0 & LEN
    }

    #[inline(always)]
    pub fn direction(self) -> u16 {
        (self.0 >> 20) as u16 & 1
    }

    #[inline(always)]
    fn loss(self) -> u32 {
        (self.0 >> 21) as u32 & 7
    }

    #[inline(always)]
    pub fn flags(self) -> u32 {
        (self.0 >> 24) as u32 & 0xff
    }

    #[inline(always)]
    fn tgid(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    pub fn of_bits(bits: u64) -> Self {
        Self(bits)
    }

    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0
    }
}

const LEN: u64 = (1 << 20) - 1;
const _: () = assert!(PIECE <= LEN);

/// One event with the bytes at the user address `buf`, at position `offset`. Returns why it failed, or [`LOSS_NONE`].
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_piece(born: u64, offset: u64, at: u64, buf: u64, small: u64) -> u64 {
    let small = Small::of_bits(small);
    let len = small.len();
    let header = EventHeader {
        kind: KIND_DATA,
        direction: small.direction(),
        len: len as u32,
        session: SessionKey { born, tgid: small.tgid(), reserved: 0 },
        at,
        offset,
        loss: small.loss(),
        flags: small.flags(),
    };
    let wakeup = if small.flags() & FLAG_HELD != 0 && !watched() {
        FORCE_WAKEUP
    } else {
        wakeup(offset ^ offset.wrapping_add(len))
    };
    let outcome = if len <= TIERS[0] as u64 {
        tier::<{ TIERS[0] }>(&header, buf, wakeup)
    } else if len <= TIERS[1] as u64 {
        tier::<{ TIERS[1] }>(&header, buf, wakeup)
    } else if len <= TIERS[2] as u64 {
        tier::<{ TIERS[2] }>(&header, buf, wakeup)
    } else if len <= TIERS[3] as u64 {
        tier::<{ TIERS[3] }>(&header, buf, wakeup)
    } else if len <= TIERS[4] as u64 {
        tier::<{ TIERS[4] }>(&header, buf, wakeup)
    } else {
        tier::<{ TIERS[5] }>(&header, buf, wakeup)
    };
    u64::from(outcome)
}

/// A call that moved more than one event carries: several. With a piece that fails, the rest of the call is missing. Of
/// `small` the direction and the flags are meant.
///
/// The loop is as short as can be: the verifier walks through each of its rounds.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn capture_pieces(start: u64, at: u64, buf: u64, len: u64, small: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let (direction, flags) = (Small::of_bits(small).direction(), Small::of_bits(small).flags());
    let (born, tgid) = (backend.session.born, backend.session.tgid);
    let mut loss = backend.loss[usize::from(direction)];
    let mut missing = LOSS_OVERSIZE;
    let mut pieces = 0u64;
    for _ in 0..MAX_CHUNKS {
        let done = pieces * PIECE;
        if len - done <= PIECE {
            missing = LOSS_NONE;
            break;
        }
        let small = Small::new(tgid, direction, loss, flags, PIECE).bits();
        let outcome = capture_piece(born, start.wrapping_add(done), at, buf.wrapping_add(done), small);
        if outcome != u64::from(LOSS_NONE) {
            missing = outcome as u32;
            break;
        }
        loss = LOSS_NONE;
        pieces += 1;
    }
    capture_last_piece(start, at, buf, len, Small::new(0, direction, missing, flags, pieces).bits())
}

/// The rest of a large call, of which so many pieces are in the ring as `small` has for a length; its loss says why no more can
/// follow, if so.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_last_piece(start: u64, at: u64, buf: u64, len: u64, small: u64) -> u64 {
    let Some(backend) = process::backend() else { return 0 };
    let small = Small::of_bits(small);
    let (direction, flags, mut loss) = (small.direction(), small.flags(), small.loss());
    let index = usize::from(direction);
    let done = small.len() * PIECE;
    let (position, address, left) =
        (start.wrapping_add(done), buf.wrapping_add(done), len.wrapping_sub(done));
    if loss == LOSS_NONE {
        let small = Small::new(backend.session.tgid, direction, LOSS_NONE, flags | FLAG_END_OF_CALL, left);
        loss = capture_piece(backend.session.born, position, at, address, small.bits()) as u32;
    }
    backend.loss[index] = loss;
    let told = if loss == LOSS_NONE { len } else { done };
    count(counter::EVENTS, 1);
    count(counter::BYTES, told);
    if loss != LOSS_NONE {
        if flags & FLAG_SEALED == 0 && overrun(position, address, left, direction, flags) {
            return 0;
        }
        count(counter::LOST_BYTES, left);
    }
    if flags & FLAG_SEALED == 0 {
        backend.told[index] = start.wrapping_add(len);
    }
    0
}

#[repr(C)]
struct Event<const N: usize> {
    header: EventHeader,
    payload: [u8; N],
}

#[inline(always)]
fn tier<const N: usize>(header: &EventHeader, buf: u64, wakeup: u64) -> u32 {
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
const AVAIL_DATA: u64 = 0;
