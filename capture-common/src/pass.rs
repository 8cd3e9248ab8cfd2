//! Rows that nobody wants: the value of the map `PASSES`, one of whose slots each session may use by [`slot_of`].
//!
//! User space says from which message on the server's rows are not wanted. From there on the kernel side follows the
//! messages by itself and hands out nothing, until one comes that is no such row; the slot then says what was passed over.
//!
//! Who may write changes hands with [`Pass::state`]: user space writes while it is [`PASS_FREE`], [`PASS_ASKED`],
//! [`PASS_OVER`] or [`PASS_ASTRAY`], the kernel side from the moment on when it makes it [`PASS_ON`]. It does so on account
//! of [`Pass::next`] alone, so that this may change while it is asked; whose the slot is may not, before that
//! session's process is gone.

use crate::SessionKey;

/// What is passed over of one session, and how far that has come.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pass {
    /// One of the `PASS_*` constants.
    pub state: u32,
    /// The type of the messages that are passed over.
    pub tag: u32,
    /// Whose the slot is.
    pub session: SessionKey,
    /// Position in the server's stream at which the next message begins.
    pub next: u64,
    /// Position of the first byte that was passed over, in the midst of a message perhaps.
    pub from: u64,
    /// One past the last.
    pub seen: u64,
    /// How many messages have begun among them.
    pub messages: u64,
    /// How many bytes of the message at `next` stand in `window`, if its header came in two calls.
    pub have: u32,
    /// How many bytes stand in `window`.
    pub filled: u32,
    /// The bytes at `next`: a header lies in them whole, wherever within the first [`PASS_WINDOW`] it begins.
    pub window: [u8; PASS_WINDOW + PASS_MARGIN],
}

/// Bytes of a call that are looked at together.
pub const PASS_WINDOW: usize = 1024;
/// Bytes behind them, so that a header's bytes may be read without another look at where it begins.
pub const PASS_MARGIN: usize = 8;

/// Sessions of which something is passed over at once: 256 KiB of kernel memory. Of others nothing is.
pub const MAX_PASSES: u32 = 256;

/// The slot that a session may use.
#[inline]
pub const fn slot_of(tgid: u32) -> u32 {
    tgid % MAX_PASSES
}

/// The least that a call moves for the kernel side to look whether it is asked.
pub const PASS_LEAST: u64 = 4_096;

/// Nobody's.
pub const PASS_FREE: u32 = 0;
/// From [`Pass::next`] on nothing is wanted but what is no row.
pub const PASS_ASKED: u32 = 1;
/// The kernel side passes over rows.
pub const PASS_ON: u32 = 2;
/// It did so up to [`Pass::seen`], where a message begins.
pub const PASS_OVER: u32 = 3;
/// It did so up to [`Pass::seen`], and has lost its way there.
pub const PASS_ASTRAY: u32 = 4;

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(offset_of!(Pass, session) == 8);
    assert!(offset_of!(Pass, next) == 24);
    assert!(offset_of!(Pass, window) == 64);
    assert!(size_of::<Pass>().is_multiple_of(8) && MAX_PASSES.is_power_of_two());
};
