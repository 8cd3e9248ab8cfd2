//! Attaches programs to instructions of servers and libraries, and pins what the next agent needs to go on.
//!
//! The probes of one file are a set. Each link carries its set's name and a number, `tls_SET_N`, also as a pin; so the
//! next agent knows from the names alone which files are probed.

use std::fs;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeScope};
use aya::programs::{ProbeKind, UProbe};
use tracing::warn;

use super::kernel::{LoadError, chain};
use super::pins::Pins;
use super::tls::{PROGRAMS, Probe};

/// The programs and what they are attached to.
pub(super) struct Uprobes {
    /// An earlier agent's programs; empty if the object has them.
    adopted: Vec<(&'static str, UProbe)>,
    links: Vec<Link>,
    /// Why the kernel does not take the programs.
    refused: Option<String>,
}

struct Link {
    set: String,
    /// None: it is pinned.
    held: Option<FdLink>,
    name: String,
}

impl Uprobes {
    /// Loads the programs, and pins them if the rest is pinned. A kernel that does not take them takes the others.
    pub(super) fn load(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Self {
        let refused = PROGRAMS.iter().find_map(|name| load(ebpf, name, pins).err());
        Self { adopted: Vec::new(), links: Vec::new(), refused }
    }

    /// Takes over what an earlier agent pinned.
    pub(super) fn adopt(pins: &Pins) -> Self {
        let mut refused = None;
        let mut adopted = Vec::new();
        for name in PROGRAMS {
            match UProbe::from_pin(pins.program(name), ProbeKind::Entry) {
                Ok(program) => adopted.push((name, program)),
                Err(error) => refused = Some(chain(&error)),
            }
        }
        let links = pins
            .links()
            .into_iter()
            .filter_map(|name| {
                let (set, _) = name.strip_prefix(PREFIX)?.rsplit_once('_')?;
                Some(Link { set: set.to_owned(), held: None, name: name.clone() })
            })
            .collect();
        Self { adopted, links, refused }
    }

    /// Why the kernel does not take the programs, if it does not.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// The sets that are attached.
    pub(super) fn sets(&self) -> Vec<String> {
        let mut sets: Vec<String> = self.links.iter().map(|link| link.set.clone()).collect();
        sets.sort();
        sets.dedup();
        sets
    }

    /// Attaches a set: all or nothing.
    pub(super) fn attach(
        &mut self,
        mut object: Option<&mut Ebpf>,
        pins: Option<&Pins>,
        set: &str,
        file: &Path,
        probes: &[Probe],
    ) -> Result<(), LoadError> {
        for (number, probe) in probes.iter().enumerate() {
            let name = format!("{PREFIX}{set}_{number}");
            let attached = match self.program(object.as_deref_mut(), probe.program) {
                Some(program) => attach(program, file, probe).and_then(|link| keep(link, pins, &name)),
                None => Err(self.refused.clone().unwrap_or_else(|| "the program is missing".into())),
            };
            match attached {
                Ok(held) => self.links.push(Link { set: set.to_owned(), held, name }),
                Err(reason) => {
                    self.detach(pins, set);
                    let hook = format!("uprobe/{}:{:#x}", file.display(), probe.offset);
                    return Err(LoadError::Hook { hook, reason });
                }
            }
        }
        Ok(())
    }

    /// Removes a set.
    pub(super) fn detach(&mut self, pins: Option<&Pins>, set: &str) {
        self.links.retain(|link| {
            if link.set != set {
                return true;
            }
            if let (None, Some(pins)) = (&link.held, pins)
                && let Err(error) = fs::remove_file(pins.link(&link.name))
            {
                warn!(%error, probe = link.name, "cannot remove the pin of a probe");
            }
            false
        });
    }

    /// Removes every probe that is not pinned.
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.adopted.clear();
    }

    fn program<'a>(&'a mut self, object: Option<&'a mut Ebpf>, name: &str) -> Option<&'a mut UProbe> {
        match object {
            Some(ebpf) => ebpf.program_mut(name)?.try_into().ok(),
            None => self.adopted.iter_mut().find(|(known, _)| *known == name).map(|(_, program)| program),
        }
    }
}

fn load(ebpf: &mut Ebpf, name: &str, pins: Option<&Pins>) -> Result<(), String> {
    let program = ebpf.program_mut(name).ok_or_else(|| format!("program `{name}` is missing"))?;
    let loaded = <&mut UProbe>::try_from(program).and_then(|program| program.load().map(|()| program));
    let program = loaded.map_err(|error| chain(&error))?;
    if let Some(pins) = pins
        && let Err(error) = program.pin(pins.program(name))
    {
        warn!(error = chain(&error), "the next agent will not read encrypted sessions of new servers");
    }
    Ok(())
}

fn attach(program: &mut UProbe, file: &Path, probe: &Probe) -> Result<FdLink, String> {
    let location = UProbeAttachLocation::AbsoluteOffset(probe.offset);
    let point = UProbeAttachPoint { location, cookie: Some(probe.cookie) };
    let link = program
        .attach(point, file, UProbeScope::AllProcesses)
        .and_then(|link| program.take_link(link))
        .map_err(|error| chain(&error))?;
    // Cookies came with the links that are descriptors.
    FdLink::try_from(link).map_err(|_| "the kernel has no BPF links for probes; Linux 5.15 has".into())
}

/// Gives the link a name in the BPF file system, where the rest is. Otherwise it is held, and ends with this agent.
fn keep(link: FdLink, pins: Option<&Pins>, name: &str) -> Result<Option<FdLink>, String> {
    match pins {
        Some(pins) => link.pin(pins.link(name)).map(|_| None).map_err(|error| chain(&error)),
        None => Ok(Some(link)),
    }
}

const PREFIX: &str = "tls_";
