//! The fields of the kernel's structs that the kernel side reads, and where they stand in the running kernel.

use super::btf::{BtfError, KernelTypes};

/// The name of each field's global in the object, and the offset; and why accepted connections cannot be found, if they
/// cannot.
pub(super) fn offsets(types: &KernelTypes) -> Result<(Vec<Offset>, Option<BtfError>), BtfError> {
    let of = |fields: &[Field]| -> Result<Vec<Offset>, BtfError> {
        fields.iter().map(|(global, name, field)| Ok((*global, types.offset(name, field)?))).collect()
    };
    let mut offsets = of(&FIELDS)?;
    offsets.push(("PID_NUMBER", types.offset("pid", "numbers")? + types.offset("upid", "nr")?));
    let unseen = match of(&FIELDS_OF_SOCKETS) {
        Ok(more) => {
            offsets.extend(more);
            None
        }
        Err(error) => Some(error),
    };
    Ok((offsets, unseen))
}

/// The name of a field's global, and where the field stands.
type Offset = (&'static str, u32);

/// A field that the kernel side reads: its global, its struct and its name.
type Field = (&'static str, &'static str, &'static str);

const FIELDS: [Field; 11] = [
    ("TASK_PID", "task_struct", "pid"),
    ("TASK_TGID", "task_struct", "tgid"),
    ("TASK_EXIT_CODE", "task_struct", "exit_code"),
    ("TASK_FILES", "task_struct", "files"),
    ("FILES_FDT", "files_struct", "fdt"),
    ("FDTABLE_FD", "fdtable", "fd"),
    ("FILE_PRIVATE_DATA", "file", "private_data"),
    ("SOCKET_SK", "socket", "sk"),
    ("SOCK_PEER_PID", "sock", "sk_peer_pid"),
    ("TASK_THREAD_PID", "task_struct", "thread_pid"),
    ("PID_LEVEL", "pid", "level"),
];

/// What it needs to find an accepted connection, and to tell the sockets of sessions from others.
const FIELDS_OF_SOCKETS: [Field; 13] = [
    ("FDTABLE_MAX_FDS", "fdtable", "max_fds"),
    ("FDTABLE_OPEN_FDS", "fdtable", "open_fds"),
    ("FILE_F_INODE", "file", "f_inode"),
    ("INODE_I_MODE", "inode", "i_mode"),
    ("SOCKET_TYPE", "socket", "type"),
    ("SKC_FAMILY", "sock_common", "skc_family"),
    ("SKC_STATE", "sock_common", "skc_state"),
    ("SKC_NUM", "sock_common", "skc_num"),
    ("SKC_DPORT", "sock_common", "skc_dport"),
    ("SKC_DADDR", "sock_common", "skc_daddr"),
    ("SKC_V6_DADDR", "sock_common", "skc_v6_daddr"),
    ("INET_SPORT", "inet_sock", "inet_sport"),
    ("UNIX_SOCK_ADDR", "unix_sock", "addr"),
];
