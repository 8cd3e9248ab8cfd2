//! Why the kernel side cannot be loaded or used.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use thiserror::Error;

use super::btf::BtfError;
use super::hooks::SocketHooks;

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
    /// The ring, or another map that both sides write, could not be mapped.
    #[error("the memory that kernel and agent share cannot be mapped: {0}")]
    Shared(io::Error),
    /// A map could not be read or written.
    #[error("an eBPF map could not be used: {0}")]
    Map(#[from] MapError),
}

fn list(refused: &[(SocketHooks, String)]) -> String {
    refused.iter().map(|(hooks, reason)| format!("{hooks} ({reason})")).collect::<Vec<_>>().join("; ")
}
