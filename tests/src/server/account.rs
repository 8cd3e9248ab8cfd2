//! The system account that servers run as: PostgreSQL refuses to run as root.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

/// A user of this machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl Account {
    /// `program` run by this account, which gets SIGQUIT when the test dies, however it dies. It may look into
    /// folders that are closed to others: the servers that setup installed lie below root's home. PostgreSQL asks
    /// access(2) for its own programs, which forgets the capability without the securebit.
    pub(super) fn command(self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", self.uid))
            .arg(format!("--regid={}", self.gid))
            .args(["--clear-groups", "--pdeathsig=QUIT"])
            .arg("--securebits=+no_setuid_fixup")
            .args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
            .arg(program);
        command
    }
}

/// The account `postgres`, which Debian's packages create.
pub(crate) fn postgres() -> anyhow::Result<Account> {
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
