"""A client that encrypts a raw socket itself, and knows how many bytes of the protocol and of the socket passed.

Usage: tls_client.py [direct] [max=1.2], with libpq's environment. Reads commands from stdin, a line each, and answers
each with a line of JSON:

  query SQL    the first value of the reply's last row, or the error's SQLSTATE
  leave        says Terminate, waits for the end, and tells what was counted
"""

import json
import os
import socket
import ssl
import struct
import sys


def message(tag: bytes, body: bytes) -> bytes:
    return tag + struct.pack("!I", len(body) + 4) + body


class Client:
    def __init__(self, direct: bool, newest: str | None):
        address = (os.environ["PGHOST"], int(os.environ["PGPORT"]))
        self.raw = socket.create_connection(address)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = self.received = 0
        if not direct:
            self.raw.sendall(struct.pack("!II", 8, 80877103))
            assert self.raw.recv(1) == b"S"
            self.sent, self.received = 8, 1
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["postgresql"])
        if newest == "1.2":
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.tls = context.wrap_socket(self.raw, suppress_ragged_eofs=True)
        self.inbox = b""
        parameters = f"user\0{os.environ['PGUSER']}\0database\0{os.environ['PGDATABASE']}\0\0".encode()
        self.send(struct.pack("!II", len(parameters) + 8, 3 << 16) + parameters)
        self.until_ready()

    def send(self, data: bytes):
        self.tls.sendall(data)
        self.sent += len(data)

    def fill(self) -> bool:
        data = self.tls.recv(1 << 20)
        self.received += len(data)
        self.inbox += data
        return bool(data)

    def until_ready(self):
        value = None
        while True:
            while len(self.inbox) < 5 or len(self.inbox) < struct.unpack_from("!I", self.inbox, 1)[0] + 1:
                if not self.fill():
                    sys.exit(1)  # the server closed the connection: whoever waits for an answer sees the end
            length = struct.unpack_from("!I", self.inbox, 1)[0] + 1
            tag, body, self.inbox = self.inbox[:1], self.inbox[5:length], self.inbox[length:]
            if tag == b"D":
                size = struct.unpack_from("!i", body, 2)[0]
                value = body[6 : 6 + size].decode()[:100] if size >= 0 else None
            elif tag == b"E":
                value = next(field[1:] for field in body.split(b"\0") if field[:1] == b"C").decode()
            elif tag == b"Z":
                return value

    def query(self, sql: str):
        self.send(message(b"Q", sql.encode() + b"\0"))
        return self.until_ready()

    def leave(self):
        port = self.tls.getsockname()[1]
        self.send(message(b"X", b""))
        while self.fill():
            pass
        # TLS says goodbye before TCP does.
        with socket.socket(fileno=os.dup(self.tls.fileno())) as raw:
            while raw.recv(1):
                pass
        info = self.tls.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        acked, received = struct.unpack_from("=QQ", info, 120)
        # SYN and FIN are numbered like bytes (RFC 793).
        socket_bytes = {"socket_in": acked - 1, "socket_out": received - 1}
        return {"port": port, "sent": self.sent, "received": self.received, **socket_bytes}


client = Client("direct" in sys.argv, "1.2" if "max=1.2" in sys.argv else None)
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    command, _, rest = line.rstrip("\n").partition(" ")
    print(json.dumps(client.query(rest) if command == "query" else client.leave()), flush=True)
