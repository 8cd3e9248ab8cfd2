//! The system account that servers run as: PostgreSQL refuses to run as root.

use std::fs;

use anyhow::Context;

/// A user of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The account `postgres`, which Debian's packages create.
pub(super) fn postgres() -> anyhow::Result<Account> {
    let users = fs::read_to_string("/etc/passwd")?;
    users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.first() == Some(&"postgres"))
        .and_then(|fields| {
            Some(Account { uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
        })
        .context("this machine has no user `postgres`: run `cargo xtask setup`")
}
