//! The agent's own memory.

/// Gives back to the system what was freed: reading the kernel's types and the servers' programs takes some twenty megabytes
/// once, which glibc would keep for good.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the call has no precondition.
    unsafe {
        libc::malloc_trim(0);
    }
}
