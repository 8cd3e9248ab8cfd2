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
use super::kernel::{Kernel, ProbeLink};

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
    links: Vec<ProbeLink>,
    /// Postmasters that need them.
    servers: HashSet<u32>,
}

impl TlsProbes {
    /// No probes yet; `only` restricts where they are put.
    pub fn new(only: Option<TlsSource>) -> Self {
        Self { only, ..Self::default() }
    }

    /// Attaches the probes that read the encrypted sessions of the server whose postmaster is `pid`. Yields the number
    /// by which the kernel side knows their set, and what was chosen.
    ///
    /// # Errors
    ///
    /// The server has no place to probe, or the kernel refuses.
    pub fn attach(&mut self, kernel: &mut Kernel, pid: u32) -> Result<(u16, TlsPlan), NoTls> {
        let plan = TlsPlan::of(pid, self.only)?;
        if let Some(attached) = self.files.get_mut(&plan.file) {
            attached.servers.insert(pid);
            return Ok((attached.set, plan));
        }
        let set = self.free_set();
        let links = kernel.attach_probes(&plan.path, plan.probes(set))?;
        self.files.insert(plan.file, Attached { set, links, servers: HashSet::from([pid]) });
        Ok((set, plan))
    }

    /// The server is gone: removes the probes that no other server needs. A probe keeps its file on the disk, also
    /// when a package upgrade has replaced it.
    pub fn release(&mut self, kernel: &mut Kernel, pid: u32) {
        for attached in self.files.values_mut() {
            if attached.servers.remove(&pid) && attached.servers.is_empty() {
                kernel.detach_probes(std::mem::take(&mut attached.links));
            }
        }
        self.files.retain(|_, attached| !attached.servers.is_empty());
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
