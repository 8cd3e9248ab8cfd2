//! Every map, and every value that user space sets before the load.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use capture_common::{Hold, MAX_PASSES, MAX_SITES, MAX_TRACKED, Meta, Orders, Pass, Tracked, beat, counter};

/// Events on their way to user space. The loader sets the size (`ring_size`); this one is the smallest.
#[map]
pub static RING: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// The processes that are followed, by process id in the initial PID namespace.
#[map]
pub static TRACKED: HashMap<u32, Tracked> = HashMap::with_max_entries(MAX_TRACKED, 0);

/// Arguments of the system call that a tracked process is in, by thread: only for the tracepoint pair, whose
/// exit hook does not see them.
#[map]
pub static CALLS: HashMap<u64, Call> = HashMap::with_max_entries(MAX_TRACKED, 0);

/// Cookies of the sites in TLS code, by the last bits of their addresses ([`capture_common::SITE_ADDRESS`]): for kernels
/// whose probes carry none (before Linux 5.15).
#[map]
pub static SITES: HashMap<u32, u64> = HashMap::with_max_entries(MAX_SITES, 0);

/// What the kernel side counts: see [`capture_common::counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Index 0: see [`capture_common::reader`]. User space has it in its memory.
#[map]
pub static READER: Array<u32> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// By [`capture_common::slot_of`]: see [`Pass`]. User space has it in its memory.
#[map]
pub static PASSES: Array<Pass> = Array::with_max_entries(MAX_PASSES, BPF_F_MMAPABLE);

/// Index 0: by port, in host byte order, whether a followed session has or had its own end there. Only ever set. User space has
/// it in its memory.
#[map]
pub static PORTS: Array<[u8; 1 << 16]> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Index 0: what a later agent must know of this kernel side. Written by user space.
#[map]
pub static META: Array<Meta> = Array::with_max_entries(1, 0);

/// [`capture_common::Site::set`] of the sites that read a server's encrypted sessions, by its postmaster. Written by
/// user space.
#[map]
pub static SITE_SETS: HashMap<u32, u32> = HashMap::with_max_entries(MAX_SERVERS, 0);

/// The backends that are stopped, by process: see [`capture_common::Hold`].
#[map]
pub static HOLDS: HashMap<u32, Hold> = HashMap::with_max_entries(MAX_TRACKED, 0);

/// What user space wants of a session, by process. Written by user space.
#[map]
pub static ORDERS: HashMap<u32, Orders> = HashMap::with_max_entries(MAX_TRACKED, 0);

/// Index 0: what it wants of sessions that have no orders of their own. Written by user space.
#[map]
pub static DEFAULTS: Array<Orders> = Array::with_max_entries(1, 0);

/// See [`capture_common::beat`]. Written by user space.
#[map]
pub static BEATS: Array<u64> = Array::with_max_entries(beat::COUNT, 0);

/// `include/uapi/linux/bpf.h`
const BPF_F_MMAPABLE: u32 = 1 << 10;
/// Postmasters of one host.
const MAX_SERVERS: u32 = 1_024;

/// One system call's arguments, kept from its entry to its exit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    pub fd: u64,
    pub buf: u64,
    pub flags: u64,
}

/// Bytes in the ring from which the reader is woken even if it polls on its own. The loader sets a fraction
/// of the ring.
#[unsafe(no_mangle)]
pub static WAKE_BYTES: Global<u64> = Global::new(16 * 1024);

