"""Stands before an HTTP server and is in the mood that a test wants.

Usage: fault_proxy.py SERVER_PORT FOLDER. Reads FOLDER/mood for each request and appends each to FOLDER/requests, a line of JSON.
Prints its port. Moods:

good    passes all on
storm   every fourth request meets a failure, of each kind in turn
slow    passes 256 KiB a second
stalls  stops in the middle of the first PUT of a file, and of the first answers 404 and 200 to a GET of one, and says no more
silent  takes requests and does not answer
expired refuses credentials, as S3 does when a session token is over
google  makes fake-gcs-server answer as Google's XML API does: it takes PUTs of signed URLs only, for its own name, and
        sends no ETag
"""

import http.client
import itertools
import json
import pathlib
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SERVER, FOLDER = int(sys.argv[1]), pathlib.Path(sys.argv[2])
KINDS = ["500", "503", "cut off", "answer lost", "half an answer"]
FAILURES = itertools.cycle(failure for kind in KINDS for failure in [kind, "", "", ""])
LOCK = threading.Lock()
STALLS = {"PUT", "GET 404", "GET 200"}
PIECE = 16 << 10


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do(self):
        mood = (FOLDER / "mood").read_text()
        with LOCK:
            failure = next(FAILURES) if mood == "storm" else ""
            length = int(self.headers["Content-Length"] or 0)
            self.note(length, mood, failure)
        if self.headers["Transfer-Encoding"]:
            return self.answer(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if mood == "silent":
            time.sleep(600)
        if failure == "cut off":
            self.rfile.read(length // 2)
            return self.hang_up()
        if self.stalls(mood, "PUT"):
            self.rfile.read(length // 2)
            time.sleep(600)
        body = self.take(length, mood)
        if mood == "expired":
            return self.answer(400, "ExpiredToken", "The provided token has expired.")
        if failure == "500":
            return self.answer(500, "InternalError", "We encountered an internal error. Please try again.")
        if failure == "503":
            return self.answer(503, "SlowDown", "Please reduce your request rate.")
        if mood == "google" and self.command == "PUT":
            self.path += "?X-Goog-Algorithm=GOOG4-RSA-SHA256"
        try:
            status, headers, data = self.ask(body, mood)
            if mood == "google" and self.command == "PUT" and status == 200:
                headers.append(("ETag", f'"{json.loads(data)["etag"]}"'))
        except OSError:
            return self.hang_up()
        if failure == "answer lost":
            return self.hang_up()
        if self.command == "HEAD":
            length = next((value for name, value in headers if name.lower() == "content-length"), "0")
        else:
            length = str(len(data))
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if failure == "half an answer":
            self.wfile.write(data[: len(data) // 2])
            return self.hang_up()
        if self.stalls(mood, f"GET {status}"):
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            time.sleep(600)
        for begin in range(0, len(data), PIECE):
            self.wfile.write(data[begin : begin + PIECE])
            self.rest(PIECE, mood)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do

    def note(self, length, mood, failure):
        request = {"method": self.command, "path": self.path, "bytes": length, "mood": mood, "failure": failure}
        with (FOLDER / "requests").open("a") as file:
            file.write(json.dumps(request) + "\n")

    def stalls(self, mood, kind):
        with LOCK:
            if mood != "stalls" or ".parquet" not in self.path or self.command != kind[:3] or kind not in STALLS:
                return False
            STALLS.remove(kind)
            self.note(0, mood, f"stalled {kind}")
            return True

    def take(self, length, mood):
        body = bytearray()
        while len(body) < length:
            piece = self.rfile.read(min(PIECE, length - len(body)))
            if not piece:
                break
            body += piece
            self.rest(len(piece), mood)
        return bytes(body)

    def rest(self, length, mood):
        if mood == "slow":
            time.sleep(length / (256 << 10))

    def ask(self, body, mood):
        connection = http.client.HTTPConnection("127.0.0.1", SERVER, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=mood != "google", skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("connection", "transfer-encoding") and (name.lower() != "host" or mood != "google"):
                connection.putheader(name, value)
        connection.endheaders(body or None)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def answer(self, status, code, words):
        data = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{words}</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def hang_up(self):
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def log_message(self, *_arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
