"""Executes a program under a seccomp filter in the style of Docker's default profile: a list of the system calls that
are allowed, and an error, or death, for every other.

Usage: seccomp.py errno|kill PROGRAM [ARGUMENT...]; as root, on x86-64.

The numbers of the calls are those of arch/x86/entry/syscalls/syscall_64.tbl. Allowed is what existed when the profile
was written, less what it withholds from containers; so, as in Docker's, what the kernel has added since is denied, and
among that `uprobe` and `uretprobe` (335, 336).
"""

import ctypes
import os
import struct
import sys

# bpf, perf_event_open, userfaultfd, keyctl and its kin, kexec, modules, swap, mounts, clocks, ptrace's kin, reboot.
WITHHELD = {101, 134, 135, 139, 153, 155, 156, 159, 163, 164, 165, 166, 167, 168, 169, 172, 173, 174, 175, 176, 177, 178}
WITHHELD |= {179, 180, 212, 227, 246, 248, 249, 250, 256, 279, 298, 303, 304, 305, 308, 310, 311, 312, 313, 320, 321, 323}
LAST = 334
# pidfd_send_signal, clone3, close_range, openat2, faccessat2, epoll_pwait2, futex_waitv.
LATER = {424, 435, 436, 437, 439, 441, 449}

LD_W_ABS, JEQ, JGE, RET = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL, ERRNO_EPERM = 0x7FFF0000, 0x80000000, 0x00050001
AUDIT_ARCH_X86_64 = 0xC000003E
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2


def instruction(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, k)


def profile(denied: int) -> bytes:
    # struct seccomp_data: the number stands at 0, the architecture at 4.
    code = [instruction(LD_W_ABS, 4), instruction(JEQ, AUDIT_ARCH_X86_64, 1), instruction(RET, KILL)]
    code.append(instruction(LD_W_ABS, 0))
    for number in sorted(LATER):
        code += [instruction(JEQ, number, 0, 1), instruction(RET, ALLOW)]
    for number in sorted(WITHHELD):
        code += [instruction(JEQ, number, 0, 1), instruction(RET, ERRNO_EPERM)]
    code += [instruction(JGE, LAST + 1, 0, 1), instruction(RET, denied), instruction(RET, ALLOW)]
    return b"".join(code)


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


code = profile({"errno": ERRNO_EPERM, "kill": KILL}[sys.argv[1]])
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(code) // 8, code)
if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
    sys.exit(f"the filter was refused: {os.strerror(ctypes.get_errno())}")
os.execvp(sys.argv[2], sys.argv[2:])
