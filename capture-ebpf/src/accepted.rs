//! The connection that a postmaster has accepted and forks for, where no hook sees it being accepted: found among what the
//! postmaster has open.
//!
//! It has one at most: it forks as soon as it has accepted, and closes its own descriptor then (`BackendStartup` in
//! `src/backend/postmaster/postmaster.c`). Other sockets, such as its supervisor's, are not connected at the address of one on
//! which it listens.

use capture_common::OpenInfo;

use crate::kernel::{Socket, Task};
use crate::ports;
use crate::sockets::{AF_INET, AF_INET6, AF_UNIX};

/// The connection that the current process, a postmaster, has accepted and not closed.
#[inline(always)]
pub fn connection(postmaster: u32) -> Option<OpenInfo> {
    let task = Task::current();
    let table = task.descriptors()?;
    let mut found = 0;
    for word in 0..WORDS {
        found = capture_connection(table, word, found);
    }
    let fd = found.checked_sub(1)? as u32;
    let socket = task.socket(fd)?;
    let mut open = OpenInfo { postmaster, fd, family: socket.family()?, ..OpenInfo::default() };
    if open.family == AF_UNIX {
        open.peer_pid = task.unix_peer(fd);
    } else {
        ports::note(socket.bound_port()?);
        open.port = socket.peer_port().unwrap_or(0);
        if open.family == AF_INET {
            open.addr[..4].copy_from_slice(&socket.peer_ipv4().unwrap_or_default());
        } else {
            open.addr = socket.peer_ipv6().unwrap_or_default();
        }
    }
    Some(open)
}

// Global functions, these five (see [`crate::piece`]): the verifier looks at each for itself, and so at no loop within another.

/// Looks for the connection among 64 descriptors. One more than the last that is one, or `found`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_connection(table: u64, word: u64, mut found: u64) -> u64 {
    let open = Task::open_descriptors(table, word);
    for byte in 0..8 {
        if open >> (8 * byte) & 0xff != 0 {
            found = capture_connection_of(table, 64 * word + 8 * byte, found);
        }
    }
    found
}

/// The same among eight, of which `first` is the first.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_connection_of(table: u64, first: u64, mut found: u64) -> u64 {
    for fd in first..first.wrapping_add(8) {
        let address = capture_address(table, fd, CONNECTED);
        if address != 0 && capture_listener(table, address) != 0 {
            found = fd.wrapping_add(1);
        }
    }
    found
}

/// Whether a descriptor is of a socket that listens at `address`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_listener(table: u64, address: u64) -> u64 {
    for word in 0..WORDS {
        if capture_listener_of(table, word, address) != 0 {
            return 1;
        }
    }
    0
}

/// The same of 64 descriptors.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_listener_of(table: u64, word: u64, address: u64) -> u64 {
    let mut open = Task::open_descriptors(table, word);
    for fd in 0..64 {
        if open == 0 {
            break;
        }
        if open & 1 != 0 && capture_address(table, 64 * word + fd, LISTENING) == address {
            return 1;
        }
        open >>= 1;
    }
    0
}

/// Where the socket behind a descriptor is connected, or listens, as `what` says: what a connection that was accepted has
/// in common with its listener, and with no other socket. A Unix socket's name is one in the kernel's memory too; a TCP
/// socket's port stays even if the connection is reset. 0 for all other descriptors.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn capture_address(table: u64, fd: u64, what: u64) -> u64 {
    let Some(socket) = Socket::of_descriptor(table, fd) else { return 0 };
    let (Some(family), Some(state)) = (socket.family(), socket.state()) else { return 0 };
    let address = if family == AF_UNIX {
        let as_wanted = if what == LISTENING { state == LISTEN } else { state == ESTABLISHED };
        if as_wanted { socket.unix_name() } else { None }
    } else if family == AF_INET || family == AF_INET6 {
        // Connected is also what its client has closed or reset already: what had been sent can still be received.
        let connected = state != LISTEN && socket.peer_port().unwrap_or(0) != 0;
        let as_wanted = if what == LISTENING { state == LISTEN } else { connected };
        if as_wanted { socket.own_port().map(u64::from) } else { None }
    } else {
        None
    };
    address.unwrap_or(0)
}

const CONNECTED: u64 = 0;
const LISTENING: u64 = 1;

/// Words of 64 descriptors that are looked through. A postmaster has some dozens open.
const WORDS: u64 = 64;

/// `include/net/tcp_states.h`; Unix sockets use the same.
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
