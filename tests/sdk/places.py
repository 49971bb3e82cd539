"""Is every place at an endpoint given back, whatever becomes of the call that had it?

Each endpoint has few places and calls queue for them, for as long as Tidegate lets one wait. Servers
fail, die and come back; clients leave while they wait, while they send, in the middle of an answer; a
session is deleted under its own call; lists are asked for twice. Then every endpoint is given as many
calls as it has places, none of which ends by itself: each of them begins at once, or would wait for
ever because a place was lost. One more waits, or there are more places than there may be.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import random
import time

from crowd import Crowd, Safe, judge
from fleet import until
from harness import Failed
from raw import IDS, Foreign, Hang, Refused, Session, Torn, Wire

PLACES = 3
QUITTERS = 12
# A stall is a matter of seconds, and long enough for `count_places` on a busy machine.
LIMITS = {"header": "2s", "stream_idle": "3s", "total": "6s"}
POOL = {
    "timeouts": LIMITS,
    "queue_timeout": "10m",
    # Short, so that all of it happens often: places are also given to trials, and to second attempts.
    "ejection": {"base_time": "1s"},
    "breaker": {"open_time": "1s"},
    "retries": {"hedge_after": "50ms"},
}
# What takes a place and keeps it, by the kind of server: a tool and its arguments.
LASTING = {
    "scripted": ("fault", {"kind": "stall_after_head"}),
    "py": ("ticks", {"n": 100, "every_ms": 50}),
    "ts": ("ticks", {"n": 100, "every_ms": 50}),
}
# Share of lists that may be lost: one whose answer breaks off in its body is not asked for again.
LOST_LISTS = 0.01
# A call that is not told within this time waits, as far as it is asked here.
WAITS_SECONDS = 0.5


class Lasting:
    """A call that does not end by itself, on a connection of its own."""

    def __init__(self, session, kind):
        self.session, self.kind, self.wire = session, kind, Wire(session.wire.port)

    async def begun(self, seconds):
        """Waits until its answer begins. `Hang` if it does not."""
        tool, args = LASTING[self.kind]
        number = f"n{next(IDS)}"
        params = {"name": tool, "arguments": args, "_meta": {"progressToken": number}}
        message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
        try:
            async with asyncio.timeout(seconds):
                reply = await self.wire.begin("POST", self.session.fields(), json.dumps(message).encode())
        except TimeoutError:
            self.wire.close()
            raise Hang(f"no place within {seconds} s") from None
        if reply.status != 200:
            raise Refused(reply.status, None, "a lasting call")
        return self

    def close(self):
        self.wire.close()


class Quitter:
    """A client that leaves its calls, each time in another state."""

    def __init__(self, port, number, kinds, done):
        self.session, self.random, self.kinds, self.done = Session(port), random.Random(number), kinds, done
        self.kind = None
        self.hung = []

    async def live(self, over):
        ways = (self.leaves_soon, self.leaves_half_a_request, self.leaves_in_the_answer, self.deletes_under_a_call)
        for turn in itertools.count():
            if over.is_set():
                break
            try:
                await self.begin()
                await ways[turn % len(ways)]()
                self.done[ways[turn % len(ways)].__name__] += 1
            except (Refused, Torn) as error:
                # A server may be dead, or fail on purpose. One that has lost its sessions says so.
                if isinstance(error, Refused) and error.status == 404:
                    self.session.id = self.kind = None
            except (Hang, Foreign) as error:
                self.hung.append(str(error))
            await asyncio.sleep(self.random.uniform(0, 0.2))
        if self.session.id:
            await self.session.end()
        self.session.wire.close()

    async def begin(self):
        """A session, and on which kind of server, as far as it has not come to that yet."""
        if self.session.id is None:
            await self.session.begin()
        if self.kind is None:
            self.kind = self.kinds[await self.session.call("whoami")]

    async def leaves_soon(self):
        """While it waits for a place, or just after."""
        call = asyncio.create_task(self.session.call("echo", text="unheard"))
        await asyncio.sleep(self.random.uniform(0, 0.03))
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, Refused, Torn):
            await call

    async def leaves_half_a_request(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.session.wire.port)
        fields = {**self.session.fields(), "host": "127.0.0.1", "content-length": "900"}
        lines = ["POST /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"text":"'
        writer.write("\r\n".join(lines).encode() + body.encode())
        await writer.drain()
        await asyncio.sleep(self.random.uniform(0, 0.03))
        writer.close()

    async def leaves_in_the_answer(self):
        (await Lasting(self.session, self.kind).begun(10)).close()

    async def deletes_under_a_call(self):
        call = await Lasting(self.session, self.kind).begun(10)
        try:
            await self.session.end()
            self.session.id = self.kind = None
        finally:
            call.close()


async def every_place_comes_back(stage, seed):
    """Calls end in every way there is, and then all places are there."""
    options = {"scripted": ["--faults", "8", "--refuse", "0.02", "--idle", "5000", "--seed", str(seed)]}
    fleet = stage.fleet("scripted", "py", "ts", options=options)
    endpoints = [{**endpoint, "max_in_flight": PLACES} for endpoint in fleet.endpoints()]
    gate = stage.gate(fleet, **POOL, endpoints=endpoints)
    crowd = Crowd(gate.port, 0.3)
    await mixed_load(stage, fleet, gate, crowd)
    await until(lambda: not any(gate.gauges("tidegate_endpoint_in_flight")), 5, f"in flight: {gate.gauges('tidegate_endpoint_in_flight')}")
    for at, kind in enumerate(fleet.kinds):
        session = await session_at(gate.port, fleet.name(at))
        await count_places(stage.of(f"places at {kind}"), gate, session, kind)
        await session.end()
        session.wire.close()
    await crowd.close()
    after = await fleet.settle(0)
    stage.of("sessions on the servers").expect(after == 0, f"{after} when all are deleted")


async def mixed_load(stage, fleet, gate, crowd):
    """A crowd, clients that leave and lists that are asked for twice, while a server dies and comes back."""
    fleet.born(crowd)
    crowd.lives[fleet.name(0)].faulty = True
    await crowd.open(30)
    over, left, lists = asyncio.Event(), collections.Counter(), Safe()
    # Kinds of servers by the names that they say, those of later lives too.
    kinds = collections.defaultdict(lambda: "py", {fleet.name(at): kind for at, kind in enumerate(fleet.kinds)})
    quitters = [Quitter(gate.port, number, kinds, left) for number in range(QUITTERS)]
    tasks = [asyncio.create_task(quitter.live(over)) for quitter in quitters]
    tasks += [asyncio.create_task(lists.work(gate.port, 0, 0.1, at, False, over)) for at in range(4)]
    for _ in range(stage.size(1, 6)):
        await asyncio.sleep(2.5)
        fleet.kill(1, crowd)
        await asyncio.sleep(2.5)
        await fleet.revive(1, crowd)
        await asyncio.to_thread(gate.wait_up, 3)
        await asyncio.sleep(1.5)
    over.set()
    await asyncio.gather(*tasks)
    await crowd.rest()
    seen = stage.of("mixed load")
    judge(seen, crowd)
    hung = [text for quitter in quitters for text in quitter.hung]
    seen.expect(not hung and len(left) == 4, f"left calls: {dict(left)}, {len(hung)} that hang {hung[:2] or ''}")
    seen.expect(*await asyncio.to_thread(queued, gate))
    lists.told(stage.of("lists"), LOST_LISTS)


def queued(gate):
    """How many calls have waited for a place; some must have, or nothing was shown."""
    lines = []
    for line in gate.log.read_text().splitlines():
        # The last one may be under way.
        with contextlib.suppress(json.JSONDecodeError):
            lines.append(json.loads(line))
    waited = sum(line["queue_ms"] > 0 for line in lines)
    gave_up = sum(line["termination"] == "CQ" for line in lines)
    return waited > 20 and gave_up > 0, f"{waited} calls have waited for a place, {gave_up} clients left meanwhile"


async def session_at(port, name, seconds=30):
    """A new session on the server of this name."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        session = Session(port)
        # The faulty one may fail here too, and one that came back gets few sessions at first.
        with contextlib.suppress(Refused, Torn):
            await session.begin()
            if await session.call("whoami") == name:
                return session
        if session.id:
            await session.end()
        session.wire.close()
    raise Failed(f"no session comes to {name} within {seconds} s")


async def count_places(seen, gate, session, kind):
    """All places can be had at once, and no more than these."""
    held = []
    try:
        for number in range(PLACES):
            try:
                held.append(await Lasting(session, kind).begun(10))
            except (Hang, Refused, Torn) as error:
                return seen.expect(False, f"the place {number + 1} of {PLACES} is not to be had: {error}")
        # The test of the test: what this looks for is what a place that is taken looks like.
        try:
            (await Lasting(session, kind).begun(WAITS_SECONDS)).close()
            seen.expect(False, f"there are more than {PLACES} places")
        except Hang:
            seen.expect(True, f"{PLACES} calls at once have a place each, one more waits")
        extra = asyncio.create_task(session.ask("ping"))
        await until(lambda: sum(gate.gauges("tidegate_calls_waiting")) == 1, 2, "a call that waits")
        held.pop().close()
        await extra
        seen.expect(True, "and has one when a client leaves")
    finally:
        for call in held:
            call.close()
