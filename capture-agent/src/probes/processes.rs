//! What `/proc` tells everybody of a process. A process can end at any moment: every answer may be none. What it tells only
//! those who have CAP_SYS_PTRACE is in `guarded`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::container::{Container, Pod};

/// Nanoseconds of `CLOCK_MONOTONIC`: the clock of the kernel side's events.
pub fn monotonic_now() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Nanoseconds that this thread has run.
pub fn thread_time() -> u64 {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Nanoseconds to add to `CLOCK_MONOTONIC` to get the Unix time.
pub fn unix_offset() -> u64 {
    clock(libc::CLOCK_REALTIME).wrapping_sub(clock(libc::CLOCK_MONOTONIC))
}

/// Whether the process is stopped by a signal.
pub(super) fn is_stopped(pid: u32) -> bool {
    status(pid, "State:").is_some_and(|state| state.starts_with('T'))
}

/// Whether the process is stopped by a signal, or about to be before it runs another instruction.
#[expect(clippy::disallowed_methods, reason = "nothing tells when another process has stopped; microseconds")]
pub(super) fn is_stopping(pid: u32) -> bool {
    // Between taking the signal and being stopped it is neither, for some instructions of the kernel.
    (0..STOP_ATTEMPTS).any(|attempt| {
        if attempt > 0 {
            std::thread::sleep(STOP_PAUSE);
        }
        let pending = status(pid, "ShdPnd:").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
        pending.is_some_and(|mask| mask & (1 << (libc::SIGSTOP - 1)) != 0) || is_stopped(pid)
    })
}

/// Whether a signal waits for the process that ends its session (SIGTERM, SIGQUIT) or its statement (SIGINT).
pub fn is_being_ended(pid: u32) -> bool {
    let mask = status(pid, "ShdPnd:").and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or(0);
    [libc::SIGTERM, libc::SIGQUIT, libc::SIGINT].iter().any(|signal| mask & (1 << (signal - 1)) != 0)
}

/// The command line, arguments separated by spaces. PostgreSQL keeps a process's title here.
pub(super) fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(proc(pid, "cmdline")).ok()?;
    let text = String::from_utf8_lossy(&bytes).replace('\0', " ");
    Some(text.trim_end().to_owned())
}

/// The arguments, one by one.
pub(super) fn arguments(pid: u32) -> Vec<Vec<u8>> {
    let bytes = fs::read(proc(pid, "cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// The name of the program that it executed, unless it has given itself another: good for a guess only.
pub(super) fn command(pid: u32) -> Option<String> {
    Some(fs::read_to_string(proc(pid, "comm")).ok()?.trim_end().to_owned())
}

/// The parent's process id.
pub(super) fn parent(pid: u32) -> Option<u32> {
    status(pid, "PPid:")?.parse().ok()
}

/// The process's id in its own PID namespace: what it calls itself.
pub(super) fn own_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(proc(pid, "status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// The container that the process runs in.
pub(super) fn container(pid: u32) -> Option<Container> {
    Container::of_cgroups(&fs::read_to_string(proc(pid, "cgroup")).ok()?)
}

/// The names of the Kubernetes pod with this UID: kubelet keeps a folder for each pod of the host.
pub(super) fn pod(uid: &str) -> Option<Pod> {
    // Also through the host's first process, so that an agent in a container of its own finds it, if it has the right
    // (CAP_SYS_PTRACE): not through the shim, since the folder would lead to the whole of the host.
    [PathBuf::from(POD_LOGS), proc(1, &format!("root{POD_LOGS}"))].into_iter().find_map(|logs| {
        let names: Vec<_> = fs::read_dir(logs).ok()?.flatten().map(|folder| folder.file_name()).collect();
        Pod::among(names.iter().filter_map(|name| name.to_str()), uid)
    })
}

/// One process of each network namespace on the host.
pub(super) fn one_of_each_network() -> Vec<u32> {
    let mut known = HashSet::new();
    all()
        .into_iter()
        // Each namespace has files of its own there, and anybody may look at them (`ns/net` takes CAP_SYS_PTRACE).
        .filter(|pid| fs::metadata(proc(*pid, "net/unix")).is_ok_and(|table| known.insert(table.ino())))
        .collect()
}

/// The process ids of the direct children.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(proc(pid, &format!("task/{pid}/children"))).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

/// Ids of the eBPF maps that it holds a descriptor of.
pub(super) fn maps_held(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc(pid, "fdinfo")) else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path()).ok()?;
            text.lines().find_map(|line| line.strip_prefix("map_id:"))?.trim().parse().ok()
        })
        .collect()
}

/// All process ids.
pub(super) fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A file under `/proc/PID`.
pub(super) fn proc(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

/// `podLogsRootDirectory` in `pkg/kubelet/kuberuntime`.
const POD_LOGS: &str = "/var/log/pods";

/// What a line of `status` says, by its label.
fn status(pid: u32, label: &str) -> Option<String> {
    let status = fs::read_to_string(proc(pid, "status")).ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix(label))?.trim().to_owned())
}

const STOP_ATTEMPTS: u32 = 50;
const STOP_PAUSE: Duration = Duration::from_micros(20);

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec, alive during the call. All three clocks exist on every Linux.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}
