//! Attaches the programs.

use aya::programs::links::FdLink;
use aya::programs::{BtfTracePoint, FExit, ProgramError, TracePoint};
use aya::{Btf, Ebpf};

use super::btf::BtfError;
use super::error::LoadError;
use super::hooks::{HookProgram, LIFECYCLE, Plan, SocketHooks};
use super::kernel::chain;

/// What is attached. Each link is detached when it is dropped and has no pin.
#[derive(Debug, Default)]
pub(super) struct Links {
    /// Links that can be pinned, by a name that is unique among them.
    pub(super) links: Vec<(String, FdLink)>,
    /// Whether there are others, which the object keeps: perf events before Linux 5.15.
    pub(super) bound: bool,
}

/// Attaches what every plan needs, and the cheapest family of socket hooks that loads, or `only` this one. `unseen` is why
/// accepted connections cannot be found, if they cannot.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    btf: &Btf,
    only: Option<SocketHooks>,
    unseen: Option<BtfError>,
) -> Result<(Links, Plan), LoadError> {
    let mut links = Links::default();
    for hook in LIFECYCLE {
        attach(ebpf, btf, *hook, &mut links)?;
    }
    let mut refused = Vec::new();
    for sockets in SocketHooks::ALL.into_iter().filter(|family| only.is_none_or(|only| only == *family)) {
        if let (SocketHooks::SockLength, Some(error)) = (sockets, &unseen) {
            refused.push((sockets, error.to_string()));
            continue;
        }
        // Half a family would see bytes twice once the next one is attached: it is dropped with `of_family`.
        let mut of_family = Links::default();
        match sockets.programs().iter().try_for_each(|hook| attach(ebpf, btf, *hook, &mut of_family)) {
            Ok(()) => {
                links.links.append(&mut of_family.links);
                links.bound |= of_family.bound;
                return Ok((links, Plan { sockets, refused }));
            }
            Err(error) => {
                detach_bound(ebpf, sockets);
                refused.push((sockets, error.to_string()));
            }
        }
    }
    Err(LoadError::NoSocketHooks(refused))
}

fn attach(ebpf: &mut Ebpf, btf: &Btf, hook: HookProgram, links: &mut Links) -> Result<(), LoadError> {
    let program = ebpf
        .program_mut(hook.program())
        .ok_or_else(|| LoadError::Mismatch(format!("program `{}` is missing", hook.program())))?;
    let attached = match hook {
        HookProgram::BtfTracepoint(_, tracepoint) => {
            <&mut BtfTracePoint>::try_from(program).and_then(|program| {
                loaded(program.load(tracepoint, btf))?;
                let link = program.attach()?;
                Ok(Some(program.take_link(link)?.into()))
            })
        }
        HookProgram::Fexit(_, function) => <&mut FExit>::try_from(program).and_then(|program| {
            program.load(function, btf)?;
            let link = program.attach()?;
            Ok(Some(program.take_link(link)?.into()))
        }),
        HookProgram::Syscall(_, tracepoint) => <&mut TracePoint>::try_from(program).and_then(|program| {
            loaded(program.load())?;
            let link = program.attach("syscalls", tracepoint)?;
            if aya::features().bpf_perf_link() {
                return Ok(FdLink::try_from(program.take_link(link)?).ok());
            }
            Ok(None)
        }),
    };
    match attached {
        Ok(Some(link)) => links.links.push((hook.pin_name(), link)),
        Ok(None) => links.bound = true,
        Err(error) => {
            // With all that the verifier says, which can be thousands of lines.
            tracing::debug!(%hook, "refused: {error}: {}", std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default());
            return Err(LoadError::Hook { hook: hook.to_string(), reason: chain(&error) });
        }
    }
    Ok(())
}

/// A program may have several tracepoints, and belong to several families.
fn loaded(result: Result<(), ProgramError>) -> Result<(), ProgramError> {
    match result {
        Err(ProgramError::AlreadyLoaded) => Ok(()),
        result => result,
    }
}

/// Detaches what the object itself keeps of a family. A program that was never loaded has nothing to unload, which
/// is no error here.
fn detach_bound(ebpf: &mut Ebpf, family: SocketHooks) {
    for hook in family.programs() {
        if let Some(Ok(program)) = ebpf.program_mut(hook.program()).map(<&mut TracePoint>::try_from) {
            let _ = program.unload();
        }
    }
}
