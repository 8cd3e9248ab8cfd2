//! Loads the eBPF object, attaches the cheapest hooks that this kernel takes, and speaks to its maps.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::links::{FdLink, PinnedLink};
use aya::{Btf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use capture_common::{ABI, Meta, Orders, ROLE_POSTMASTER, SessionKey, Tracked, beat};
use tracing::{info, warn};

use super::access::Access;
use super::attach::{Links, attach_all};
use super::backends::OpenBackend;
use super::btf::{BtfError, KernelTypes};
use super::error::LoadError;
use super::fields;
use super::hooks::{LIFECYCLE, Plan, SocketHooks};
use super::passes::Passes;
use super::pins::Pins;
use super::ports::Ports;
use super::processes::monotonic_now;
use super::ring::Ring;
use super::tls::Probe;
use super::uprobes::Uprobes;

/// The kernel side, loaded and attached.
///
/// Pinned, it outlives this value, and the next agent adopts it; otherwise dropping this removes every hook and map.
pub struct Kernel {
    /// Keeps what is not pinned; none if the kernel side was adopted.
    object: Option<Ebpf>,
    links: Vec<(String, FdLink)>,
    uprobes: Uprobes,
    pins: Option<Pins>,
    tracked: HashMap<MapData, u32, Tracked>,
    site_sets: HashMap<MapData, u32, u32>,
    orders: HashMap<MapData, u32, Orders>,
    defaults: Array<MapData, Orders>,
    beats: Array<MapData, u64>,
    passes: MapData,
    ports: Ports,
    pub(super) counters: PerCpuArray<MapData, u64>,
    logger: Option<EbpfLogger<&'static dyn log::Log>>,
    /// When it was loaded, in nanoseconds of `CLOCK_MONOTONIC`: no two kernel sides of a host share it.
    pub epoch: u64,
    /// Whether an earlier agent loaded it.
    pub adopted: bool,
    /// What was attached.
    pub plan: Plan,
}

impl Kernel {
    /// Adopts what an earlier agent left in `pins`, or else loads and attaches, and pins it there. Without `pins`,
    /// or where the kernel cannot pin all of it, capture ends with the agent. `ring_bytes` is rounded up to a power
    /// of two; `only` tries this family of socket hooks alone.
    pub fn load(
        ring_bytes: u32,
        only: Option<SocketHooks>,
        pins: Option<Pins>,
    ) -> Result<(Self, Ring), LoadError> {
        if let Some(pins) = pins.as_ref().filter(|pins| pins.exist()) {
            match Self::adopt(pins) {
                Ok((kernel, ring)) if only.is_none_or(|only| only == kernel.plan.sockets) => {
                    info!(folder = %pins.folder().display(), "an earlier agent's hooks went on capturing");
                    return Ok((kernel, ring));
                }
                Ok(_) => warn!("an earlier agent's hooks are of another family than --hooks: replacing them"),
                Err(error) => warn!(%error, "an earlier agent's hooks cannot be used: replacing them"),
            }
            if let Err(error) = pins.clear() {
                warn!(%error, folder = %pins.folder().display(), "cannot remove an earlier agent's pins");
            }
        }
        Self::attach(ring_bytes, only, pins)
    }

    fn adopt(pins: &Pins) -> Result<(Self, Ring), LoadError> {
        let meta: Array<MapData, Meta> = pinned_map(pins, "META", Map::Array)?;
        let meta = meta.get(&0, 0)?;
        let family = SocketHooks::of_number(meta.sockets);
        let (ABI, Some(sockets)) = (meta.abi, family) else {
            return Err(LoadError::Mismatch(format!(
                "it has layout {} (0: it was never complete), this agent {ABI}",
                meta.abi
            )));
        };
        let ring = MapData::from_pin(pins.map("RING"))?;
        let size = ring.info()?.max_entries();
        let reader = MapData::from_pin(pins.map("READER"))?;
        let ring = Ring::new(ring, size, reader).map_err(LoadError::Shared)?;
        let kernel = Self {
            object: None,
            links: Vec::new(),
            uprobes: Uprobes::adopt(pins),
            tracked: pinned_map(pins, "TRACKED", Map::HashMap)?,
            site_sets: pinned_map(pins, "SITE_SETS", Map::HashMap)?,
            orders: pinned_map(pins, "ORDERS", Map::HashMap)?,
            defaults: pinned_map(pins, "DEFAULTS", Map::Array)?,
            beats: pinned_map(pins, "BEATS", Map::Array)?,
            passes: MapData::from_pin(pins.map("PASSES"))?,
            ports: Ports::new(&MapData::from_pin(pins.map("PORTS"))?).map_err(LoadError::Shared)?,
            counters: pinned_map(pins, "COUNTERS", Map::PerCpuArray)?,
            logger: pinned_program(pins).and_then(|id| EbpfLogger::init_from_id(id).ok()),
            pins: Some(pins.clone()),
            epoch: meta.epoch,
            adopted: true,
            plan: Plan { sockets, refused: Vec::new() },
        };
        Ok((kernel, ring))
    }

    fn attach(
        ring_bytes: u32,
        only: Option<SocketHooks>,
        pins: Option<Pins>,
    ) -> Result<(Self, Ring), LoadError> {
        let ring_bytes = ring_bytes.clamp(MIN_RING, MAX_RING).next_power_of_two();
        let btf = Btf::from_sys_fs()?;
        let (mut ebpf, unseen) = load_object(ring_bytes, &btf)?;
        let logger =
            EbpfLogger::init(&mut ebpf).map_err(|error| LoadError::Mismatch(format!("its log: {error}")))?;
        let (Links { mut links, bound }, plan) = attach_all(&mut ebpf, &btf, only, unseen)?;

        let meta = Meta { abi: ABI, sockets: plan.sockets.number(), epoch: monotonic_now() };
        if let Some(pins) = &pins {
            // Sessions whose probes ended with the agent would go on without their plaintext.
            let pinned = if bound || !aya::features().bpf_perf_link() {
                Err(anyhow!("this kernel cannot pin probes; Linux 5.15 can"))
            } else {
                pin(pins, &mut ebpf, &mut links, meta)
            };
            if let Err(error) = pinned {
                warn!(
                    "the hooks are not pinned: {error:#}; capture ends with this agent (see docs/errors.md#not-pinned)"
                );
                // A link that could not be pinned is gone: once more, from the start.
                drop((links, ebpf));
                let _ = pins.clear();
                return Self::attach(ring_bytes, only, None);
            }
        }
        let passes = take_array(&mut ebpf, "PASSES")?;
        let ports = Ports::new(&take_array(&mut ebpf, "PORTS")?).map_err(LoadError::Shared)?;
        let kernel = Self {
            links,
            uprobes: Uprobes::load(&mut ebpf, pins.as_ref()),
            pins,
            tracked: HashMap::try_from(take(&mut ebpf, "TRACKED")?)?,
            site_sets: HashMap::try_from(take(&mut ebpf, "SITE_SETS")?)?,
            orders: HashMap::try_from(take(&mut ebpf, "ORDERS")?)?,
            defaults: Array::try_from(take(&mut ebpf, "DEFAULTS")?)?,
            beats: Array::try_from(take(&mut ebpf, "BEATS")?)?,
            passes,
            ports,
            counters: PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)?,
            logger: Some(logger),
            epoch: meta.epoch,
            adopted: false,
            plan,
            object: None,
        };
        let Map::RingBuf(ring) = take(&mut ebpf, "RING")? else {
            return Err(LoadError::Mismatch("`RING` is no ring".into()));
        };
        let reader = take_array(&mut ebpf, "READER")?;
        let ring = Ring::new(ring, ring_bytes, reader).map_err(LoadError::Shared)?;
        Ok((Self { object: Some(ebpf), ..kernel }, ring))
    }

    /// Follows a postmaster: from now on each connection that it accepts is a session.
    pub fn follow_postmaster(&mut self, tgid: u32) -> Result<(), MapError> {
        let mut entry = Tracked { role: ROLE_POSTMASTER, ..Tracked::default() };
        entry.session.tgid = tgid;
        entry.open.postmaster = tgid;
        match self.tracked.insert(tgid, entry, BPF_NOEXIST) {
            // An earlier agent followed it already, and the kernel has gone on since.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(())
            }
            result => result,
        }
    }

    /// The probes of this set read the encrypted sessions of the postmaster's backends.
    pub fn set_site_set(&mut self, postmaster: u32, set: u16) -> Result<(), MapError> {
        self.site_sets.insert(postmaster, u32::from(set), BPF_ANY)
    }

    /// A postmaster is gone.
    pub fn forget_site_set(&mut self, postmaster: u32) {
        // It may never have had any.
        let _ = self.site_sets.remove(&postmaster);
    }

    /// What is wanted of this session.
    pub fn set_orders(&mut self, session: SessionKey, orders: Orders) -> Result<(), MapError> {
        self.orders.insert(session.tgid, Orders { born: session.born, ..orders }, BPF_ANY)
    }

    /// What is wanted of each session that has no orders of its own; and from now on none has.
    pub fn set_default_orders(&mut self, orders: Orders) -> Result<(), MapError> {
        self.defaults.set(0, orders, 0)?;
        let given: Vec<u32> = self.orders.keys().filter_map(Result::ok).collect();
        for tgid in given {
            // The process may have ended since.
            let _ = self.orders.remove(&tgid);
        }
        Ok(())
    }

    /// The way to have rows passed over that nobody wants.
    pub fn passes(&self) -> io::Result<Passes> {
        Passes::new(&self.passes)
    }

    /// Shows the kernel side that this agent is alive.
    pub fn beat(&mut self) {
        // The only way to fail is an index out of bounds.
        let _ = self.beats.set(beat::AGENT, monotonic_now(), 0);
    }

    /// Follows a backend that was there before the hooks. Whether it was not followed already.
    pub fn follow_backend(
        &mut self,
        backend: &OpenBackend,
        born: u64,
    ) -> Result<Option<SessionKey>, MapError> {
        let session = SessionKey { born, tgid: backend.tgid, reserved: 0 };
        if let Some(port) = backend.own_port {
            self.ports.note(port);
        }
        match self.tracked.insert(backend.tgid, backend.entry(session), BPF_NOEXIST) {
            Ok(()) => Ok(Some(session)),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Bytes that had passed over a TCP session's socket in each direction before it was followed; none if that cannot
    /// be told.
    pub fn moved_before(
        &self,
        backend: &OpenBackend,
        session: SessionKey,
        access: &dyn Access,
    ) -> Option<[u64; 2]> {
        let counted = || Some(self.tracked(backend.tgid).filter(|entry| entry.session == session)?.socket);
        for _ in 0..SAMPLES {
            let before = counted()?;
            // Between two looks at a backend that sleeps nothing has moved unless one of the counts has.
            if access.waits_for_events(backend.tgid)
                && let Some(moved) = access.tcp_moved(backend.tgid, backend.info.fd)
                && access.waits_for_events(backend.tgid)
                && counted()? == before
            {
                return Some([moved[0].checked_sub(before[0])?, moved[1].checked_sub(before[1])?]);
            }
        }
        None
    }

    /// What the kernel knows of a process that it follows.
    pub fn tracked(&self, tgid: u32) -> Option<Tracked> {
        self.tracked.get(&tgid, 0).ok()
    }

    /// All processes that the kernel follows.
    pub fn all_tracked(&self) -> Vec<Tracked> {
        self.tracked.iter().filter_map(Result::ok).map(|(_, entry)| entry).collect()
    }

    /// Stops following a process.
    pub fn forget(&mut self, tgid: u32) {
        // The exit hook may have been faster.
        let _ = self.tracked.remove(&tgid);
    }

    /// Passes on what the kernel side has to say: rare, and never per event.
    pub fn flush_log(&mut self) {
        if let Some(logger) = &mut self.logger {
            logger.flush();
        }
    }

    /// Attaches probes to instructions of `file`, for every process that runs them; all or none. `set` names them.
    pub(super) fn attach_probes(
        &mut self,
        set: &str,
        file: &Path,
        probes: &[Probe],
    ) -> Result<(), LoadError> {
        self.uprobes.attach(self.object.as_mut(), self.pins.as_ref(), set, file, probes)
    }

    /// Removes the probes of a set.
    pub(super) fn detach_probes(&mut self, set: &str) {
        self.uprobes.detach(self.pins.as_ref(), set);
    }

    /// The sets of probes that are attached.
    pub(super) fn probe_sets(&self) -> Vec<String> {
        self.uprobes.sets()
    }

    /// Why no probe can be attached, if none can.
    pub fn refuses_probes(&self) -> Option<&str> {
        self.uprobes.refused()
    }

    /// Removes every hook; the maps stay, so that what they hold can be drained. Nothing is added to it any more.
    pub fn detach(&mut self) {
        self.links.clear();
        self.uprobes.clear();
        self.object = None;
        if let Some(pins) = &self.pins
            && let Err(error) = pins.clear_hooks()
        {
            warn!(%error, folder = %pins.folder().display(), "the hooks are still attached: cannot remove their pins");
        }
    }

    /// Removes the names of the maps too: nothing is left when the agent ends.
    pub fn unpin(&mut self) {
        if let Some(pins) = self.pins.take()
            && let Err(error) = pins.clear()
        {
            warn!(%error, folder = %pins.folder().display(), "cannot remove the pins");
        }
    }

    /// Where everything is pinned, if it is.
    pub fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// Whether capture goes on in the kernel when the agent ends.
    pub fn is_pinned(&self) -> bool {
        self.pins.is_some()
    }
}

/// The object, and why it could not find accepted connections, if it could not.
fn load_object(ring_bytes: u32, btf: &Btf) -> Result<(Ebpf, Option<BtfError>), LoadError> {
    let (offsets, unseen) = fields::offsets(&KernelTypes::of_running_kernel()?)?;
    let wake_bytes = u64::from(ring_bytes / WAKE_FRACTION);
    let mut loader = EbpfLoader::new();
    loader.btf(Some(btf)).map_max_entries("RING", ring_bytes).override_global(
        "WAKE_BYTES",
        &wake_bytes,
        true,
    );
    for (name, offset) in &offsets {
        loader.override_global(name, offset, true);
    }
    Ok((loader.load(OBJECT)?, unseen))
}

/// Gives everything a name in the BPF file system. What `META` says comes last: without it, nothing of the rest is
/// used.
fn pin(pins: &Pins, ebpf: &mut Ebpf, links: &mut Vec<(String, FdLink)>, meta: Meta) -> anyhow::Result<()> {
    pins.prepare()?;
    for name in PINNED {
        ebpf.map(name).context("a map is missing")?.pin(pins.map(name))?;
    }
    for (name, link) in links.drain(..) {
        link.pin(pins.link(&name))?;
    }
    let mut map: Array<_, Meta> = Array::try_from(ebpf.map_mut("META").context("`META` is missing")?)?;
    map.set(0, meta, 0)?;
    Ok(())
}

pub(super) fn pinned_map<T: TryFrom<Map>>(
    pins: &Pins,
    name: &str,
    kind: fn(MapData) -> Map,
) -> Result<T, LoadError> {
    T::try_from(kind(MapData::from_pin(pins.map(name))?))
        .map_err(|_| LoadError::Mismatch(format!("map `{name}` is of another kind")))
}

/// A program that is pinned by its link.
fn pinned_program(pins: &Pins) -> Option<u32> {
    let link = PinnedLink::from_pin(pins.link(&LIFECYCLE.first()?.pin_name())).ok()?;
    Some(FdLink::from(link).info().ok()?.program_id())
}

/// The longest that a reader that polls lets an event wait.
pub(super) const POLL: Duration = Duration::from_millis(10);

fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Mismatch(format!("map `{name}` is missing")))
}

