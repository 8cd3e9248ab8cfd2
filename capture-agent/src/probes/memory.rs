//! The agent's own memory.

/// Gives back to the system what was freed: reading the kernel's types and the servers' programs takes some twenty megabytes
/// once, which the allocator would keep for a while, and for good where nothing happens any more.
pub fn give_back() {
    const PURGE_ALL_ARENAS: &std::ffi::CStr = c"arena.4096.purge";
    let nothing = std::ptr::null_mut();
    // SAFETY: the name is a string that ends with a zero, and this control neither takes nor gives a value.
    unsafe {
        tikv_jemalloc_sys::mallctl(PURGE_ALL_ARENAS.as_ptr(), nothing, nothing.cast(), nothing, 0);
    }
}
