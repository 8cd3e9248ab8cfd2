//! At which ports sessions have their own ends: what tells most sockets of a host from those of sessions at once.

use crate::maps::{PORTS, SKC_NUM};

/// The socket's own port, in host byte order. 0 if it has none: a Unix socket, or a connection that was reset.
///
/// # Safety
///
/// `socket` is a `struct sock *` whose type the verifier knows.
#[inline(always)]
pub unsafe fn own(socket: *const u8) -> u16 {
    // SAFETY: `struct sock` begins with `struct sock_common`, where user space found the field.
    unsafe { socket.add(SKC_NUM.load() as usize).cast::<u16>().read() }
}

/// Whether a socket with this port can be that of a session that is followed.
#[inline(always)]
pub fn may_be_of_session(port: u16) -> bool {
    port == 0 || PORTS.get(0).is_none_or(|ports| ports[usize::from(port)] != 0)
}

/// A session with this port is about to be followed.
#[inline(always)]
pub fn note(port: u16) {
    if let Some(ports) = PORTS.get_ptr_mut(0) {
        // SAFETY: a pointer to the map's value, which is as long as there are ports. Nobody writes anything else there.
        unsafe { ports.cast::<u8>().add(usize::from(port)).write_volatile(1) };
    }
}
