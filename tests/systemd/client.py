"""Clients of the tests of the unit, and what they have seen."""

import http.client
import json
import threading
import time

SESSION = "Mcp-Session-Id"
HEAD = {
    "Accept": "application/json, text/event-stream",
    "Content-Type": "application/json",
    "MCP-Protocol-Version": "2025-06-18",
}


def post(connection, method, params, session=None, ident=1):
    """Sends a call. Status, headers, message."""
    call = {"jsonrpc": "2.0", "method": method, "params": params}
    if ident is not None:
        call["id"] = ident
    head = dict(HEAD, **({SESSION: session} if session else {}))
    connection.request("POST", "/mcp", json.dumps(call), head)
    answer = connection.getresponse()
    body = answer.read()
    return answer.status, answer.headers, json.loads(body) if body else None


class Session:
    """An MCP session, and the server that has it."""

    def __init__(self, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        status, head, _ = post(connection, "initialize", {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        })
        assert status == 200, status
        self.id = head[SESSION]
        post(connection, "notifications/initialized", {}, self.id, None)
        connection.close()
        self.server = self.whoami(port)

    def whoami(self, port, seconds=0, connection=None):
        """A call of a tool: the server's name and its own id of the session."""
        own = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            params = {"name": "whoami", "arguments": {"seconds": seconds}}
            status, _, message = post(own, "tools/call", params, self.id)
        finally:
            if not connection:
                own.close()
        assert status == 200, (status, message)
        return json.loads(message["result"]["content"][0]["text"])

    def goes_on(self, port):
        """Whether it is still the same session on the same server."""
        return self.whoami(port) == self.server


class Stream:
    """An event stream that is read until it ends: `ended` is how, `None` while it is open."""

    def __init__(self, session, port):
        self.ended = None
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.connection.request("GET", "/mcp", headers={
            "Accept": "text/event-stream", SESSION: session.id, "MCP-Protocol-Version": "2025-06-18",
        })
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.status
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        try:
            while self.answer.read1(4096):
                pass
            self.ended = "properly"
        except Exception as error:
            self.ended = repr(error)


class Load:
    """Calls, one after the other in each thread, until told to stop. Half of the threads open a
    connection for each call, the others keep theirs for as long as the server does."""

    def __init__(self, sessions, port, threads=8):
        self.port, self.made, self.slowest, self.failed = port, 0, 0.0, []
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.threads = []
        for at in range(threads):
            session = sessions[at % len(sessions)]
            thread = threading.Thread(target=self.call, args=(session, at % 2 == 1), daemon=True)
            self.threads.append(thread)
            thread.start()

    def call(self, session, keeps):
        # After `Connection: close` it opens the next connection by itself.
        kept = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10) if keeps else None
        while not self.stop.is_set():
            since = time.monotonic()
            try:
                found = session.whoami(self.port, connection=kept)
                failure = None if found == session.server else f"another session: {found}"
            except Exception as error:
                failure = f"{'kept' if keeps else 'new'} connection: {error!r}"
                if kept:
                    kept.close()
            with self.lock:
                self.made += 1
                self.slowest = max(self.slowest, time.monotonic() - since)
                if failure:
                    self.failed.append(failure)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()
