//! Attaches programs to instructions of servers and libraries, and pins what the next agent needs to go on.
//!
//! The probes of one file are a set. Each link carries its set's name and a number, `tls_SET_N`, also as a pin; so the
//! next agent knows from the names alone which files are probed.
//!
//! Before Linux 5.15, probes have no cookies and no links that could be pinned. There the kernel side knows a site by the
//! last bits of its address, so no two may share these.

use std::fs;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{HashMap, MapData, MapError};
use aya::programs::links::FdLink;
use aya::programs::uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope};
use aya::programs::{ProbeKind, UProbe};
use capture_common::SITE_ADDRESS;
use tracing::warn;

use super::error::LoadError;
use super::kernel::chain;
use super::pins::Pins;
use super::tls::{PROGRAMS, Probe};

/// The programs and what they are attached to.
pub(super) struct Uprobes {
    /// An earlier agent's programs; empty if the object has them.
    adopted: Vec<(&'static str, UProbe)>,
    links: Vec<Link>,
    /// Why the kernel does not take the programs.
    refused: Option<String>,
    /// The cookies of the sites by address, where probes have none.
    sites: Option<HashMap<MapData, u32, u64>>,
}

struct Link {
    set: String,
    held: Held,
    name: String,
}

/// What keeps a probe in its place.
enum Held {
    /// Its pin.
    Pinned,
    /// This process, as long as it holds the descriptor.
    Fd(#[expect(dead_code, reason = "dropping it detaches the probe")] FdLink),
    /// The same, where the kernel has no links for probes. The site's key in the map.
    Event(UProbeLink, u32),
}

impl Uprobes {
    /// Loads the programs, and pins them if the rest is pinned. A kernel that does not take them takes the others.
    pub(super) fn load(ebpf: &mut Ebpf, pins: Option<&Pins>) -> Self {
        let mut sites = None;
        let refused = if aya::features().bpf_cookie() {
            PROGRAMS.iter().find_map(|name| load(ebpf, name, pins).err())
        } else {
            sites = ebpf.take_map("SITES").and_then(|map| HashMap::try_from(map).ok());
            // Nothing is pinned on such a kernel.
            PROGRAMS.iter().find_map(|name| load(ebpf, &by_address(name), None).err())
        };
        Self { adopted: Vec::new(), links: Vec::new(), refused, sites }
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
                Some(Link { set: set.to_owned(), held: Held::Pinned, name: name.clone() })
            })
            .collect();
        Self { adopted, links, refused, sites: None }
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
            let attached = match (&self.refused, self.sites.is_some()) {
                (Some(reason), _) => Err(reason.clone()),
                (None, true) => self.attach_by_address(object.as_deref_mut(), file, probe),
                (None, false) => self
                    .program(object.as_deref_mut(), probe.program)
                    .and_then(|program| attach(program, file, probe))
                    .and_then(|link| keep(link, pins, &name)),
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
        for link in self.links.extract_if(.., |link| link.set == set) {
            match (link.held, pins) {
                (Held::Pinned, Some(pins)) => {
                    if let Err(error) = fs::remove_file(pins.link(&link.name)) {
                        warn!(%error, probe = link.name, "cannot remove the pin of a probe");
                    }
                }
                (Held::Event(event, key), _) => {
                    drop(event);
                    if let Some(sites) = &mut self.sites {
                        // It is there: only this removes it.
                        let _ = sites.remove(&key);
                    }
                }
                (Held::Pinned | Held::Fd(_), _) => {}
            }
        }
    }

    /// Removes every probe that is not pinned.
    pub(super) fn clear(&mut self) {
        self.links.clear();
        self.adopted.clear();
    }

    /// The site goes into the map before the probe can be hit.
    fn attach_by_address(
        &mut self,
        object: Option<&mut Ebpf>,
        file: &Path,
        probe: &Probe,
    ) -> Result<Held, String> {
        let key = (probe.offset & SITE_ADDRESS) as u32;
        let sites = self.sites.as_mut().ok_or("the map of sites is missing")?;
        sites.insert(key, probe.cookie, BPF_NOEXIST).map_err(|error| match error {
            MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                "another probe has an address with the same last 12 bits, which Linux before 5.15 cannot tell apart"
                    .to_owned()
            }
            error => chain(&error),
        })?;
        let link = self.program(object, &by_address(probe.program)).and_then(|program| {
            let attached = program.attach(location(probe), file, UProbeScope::AllProcesses);
            attached.and_then(|link| program.take_link(link)).map_err(|error| chain(&error))
        });
        match (link, &mut self.sites) {
            (Ok(link), _) => Ok(Held::Event(link, key)),
            (Err(reason), sites) => {
                if let Some(sites) = sites {
                    // Nothing stands there.
                    let _ = sites.remove(&key);
                }
                Err(reason)
            }
        }
    }

    fn program<'a>(&'a mut self, object: Option<&'a mut Ebpf>, name: &str) -> Result<&'a mut UProbe, String> {
        let program = match object {
            Some(ebpf) => ebpf.program_mut(name).and_then(|program| program.try_into().ok()),
            None => self.adopted.iter_mut().find(|(known, _)| *known == name).map(|(_, program)| program),
        };
        program.ok_or_else(|| format!("program `{name}` is missing"))
    }
}

/// The program that does the same without a cookie.
fn by_address(program: &str) -> String {
    format!("{program}_by_address")
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

fn location(probe: &Probe) -> UProbeAttachLocation<'static> {
    UProbeAttachLocation::AbsoluteOffset(probe.offset)
}

fn attach(program: &mut UProbe, file: &Path, probe: &Probe) -> Result<FdLink, String> {
    let point = UProbeAttachPoint { location: location(probe), cookie: Some(probe.cookie) };
    let link = program
        .attach(point, file, UProbeScope::AllProcesses)
        .and_then(|link| program.take_link(link))
        .map_err(|error| chain(&error))?;
    // Cookies came with the links that are descriptors.
    FdLink::try_from(link).map_err(|_| "the kernel has no BPF links for probes; Linux 5.15 has".into())
}

/// Gives the link a name in the BPF file system, where the rest is. Otherwise it is held, and ends with this agent.
fn keep(link: FdLink, pins: Option<&Pins>, name: &str) -> Result<Held, String> {
    match pins {
        Some(pins) => link.pin(pins.link(name)).map(|_| Held::Pinned).map_err(|error| chain(&error)),
        None => Ok(Held::Fd(link)),
    }
}

/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;
const PREFIX: &str = "tls_";
