"""Stops a process from a hook each time that it has received something, and sees that it does not get to know before it
is let go: what a hold rests on, with nothing of Capture's in it.

Usage: stop_on_receive.py fexit|sock_length|sys_exit|tracepoints; as root, on x86-64. Prints how often it went well.

The hook is a few instructions, written here as the kernel reads them (Documentation/bpf/instruction-set.rst): if the
process is the one that is meant, bpf_send_signal(SIGSTOP).
"""

import ctypes
import mmap
import os
import select
import signal
import socket
import struct
import sys
import time

ROUNDS = 100
PATIENCE = 10 * int(os.environ.get("CAPTURE_PATIENCE", "1"))

libc = ctypes.CDLL(None, use_errno=True)
# arch/x86/entry/syscalls/syscall_64.tbl
RECVFROM, PERF_EVENT_OPEN, BPF = 45, 298, 321
# include/uapi/linux/bpf.h: commands, program types, attach types, helpers
PROG_LOAD, RAW_TRACEPOINT_OPEN = 5, 17
TRACEPOINT, TRACING = 5, 26
TRACE_RAW_TP, TRACE_FEXIT = 23, 25
GET_CURRENT_PID_TGID, SEND_SIGNAL = 14, 109
# include/uapi/linux/perf_event.h
PERF_TYPE_TRACEPOINT, SET_BPF, ENABLE, CLOEXEC = 2, 0x40042408, 0x2400, 8


def called(result: int, what: str) -> int:
    if result < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, number: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | to, offset, number)


def call(helper: int) -> bytes:
    return instruction(0x85, number=helper)


def program(victim: int, of_every_call: bool) -> bytes:
    """`of_every_call`: the hook's first argument is the `struct pt_regs` of whatever system call ends."""
    stop = [
        call(GET_CURRENT_PID_TGID),
        instruction(0x77, to=0, number=32),  # r0 >>= 32
        instruction(0x55, to=0, offset=2, number=victim),  # if r0 != victim goto end
        instruction(0xB7, to=1, number=signal.SIGSTOP),  # r1 = SIGSTOP
        call(SEND_SIGNAL),
    ]
    if of_every_call:
        stop = [
            instruction(0x79, to=6, source=1),  # r6 = regs
            instruction(0x79, to=6, source=6, offset=120),  # r6 = regs->orig_ax
            instruction(0x55, to=6, offset=len(stop), number=RECVFROM),  # if r6 != recvfrom goto end
            *stop,
        ]
    return b"".join([*stop, instruction(0xB7, to=0), instruction(0x95)])  # end: return 0


def load(code: bytes, kind: int, attach: int = 0, target: int = 0) -> int:
    text, log = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(65536)
    license = ctypes.create_string_buffer(b"Dual MIT/GPL")
    address = ctypes.addressof
    attributes = struct.pack("=IIQQIIQ", kind, len(code) // 8, address(text), address(license), 1, len(log), address(log))
    attributes += bytes(28) + struct.pack("=I", attach) + bytes(36) + struct.pack("=I", target)
    result = libc.syscall(BPF, PROG_LOAD, attributes, len(attributes))
    return called(result, f"the kernel refused the hook: {log.value.decode()}")


def type_id(wanted: str, wanted_kind: int) -> int:
    """A type of the running kernel, by name (Documentation/bpf/btf.rst)."""
    data = open("/sys/kernel/btf/vmlinux", "rb").read()
    header, types_at, types_len, strings_at, _ = struct.unpack_from("=IIIII", data, 4)
    name = b"\0" + wanted.encode() + b"\0"
    string = data.index(name, header + strings_at) + 1 - header - strings_at
    at, number = header + types_at, 1
    while at < header + types_at + types_len:
        name_at, info, _ = struct.unpack_from("=III", data, at)
        kind, count = info >> 24 & 0x1F, info & 0xFFFF
        if name_at == string and kind == wanted_kind:
            return number
        each = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}.get(kind, 0)
        at += 12 + each * count + {1: 4, 3: 12, 14: 4, 17: 4}.get(kind, 0)
        number += 1
    sys.exit(f"this kernel has no type {wanted}")


def hook(family: str, victim: int) -> int:
    if family == "tracepoints":
        loaded = load(program(victim, False), TRACEPOINT)
        point = int(open("/sys/kernel/tracing/events/syscalls/sys_exit_recvfrom/id").read())
        attributes = struct.pack("=IIQQ", PERF_TYPE_TRACEPOINT, 112, point, 1).ljust(112, b"\0")
        event = libc.syscall(PERF_EVENT_OPEN, attributes, -1, 0, -1, CLOEXEC)
        called(event, "the tracepoint cannot be opened")
        called(libc.ioctl(event, SET_BPF, loaded), "the hook cannot be attached")
        called(libc.ioctl(event, ENABLE, 0), "the tracepoint cannot be enabled")
        return event
    if family == "fexit":
        loaded = load(program(victim, False), TRACING, TRACE_FEXIT, type_id("__sys_recvfrom", 12))
    elif family == "sock_length":
        loaded = load(program(victim, False), TRACING, TRACE_RAW_TP, type_id("btf_trace_sock_recv_length", 8))
    else:
        loaded = load(program(victim, True), TRACING, TRACE_RAW_TP, type_id("btf_trace_sys_exit", 8))
    attributes = struct.pack("=QII", 0, loaded, 0)
    return called(libc.syscall(BPF, RAW_TRACEPOINT_OPEN, attributes, 16), "the hook cannot be attached")


def until(what: str, ready) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end:
            sys.exit(f"waited in vain for {what}")
        time.sleep(0.001)


def state(process: int) -> str:
    return open(f"/proc/{process}/stat").read().rsplit(")", 1)[1].split()[0]


received = mmap.mmap(-1, 8)
ours, theirs = socket.socketpair()
victim = os.fork()
if victim == 0:
    ours.close()
    # As a server does, which waits before it receives: a process that is in the system call when a hook on the function's
    # exit is attached returns by the way that it came.
    while select.select([theirs], [], []) and theirs.recv(1):
        struct.pack_into("=Q", received, 0, struct.unpack_from("=Q", received)[0] + 1)
    os._exit(0)
theirs.close()
try:
    attached = hook(sys.argv[1], victim)
    for number in range(ROUNDS):
        ours.send(b"x")
        until("the process to stop", lambda: state(victim) == "T")
        if struct.unpack_from("=Q", received)[0] != number:
            sys.exit(f"round {number}: the process went on before it was stopped")
        os.kill(victim, signal.SIGCONT)
        until("the process to go on", lambda: struct.unpack_from("=Q", received)[0] == number + 1)
    os.close(attached)
    print(ROUNDS)
finally:
    os.kill(victim, signal.SIGKILL)
    os.waitpid(victim, 0)
