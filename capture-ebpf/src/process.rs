//! Which process a hook runs in, and whether it is followed: the one lookup of every hook.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use capture_common::{ROLE_BACKEND, ROLE_POSTMASTER, Tracked};

use crate::maps::TRACKED;

/// The current process's entry in `TRACKED`, if it is followed.
#[inline(always)]
pub fn tracked() -> Option<&'static mut Tracked> {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    // SAFETY: the pointer is a map value, valid while the program runs. Both kinds of tracked process are
    // single-threaded, so no other CPU writes to this entry at the same time.
    TRACKED.get_ptr_mut(tgid).map(|entry| unsafe { &mut *entry })
}

/// The same, if it is a client backend.
#[inline(always)]
pub fn backend() -> Option<&'static mut Tracked> {
    tracked().filter(|entry| entry.role == ROLE_BACKEND)
}

/// The same, if it is a postmaster.
#[inline(always)]
pub fn postmaster() -> Option<&'static mut Tracked> {
    tracked().filter(|entry| entry.role == ROLE_POSTMASTER)
}
