"""Takes the agent's events, as a syslog server over TLS or as a webhook over HTTPS, and is as strict as the standards.

Usage: event_receiver.py syslog|webhook PORT FOLDER SECRET [CODE...]. Its certificate is `api.crt` of FOLDER, its key `api.key`; a syslog
server asks for a client certificate that `ca.crt` has signed. Appends each event to FOLDER/KIND.jsonl, as a line. A webhook answers
with each CODE in turn, and then with 204; what it does not answer with 204 it does not take. Prints `ready`.
"""

import hashlib
import hmac
import json
import pathlib
import re
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer

KIND, PORT, FOLDER, SECRET = sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4].encode()
CODES = [int(code) for code in sys.argv[5:]]
OUT = open(FOLDER / f"{KIND}.jsonl", "a", encoding="utf-8")
LOCK = threading.Lock()

# RFC 5424, section 6, as far as the agent uses it.
MESSAGE = re.compile(
    rb"<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) "
    rb'\[meta sequenceId="(\d{1,10})"\] (\{.*\})',
    re.DOTALL,
)


def take(lines):
    """Whole events, before anybody is told that they were taken."""
    with LOCK:
        for line in lines:
            OUT.write(json.dumps(json.loads(line)) + "\n")
        OUT.flush()


class Syslog(StreamRequestHandler):
    """RFC 5425: each message behind its length and a space."""

    def handle(self):
        while True:
            digits = b""
            while (byte := self.rfile.read(1)) not in (b" ", b""):
                digits += byte
            if not digits and not byte:
                return
            assert re.fullmatch(rb"[1-9]\d*", digits), f"no length: {digits!r}"
            message = self.rfile.read(int(digits))
            if len(message) < int(digits):
                return  # The agent died; it sends the message again.
            found = MESSAGE.fullmatch(message)
            assert found, message
            event = json.loads(found[8])
            assert int(found[7]) == event["metadata"]["sequence"] + 1, message
            assert found[4] == b"capture-agent" and int(found[1]) // 8 == 13, message
            take([found[8].decode()])

    def finish(self):
        super().finish()
        try:
            self.request.unwrap()  # Answers close_notify.
        except (OSError, ssl.SSLError):
            pass


class Webhook(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):
            return  # The agent died; it sends them again.
        signed = self.headers["X-Capture-Timestamp"].encode() + b"." + body
        expected = "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
        assert hmac.compare_digest(expected, self.headers["X-Capture-Signature"])
        assert self.headers["Content-Type"] == "application/x-ndjson" and body.endswith(b"\n")
        lines = body.decode().splitlines()
        first, last = (json.loads(line)["metadata"]["sequence"] for line in (lines[0], lines[-1]))
        assert self.headers["X-Capture-Sequence"] == f"{first}-{last}"
        with LOCK:
            code = CODES.pop(0) if CODES else 204
        if code == 204:
            take(lines)
        self.send_response(code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


class Forgiving:
    """Passes over connections that break because an agent is killed."""

    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, *arguments):
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*arguments)


class SyslogServer(Forgiving, ThreadingTCPServer):
    pass


class WebhookServer(Forgiving, ThreadingHTTPServer):
    pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(FOLDER / "api.crt", FOLDER / "api.key")
if KIND == "syslog":
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(FOLDER / "ca.crt")
    server = SyslogServer(("127.0.0.1", PORT), Syslog)
else:
    server = WebhookServer(("127.0.0.1", PORT), Webhook)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
