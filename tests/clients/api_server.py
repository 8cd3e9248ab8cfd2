"""An API server of Kubernetes, as far as the agent asks one: HTTPS, a token, and the pods of a node.

Usage: api_server.py FOLDER. Reads from FOLDER, for each request: `mood` (what it does), `token` (the only one it takes) and
`pods.json` (what it answers with); its certificate is `api.crt`, its key `api.key`. Appends each request to `requests`, a
line of JSON. Prints its port.
"""

import json
import pathlib
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOLDER = pathlib.Path(sys.argv[1])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        mood = (FOLDER / "mood").read_text()
        request = {"path": self.path, "token": self.headers["Authorization"], "mood": mood}
        with (FOLDER / "requests").open("a") as file:
            file.write(json.dumps(request) + "\n")
        if mood == "slow":
            time.sleep(60)
        if mood == "closed":
            self.close_connection = True
        elif mood == "broken":
            self.answer(500, {"kind": "Status", "status": "Failure", "reason": "InternalError", "code": 500})
        elif mood == "garbage":
            self.answer(200, "<html>a captive portal</html>")
        elif self.headers["Authorization"] != "Bearer " + (FOLDER / "token").read_text().strip():
            self.answer(401, {"kind": "Status", "status": "Failure", "reason": "Unauthorized", "code": 401})
        else:
            self.answer(200, json.loads((FOLDER / "pods.json").read_text()))

    def answer(self, status, body):
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_arguments):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(FOLDER / "api.crt", FOLDER / "api.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