/// Offset of `pid` in `struct task_struct`.
#[unsafe(no_mangle)]
pub static TASK_PID: Global<u32> = Global::new(0);
/// Offset of `tgid` in `struct task_struct`.
#[unsafe(no_mangle)]
pub static TASK_TGID: Global<u32> = Global::new(0);
/// Offset of `exit_code` in `struct task_struct`.
#[unsafe(no_mangle)]
pub static TASK_EXIT_CODE: Global<u32> = Global::new(0);
/// Offset of `files` in `struct task_struct`.
#[unsafe(no_mangle)]
pub static TASK_FILES: Global<u32> = Global::new(0);
/// Offset of `fdt` in `struct files_struct`.
#[unsafe(no_mangle)]
pub static FILES_FDT: Global<u32> = Global::new(0);
/// Offset of `fd` in `struct fdtable`.
#[unsafe(no_mangle)]
pub static FDTABLE_FD: Global<u32> = Global::new(0);
/// Offset of `private_data` in `struct file`.
#[unsafe(no_mangle)]
pub static FILE_PRIVATE_DATA: Global<u32> = Global::new(0);
/// Offset of `sk` in `struct socket`.
#[unsafe(no_mangle)]
pub static SOCKET_SK: Global<u32> = Global::new(0);
/// Offset of `sk_peer_pid` in `struct sock`.
#[unsafe(no_mangle)]
pub static SOCK_PEER_PID: Global<u32> = Global::new(0);
/// Offset of `thread_pid` in `struct task_struct`.
#[unsafe(no_mangle)]
pub static TASK_THREAD_PID: Global<u32> = Global::new(0);
/// Offset of `level` in `struct pid`: how deep its own PID namespace lies, 0 for the initial one.
#[unsafe(no_mangle)]
pub static PID_LEVEL: Global<u32> = Global::new(0);
/// Offset of `numbers[0].nr` in `struct pid`: the id in the initial PID namespace.
#[unsafe(no_mangle)]
pub static PID_NUMBER: Global<u32> = Global::new(0);
/// Offset of `max_fds` in `struct fdtable`.
#[unsafe(no_mangle)]
pub static FDTABLE_MAX_FDS: Global<u32> = Global::new(0);
/// Offset of `open_fds` in `struct fdtable`.
#[unsafe(no_mangle)]
pub static FDTABLE_OPEN_FDS: Global<u32> = Global::new(0);
/// Offset of `f_inode` in `struct file`.
#[unsafe(no_mangle)]
pub static FILE_F_INODE: Global<u32> = Global::new(0);
/// Offset of `i_mode` in `struct inode`.
#[unsafe(no_mangle)]
pub static INODE_I_MODE: Global<u32> = Global::new(0);
/// Offset of `type` in `struct socket`.
#[unsafe(no_mangle)]
pub static SOCKET_TYPE: Global<u32> = Global::new(0);
/// Offset of `skc_family` in `struct sock_common`, with which `struct sock` begins.
#[unsafe(no_mangle)]
pub static SKC_FAMILY: Global<u32> = Global::new(0);
/// Offset of `skc_state` in `struct sock_common`, with which `struct sock` begins.
#[unsafe(no_mangle)]
pub static SKC_STATE: Global<u32> = Global::new(0);
/// Offset of `skc_num` in `struct sock_common`, with which `struct sock` begins.
#[unsafe(no_mangle)]
pub static SKC_NUM: Global<u32> = Global::new(0);
/// Offset of `skc_dport` in `struct sock_common`, with which `struct sock` begins.
#[unsafe(no_mangle)]
pub static SKC_DPORT: Global<u32> = Global::new(0);
/// Offset of `skc_daddr` in `struct sock_common`, with which `struct sock` begins.
#[unsafe(no_mangle)]
pub static SKC_DADDR: Global<u32> = Global::new(0);
/// Offset of `skc_v6_daddr` in `struct sock_common`, with which `struct sock` begins.
#[unsafe(no_mangle)]
pub static SKC_V6_DADDR: Global<u32> = Global::new(0);
/// Offset of `inet_sport` in `struct inet_sock`.
#[unsafe(no_mangle)]
pub static INET_SPORT: Global<u32> = Global::new(0);
/// Offset of `addr` in `struct unix_sock`.
#[unsafe(no_mangle)]
pub static UNIX_SOCK_ADDR: Global<u32> = Global::new(0);
