//! The layout of every event and map value that Capture's kernel side hands to user space, and every limit
//! that both sides share.
//!
//! All structs are `#[repr(C)]` with fixed-width integers and no padding; the asserts at the end of the file
//! keep it so. Numbers are in the host's byte order, except where a field says otherwise.
#![no_std]

mod hold;
mod pass;
mod site;

pub use hold::{
    HOLD_ASTRAY, HOLD_CLOSED, HOLD_GSS, HOLD_GUARD, HOLD_OVER, HOLD_PASSED, HOLD_PLAINTEXT, HOLD_UNREAD,
    HOLD_WAITING, Hold, ORDER_ARMED, ORDER_CLOSED, ORDER_GUARD_CLOSED, ORDER_GUARDS, ORDER_PREPARED,
    ORDER_REQUIRED, Orders, STALE_NS, WALK_ASTRAY, WALK_DOUBT, WALK_GUARDED, WALK_LOST, WALK_MESSAGES,
    WALK_MESSAGES_MOST, WALK_PREPARED, WALK_REACHED, Walk, beat,
};
pub use pass::{
    MAX_PASSES, PASS_ASKED, PASS_ASTRAY, PASS_FREE, PASS_LEAST, PASS_MARGIN, PASS_ON, PASS_OVER, PASS_WINDOW,
    Pass, slot_of,
};
pub use site::{Operand, SITE_ADDRESS, Site};

/// Bytes of one event in the ring: an [`EventHeader`], then `len` bytes of payload.
///
/// The payload is an [`OpenInfo`], raw stream bytes, a [`CloseInfo`] or nothing, by [`EventHeader::kind`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventHeader {
    /// One of the `KIND_*` constants.
    pub kind: u16,
    /// [`FRONTEND`] or [`BACKEND`]; meaningful for [`KIND_DATA`] only.
    pub direction: u16,
    /// Length of the payload in bytes.
    pub len: u32,
    /// Which session: the backend process and the moment it was forked.
    pub session: SessionKey,
    /// When it happened: nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// Position of the payload's first byte in the session's stream of that direction; with [`FLAG_SEALED`], in
    /// the socket's.
    pub offset: u64,
    /// Why bytes are missing right before `offset`, if any are: one of the `LOSS_*` constants.
    pub loss: u32,
    /// `FLAG_*` flags.
    pub flags: u32,
}

/// Names one session on this host: no two sessions share both fields, also when process ids are reused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// `CLOCK_MONOTONIC` nanoseconds at the backend's fork, or at its discovery.
    pub born: u64,
    /// The backend's process id in the initial PID namespace.
    pub tgid: u32,
    /// Always zero.
    pub reserved: u32,
}

/// What the kernel knows of a session when its backend is forked.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenInfo {
    /// The postmaster's process id in the initial PID namespace.
    pub postmaster: u32,
    /// The client socket's descriptor in the backend.
    pub fd: u32,
    /// Process id of the client, in the initial PID namespace; 0 if unknown. Unix sockets only.
    pub peer_pid: u32,
    /// `AF_INET`, `AF_INET6`, `AF_UNIX`, or 0 if unknown.
    pub family: u16,
    /// The client's port, in network byte order; 0 for Unix sockets.
    pub port: u16,
    /// The client's address in network byte order; IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// The backend's process id in its own PID namespace: what the server itself calls it; 0 if unknown.
    pub own_pid: u32,
    /// Always zero.
    pub reserved: u32,
}

/// How a session ended, and how far its streams had come.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseInfo {
    /// Final offset of each direction, indexed by [`FRONTEND`] and [`BACKEND`].
    pub end: [u64; 2],
    /// Bytes that passed over the socket in each direction.
    pub socket: [u64; 2],
    /// Why the bytes before each `end` that were not delivered are missing: a `LOSS_*` constant each.
    pub loss: [u32; 2],
    /// The backend's exit code as `wait(2)` reports it.
    pub exit_code: u32,
    /// Always zero.
    pub reserved: u32,
}

