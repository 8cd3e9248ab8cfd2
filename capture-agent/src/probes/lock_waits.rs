//! Which sessions of a server wait for locks, as its process titles tell: no query is needed, which would itself need a
//! session, and perhaps a lock.
//!
//! A backend that begins to wait for a lock sets its title (`WaitOnLock` in `src/backend/storage/lmgr/lock.c`), unless
//! `update_process_title` is off. The title does not tell whose lock it is.

use super::processes;

/// The processes of a server that wait for a lock, whoever holds it; by the postmaster's process id, as the host sees
/// it.
pub fn waiting_for_locks(postmaster: u32) -> Vec<u32> {
    let waits = |child: &u32| processes::command_line(*child).is_some_and(|title| title_waits(&title));
    processes::children(postmaster).into_iter().filter(waits).collect()
}

/// Those that wait since one session is held: an upper bound of those that wait for what that session holds.
#[derive(Clone, Debug)]
pub struct LockWaits {
    postmaster: u32,
    /// Those that waited before, and have not been seen otherwise since.
    before: Vec<u32>,
}

impl LockWaits {
    /// From here on.
    pub fn since_now(postmaster: u32) -> Self {
        Self { postmaster, before: waiting_for_locks(postmaster) }
    }

    /// Who waits now and did not before.
    pub fn look(&mut self) -> Vec<u32> {
        let mut waiting = waiting_for_locks(self.postmaster);
        self.before.retain(|pid| waiting.contains(pid));
        waiting.retain(|pid| !self.before.contains(pid));
        waiting
    }
}

fn title_waits(title: &str) -> bool {
    title.starts_with("postgres: ") && title.ends_with(" waiting")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_tells_whether_a_backend_waits_for_a_lock() {
        assert!(title_waits("postgres: alice shop [local] UPDATE waiting"));
        assert!(title_waits("postgres: 15/main: alice shop 10.0.0.7(5123) LOCK TABLE waiting"));
        assert!(!title_waits("postgres: alice waiting [local] idle"));
        assert!(!title_waits("postgres: alice shop [local] COMMIT waiting for 0/3000060"));
        assert!(!title_waits("notpostgres waiting"));
    }
}
