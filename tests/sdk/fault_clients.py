"""Real SDK clients that do as they are told, one step at a time.

A fault test breaks something between two steps of a client, or in the middle of one. So one process
per language holds many clients, takes orders as lines of JSON and answers in the same way:

  {"n": 1, "do": "open", "at": "a", "kind": "ts1", "url": URL}     {"n": 1, "value": "2025-11-25"}
  {"n": 2, "do": "call", "at": "a", "name": "ticks", "args": {}}   {"n": 2, "tick": 1} ... {"n": 2, "value": "text"}
  {"n": 3, "do": "read", "at": "a", "uri": URI}                    {"n": 3, "error": {"name", "code", "message"}}
  {"n": 4, "do": "move", "at": "a", "port": 8001}                  {"n": 4, "value": null}
  {"n": 5, "do": "close", "at": "a"}                               {"n": 5, "value": null}
  {"n": 6, "do": "tools", "at": "a"}                               {"n": 6, "value": "counter echo"}
  {"n": 7, "do": "heard", "at": "a"}                               {"n": 7, "value": "notifications/message"}
  {"n": 8, "do": "listen", "at": "a"}                              {"n": 8, "value": null}

`heard` tells the notifications that came and belong to no call, `listen` opens a stream of the stateless
era for such, and a call with `"untold": true` asks for no progress. Orders run side by side. `open` at a place in use begins anew, where the SDK allows with the same
client object. `move` sends what follows to another port, as a name does that changes its address.
`Clients` is this side of it; run as a program, with the interpreter that has the SDK, the file is
the Python clients.
"""

import asyncio
import http.client
import itertools
import json
import pathlib
import re
import subprocess
import sys
import threading
import time

from harness import HERE, NODE, PYTHON, START_SECONDS, Failed, Process

# Within this time a client must know that something is wrong.
SOON = 2.0
# Of one call. A test that sees it has found a hang.
TIMEOUT_SECONDS = 8

# kind: (language, the era it ends up in on a server of both)
KINDS = {
    "ts1": ("js", "session"),
    "ts2": ("js", "session"),
    "py-legacy": ("py", "session"),
    "ts2-modern": ("js", "stateless"),
    "ts2-auto": ("js", "stateless"),
    "py": ("py", "stateless"),
}
SESSION = [kind for kind, (_, era) in KINDS.items() if era == "session"]
STATELESS = [kind for kind, (_, era) in KINDS.items() if era == "stateless"]

SCRIPT = pathlib.Path(__file__).parent / "client_orders.mjs"


class Pending:
    """An order that was given. `ticks` and `answer` fill as the client speaks."""

    def __init__(self):
        self.begun = time.monotonic()
        self.ended = None
        self.ticks = 0
        self.answer = None
        self.changed = threading.Condition()

    def heard(self, line):
        with self.changed:
            if "tick" in line:
                self.ticks += 1
            else:
                self.answer = line
                self.ended = time.monotonic()
            self.changed.notify_all()

    def wait(self, seconds=TIMEOUT_SECONDS + 4):
        """The answer, a dictionary with `value` or `error`; one of our own when none comes."""
        with self.changed:
            self.changed.wait_for(lambda: self.answer is not None, seconds)
            return self.answer or {"error": {"name": "Hang", "code": None, "message": f"no answer in {seconds} s"}}

    def wait_ticks(self, count, seconds=10):
        with self.changed:
            self.changed.wait_for(lambda: self.ticks >= count or self.answer is not None, seconds)
            if self.ticks < count:
                raise Failed(f"{self.ticks} of {count} ticks came, then {self.answer}")

    def since(self, moment):
        """Seconds from a moment to the answer."""
        return (self.ended or time.monotonic()) - moment


class Clients(Process):
    """The clients of one language."""

    def __init__(self, language, log):
        argv = {
            "js": [NODE, str(SCRIPT), str(TIMEOUT_SECONDS * 1000)],
            "py": [PYTHON, "fault_clients.py"],
        }[language]
        self.log = log
        self.pending = {0: Pending()}
        self.numbers = itertools.count(1)
        self.unhandled = []
        self.sending = threading.Lock()
        with log.open("wb") as errors:
            self.child = subprocess.Popen(
                argv, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )
        with Process.lock:
            Process.live.add(self)
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        for text in self.child.stdout:
            if not text.startswith("{"):
                continue
            line = json.loads(text)
            if "unhandled" in line:
                self.unhandled.append(line["unhandled"]["message"])
            else:
                self.pending[line["n"]].heard(line)

    def wait_ready(self):
        if self.pending[0].wait(START_SECONDS).get("value") != "ready":
            raise Failed(f"{self.log.name} did not start: {self.text()[-400:]}")

    def order(self, do, at, **more):
        with self.sending:
            n = next(self.numbers)
            pending = self.pending[n] = Pending()
            self.child.stdin.write(json.dumps({"n": n, "do": do, "at": at, **more}) + "\n")
            self.child.stdin.flush()
        return pending


