#!/usr/bin/env python3
"""An MCP server that does what no decent server does: it closes, stalls, lies and trickles as it is told.

`/mcp` speaks the session era, and answers discovery and lists of the stateless one. `/_sessions` tells
the number of live sessions. Prints `listening PORT` when it is ready.

A call of the tool `fault` is answered as its argument `kind` says (see `Faults`); with `--faults N`
every N-th call of any other tool is, by a kind drawn at random. `--idle` is when an unused connection
is closed: `keep`, `random`, or milliseconds. `--gets` is how the first GETs of every session are
answered, of `cut`, `hold` and status codes; the tool `gets` tells how many came.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import json
import random
import socket
import struct

PLAIN = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream", "cache-control": "no-cache"}
REASONS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 429: "Too Many Requests", 502: "Bad Gateway", 503: "Service Unavailable"}  # fmt: skip
TOOLS = ("whoami", "counter", "echo", "fault", "gets")
# Longer than any time limit that a test sets.
STALL_SECONDS = 60


class Over(Exception):
    """This connection is done."""


class Faults:
    """The ways to answer a call badly. Each takes the peer, the result, and its message as bytes."""

    @staticmethod
    async def stall_before_head(peer, _):
        await peer.stall()

    @staticmethod
    async def stall_after_head(peer, _):
        await peer.head(200, EVENTS)
        await peer.stall()

    @staticmethod
    async def reset_before_head(peer, _):
        peer.reset()

    @staticmethod
    async def close_before_head(peer, _):
        raise Over

    @staticmethod
    async def reset_mid_event(peer, answer):
        await peer.head(200, EVENTS)
        await peer.chunk(b"data: " + answer[: len(answer) // 2])
        peer.reset()

    @staticmethod
    async def cut_without_id(peer, _):
        await peer.head(200, EVENTS)
        await peer.chunk(b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n')
        peer.reset()

    @staticmethod
    async def end_without_answer(peer, _):
        await peer.head(200, EVENTS)
        await peer.chunk(b": soon\n\n")
        await peer.chunk(b"")

    @staticmethod
    async def cut_after_id(peer, _):
        await peer.head(200, EVENTS)
        await peer.chunk(b'id: 1\ndata: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"x"}}\n\n')
        peer.reset()

    @staticmethod
    async def too_long(peer, answer):
        await peer.head(200, {**PLAIN, "content-length": str(len(answer) + 10)})
        await peer.send(answer)
        raise Over

    @staticmethod
    async def too_short(peer, answer):
        await peer.head(200, {**PLAIN, "content-length": str(len(answer) - 10)})
        await peer.send(answer)

    @staticmethod
    async def trickle(peer, answer):
        await peer.head(200, {**PLAIN, "content-length": str(len(answer))})
        for at in range(len(answer)):
            await peer.send(answer[at : at + 1])
            await asyncio.sleep(0.005)

    @staticmethod
    async def garbage(peer, _):
        await peer.send(peer.server.random.randbytes(200) + b"\r\n\r\n")
        raise Over

    @staticmethod
    async def not_json(peer, _):
        await peer.whole(200, b"<html>out of order</html>", {"content-type": "text/html"})

    @staticmethod
    async def status_400(peer, _):
        await peer.refuse(400, -32600, "out of order 400")

    @staticmethod
    async def status_404(peer, _):
        await peer.refuse(404, -32001, "Session not found")

    @staticmethod
    async def status_429(peer, _):
        await peer.whole(429, b"slow down", {"content-type": "text/plain", "retry-after": "7"})

    @staticmethod
    async def status_502(peer, _):
        await peer.whole(502, b"<html>bad gateway</html>", {"content-type": "text/html"})

    @staticmethod
    async def status_503(peer, _):
        await peer.whole(503, b"later", {"content-type": "text/plain", "retry-after": "7"})


# Of `--faults`: what a client can be told of in a defined way, whatever the server did.
RANDOM = ("stall_before_head", "stall_after_head", "reset_before_head", "close_before_head", "reset_mid_event", "end_without_answer", "too_long", "too_short", "trickle", "garbage")  # fmt: skip


class Session:
    def __init__(self, script):
        self.count, self.gets = 0, 0
        # How the next GETs are answered; when there is none left, with a stream that stays.
        self.script = collections.deque(script)


class Peer:
    """One connection."""

    def __init__(self, server, reader, writer):
        self.server, self.reader, self.writer = server, reader, writer
        self.message, self.session = None, None

    async def serve(self):
        idle = self.server.idle()
        while True:
            try:
                async with asyncio.timeout(None if self.fresh else idle):
                    head = await self.reader.readuntil(b"\r\n\r\n")
            except TimeoutError:
                return
            self.fresh = False
            lines = head.decode("latin-1").split("\r\n")
            verb, path, _ = lines[0].split(" ", 2)
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
            body = await self.reader.readexactly(int(fields.get("content-length", 0)))
            await self.answer(verb, path, fields, body)
            if idle == 0:
                return

    fresh = True

    async def answer(self, verb, path, fields, body):
        sessions = self.server.sessions
        if path == "/_sessions":
            return await self.whole(200, str(len(sessions)).encode(), {"content-type": "text/plain"})
        known = fields.get("mcp-session-id")
        self.session = sessions.get(known)
        self.message = json.loads(body) if body else {}
        if verb == "POST" and fields.get("mcp-protocol-version", "") >= "2026":
            return await self.stateless()
        if self.message.get("method") == "initialize":
            return await self.initialize()
        if self.session is None:
            return await self.refuse(404 if known else 400, -32001 if known else -32000, "Session not found")
        if verb == "DELETE":
            del sessions[known]
            return await self.whole(200)
        if verb == "GET":
            return await self.get()
        if "id" not in self.message:
            return await self.whole(202)
        return await self.call()

    async def initialize(self):
        name = f"s{next(self.server.numbers)}-{self.server.name}"
        self.server.sessions[name] = Session(self.server.args.gets.split(",") if self.server.args.gets else ())
        capabilities = {"tools": {"listChanged": True}, "resources": {}, "prompts": {}}
        asked = self.message["params"]["protocolVersion"]
        result = {"protocolVersion": asked, "capabilities": capabilities, "serverInfo": {"name": "scripted", "version": "1"}}
        await self.whole(200, self.result(result), {**PLAIN, "mcp-session-id": name})

    async def stateless(self):
        cached = {"ttlMs": 0, "cacheScope": "public", "resultType": "complete"}
        method = self.message.get("method")
        if method == "server/discover":
            return await self.whole(200, self.result({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, **cached}))
        if method in LISTS:
            return await self.whole(200, self.result({**LISTS[method], **cached}))
        return await self.refuse(404, -32601, "Method not found")

    async def call(self):
        method, params = self.message["method"], self.message.get("params", {})
        if method == "ping":
            return await self.whole(200, self.result({}))
        if method in LISTS:
            return await self.whole(200, self.result(LISTS[method]))
        if method != "tools/call":
            return await self.refuse(200, -32601, "Method not found")
        tool, args = params["name"], params.get("arguments", {})
        text = self.tool(tool, args)
        answer = self.result({"content": [{"type": "text", "text": text}]})
        kind = args.get("kind") if tool == "fault" else self.server.draw()
        if kind:
            self.server.done[kind] += 1
            return await getattr(Faults, kind)(self, answer)
        return await self.whole(200, answer)

    def tool(self, tool, args):
        if tool == "counter":
            self.session.count += 1
            return str(self.session.count)
        if tool == "gets":
            return str(self.session.gets)
        return args.get("text", "") if tool == "echo" else self.server.name

    async def get(self):
        self.session.gets += 1
        what = self.session.script.popleft() if self.session.script else "hold"
        if what.isdigit():
            return await self.whole(int(what), b"no", {"content-type": "text/plain"})
        await self.head(200, EVENTS)
        await self.chunk(b": open\n\n")
        if what == "cut":
            await asyncio.sleep(0.3)
            self.reset()
        while True:
            await asyncio.sleep(1)
            await self.chunk(b": still\n\n")

    # Bytes

    def result(self, result):
        return json.dumps({"jsonrpc": "2.0", "id": self.message["id"], "result": result}).encode()

    async def refuse(self, status, code, message):
        error = {"jsonrpc": "2.0", "id": self.message.get("id"), "error": {"code": code, "message": message}}
        await self.whole(status, json.dumps(error).encode())

    async def whole(self, status, body=b"", fields=None):
        fields = {**(fields or (PLAIN if body else {})), "content-length": str(len(body))}
        await self.send(self.lines(status, fields) + body)

    async def head(self, status, fields):
        if "content-length" not in fields:
            fields = {**fields, "transfer-encoding": "chunked"}
        await self.send(self.lines(status, fields))

    @staticmethod
    def lines(status, fields):
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Status')}", *(f"{name}: {value}" for name, value in fields.items())]
        return "\r\n".join([*lines, "", ""]).encode()

    async def chunk(self, data):
        await self.send(b"%x\r\n%s\r\n" % (len(data), data))

    async def send(self, data):
        self.writer.write(data)
        await self.writer.drain()

    async def stall(self):
        # Until the other side has had enough.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STALL_SECONDS):
                await self.reader.read()
        raise Over

    def reset(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        raise Over


LISTS = {
    "tools/list": {"tools": [{"name": tool, "description": tool, "inputSchema": {"type": "object"}} for tool in TOOLS]},
    "resources/list": {"resources": []},
    "prompts/list": {"prompts": []},
}


class Server:
    def __init__(self, args):
        self.args, self.name = args, args.name
        self.random = random.Random(args.seed)
        self.sessions, self.numbers = {}, itertools.count(1)
        self.calls, self.done = 0, collections.Counter()

    def idle(self):
        """Seconds after which an unused connection is closed."""
        if self.args.idle == "keep":
            return None
        return self.random.uniform(0, 0.01) if self.args.idle == "random" else int(self.args.idle) / 1000

    def draw(self):
        """A fault for this call, every so often."""
        self.calls += 1
        return self.random.choice(RANDOM) if self.args.faults and self.calls % self.args.faults == 0 else None

    async def connected(self, reader, writer):
        peer = Peer(self, reader, writer)
        with contextlib.suppress(Over, OSError, asyncio.IncompleteReadError):
            if self.args.refuse and self.random.random() < self.args.refuse:
                peer.reset()
            await peer.serve()
        writer.close()


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="scripted", help="what the tool `whoami` answers")
    parser.add_argument("--peers", help="of no use here")
    parser.add_argument("--idle", default="keep")
    parser.add_argument("--gets", default="")
    parser.add_argument("--faults", type=int, default=0)
    parser.add_argument("--refuse", type=float, default=0, help="share of connections that are reset at once")
    parser.add_argument("--seed", type=int, default=1)
    server = Server(parser.parse_args())
    listening = await asyncio.start_server(server.connected, "127.0.0.1", server.args.port, backlog=2048)
    print(f"listening {listening.sockets[0].getsockname()[1]}", flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
