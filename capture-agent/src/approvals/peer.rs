//! Who is at the other end of a connection, without asking anybody but the kernel and the host's own files: a name
//! service may need the very database whose session is held.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::sockopt::socket_peercred;

/// The user id with which the other end connected (`SO_PEERCRED` in `unix(7)`).
pub(super) fn uid(stream: &UnixStream) -> io::Result<u32> {
    Ok(socket_peercred(stream)?.uid.as_raw())
}

/// The user's name, if `/etc/passwd` has it.
pub(super) fn name(uid: u32) -> Option<String> {
    name_in(&read(Path::new("/etc/passwd"))?, uid)
}

/// The id of a group that `/etc/group` has.
pub fn group_id(name: &str) -> Option<u32> {
    id_in(&read(Path::new("/etc/group"))?, name)
}

fn read(path: &Path) -> Option<String> {
    // Other users' full names may be in any encoding.
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// `name:password:uid:…`, one to a line (`passwd(5)`).
fn name_in(users: &str, uid: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// `name:password:gid:…`, one to a line (`group(5)`).
fn id_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_whole_fields() {
        let users =
            "root:x:0:0:root:/root:/bin/sh\n:x:7:7::/:\nbob:x:100:\nalice:x:1000:1000:A. L.,,:/srv/alice:\n";
        assert_eq!(name_in(users, 1000).as_deref(), Some("alice"));
        assert_eq!(name_in(users, 0).as_deref(), Some("root"));
        assert_eq!((name_in(users, 10), name_in(users, 7)), (None, None));
        let groups = "dba:x:27:alice,bob\ndbas:x:28:\nbroken\nodd:x:y:\n";
        assert_eq!((id_in(groups, "dba"), id_in(groups, "dbas")), (Some(27), Some(28)));
        assert_eq!((id_in(groups, "db"), id_in(groups, "odd"), id_in(groups, "broken")), (None, None, None));
    }
}