class Seat:
    """A client with its connection to one gate."""

    def __init__(self, stage, kind, gate):
        self.kind, self.gate, self.count, self.name = kind, gate, 0, None
        self.clients = stage.clients[KINDS[kind][0]]
        self.at = f"{kind}/{next(stage.numbers)}"

    def open(self):
        """Begins a session, or begins anew, and finds out which copy serves it."""
        self.count, self.name = 0, None
        return self.clients.order("open", self.at, kind=self.kind, url=self.gate.url)

    def call(self, tool, **args):
        return self.clients.order("call", self.at, name=tool, args=args)

    def untold(self, tool, **args):
        """A call that asks for no progress."""
        return self.clients.order("call", self.at, name=tool, args=args, untold=True)

    def ask(self, do):
        return self.clients.order(do, self.at)

    def counted(self):
        self.count += 1
        return self.call("counter"), str(self.count)

    def opened(self):
        """Opens and waits. A session that cannot be had is a failure of the row."""
        answer = self.open().wait()
        version = answer.get("value") or ""
        if (version >= "2026") != (KINDS[self.kind][1] == "stateless") or not version:
            raise Failed(f"{self.kind} cannot connect: {answer}")
        self.name = self.call("whoami").wait().get("value")
        return self


# What the clients saw


class Seen:
    """What one client saw in one row, and what of it was wrong."""

    def __init__(self):
        self.told = []
        self.wrong = []
        self.seconds = None

    def expect(self, good, text):
        if text:
            (self.told if good else self.wrong).append(text)

    def took(self, seconds):
        self.seconds = seconds if self.seconds is None else self.seconds

    def refused(self, what, pending, *texts, since=None, limit=SOON):
        """An error with one of these texts, soon after a moment."""
        error = pending.wait().get("error")
        seconds = pending.since(pending.begun if since is None else since)
        self.took(seconds)
        told = brief(error) if error else pending.answer["value"]
        right = error is not None and seconds <= limit and any(text in error["message"] for text in texts)
        self.expect(right, f"{what}: {told} after {seconds:.2f} s")

    def served(self, what, pending, value=None, limit=SOON):
        answer = pending.wait()
        seconds = pending.since(pending.begun)
        self.took(seconds)
        told = brief(answer["error"]) if "error" in answer else answer["value"]
        self.expect("error" not in answer and value in (None, answer["value"]) and seconds <= limit, f"{what}: {told} after {seconds:.2f} s")
        return answer.get("value")


def brief(error):
    """An error in few words: TypeScript puts whole bodies into its message."""
    inner = re.search(r'"message":\s*"([^"]*)"', error["message"])
    return f"{error['name']} {error.get('code')} `{inner[1] if inner else error['message'][:100]}`"


class Counting(threading.Thread):
    """Sessions that are no part of the fault, and must not notice it: each counts on, without a gap."""

    def __init__(self, seats):
        super().__init__(daemon=True)
        self.seats, self.over, self.wrong, self.slowest = seats, threading.Event(), [], 0.0
        self.start()

    def run(self):
        while not self.over.wait(0.1):
            for pending, value in [seat.counted() for seat in self.seats]:
                answer = pending.wait()
                self.slowest = max(self.slowest, pending.since(pending.begun))
                if answer.get("value") != value:
                    self.wrong.append(f"{value} expected, {answer}")

    def end(self, seen):
        self.over.set()
        self.join()
        calls = sum(seat.count for seat in self.seats)
        seen.took(self.slowest)
        seen.expect(not self.wrong and calls > 0, f"{len(self.seats)} sessions, {calls} calls, slowest {self.slowest:.2f} s")
        seen.expect(not self.wrong, "; ".join(self.wrong[:2]))


