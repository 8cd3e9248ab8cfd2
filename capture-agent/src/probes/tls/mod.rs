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

use self::object::FileId;
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
}

impl TlsProbes {
    /// Those that an earlier agent left in `kernel`; `only` restricts where others are put.
    pub fn new(kernel: &Kernel, only: Option<TlsSource>) -> Self {
        let chosen = || "those of an earlier agent".to_owned();
        let attached = |(set, file)| (file, Attached { set, chosen: chosen(), servers: HashSet::new() });
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
        Ok((attached.set, &attached.chosen))
    }

    fn attach_anew(&mut self, kernel: &mut Kernel, plan: &TlsPlan) -> Result<FileId, NoTls> {
        if !self.files.contains_key(&plan.file) {
            let set = self.free_set();
            let probes: Vec<Probe> = plan.probes(set).collect();
            kernel.attach_probes(&to_name(set, plan.file), &plan.path(), &probes)?;
            let attached = Attached { set, chosen: plan.to_string(), servers: HashSet::new() };
            self.files.insert(plan.file, attached);
        }
        Ok(plan.file)
    }

    /// The server is gone. Its probes go with [`TlsProbes::prune`], unless it was only restarted.
    pub fn release(&mut self, pid: u32) {
        for attached in self.files.values_mut() {
            attached.servers.remove(&pid);
        }
    }

    /// Removes the probes that no server needs. A probe keeps its file on the disk, also when a package upgrade has
    /// replaced it.
    pub fn prune(&mut self, kernel: &mut Kernel) {
        self.files.retain(|file, attached| {
            if attached.servers.is_empty() {
                kernel.detach_probes(&to_name(attached.set, *file));
            }
            !attached.servers.is_empty()
        });
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