fn take_array(ebpf: &mut Ebpf, name: &str) -> Result<MapData, LoadError> {
    match take(ebpf, name)? {
        Map::Array(map) => Ok(map),
        _ => Err(LoadError::Mismatch(format!("map `{name}` is no array"))),
    }
}

/// An error and its causes on one line, and of a verifier log only its end.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [first, .., last] if lines.len() > 3 => format!("{first} … {last}"),
        _ => lines.join(" "),
    }
}

/// The object that the build script compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture-ebpf"));

/// A ring must hold several of the largest events.
const MIN_RING: u32 = 1024 * 1024;
/// The kernel's own limit is 4 GiB less a page; a recorder that is this far behind does not catch up.
const MAX_RING: u32 = 1 << 30;
/// The polling reader is woken early when the ring is filled to this fraction.
const WAKE_FRACTION: u32 = 8;
/// A busy backend is looked at so often.
const SAMPLES: u32 = 20;
/// The maps that an agent uses, and so the next one needs.
const PINNED: [&str; 12] = [
    "RING",
    "TRACKED",
    "SITE_SETS",
    "HOLDS",
    "ORDERS",
    "DEFAULTS",
    "BEATS",
    "COUNTERS",
    "PASSES",
    "PORTS",
    "READER",
    "META",
];
/// `include/uapi/linux/bpf.h`
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;
