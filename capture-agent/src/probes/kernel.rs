//! Loads the eBPF object, attaches the cheapest hooks that this kernel takes, and speaks to its maps.

use std::time::Duration;

use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, FExit, Program, ProgramError, TracePoint};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use capture_common::{ROLE_POSTMASTER, SessionKey, Tracked, counter};
use thiserror::Error;

use super::backends::OpenBackend;
use super::btf::{BtfError, KernelTypes};
use super::hooks::{HookProgram, LIFECYCLE, Plan, SocketHooks};
use super::ring::Ring;

/// The kernel side, loaded and attached. Dropping it removes every hook and map.
pub struct Kernel {
    ebpf: Ebpf,
    tracked: HashMap<MapData, u32, Tracked>,
    counters: PerCpuArray<MapData, u64>,
    logger: EbpfLogger<&'static dyn log::Log>,
    /// What was attached.
    pub plan: Plan,
}

/// What the kernel side has counted since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events submitted to the ring.
    pub events: u64,
    /// Stream bytes submitted to the ring.
    pub bytes: u64,
    /// Events that were not.
    pub lost_events: u64,
    /// Stream bytes not delivered.
    pub lost_bytes: u64,
    /// Backends that could not be followed because the table of processes was full.
    pub untracked: u64,
}

/// Why the kernel side could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel's type information is missing or lacks a field.
    #[error(transparent)]
    Types(#[from] BtfError),
    /// aya could not read the kernel's type information.
    #[error("cannot use the kernel's BTF: {0}")]
    Btf(#[from] aya::BtfError),
    /// The object or its maps were refused.
    #[error("the kernel refused the eBPF object: {0}; `capture-agent doctor` says what is missing")]
    Object(#[from] EbpfError),
    /// A map is missing or of the wrong kind: the object and this program are not of the same build.
    #[error("the eBPF object does not belong to this build: {0}")]
    Mismatch(String),
    /// A hook that every plan needs was refused.
    #[error("the kernel refused the hook {hook}: {reason}")]
    Hook {
        /// The hook.
        hook: String,
        /// The kernel's reason.
        reason: String,
    },
    /// No family of socket hooks loads.
    #[error("no socket hook loads on this kernel: {}", list(.0))]
    NoSocketHooks(Vec<(SocketHooks, String)>),
    /// A map could not be read or written.
    #[error("an eBPF map could not be used: {0}")]
    Map(#[from] MapError),
}

impl Kernel {
    /// Loads and attaches. `ring_bytes` is rounded up to a power of two; `only` tries this family alone.
    pub fn load(ring_bytes: u32, only: Option<SocketHooks>) -> Result<(Self, Ring), LoadError> {
        let ring_bytes = ring_bytes.clamp(MIN_RING, MAX_RING).next_power_of_two();
        let offsets = field_offsets()?;
        let btf = Btf::from_sys_fs()?;

        let wake_bytes = u64::from(ring_bytes / WAKE_FRACTION);
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).map_max_entries("RING", ring_bytes).override_global(
            "WAKE_BYTES",
            &wake_bytes,
            true,
        );
        for (name, offset) in &offsets {
            loader.override_global(name, offset, true);
        }
        let mut ebpf = loader.load(OBJECT)?;
        let ring = Ring::new(
            RingBuf::try_from(take(&mut ebpf, "RING")?)?,
            Array::try_from(take(&mut ebpf, "READER")?)?,
        );
        let tracked = HashMap::try_from(take(&mut ebpf, "TRACKED")?)?;
        let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)?;

        let logger =
            EbpfLogger::init(&mut ebpf).map_err(|error| LoadError::Mismatch(format!("its log: {error}")))?;

        for hook in LIFECYCLE {
            attach(&mut ebpf, &btf, *hook)?;
        }
        let plan = attach_sockets(&mut ebpf, &btf, only)?;
        Ok((Self { ebpf, tracked, counters, logger, plan }, ring))
    }

    /// Follows a postmaster: from now on each connection that it accepts is a session.
    pub fn follow_postmaster(&mut self, tgid: u32) -> Result<(), MapError> {
        let mut entry = Tracked { role: ROLE_POSTMASTER, ..Tracked::default() };
        entry.session.tgid = tgid;
        entry.open.postmaster = tgid;
        self.tracked.insert(tgid, entry, 0)
    }

    /// Follows a backend that was there before the hooks. Whether it was not followed already.
    pub fn follow_backend(
        &mut self,
        backend: &OpenBackend,
        born: u64,
    ) -> Result<Option<SessionKey>, MapError> {
        let session = SessionKey { born, tgid: backend.tgid, reserved: 0 };
        match self.tracked.insert(backend.tgid, backend.entry(session), BPF_NOEXIST) {
            Ok(()) => Ok(Some(session)),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
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

    /// What the kernel side has counted.
    pub fn counters(&self) -> Result<Counters, MapError> {
        let sum = |index: u32| -> Result<u64, MapError> { Ok(self.counters.get(&index, 0)?.iter().sum()) };
        Ok(Counters {
            events: sum(counter::EVENTS)?,
            bytes: sum(counter::BYTES)?,
            lost_events: sum(counter::LOST_EVENTS)?,
            lost_bytes: sum(counter::LOST_BYTES)?,
            untracked: sum(counter::UNTRACKED)?,
        })
    }

    /// Passes on what the kernel side has to say: rare, and never per event.
    pub fn flush_log(&mut self) {
        self.logger.flush();
    }

    /// Removes every hook; the maps stay, so that what they hold can be drained.
    pub fn detach(&mut self) {
        self.ebpf.programs_mut().for_each(|(_, program)| unload(program));
    }
}

/// The longest that a reader that polls lets an event wait.
pub(super) const POLL: Duration = Duration::from_millis(5);

fn attach_sockets(ebpf: &mut Ebpf, btf: &Btf, only: Option<SocketHooks>) -> Result<Plan, LoadError> {
    let mut refused = Vec::new();
    for sockets in SocketHooks::ALL.into_iter().filter(|family| only.is_none_or(|only| only == *family)) {
        match sockets.programs().iter().try_for_each(|hook| attach(ebpf, btf, *hook)) {
            Ok(()) => return Ok(Plan { sockets, refused }),
            Err(error) => {
                // Half a family would see bytes twice once the next one is attached.
                for hook in sockets.programs() {
                    ebpf.program_mut(hook.program()).map(unload);
                }
                refused.push((sockets, error.to_string()));
            }
        }
    }
    Err(LoadError::NoSocketHooks(refused))
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, hook: HookProgram) -> Result<(), LoadError> {
    let program = ebpf
        .program_mut(hook.program())
        .ok_or_else(|| LoadError::Mismatch(format!("program `{}` is missing", hook.program())))?;
    let attached = match hook {
        HookProgram::BtfTracepoint(_, tracepoint) => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| {
                program.load(tracepoint, btf)?;
                program.attach().map(drop)
            })
        }
        HookProgram::Fexit(_, function) => <&mut FExit>::try_from(program).and_then(|program| {
            program.load(function, btf)?;
            program.attach().map(drop)
        }),
        HookProgram::Syscall(_, tracepoint) => <&mut TracePoint>::try_from(program).and_then(|program| {
            match program.load() {
                Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
                Err(error) => return Err(error),
            }
            program.attach("syscalls", tracepoint).map(drop)
        }),
    };
    attached.map_err(|error| LoadError::Hook { hook: hook.to_string(), reason: chain(&error) })
}

/// Detaches a program. One that was never loaded has nothing to unload, which is no error here.
fn unload(program: &mut Program) {
    let _ = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::TracePoint(program) => program.unload(),
        _ => Ok(()),
    };
}

