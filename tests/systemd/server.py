"""An MCP server of the session era, as small as the tests of the unit need it: `server.py NAME PORT`."""

import json
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SESSION = "Mcp-Session-Id"
NAME, PORT = sys.argv[1], int(sys.argv[2])
sessions = set()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """Clients that are gone are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # A head and its body leave together.

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        call = json.loads(body)
        method = call.get("method")
        if method == "initialize":
            session = str(uuid.uuid4())
            sessions.add(session)
            self.result(call, {
                "protocolVersion": "2025-06-18",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": NAME, "version": "1"},
            }, [(SESSION, session)])
        elif self.headers[SESSION] not in sessions:
            self.answer(404)
        elif "id" not in call:
            self.answer(202)
        elif method == "tools/call":
            arguments = call["params"]["arguments"]
            time.sleep(arguments.get("seconds", 0))
            text = json.dumps([NAME, self.headers[SESSION]])
            self.result(call, {"content": [{"type": "text", "text": text}]})
        elif method == "tools/list":
            self.result(call, {"tools": []})
        else:
            self.result(call, {})

    def do_GET(self):
        if self.headers[SESSION] not in sessions:
            return self.answer(404)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            while True:
                self.wfile.write(b": here\n\n")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass

    def do_DELETE(self):
        sessions.discard(self.headers[SESSION])
        self.answer(204)

    def result(self, call, result, fields=()):
        body = json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result})
        self.answer(200, body.encode(), [("Content-Type", "application/json"), *fields])

    def answer(self, status, body=b"", fields=()):
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


Server(("127.0.0.1", PORT), Handler).serve_forever()
