//! Reads what TLS and GSS sessions say, where the server has it in clear: chooses instructions of the server or of its
//! TLS library, and attaches the probes.
//!
//! Everything that depends on the machine's architecture stands in `x86` and `values`.

mod elf;
mod object;
mod plan;
mod values;
mod x86;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::time::Duration;

use tracing::debug;

use self::object::{FileId, Object};
pub use self::plan::{NoTls, TlsPlan, TlsSource};
use super::access::Access;
use super::kernel::Kernel;

/// One probe to attach: program, place in the file, and cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Probe {
    /// The program's name in the object.
    pub(super) program: &'static str,
    /// The instruction's place in the file.
    pub(super) offset: u64,
    /// What the program learns of the place.
    pub(super) cookie: u64,
}

/// The programs that probes run.
pub(super) const PROGRAMS: [&str; 2] = [BEFORE, AFTER];
const BEFORE: &str = "tls_before";
const AFTER: &str = "tls_after";

/// The probes that are attached, by file. Servers that run the same file share them.
#[derive(Debug, Default)]
pub struct TlsProbes {
    only: Option<TlsSource>,
    files: HashMap<FileId, Attached>,
    last_set: u16,
}

/// The probes in one file.
#[derive(Debug)]
struct Attached {
    set: u16,
    /// What was chosen, in words.
    chosen: String,
    /// Postmasters that need them.
    servers: HashSet<u32>,
    /// Since when none does, in nanoseconds of the monotonic clock, as far as that was seen.
    idle_since: Option<u64>,
}

impl Attached {
    fn new(set: u16, chosen: String) -> Self {
        Self { set, chosen, servers: HashSet::new(), idle_since: None }
    }
}

impl TlsProbes {
    /// Those that an earlier agent left in `kernel`; `only` restricts where others are put.
    pub fn new(kernel: &Kernel, only: Option<TlsSource>) -> Self {
        let attached = |(set, file)| (file, Attached::new(set, "those of an earlier agent".to_owned()));
        let files = kernel.probe_sets().iter().filter_map(|name| from_name(name)).map(attached).collect();
        Self { only, files, last_set: 0 }
    }

    /// Attaches the probes that read the encrypted sessions of the server whose postmaster is `pid`. Yields the number
    /// by which the kernel side knows their set, and what was chosen, in words.
    ///
    /// # Errors
    ///
    /// The server has no place to probe, or the kernel refuses.
    pub fn attach(
        &mut self,
        kernel: &mut Kernel,
        pid: u32,
        access: &dyn Access,
    ) -> Result<(u16, &str), NoTls> {
        let first = TlsPlan::first_file(pid, self.only, access);
        let file = match first.filter(|file| self.files.contains_key(file)) {
            Some(file) => file,
            None => self.attach_anew(kernel, &TlsPlan::of(pid, self.only, access)?)?,
        };
        let attached = self.files.get_mut(&file).ok_or(NoTls::NoLibrary)?;
        attached.servers.insert(pid);
        attached.idle_since = None;
        Ok((attached.set, &attached.chosen))
    }

    /// Attaches the probes of servers that may be started soon, in `files`, their executables: to attach them takes longer than a server
    /// takes to its first session. Those that are not started go with [`TlsProbes::prune`], as if they had been stopped at the
    /// time `now`.
    pub fn expect(&mut self, kernel: &mut Kernel, files: impl IntoIterator<Item = File>, now: u64) {
        if !matches!(self.only, None | Some(TlsSource::Server)) {
            return;
        }
        for executable in files.into_iter().filter_map(|file| Object::executable_in(file).ok()) {
            if self.files.contains_key(&executable.id) || self.idle().count() >= MAX_IDLE {
                continue;
            }
            let name = executable.name.clone();
            let attached =
                TlsPlan::of_executable(executable).and_then(|plan| self.attach_anew(kernel, &plan));
            match attached {
                Ok(file) => {
                    self.files.entry(file).and_modify(|attached| attached.idle_since = Some(now));
                }
                // It is said when such a server runs.
                Err(reason) => debug!(name, %reason, "no probes in advance"),
            }
        }
    }