/// One process that the kernel side follows: the value of the `TRACKED` map, keyed by process id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Tracked {
    /// [`ROLE_POSTMASTER`] or [`ROLE_BACKEND`].
    pub role: u32,
    /// `STATE_*` flags.
    pub state: u32,
    /// Which session; for a postmaster, `born` is zero.
    pub session: SessionKey,
    /// Bytes of the session's streams so far, in each direction, whether or not their events could be delivered:
    /// the socket's bytes until encryption begins, the plaintext from there.
    pub offset: [u64; 2],
    /// How much of `offset` stands in the ring or is lost for certain. Behind `offset` while a program is at work, which
    /// may be interrupted for long, and while the backend is held.
    pub told: [u64; 2],
    /// Bytes that passed over the socket so far, in each direction.
    pub socket: [u64; 2],
    /// Why the latest undelivered bytes of each direction are missing: a `LOSS_*` constant each.
    pub loss: [u32; 2],
    /// The session's socket and peer. In a postmaster: of the connection accepted last.
    pub open: OpenInfo,
    /// The exit code, once [`STATE_CLOSED`] is set.
    pub exit_code: u32,
    /// In a postmaster: 1 while an accepted connection waits for its fork.
    pub accepted: u32,
    /// The call of the TLS library that the process is in, as far as its entry is probed.
    pub call: TlsCall,
    /// Address of the `SSL` whose calls move bytes over the client's socket; 0 while that is not known. A backend can
    /// have other TLS connections: foreign servers, LDAP.
    pub ssl: u64,
    /// The set of sites that are known to be those of the backend's server; 0 before the first was met.
    pub site_set: u32,
    /// Always zero.
    pub reserved: u32,
    /// Of an armed session: how far its client's messages were followed.
    pub walk: Walk,
}

/// Arguments of `SSL_read`, `SSL_write` and their `_ex` forms, kept from a site before the call to one after it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCall {
    /// The `SSL`; 0 outside a call.
    pub ssl: u64,
    /// The caller's buffer.
    pub buffer: u64,
    /// Address of the `size_t` that will hold how many bytes were moved.
    pub length: u64,
}

/// What a later agent must know of a kernel side that outlived the agent that loaded it: index 0 of the map
/// `META`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// [`ABI`] of the agent that loaded it; zero until everything is attached.
    pub abi: u32,
    /// Which family of socket hooks is attached, as user space numbers them.
    pub sockets: u32,
    /// When it was loaded: nanoseconds of `CLOCK_MONOTONIC`. No two kernel sides on a host share it.
    pub epoch: u64,
}

/// Version of everything in this file that an agent reads from a kernel side that another build loaded: the
/// events' layout and the maps' values. To be raised with every change to them.
pub const ABI: u32 = 8;

/// A session opened: payload [`OpenInfo`].
pub const KIND_OPEN: u16 = 1;
/// Bytes passed between client and server: payload is these bytes.
pub const KIND_DATA: u16 = 2;
/// A session's backend exited: payload [`CloseInfo`].
pub const KIND_CLOSE: u16 = 3;
/// A program named `postgres` was executed: no payload; `session.tgid` is the process.
pub const KIND_EXEC: u16 = 4;

/// From the client to the server.
pub const FRONTEND: u16 = 0;
/// From the server to the client.
pub const BACKEND: u16 = 1;

/// No byte is missing.
pub const LOSS_NONE: u32 = 0;
/// The ring was full.
pub const LOSS_RING_FULL: u32 = 1;
/// The process's memory could not be read without a page fault.
pub const LOSS_UNREADABLE: u32 = 2;
/// One system call moved more than [`MAX_CALL_BYTES`].
pub const LOSS_OVERSIZE: u32 = 3;

/// [`EventHeader::flags`]: this event carries the last bytes of its call.
pub const FLAG_END_OF_CALL: u32 = 1;
/// [`EventHeader::flags`]: these are bytes of an encrypted connection as they passed over the socket. They are not part
/// of the session's streams; `offset` counts the socket's bytes.
pub const FLAG_SEALED: u32 = 2;
/// [`EventHeader::flags`]: the server's TLS or GSS library took or gave these bytes in clear.
pub const FLAG_PLAINTEXT: u32 = 4;
/// [`EventHeader::flags`], beside [`FLAG_PLAINTEXT`]: it was the GSS library.
pub const FLAG_GSS: u32 = 8;
/// [`EventHeader::flags`]: the backend was stopped when it had received these bytes, and waits for a verdict.
pub const FLAG_HELD: u32 = 16;
/// [`EventHeader::flags`]: it should have been, and could not be: the kernel took no signal, or the hold found no room.
pub const FLAG_UNHELD: u32 = 32;
/// [`EventHeader::flags`], beside [`FLAG_UNHELD`]: so its session was told to end before it runs on.
pub const FLAG_ENDED: u32 = 64;

/// [`Tracked::role`]: the server's first process, which accepts and forks.
pub const ROLE_POSTMASTER: u32 = 1;
/// [`Tracked::role`]: a process that serves one client session.
pub const ROLE_BACKEND: u32 = 2;

