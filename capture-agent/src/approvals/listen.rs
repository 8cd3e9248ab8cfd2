//! The socket, and who may use it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::probes::Pins;

/// The socket of the agent that these pins belong to.
pub fn socket(runtime_dir: &Path, pins: &Pins) -> PathBuf {
    runtime_dir.join(pins.name()).join("approvals")
}

/// Listens on `socket`. Its owner may connect, and the members of `group`: who can connect may decide.
pub(super) fn listen(socket: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    if UnixStream::connect(socket).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent listens there"));
    }
    let Some(folder) = socket.parent() else { return Err(io::ErrorKind::InvalidInput.into()) };
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        // An agent that was killed left it, or there was none.
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    listener.set_nonblocking(true)?;
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    if let Some(group) = group {
        chown(socket, None, Some(group))?;
        fs::set_permissions(socket, Permissions::from_mode(0o660))?;
        // Its members pass through, and list nothing. The shim's socket beside this one is its owner's alone.
        chown(folder, None, Some(group))?;
        fs::set_permissions(folder, Permissions::from_mode(0o710))?;
        if let Some(above) = folder.parent() {
            // The sockets of other agents lie there too, each in a folder of its own group.
            let mode = fs::metadata(above)?.permissions().mode();
            fs::set_permissions(above, Permissions::from_mode(mode & 0o7777 | 0o011))?;
        }
    }
    Ok(listener)
}
