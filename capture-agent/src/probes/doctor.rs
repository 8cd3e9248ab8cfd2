//! What capture needs of this host, checked one by one, and what to do about each thing that is missing.

use std::fs;
use std::path::Path;

use super::access::{Access, OwnRights};
use super::btf::KernelTypes;
use super::hooks::SocketHooks;
use super::kernel::{Kernel, chain};
use super::pins::Pins;
use super::servers::{Selector, Server, find_servers};
use super::tls::TlsPlan;

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What, in a word or two.
    pub name: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do, if something is to be done.
    pub advice: Option<&'static str>,
}

/// How a [`Check`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Capture works, but something is worth knowing.
    Note,
    /// Capture does not work until this is mended.
    Fail,
}

/// Checks everything. Loads the hooks for a moment to see which ones this kernel takes. `shim` looks at other processes,
/// if one does for the agent; kernel sides are pinned below `pin_dir`.
pub fn examine(selectors: &[Selector], shim: Option<&dyn Access>, pin_dir: &Path) -> Vec<Check> {
    let beside = shim.is_some();
    let mut checks = vec![kernel(), types(), rights(beside), lockdown(), pid_namespace(), tracefs(), pins()];
    checks.push(left_behind(pin_dir));
    checks.extend(hooks());
    let access = shim.unwrap_or(&OwnRights);
    let all = find_servers(access, std::iter::empty()).unwrap_or_default();
    let servers = selected(selectors, &all);
    checks.push(found(&servers, all.len()));
    checks.extend(servers.iter().map(|server| encryption(server, access)));
    checks
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let found = format!("Linux {release} on {}", std::env::consts::ARCH);
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < MIN_KERNEL {
        return fail(
            "kernel",
            found,
            "upgrade the host to Linux 5.10 or later: older ones lack the BPF ring buffer",
        );
    }
    if !matches!(std::env::consts::ARCH, "x86_64" | "aarch64") {
        return fail(
            "kernel",
            found,
            "run on x86-64 or arm64: system call registers are known for these only",
        );
    }
    ok("kernel", found)
}

fn types() -> Check {
    match KernelTypes::of_running_kernel() {
        Ok(_) => ok("BTF", "/sys/kernel/btf/vmlinux is readable".into()),
        Err(error) => fail(
            "BTF",
            error.to_string(),
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y (every current distribution kernel is), and mount \
             the host's /sys into the agent's container",
        ),
    }
}

/// `beside`: whether a shim looks at other processes for the agent.
fn rights(beside: bool) -> Check {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    // CAP_SYS_ADMIN covers CAP_BPF and CAP_PERFMON.
    let admin = if admin_is_there(effective) { LOAD } else { &[] };
    let look = if beside { &[] } else { LOOK };
    let missing: Vec<&str> = [LOAD, look]
        .concat()
        .into_iter()
        .filter(|right| effective & (1 << right.1) == 0 && !admin.contains(right))
        .map(|(name, _)| name)
        .collect();
    if !missing.is_empty() {
        return fail(
            "rights",
            format!("{} missing", missing.join(", ")),
            "run as root, or grant CAP_BPF and CAP_PERFMON, and CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH too unless \
             `capture-agent shim` runs beside the agent (in Kubernetes: a privileged DaemonSet)",
        );
    }
    let who =
        if beside { "the shim looks at servers for the agent" } else { "the agent looks at servers itself" };
    ok("rights", format!("the capabilities that are needed are there; {who}"))
}

fn admin_is_there(effective: u64) -> bool {
    effective & (1 << CAP_SYS_ADMIN) != 0
}

fn lockdown() -> Check {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let mode = text.split(['[', ']']).nth(1).unwrap_or("");
    match mode {
        "confidentiality" => fail(
            "lockdown",
            "confidentiality: BPF may not read memory".into(),
            "boot with lockdown=integrity or less: in confidentiality mode the kernel lets no BPF program read \
             what a server receives",
        ),
        "" => ok("lockdown", "off, or not told by this kernel".into()),
        mode => ok("lockdown", format!("{mode}: capture works in this mode")),
    }
}

fn pid_namespace() -> Check {
    let namespace =
        fs::read_link("/proc/self/ns/pid").map(|path| path.display().to_string()).unwrap_or_default();
    if namespace.contains(INITIAL_PID_NAMESPACE) {
        return ok("PID namespace", "the host's own".into());
    }
    fail(
        "PID namespace",
        format!("{namespace}, which is not the host's"),
        "run in the host's PID namespace (hostPID: true, docker run --pid=host): the kernel names processes by \
         their ids there",
    )
}

fn tracefs() -> Check {
    let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .find(|path| Path::new(path).join("events/syscalls").is_dir());
    match mounted {
        Some(path) => ok("tracefs", format!("mounted at {path}")),
        None => note(
            "tracefs",
            "not mounted".into(),
            "needed only if the cheaper hooks do not load: mount -t tracefs tracefs /sys/kernel/tracing",
        ),
    }
}

