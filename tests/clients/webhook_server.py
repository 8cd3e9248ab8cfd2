"""Takes the agent's notices over HTTPS, and checks who signed them.

Usage: webhook_server.py FOLDER SECRET. Its certificate is `api.crt` of FOLDER, its key `api.key`. Prints its port, and then for
each notice a line of JSON: whether it is `genuine`, and its `body`.
"""

import hashlib
import hmac
import json
import pathlib
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER, SECRET = pathlib.Path(sys.argv[1]), sys.argv[2].encode()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signed = self.headers["X-Capture-Timestamp"].encode() + b"." + body
        expected = "sha256=" + hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
        genuine = hmac.compare_digest(expected, self.headers["X-Capture-Signature"])
        print(json.dumps({"genuine": genuine, "body": json.loads(body)}), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(FOLDER / "api.crt", FOLDER / "api.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
