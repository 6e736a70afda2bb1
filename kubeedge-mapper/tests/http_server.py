"""An HTTP device that is not ours: Python's http.server with state that can be written.

Prints its port, serves until its standard input is closed. Arguments: a certificate and a key for TLS, if any.

GET  /state        {"sensor": {"temp": 215}, "on": true}     GET /plain   " 42 \\n"
GET  /value/NAME   what was written there, else 404          PUT, POST, PATCH the same: 204
GET  /secret       200 with "Basic dTpw" or "Bearer t", else 401
GET  /big          100,000 bytes                             GET /busy    503
GET  /close        "1", and the connection is closed         GET /hang    nothing, for ever
GET  /log          every request so far, a line each: method, path, content type, X-Key, body
"""

import http.server
import ssl
import sys
import threading
import time

values, log = {}, []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", kind="application/json", close=False):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if close:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = self.path
        if path == "/state":
            self.answer(200, b'{"sensor": {"temp": 215}, "on": true}')
        elif path == "/plain":
            self.answer(200, b" 42 \n", "text/plain")
        elif path == "/secret":
            known = self.headers.get("Authorization") in ("Basic dTpw", "Bearer t")
            self.answer(200, b"open", "text/plain") if known else self.answer(401, b"who is it?", "text/plain")
        elif path == "/big":
            self.answer(200, b"1" * 100_000, "text/plain")
        elif path == "/busy":
            self.answer(503)
        elif path == "/close":
            self.answer(200, b"1", "text/plain", close=True)
        elif path == "/hang":
            time.sleep(3600)
        elif path == "/log":
            self.answer(200, "\n".join(log).encode(), "text/plain")
        elif path in values:
            self.answer(200, values[path], "text/plain")
        else:
            self.answer(404, b"no such value", "text/plain")

    def do_PUT(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        header = self.headers.get
        log.append(f"{self.command} {self.path} {header('Content-Type')} {header('X-Key')} {body.decode()}")
        if self.path == "/refuse":
            return self.answer(403, b"not today", "text/plain")
        values[self.path] = body
        self.answer(204)

    do_POST = do_PATCH = do_PUT

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
if len(sys.argv) > 2:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
