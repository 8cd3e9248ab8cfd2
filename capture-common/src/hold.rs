//! A backend that is stopped, and what user space wants of a session: the values of the maps `HOLDS` and `ORDERS`.
//!
//! Who may write a hold changes hands with the backend: while it runs, the kernel side alone; while it is stopped, user
//! space alone. So user space ends a hold first and continues the backend then, and no two ever write at once.

use crate::SessionKey;

/// A stopped backend: what it waits with, and until when. One per process, since a stopped process does nothing else.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Which session.
    pub session: SessionKey,
    /// When it was stopped: nanoseconds of `CLOCK_MONOTONIC`. Tells one hold of a session from the next.
    pub at: u64,
    /// When it must go on or end, whatever happens.
    pub deadline: u64,
    /// Position in the session's stream of the bytes that it waits with.
    pub offset: u64,
    /// Their address in the backend's memory.
    pub buffer: u64,
    /// How many there are.
    pub len: u64,
    /// [`FRONTEND`](crate::FRONTEND) or [`BACKEND`](crate::BACKEND).
    pub direction: u16,
    /// `HOLD_*` flags.
    pub flags: u16,
    /// [`HOLD_WAITING`], [`HOLD_OVER`] or [`HOLD_PASSED`].
    pub state: u32,
}

/// What user space wants of one session, or, as `DEFAULTS`, of each that it has said nothing of yet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// [`SessionKey::born`] of the session that is meant: its process id may be in use again.
    pub born: u64,
    /// One more than a position in the client's stream at which a message begins; 0 if none is known. Where the kernel
    /// side has lost its way, it takes it up again there.
    pub frame: u64,
    /// `ORDER_*` flags.
    pub flags: u32,
    /// How long the backend may be stopped because the ring is full, in milliseconds.
    pub wait_ms: u32,
    /// How long it may be stopped for a verdict, unless user space says more, in milliseconds.
    pub guard_ms: u32,
    /// Always zero.
    pub reserved: u32,
}

/// How far the messages of an armed session's client were followed: part of [`Tracked`](crate::Tracked).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Position in the client's stream up to which they were followed.
    pub seen: u64,
    /// Position at which the next message begins.
    pub next: u64,
    /// The header at hand: its first bytes, big-endian.
    pub head: u64,
    /// How many bytes of a header have come that does not come in one piece.
    pub have: u32,
    /// `WALK_*` flags; none at the beginning of a session, where startup packets come.
    pub state: u32,
}

/// [`Walk::state`]: startup packets are over.
pub const WALK_MESSAGES: u32 = 1;
/// [`Walk::state`]: a verdict may be needed on the message before [`Walk::next`].
pub const WALK_GUARDED: u32 = 2;
/// [`Walk::state`]: it is not known where a message begins.
pub const WALK_ASTRAY: u32 = 4;
/// [`Walk::state`]: such a message was complete.
pub const WALK_REACHED: u32 = 8;
/// [`Walk::state`]: a message may have passed that a verdict was needed on. Of what is prepared since nobody can vouch for it.
pub const WALK_DOUBT: u32 = 16;
/// [`Walk::state`]: see [`ORDER_PREPARED`].
pub const WALK_PREPARED: u32 = 32;
/// [`Walk::state`] of one who has lost the way.
pub const WALK_LOST: u32 = WALK_ASTRAY | WALK_DOUBT;
/// Messages that are followed in one receive; if it brings more, the way is lost.
pub const WALK_MESSAGES_MOST: u32 = 128;

/// [`Hold::state`]: nobody has decided yet.
pub const HOLD_WAITING: u32 = 1;
/// [`Hold::state`]: it is decided; the backend goes on or ends.
pub const HOLD_OVER: u32 = 2;
/// [`Hold::state`]: its deadline has passed, and the backend goes on or ends. It is not stopped again before the agent
/// has shown that it is alive.
pub const HOLD_PASSED: u32 = 3;

/// [`Hold::flags`]: when the deadline passes the session is ended; else it goes on, with a gap.
pub const HOLD_CLOSED: u16 = 1;
/// [`Hold::flags`]: the bytes are plaintext of an encrypted connection.
pub const HOLD_PLAINTEXT: u16 = 2;
/// [`Hold::flags`]: and GSSAPI encrypts it, not TLS.
pub const HOLD_GSS: u16 = 4;
/// [`Hold::flags`]: it waits for a verdict.
pub const HOLD_GUARD: u16 = 8;
/// [`Hold::flags`]: no event carries the bytes. Of every hold without [`HOLD_GUARD`].
pub const HOLD_UNREAD: u16 = 16;
/// [`Hold::flags`]: the kernel side does not know where the client's next message begins: see [`Orders::frame`].
pub const HOLD_ASTRAY: u16 = 32;

/// [`Orders::flags`]: the session's bytes must not be lost.
pub const ORDER_REQUIRED: u32 = 1;
/// [`Orders::flags`]: what cannot be recorded in time ends the session; else it goes on, with a gap.
pub const ORDER_CLOSED: u32 = 2;
/// [`Orders::flags`]: what the client asks for waits for a verdict.
pub const ORDER_ARMED: u32 = 4;
/// [`Orders::flags`]: without a verdict in time the session ends; else it goes on.
pub const ORDER_GUARD_CLOSED: u32 = 8;

/// [`Orders::flags`], of `DEFAULTS`: there are guardrails, and so sessions that are armed.
pub const ORDER_GUARDS: u32 = 16;

/// [`Orders::flags`]: whatever the session has prepared may run, with whatever parameters: an Execute waits for no verdict.
pub const ORDER_PREPARED: u32 = 32;

/// Indexes of the map `BEATS`: when each process was last seen alive, in nanoseconds of `CLOCK_MONOTONIC`.
pub mod beat {
    /// The agent.
    pub const AGENT: u32 = 0;
    /// The shim.
    pub const SHIM: u32 = 1;
    /// How many there are.
    pub const COUNT: u32 = 2;
}

/// A process whose last beat is this old is taken for dead: no backend is stopped that nobody would continue. Ten and
/// more beats may be late on a busy host before that.
pub const STALE_NS: u64 = 2_000_000_000;

const _: () = {
    use core::mem::size_of;
    assert!(size_of::<Hold>() == 64);
    assert!(size_of::<Orders>() == 32);
    assert!(size_of::<Walk>() == 32);
};
