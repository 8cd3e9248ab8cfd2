"""Becomes another program, to which it leaves open sockets, as some supervisors do: a pair of Unix sockets, one that was
connected to and one that listens, and the same of TCP.

Usage: inherit_sockets.py FOLDER PROGRAM ARGUMENT...; FOLDER is where the sockets' names go.
"""

import os
import socket
import sys

# Beyond those that a server has of its own.
FIRST = 40
folder, program = sys.argv[1], sys.argv[2:]

kept = list(socket.socketpair())
named = os.path.join(folder, "supervisor.sock")
for family, address in [(socket.AF_UNIX, named), (socket.AF_INET, ("127.0.0.1", 0))]:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen()
    client = socket.socket(family, socket.SOCK_STREAM)
    client.connect(listener.getsockname())
    # The ends that were accepted stay, and nobody listens any more where they were.
    kept += [client, listener.accept()[0]]
    listener.close()
    other = socket.socket(family, socket.SOCK_STREAM)
    other.bind(address + "2" if family == socket.AF_UNIX else address)
    other.listen()
    kept.append(other)
for number, end in enumerate(kept):
    os.dup2(end.fileno(), FIRST + number, inheritable=True)
os.execvp(program[0], program)
