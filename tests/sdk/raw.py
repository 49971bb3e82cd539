"""MCP by plain HTTP/1.1 on asyncio: small, strict about framing, and exact about what was seen.

An SDK hides what matters in a fault: whether an answer came at all, whether it was complete, and
whose it was. Every exchange here ends in a `Reply` or in one of `Hang` and `Torn`.
"""

import asyncio
import contextlib
import itertools
import json

SESSION_REVISION = "2025-11-25"
STATELESS_REVISION = "2026-07-28"
BOTH = "application/json, text/event-stream"
INFO = {"name": "raw", "version": "1"}
INITIALIZE = {"protocolVersion": SESSION_REVISION, "capabilities": {}, "clientInfo": INFO}
META = {
    "io.modelcontextprotocol/protocolVersion": STATELESS_REVISION,
    "io.modelcontextprotocol/clientInfo": INFO,
    "io.modelcontextprotocol/clientCapabilities": {},
}
# A call without an answer within this time hangs.
HANG_SECONDS = 10.0
READ_BYTES = 64 * 1024
# Tries to end a session: longer than a breaker is open.
END_MAX = 40
# Ids of messages: never twice in a run, so an answer cannot be taken for another one's.
IDS = itertools.count(1)


class Hang(Exception):
    """No complete answer in time."""


class Torn(Exception):
    """The connection ended without an answer, or in the middle of one."""


class Refused(Exception):
    """An answer that is an error: its status, code and message."""

    def __init__(self, status, code, message):
        super().__init__(f"{status} {code} {message}")
        self.status, self.code, self.message = status, code, message


class Foreign(Exception):
    """An answer that belongs to another question."""


