"""Becomes a program in a container, as a container runtime does it. Runs as the first process of its namespaces.

Usage: container.py ROOT CGROUP UID GID PROGRAM [ARGUMENT…]
ROOT is the folder that becomes the root of the file system; CGROUP a control group's folder, or empty.
"""

import ctypes
import os
import signal
import subprocess
import sys

root, cgroup, uid, gid, *program = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
# include/uapi/linux/mount.h, include/uapi/linux/prctl.h
MNT_DETACH, PR_SET_PDEATHSIG = 2, 1


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


if cgroup:
    with open(f"{cgroup}/cgroup.procs", "w") as members:
        members.write("0")
# The root of a mount namespace must be a mount.
mount("--bind", root, root)
os.chdir(root)
mount("-t", "proc", "proc", "proc")
mount("-t", "tmpfs", "tmpfs", "dev/shm")
for device in ("null", "zero", "random", "urandom"):
    open(f"dev/{device}", "a").close()
    mount("--bind", f"/dev/{device}", f"dev/{device}")
subprocess.run(["pivot_root", ".", "old"], check=True)
os.chdir("/")
if libc.umount2(b"/old", MNT_DETACH) != 0:
    raise OSError(ctypes.get_errno(), "umount2")
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
# Ends with whoever started it; a change of user forgets this, so it comes last.
libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
os.execv(program[0], program)