/// [`Tracked::state`]: the process exited, but the ring had no room for its [`KIND_CLOSE`].
pub const STATE_CLOSED: u32 = 1;
/// [`Tracked::state`]: the session was open before the hooks: whether it is encrypted is not known.
pub const STATE_FOUND: u32 = 2;
/// [`Tracked::state`]: what passes over the socket is encrypted.
pub const STATE_ENCRYPTED: u32 = 4;
/// [`Tracked::state`]: plaintext of the encrypted session has passed.
pub const STATE_PLAINTEXT: u32 = 8;

/// Processes that can be followed at once, postmasters included. PostgreSQL's `max_connections` rarely
/// passes a few thousand; the maps of this size cost about 6 MB of kernel memory.
pub const MAX_TRACKED: u32 = 16_384;

/// Places in TLS code that can be probed at once where probes have no cookies: four to six for each file.
pub const MAX_SITES: u32 = 256;

/// Payload sizes of the ring's reservations, smallest first. A reservation's size must be a constant for the
/// verifier, so each event takes the smallest tier that holds it. 8,192 is PostgreSQL's send and receive
/// buffer (`PQ_RECV_BUFFER_SIZE`, `PQ_SEND_BUFFER_SIZE` in `src/backend/libpq/pqcomm.c`).
pub const TIERS: [usize; 6] = [128, 512, 2_048, 8_192, 32_768, 262_144];

/// Events of the largest tier that one system call may fill.
pub const MAX_CHUNKS: usize = 32;

/// Bytes of one system call that are captured; more is a declared gap. The kernel's default ceiling for a
/// socket's send buffer is 4 MiB (`net.ipv4.tcp_wmem`), so a single non-blocking send stays under this.
pub const MAX_CALL_BYTES: u64 = (MAX_CHUNKS * TIERS[TIERS.len() - 1]) as u64;

/// Bytes of an encrypted connection that are delivered as they passed over the socket, in each direction: the
/// handshake, which names the version and the cipher. A certificate chain rarely passes 16 KiB. No more follow once
/// plaintext has passed.
pub const MAX_SEALED: u64 = 64 * 1024;

/// What the reader is about, as it says in the map `READER`, index 0.
pub mod reader {
    /// It looks at the ring now and then; a hold wakes it.
    pub const LOOKS: u32 = 0;
    /// It sleeps until an event wakes it.
    pub const SLEEPS: u32 = 1;
    /// It watches the ring, and looks once more after it has said that it no longer does: nothing need wake it.
    pub const WATCHES: u32 = 2;
}

/// Counters of the kernel side: indexes into the per-CPU `COUNTERS` map.
pub mod counter {
    /// Events that entered the ring; a system call that needs several counts once.
    pub const EVENTS: u32 = 0;
    /// Stream bytes submitted to the ring.
    pub const BYTES: u32 = 1;
    /// Events that did not.
    pub const LOST_EVENTS: u32 = 2;
    /// Stream bytes not delivered, for whatever reason.
    pub const LOST_BYTES: u32 = 3;
    /// Backends that could not be followed because `TRACKED` was full.
    pub const UNTRACKED: u32 = 4;
    /// Backends that were stopped because the ring had no room for what must not be lost.
    pub const HELD: u32 = 5;
    /// Backends that were stopped for a verdict.
    pub const GUARDED: u32 = 6;
    /// Backends that should have been stopped and could not be.
    pub const UNHELD: u32 = 7;
    /// Stream bytes of rows that were passed over: see [`Pass`](crate::Pass).
    pub const PASSED_BYTES: u32 = 8;
    /// How many counters there are.
    pub const COUNT: u32 = 9;
}

#[cfg(feature = "user")]
mod user {
    #![allow(unsafe_code, reason = "Pod is an unsafe trait: it promises that every bit pattern is valid")]
    // SAFETY: `repr(C)`, integers only, no padding (asserted below), 'static and Copy.
    unsafe impl aya::Pod for super::Tracked {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Meta {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Hold {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Orders {}
}

const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(size_of::<EventHeader>() == 48);
    assert!(offset_of!(EventHeader, session) == 8);
    assert!(offset_of!(EventHeader, at) == 24);
    assert!(size_of::<SessionKey>() == 16);
    assert!(size_of::<OpenInfo>() == 40);
    assert!(size_of::<CloseInfo>() == 48);
    assert!(size_of::<Meta>() == 16);
    assert!(size_of::<TlsCall>() == 24);
    assert!(size_of::<Tracked>() == 200);
    assert!(offset_of!(Tracked, open) == 80);
    assert!(offset_of!(Tracked, call) == 128);
    assert!(align_of::<Tracked>() == 8 && align_of::<EventHeader>() == 8);
};