class Reply:
    """The head of an answer, and its body as it comes."""

    def __init__(self, reader, head):
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = (first + " ").split(" ", 2)
        if not version.startswith("HTTP/1.") or not status.isdigit():
            raise Torn(f"not HTTP: {first[:60]!r}")
        self.reader, self.status = reader, int(status)
        self.fields = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.fields[name.lower()] = value.strip()
        self.keeps = self.fields.get("connection", "").lower() != "close"

    async def pieces(self):
        """The pieces of the body; `Torn` if it ends before its end."""
        try:
            if self.fields.get("transfer-encoding", "").lower() == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    yield (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readuntil(b"\r\n")
            elif "content-length" in self.fields:
                if length := int(self.fields["content-length"]):
                    yield await self.reader.readexactly(length)
            elif self.status not in (204, 304):
                self.keeps = False
                while piece := await self.reader.read(READ_BYTES):
                    yield piece
        except (asyncio.IncompleteReadError, OSError, ValueError) as error:
            raise Torn(f"in the body: {type(error).__name__}") from None

    async def body(self):
        return b"".join([piece async for piece in self.pieces()])

    def is_stream(self):
        return self.fields.get("content-type", "").startswith("text/event-stream")

    async def messages(self):
        """JSON-RPC messages of an event stream, as they come."""
        held = b""
        async for piece in self.pieces():
            held += piece.replace(b"\r\n", b"\n")
            *events, held = held.split(b"\n\n")
            for event in events:
                data = b"\n".join(line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:"))
                if data:
                    yield json.loads(data)


class Wire:
    """One kept connection to a port of 127.0.0.1, opened when needed."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None
        self.opened = 0

    async def begin(self, verb, fields, body=b""):
        """Sends a request and returns its `Reply`, the head read."""
        fresh = self.writer is None or self.reader.at_eof()
        if fresh:
            self.close()
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
            self.opened += 1
        lines = [f"{verb} /mcp HTTP/1.1", f"host: 127.0.0.1:{self.port}", *(f"{name}: {value}" for name, value in fields.items())]
        if body or verb == "POST":
            lines.append(f"content-length: {len(body)}")
        try:
            self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            return Reply(self.reader, (await self.reader.readuntil(b"\r\n\r\n"))[:-4])
        except (asyncio.IncompleteReadError, OSError) as error:
            self.close()
            raise Torn(f"no answer: {type(error).__name__}") from None

    async def whole(self, verb, fields, body=b"", seconds=HANG_SECONDS):
        """An exchange to its end. Returns the reply and its body."""
        try:
            async with asyncio.timeout(seconds):
                reply = await self.begin(verb, fields, body)
                read = await reply.body()
        except TimeoutError:
            self.close()
            raise Hang(f"{verb}: no end after {seconds} s") from None
        except BaseException:
            self.close()
            raise
        if not reply.keeps:
            self.close()
        return reply, read

    def close(self):
        if self.writer:
            with contextlib.suppress(OSError):
                self.writer.close()
            self.reader = self.writer = None


def answer_of(reply, body, number):
    """The result of the call with this id. Errors are `Refused`; what is no answer to it is `Foreign`."""
    text = body.decode(errors="replace")
    try:
        if reply.is_stream():
            events = text.replace("\r\n", "\n").split("\n\n")
            data = ["".join(line[5:] for line in event.split("\n") if line.startswith("data:")) for event in events]
            messages = [json.loads(one) for one in data if one.strip()]
            answers = [message for message in messages if "result" in message or "error" in message]
        else:
            answers = [json.loads(text)] if text.strip() else []
    except ValueError:
        raise Torn(f"{reply.status} with a body that is not JSON: {text[:80]!r}") from None
    if len(answers) != 1:
        raise Torn(f"{reply.status} with {len(answers)} answers: {text[:80]!r}")
    answer = answers[0]
    if answer.get("id") != number:
        raise Foreign(f"asked as {number}, answered as {answer.get('id')}: {text[:120]}")
    if "error" in answer:
        raise Refused(reply.status, answer["error"].get("code"), answer["error"].get("message", ""))
    if reply.status != 200:
        raise Foreign(f"{reply.status} with a result")
    return answer["result"]


class Session:
    """A session of 2025-11-25, one call at a time."""

    def __init__(self, port):
        self.wire, self.id = Wire(port), None

    def fields(self):
        known = {"mcp-session-id": self.id, "mcp-protocol-version": SESSION_REVISION} if self.id else {}
        return {"content-type": "application/json", "accept": BOTH, **known}

    async def ask(self, method, params=None, seconds=HANG_SECONDS):
        """The result of a request."""
        number = f"n{next(IDS)}"
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": params or {}}
        reply, body = await self.wire.whole("POST", self.fields(), json.dumps(message).encode(), seconds)
        if method == "initialize":
            self.id = reply.fields.get("mcp-session-id", self.id)
        return answer_of(reply, body, number)

    async def call(self, tool, seconds=HANG_SECONDS, **args):
        """The text that a tool answers."""
        result = await self.ask("tools/call", {"name": tool, "arguments": args}, seconds)
        return result["content"][0]["text"]

    async def begin(self):
        self.id = None
        await self.ask("initialize", INITIALIZE)
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        reply, body = await self.wire.whole("POST", self.fields(), json.dumps(told).encode())
        if reply.status != 202:
            raise Refused(reply.status, None, f"notifications/initialized: {body[:80]!r}")

    async def end(self):
        """DELETE, again while it does not get through: Tidegate sends one once, and says 502 or 503 if it was
        in vain. Returns the last status."""
        for _ in range(END_MAX):
            reply, _ = await self.wire.whole("DELETE", self.fields())
            if reply.status not in (502, 503):
                break
            await asyncio.sleep(0.2)
        return reply.status


class Stateless:
    """Calls of 2026-07-28 on one connection."""

    def __init__(self, port):
        self.wire = Wire(port)

    async def ask(self, method, name=None, seconds=HANG_SECONDS, **params):
        number = f"n{next(IDS)}"
        fields = {"content-type": "application/json", "accept": BOTH, "mcp-protocol-version": STATELESS_REVISION, "mcp-method": method}
        if name:
            fields["mcp-name"] = name
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, "_meta": META}}
        reply, body = await self.wire.whole("POST", fields, json.dumps(message).encode(), seconds)
        return answer_of(reply, body, number)
