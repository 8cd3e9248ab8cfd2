//! How soon the capture thread gets a processor.

use std::io;

/// How promptly a thread wants to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// In turns of the usual length, so that its work is not cut into pieces.
    Usual,
    /// In short turns, with which Linux 6.12 and later let a thread interrupt others at once; earlier ones know no such
    /// request.
    Short,
}

/// Has the calling thread run soon after it was woken, also where all processors are busy: it needs little time, and needs it
/// promptly. Raises its priority by `levels` of nice(2). Needs CAP_SYS_NICE.
///
/// # Errors
///
/// What the system says; the thread then runs as before.
pub fn run_promptly(levels: i32, turns: Turns) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: -levels,
        sched_priority: 0,
        // 0 is the usual length.
        sched_runtime: if turns == Turns::Short { SHORT_NS } else { 0 },
        sched_deadline: 0,
        sched_period: 0,
    };
    // On Linux a priority belongs to a thread: 0 names the calling one.
    // SAFETY: the call reads the struct, whose size stands in it.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The shortest that the kernel grants (`kernel/sched/syscalls.c`).
const SHORT_NS: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_the_request() {
        // On a thread of its own, which ends with it.
        let levels = std::thread::spawn(|| {
            // No more than it has: that needs no rights.
            run_promptly(0, Turns::Short).unwrap();
            run_promptly(0, Turns::Usual).unwrap();
            // SAFETY: the call takes numbers only.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
        });
        assert_eq!(levels.join().unwrap(), 0);
    }
}
