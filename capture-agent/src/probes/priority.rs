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
    set(&libc::sched_attr {
        sched_nice: -levels,
        // 0 is the usual length.
        sched_runtime: if turns == Turns::Short { SHORT_NS } else { 0 },
        ..usual()
    })
}

/// Has the calling thread run before all that run at any level of nice(2). That level counts only among the processes of one
/// group: of a service or a pod, and where those are no groups, of one login (`sched_autogroup_enabled`; sched(7)). Each backend of
/// a server is then a group of its own, and a thread at the highest level gets no more than one of them. Whoever asks for this must
/// be done soon. Needs CAP_SYS_NICE.
///
/// # Errors
///
/// What the system says; the thread then runs as before.
pub fn run_first() -> io::Result<()> {
    set(&libc::sched_attr {
        sched_policy: libc::SCHED_RR.cast_unsigned(),
        // The lowest of those that come first.
        sched_priority: 1,
        // What it starts does not.
        sched_flags: libc::SCHED_FLAG_RESET_ON_FORK as u64,
        ..usual()
    })
}

fn usual() -> libc::sched_attr {
    libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER.cast_unsigned(),
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    }
}

fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    // On Linux a priority belongs to a thread: 0 names the calling one.
    // SAFETY: the call reads the struct, whose size stands in it.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) } {
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

    #[test]
    fn whoever_runs_first_runs_as_before_when_it_is_done() {
        let policies = std::thread::spawn(|| {
            // SAFETY: the call takes a number only.
            let policy = || unsafe { libc::sched_getscheduler(0) };
            let before = policy();
            let first = run_first().map(|()| policy() & !libc::SCHED_RESET_ON_FORK);
            run_promptly(0, Turns::Usual).unwrap();
            (before, first, policy())
        });
        let (before, first, after) = policies.join().unwrap();
        // Without the right to it, nothing has changed.
        assert!(first.is_err() || first.is_ok_and(|policy| policy == libc::SCHED_RR));
        assert_eq!((before, after), (libc::SCHED_OTHER, libc::SCHED_OTHER));
    }
}
