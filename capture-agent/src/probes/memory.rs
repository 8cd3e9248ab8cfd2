//! The agent's own memory.

/// Has glibc keep what batches of rows take and give back again and again: otherwise each of them is taken from the system and
/// returned to it, and each of its pages is cleared. What is large goes back at once.
pub fn keep_batches() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the calls take numbers only, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TOP_PAD, GROWTH);
    }
}

/// Gives back to the system what was freed: reading the kernel's types and the servers' programs takes some twenty megabytes
/// once, which glibc would keep for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no precondition.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Bytes at the end of an arena that are kept: as much as the batches between two threads take.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 32 << 20;
/// Bytes that are mapped by themselves: more than a batch has.
#[cfg(target_env = "gnu")]
const LARGE: i32 = 8 << 20;
/// Bytes by which an arena grows at least.
#[cfg(target_env = "gnu")]
const GROWTH: i32 = 4 << 20;
