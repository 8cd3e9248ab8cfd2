//! No core of this process is ever written: its memory holds what sessions said before anything of it is masked.

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Says so to the kernel, for this process and all that it starts.
pub(super) fn forbid() {
    let all = Rlimit { current: Some(NONE), maximum: Some(NONE) };
    let limited = setrlimit(Resource::Core, all).or_else(|error| match error {
        // Nobody may raise a limit of 0; then only a handler that `core_pattern` names gets any.
        Errno::PERM if getrlimit(Resource::Core).maximum == Some(0) => Ok(()),
        error => Err(error),
    });
    if let Err(error) = limited {
        warn!(%error, "a core of this process would hold what is masked in the record");
    }
}

/// Too small for any core, and not 0: the kernel starts the handler of a `core_pattern` with a pipe for every limit but
/// this one (`fs/coredump.c`).
const NONE: u64 = 1;