fn take(ebpf: &mut Ebpf, name: &str) -> Result<aya::maps::Map, LoadError> {
    ebpf.take_map(name).ok_or_else(|| LoadError::Mismatch(format!("map `{name}` is missing")))
}

/// Where the fields stand that the kernel side reads: the name of its global, and the offset.
fn field_offsets() -> Result<Vec<(&'static str, u32)>, BtfError> {
    let types = KernelTypes::of_running_kernel()?;
    let mut offsets = Vec::new();
    for (global, name, field) in [
        ("TASK_PID", "task_struct", "pid"),
        ("TASK_TGID", "task_struct", "tgid"),
        ("TASK_EXIT_CODE", "task_struct", "exit_code"),
        ("TASK_FILES", "task_struct", "files"),
        ("FILES_FDT", "files_struct", "fdt"),
        ("FDTABLE_FD", "fdtable", "fd"),
        ("FILE_PRIVATE_DATA", "file", "private_data"),
        ("SOCKET_SK", "socket", "sk"),
        ("SOCK_PEER_PID", "sock", "sk_peer_pid"),
        ("TASK_THREAD_PID", "task_struct", "thread_pid"),
        ("PID_LEVEL", "pid", "level"),
    ] {
        offsets.push((global, types.offset(name, field)?));
    }
    offsets.push(("PID_NUMBER", types.offset("pid", "numbers")? + types.offset("upid", "nr")?));
    Ok(offsets)
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

fn list(refused: &[(SocketHooks, String)]) -> String {
    refused.iter().map(|(hooks, reason)| format!("{hooks} ({reason})")).collect::<Vec<_>>().join("; ")
}

/// The object that the build script compiled.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/capture-ebpf"));

/// A ring must hold several of the largest events.
const MIN_RING: u32 = 1024 * 1024;
/// The kernel's own limit is 4 GiB less a page; a recorder that is this far behind does not catch up.
const MAX_RING: u32 = 1 << 30;
/// The polling reader is woken early when the ring is filled to this fraction.
const WAKE_FRACTION: u32 = 8;
/// `include/uapi/linux/bpf.h`
const BPF_NOEXIST: u64 = 1;