class Raw:
    """A session by plain HTTP, to see what no SDK shows."""

    HEADERS = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2025-11-25",
    }
    INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}

    def __init__(self, port):
        self.port, self.id = port, None
        _, headers, _ = self.request("POST", "initialize", self.INITIALIZE)
        self.id = headers["mcp-session-id"]
        self.request("POST", "notifications/initialized", number=None)
        self.name = self.call("whoami")[2]["result"]["content"][0]["text"]

    def begin(self, verb, body=None, session=None, port=None):
        """Returns the connection, on which the response is still to be read."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=5)
        session = session or self.id
        connection.request(verb, "/mcp", body, {**self.HEADERS, **({"mcp-session-id": session} if session else {})})
        return connection

    def request(self, verb, method=None, params=None, number=7, **where):
        """Returns (status, headers, JSON-RPC message)."""
        message = {"jsonrpc": "2.0", "method": method, "params": params or {}, **({"id": number} if number else {})}
        reply = self.begin(verb, json.dumps(message) if method else None, **where).getresponse()
        text = reply.read().decode()
        events = re.findall(r"^data: *(\{.*\})\s*$", text, re.M)
        return reply.status, reply.headers, json.loads(events[-1] if events else text or "null")

    def call(self, tool, **where):
        return self.request("POST", "tools/call", {"name": tool, "arguments": {}}, **where)


# The Python clients


class Holder:
    """One client of the Python SDK, which one task must both enter and leave."""

    def __init__(self, kind, url):
        from mcp import Client
        from mcp.client.streamable_http import streamable_http_client
        from mcp.shared._httpx_utils import create_mcp_http_client

        mode = {"py-legacy": "legacy", "py": "auto"}[kind]
        self.port = None
        self.http = create_mcp_http_client()
        self.http.event_hooks = {"request": [self.turn]}
        target = streamable_http_client(url, http_client=self.http)
        # No response cache: every call is meant to reach the server.
        self.client = Client(
            target, mode=mode, cache=None, read_timeout_seconds=TIMEOUT_SECONDS, message_handler=self.hear, logging_callback=self.ignore
        )
        self.heard = []
        self.leave, self.listening = asyncio.Event(), None
        self.ready = asyncio.get_running_loop().create_future()
        self.died = None
        self.task = asyncio.create_task(self.hold())

    async def hear(self, message):
        # Those of calls come here too.
        if not isinstance(message, Exception) and message.method != "notifications/progress":
            self.heard.append(message.method)

    async def ignore(self, _):
        pass

    async def listen(self):
        """Returns when the server has agreed; a task of its own stays in it."""
        agreed = asyncio.get_running_loop().create_future()

        async def stay():
            try:
                async with self.client.listen(tools_list_changed=True):
                    agreed.set_result(None)
                    await self.leave.wait()
            except (Exception, BaseExceptionGroup) as error:
                if not agreed.done():
                    agreed.set_exception(error)

        self.listening = asyncio.create_task(stay())
        return await agreed

    async def turn(self, request):
        if self.port:
            request.url = request.url.copy_with(port=self.port)

    async def hold(self):
        try:
            async with self.http, self.client as client:
                self.ready.set_result(client.session.protocol_version)
                await self.leave.wait()
        except (Exception, BaseExceptionGroup) as error:
            # A transport error takes the whole client of this SDK with it.
            self.died = told(error)
            if not self.ready.done():
                self.ready.set_exception(error)


def told(error):
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    code = getattr(getattr(error, "error", None), "code", None)
    return {"name": type(error).__name__, "code": code, "message": str(error)[:300]}


def tell(**line):
    print(json.dumps(line), flush=True)


async def follow(holders, n, do, at, **more):
    if do in ("open", "close") and at in holders:
        holder = holders.pop(at)
        holder.leave.set()
        if holder.listening:
            await holder.listening
        await holder.task
    if do == "open":
        holders[at] = Holder(**more)
        return await holders[at].ready
    if do == "close":
        return None
    holder = holders[at]
    if do == "move":
        holder.port = more["port"]
        return None
    if holder.died:
        raise RuntimeError(f"the client died: {holder.died}")
    if do == "tools":
        return " ".join(sorted(tool.name for tool in (await holder.client.list_tools()).tools))
    if do == "heard":
        return " ".join(holder.heard)
    if do == "listen":
        return await holder.listen()
    if do == "read":
        return (await holder.client.read_resource(more["uri"])).contents[0].text

    async def progress(done, *_):
        tell(n=n, tick=done)

    result = await holder.client.call_tool(more["name"], more["args"], progress_callback=None if more.get("untold") else progress)
    return result.content[0].text


async def serve():
    import mcp.client.streamable_http  # noqa: F401  # takes a second, which no row is to measure

    tell(n=0, value="ready")
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    holders, running = {}, set()

    async def one(order):
        try:
            tell(n=order["n"], value=await follow(holders, **order))
        except (Exception, BaseExceptionGroup) as error:
            tell(n=order["n"], error=told(error))

    async for line in orders:
        task = asyncio.create_task(one(json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)


if __name__ == "__main__":
    asyncio.run(serve())