/// Loads each family on its own. The first that loads is the one that `run` uses.
fn hooks() -> Vec<Check> {
    let mut chosen = false;
    let mut checks = Vec::new();
    for family in SocketHooks::ALL {
        let check = match Kernel::load(PROBE_RING, Some(family), None) {
            Ok(_) if chosen => ok("hooks", format!("{family}: loads, not needed")),
            Ok((kernel, _)) => {
                chosen = true;
                checks.push(probes(&kernel));
                ok("hooks", format!("{family}: loads, will be used"))
            }
            Err(error) => {
                note("hooks", format!("{family}: {}", chain(&error)), "none, if another family loads")
            }
        };
        checks.push(check);
    }
    if !chosen {
        checks.push(fail(
            "hooks",
            "no family of socket hooks loads".into(),
            "mend the failures above first (rights, BTF, lockdown); then see docs/errors.md#no-socket-hooks",
        ));
    }
    checks
}

/// Whether this kernel takes the programs that read encrypted sessions.
fn probes(kernel: &Kernel) -> Check {
    match kernel.refuses_probes() {
        None => ok("TLS probes", "load".into()),
        Some(reason) => note(
            "TLS probes",
            format!("encrypted sessions are not read: {reason}"),
            "grant CAP_PERFMON and CAP_SYS_ADMIN; else please report it with the output of `capture-agent doctor --json`",
        ),
    }
}

/// Whether what is attached can outlive the agent.
fn pins() -> Check {
    if aya::features().bpf_perf_link() {
        return ok("pins", "hooks and probes can be pinned: an agent that dies is no break".into());
    }
    note(
        "pins",
        "probes cannot be pinned: capture ends with the agent".into(),
        "boot Linux 5.15 or later, if an agent that dies must not be a break; see docs/errors.md#not-pinned",
    )
}

/// Whether agents that do not run have left hooks attached: each costs the host what it cost with its agent.
fn left_behind(pin_dir: &Path) -> Check {
    let left: Vec<_> =
        Pins::all(pin_dir).into_iter().filter(|pins| pins.exist() && pins.user().is_none()).collect();
    if left.is_empty() {
        return ok("dead agents", "none has left hooks".into());
    }
    let folders: Vec<_> = left.iter().map(|pins| pins.folder().display().to_string()).collect();
    note(
        "dead agents",
        format!("hooks are attached whose agent does not run: {}", folders.join(", ")),
        "start the agent of that data directory again, or remove them: capture-agent detach --all",
    )
}

fn selected(selectors: &[Selector], among: &[Server]) -> Vec<Server> {
    let is_meant =
        |server: &&Server| selectors.is_empty() || selectors.iter().any(|selector| selector.selects(server));
    among.iter().filter(is_meant).cloned().collect()
}

fn found(servers: &[Server], among: usize) -> Check {
    let listed: Vec<String> = servers
        .iter()
        .map(|server| {
            let version = server.version.as_deref().unwrap_or("?");
            let place = server.container.as_ref().map_or_else(String::new, |container| {
                format!(", container {}", container.id.chars().take(12).collect::<String>())
            });
            format!("PostgreSQL {version}, {}, pid {}{place}", port(server), server.postmaster)
        })
        .collect();
    if listed.is_empty() {
        return note(
            "servers",
            format!("none selected, {among} found"),
            "nothing to do: a server that starts later is found by itself; if one runs now, check --server and the \
             PID namespace",
        );
    }
    ok("servers", listed.join("; "))
}

/// Where the server's encrypted sessions would be read.
fn encryption(server: &Server, access: &dyn Access) -> Check {
    match TlsPlan::of(server.postmaster, None, access) {
        Ok(plan) if plan.is_cheap() => ok("TLS", format!("{}: {plan}", port(server))),
        Ok(plan) => note(
            "TLS",
            format!("{}: {plan}", port(server)),
            "works, but each read and write of an encrypted session costs some 20 µs on a virtual machine: a server \
             whose be_tls_read and be_tls_write are exported, as PostgreSQL's own build leaves them, costs 1 µs",
        ),
        Err(reason) => note(
            "TLS",
            format!("{}: encrypted sessions are not read: {reason}", port(server)),
            "nothing, if no client uses TLS; else see docs/errors.md#no-tls-probes",
        ),
    }
}

fn port(server: &Server) -> String {
    server.port.map_or_else(|| "port unknown".into(), |port| format!("port {port}"))
}

fn ok(name: &'static str, found: String) -> Check {
    Check { name, verdict: Verdict::Ok, found, advice: None }
}

fn note(name: &'static str, found: String, advice: &'static str) -> Check {
    Check { name, verdict: Verdict::Note, found, advice: Some(advice) }
}

fn fail(name: &'static str, found: String, advice: &'static str) -> Check {
    Check { name, verdict: Verdict::Fail, found, advice: Some(advice) }
}

/// The BPF ring buffer came with 5.8; 5.10 is the oldest long-term kernel that has it.
const MIN_KERNEL: (u32, u32) = (5, 10);
/// `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`
const INITIAL_PID_NAMESPACE: &str = "4026531836";
const PROBE_RING: u32 = 1024 * 1024;
/// `include/uapi/linux/capability.h`
const CAP_SYS_ADMIN: u32 = 21;
/// What it takes to load and attach.
const LOAD: &[(&str, u32)] = &[("CAP_BPF", 39), ("CAP_PERFMON", 38)];
/// What it takes to look at servers.
const LOOK: &[(&str, u32)] = &[("CAP_SYS_PTRACE", 19), ("CAP_DAC_READ_SEARCH", 2)];