    fn attach_anew(&mut self, kernel: &mut Kernel, plan: &TlsPlan) -> Result<FileId, NoTls> {
        if !self.files.contains_key(&plan.file) {
            let set = self.free_set();
            let probes: Vec<Probe> = plan.probes(set).collect();
            if let Err(refused) = kernel.attach_probes(&to_name(set, plan.file), &plan.path(), &probes) {
                // Where addresses tell probes apart (before Linux 5.15), one that nobody needs may be in the way.
                if !self.remove_idle(kernel, |_| true) {
                    return Err(refused.into());
                }
                kernel.attach_probes(&to_name(set, plan.file), &plan.path(), &probes)?;
            }
            self.files.insert(plan.file, Attached::new(set, plan.to_string()));
        }
        Ok(plan.file)
    }

    /// The server is gone. Its probes go with [`TlsProbes::prune`], unless it is started again before.
    pub fn release(&mut self, pid: u32) {
        for attached in self.files.values_mut() {
            attached.servers.remove(&pid);
        }
    }

    /// Removes the probes that no server has needed for a while, at the time `now` of the monotonic clock in nanoseconds. A probe
    /// keeps its file on the disk, also when a package upgrade has replaced it.
    pub fn prune(&mut self, kernel: &mut Kernel, now: u64) {
        for attached in self.files.values_mut() {
            let since = attached.idle_since.unwrap_or(now);
            attached.idle_since = attached.servers.is_empty().then_some(since);
        }
        let mut idle: Vec<u64> = self.idle().collect();
        idle.sort_unstable_by(|one, other| other.cmp(one));
        let too_many = idle.get(MAX_IDLE).copied();
        self.remove_idle(kernel, |since| {
            u128::from(now.saturating_sub(since)) >= KEEP.as_nanos()
                || too_many.is_some_and(|last| since <= last)
        });
    }

    /// Since when probes are there that no server needs, for each file.
    fn idle(&self) -> impl Iterator<Item = u64> {
        self.files.values().filter_map(|attached| attached.idle_since)
    }

    /// Removes the probes that no server needs, if they do not since a time that `is_long`. Whether there were any.
    fn remove_idle(&mut self, kernel: &mut Kernel, is_long: impl Fn(u64) -> bool) -> bool {
        let before = self.files.len();
        self.files.retain(|file, attached| {
            let goes = attached.servers.is_empty() && attached.idle_since.is_some_and(&is_long);
            if goes {
                kernel.detach_probes(&to_name(attached.set, *file));
            }
            !goes
        });
        self.files.len() < before
    }

    /// A number that no set has. 0 stands for none.
    fn free_set(&mut self) -> u16 {
        loop {
            self.last_set = self.last_set.wrapping_add(1);
            if self.last_set != 0 && self.files.values().all(|attached| attached.set != self.last_set) {
                return self.last_set;
            }
        }
    }
}

/// How long probes stay that no server needs: a server that is started again, or that was expected, has them before its first session.
const KEEP: Duration = Duration::from_mins(10);
/// Of how many files at most: anybody on the host may run something that is called like a server.
const MAX_IDLE: usize = 16;

/// A set's name: its number, and the file's device and inode.
fn to_name(set: u16, FileId { device, inode }: FileId) -> String {
    format!("{set}_{device:x}_{inode:x}")
}

fn from_name(name: &str) -> Option<(u16, FileId)> {
    let mut parts = name.split('_');
    let set = parts.next()?.parse().ok()?;
    let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
    Some((set, FileId { device: number()?, inode: number()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_found_again_by_its_name() {
        let file = FileId { device: 0xfe01, inode: u64::MAX };
        assert_eq!(from_name(&to_name(7, file)), Some((7, file)));
        for wrong in ["", "7", "7_1", "x_1_2", "7_1_z", "70000_1_2"] {
            assert_eq!(from_name(wrong), None, "{wrong}");
        }
    }
}
