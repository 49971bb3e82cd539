"""What many sessions see while real servers are killed, flap, and answer as no server should.

Each row has servers of its own as child processes, killed with SIGKILL, one Tidegate, and a crowd that
checks every answer: `crowd.py`. A row tells figures and its bar, and fails where the bar is missed.
"""

import asyncio
import contextlib
import http.client
import itertools
import time

from crowd import Crowd, Safe, judge
from fault_clients import SESSION, Clients, Seat, Seen, brief
from fleet import Fleet, until
from gates import FALL, INTERVAL, RISE, Gate
from harness import Failed
from places import every_place_comes_back
from raw import Foreign, Hang, Refused, Session, Torn, Wire

# Half a check may be under way when a server dies, and one takes a while on a busy machine.
FALL_SECONDS = FALL * INTERVAL + 1
RISE_SECONDS = RISE * INTERVAL + 1
REINITIALIZE = {"on_endpoint_loss": "reinitialize"}
CROWD = 200
# Mean pause of a session between two calls: together some 300 calls in a second.
PAUSE = 0.6
# Of the server that flaps.
KILLS_MIN = 3


class Stage:
    """The processes of one row."""

    def __init__(self, work, binary, short):
        self.work, self.binary, self.short = work, binary, short
        self.parts, self.seen = [], {}
        self.numbers, self.clients = itertools.count(1), {}

    def fleet(self, *kinds, options=()):
        self.parts.append(Fleet(self.work, kinds, options))
        return self.parts[-1]

    def gate(self, fleet, **pool):
        # A killed server refuses checks at once; one that is slow because the machine is busy is well.
        health = {"interval": f"{INTERVAL * 1000:.0f}ms", "timeout": "10s", "rise": RISE, "fall": FALL}
        self.parts.append(Gate(self.work, self.binary, fleet.endpoints(), pool={"health": health, **pool}))
        return self.parts[-1]

    def seats(self, gate, kinds):
        """SDK clients with a session each; of three in a row there is one on each of three copies."""
        for language in ("js", "py"):
            if language not in self.clients:
                self.clients[language] = Clients(language, self.work.file(f"clients-{language}.log"))
                self.parts.append(self.clients[language])
        for clients in self.clients.values():
            clients.wait_ready()
        return [Seat(self, kind, gate).opened() for kind in kinds]

    def of(self, who):
        return self.seen.setdefault(who, Seen())

    def size(self, short, full):
        return short if self.short else full

    def stop(self):
        for part in reversed(self.parts):
            part.stop()


def told_in_time(seen, crowd, affected, how, opening=0.0):
    """Every session of a killed server was told, or went on, in time.

    Sessions that go on are opened on the servers left, as fast as these can: `opening` is what the
    whole crowd took to open its sessions on all of them, while nobody called.
    """
    settled = sorted(crowd.settled)
    refused = [count for _, count, _ in settled]
    if not settled:
        return seen.expect(False, "no session was affected")
    seconds = [seconds for seconds, _, _ in settled]
    middle, last = seconds[len(seconds) // 2], seconds[-1]
    # A session notices with its next call, which it may make a whole pause later.
    bar = FALL_SECONDS + 1.5 * crowd.pause + opening
    seen.took(last)
    seen.expect(
        len(settled) == affected and last <= bar,
        f"{len(settled)} of {affected} affected sessions {how}: median {middle:.2f} s, last {last:.2f} s (bar {bar:.1f}), "
        f"after at most {max(refused)} refused requests",
    )


async def killed_under_load(stage, kind, reinitialize=False):
    """One of three dies under 200 sessions that call all the time, and comes back."""
    fleet = stage.fleet(*[kind] * 3)
    gate = stage.gate(fleet, **(REINITIALIZE if reinitialize else {}))
    crowd = Crowd(gate.port, PAUSE, reinitialize)
    fleet.born(crowd)
    begun = time.monotonic()
    await crowd.open(CROWD)
    opening = time.monotonic() - begun if reinitialize else 0.0
    affected = 0
    listeners, seats = [], []
    if reinitialize:
        listeners = [await Listener(member.session).open() for member in crowd.members[:: CROWD // 20]]
        seats = await asyncio.to_thread(stage.seats, gate, [kind for kind in SESSION for _ in range(3)])
    opened = await fleet.settle(len(crowd.members) + len(seats))
    for round in range(stage.size(1, 4)):
        at = round % 3
        await asyncio.sleep(stage.size(1.5, 5))
        # Those whose session lies there now.
        affected += len(crowd.on(fleet.name(at)))
        moved = [seat for seat in seats if seat.name == fleet.name(at)]
        fleet.kill(at, crowd)
        await asyncio.to_thread(gone_on, stage, moved)
        await asyncio.sleep(FALL_SECONDS + PAUSE)
        await fleet.revive(at, crowd)
        await asyncio.to_thread(gate.wait_up, 3)
    await asyncio.sleep(stage.size(1, 5))
    await crowd.rest()
    seen = stage.of("raw")
    told_in_time(seen, crowd, affected, "went on" if reinitialize else "were told", opening)
    judge(seen, crowd)
    if reinitialize:
        await streams_go_on(stage.of("GET streams"), listeners)
    left = await fleet.settle(len(crowd.members) + len(seats))
    for listener in listeners:
        listener.close()
    await crowd.close()
    for seat in seats:
        await asyncio.to_thread(seat.clients.order("close", seat.at).wait, 5)
    after = await fleet.settle(0)
    held = len(crowd.members) + len(seats)
    seen = stage.of("sessions on the servers")
    seen.expect(opened == left == held and after == 0, f"{opened} opened, {left} before and {after} after {held} clients have deleted theirs")


def gone_on(stage, seats):
    """SDK clients that do nothing but call again."""
    for seat in seats:
        seen, moment, refused = stage.of(seat.kind), time.monotonic(), []
        while True:
            call = seat.call("counter")
            answer = call.wait()
            if "value" in answer or time.monotonic() - moment > FALL_SECONDS:
                break
            refused.append(brief(answer["error"]))
            time.sleep(0.1)
        seconds = time.monotonic() - moment
        seen.expect(answer.get("value") == "1", f"{len(refused)} errors {sorted(set(refused))}, then counter {answer} after {seconds:.2f} s")
        seat.name = seat.call("whoami").wait().get("value")


class Listener:
    """The GET stream of a session: what comes on it, and whether it ends."""

    def __init__(self, session):
        self.session, self.wire = session, Wire(session.wire.port)
        self.heard, self.ended = 0, None

    async def open(self):
        self.task = asyncio.create_task(self.listen())
        return self

    async def listen(self):
        try:
            # A server may hold the head back until there is something to say.
            reply = await self.wire.begin("GET", {**self.session.fields(), "accept": "text/event-stream"})
            if reply.status != 200:
                raise Torn(f"GET: {reply.status}")
            async for message in reply.messages():
                self.heard += message.get("method") == "notifications/tools/list_changed"
            self.ended = "ended"
        except Torn as error:
            self.ended = str(error)

    async def hears(self, seconds=3.0):
        """Does a change that its own session announces come through?"""
        before, end = self.heard, time.monotonic() + seconds
        await self.session.call("test_trigger_tool_change")
        while self.heard == before and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return self.heard > before

    def close(self):
        self.task.cancel()
        self.wire.close()


async def streams_go_on(seen, listeners):
    # What comes of beginning anew must have come.
    await asyncio.sleep(0.5)
    ended = [listener.ended for listener in listeners if listener.ended]
    hear = [await listener.hears() for listener in listeners]
    seen.expect(all(hear) and not ended, f"{len(listeners)}, {len(ended)} ended {ended[:2] or ''}, {sum(hear)} hear what their session announces")


# How often endpoints close what is unused, and the options that make them do it.
IDLE = {
    "scripted, at once": ("scripted", ["--idle", "0"], 0.004),
    "scripted, after 1 ms": ("scripted", ["--idle", "1"], 0.003),
    "scripted, at random": ("scripted", ["--idle", "random"], 0.01),
    "Node, after 5 ms": ("ts", ["--keep-alive", "5"], 0.012),
    "uvicorn, after 5 ms": ("py", ["--keep-alive", "5"], 0.012),
}


async def idle_closed(stage, name, copies):
    """Servers close unused connections at the moment that they are used."""
    kind, options, pause = IDLE[name]
    fleet = stage.fleet(*[kind] * copies, options=options)
    gate = stage.gate(fleet)
    tally = Safe()
    number = stage.size(500, 10_000)
    await asyncio.gather(*(tally.work(gate.port, number // 10, pause, at, at % 3 > 0) for at in range(10)))
    tally.told(stage.of("ping and lists"), 0)


async def flapping(stage, kind, reinitialize):
    """One of four is killed every second, and started again as often."""
    fleet = stage.fleet(*[kind] * 4)
    gate = stage.gate(fleet, **(REINITIALIZE if reinitialize else {}))
    over, tally = asyncio.Event(), Safe()
    tasks = [asyncio.create_task(tally.work(gate.port, 0, 0.05, at, reinitialize, over)) for at in range(12)]
    end, kills = time.monotonic() + stage.size(10, 60), 0
    # A busy machine takes its time to start a server.
    while time.monotonic() < end or kills < KILLS_MIN:
        await asyncio.sleep(1)
        fleet.kill(0)
        kills += 1
        await asyncio.sleep(1)
        await fleet.revive(0)
    over.set()
    await asyncio.gather(*tasks)
    seen = stage.of("sessions that begin anew" if reinitialize else "stateless calls")
    tally.told(seen, 0.001)
    seen.expect(True, f"{kills} kills")


async def all_down_then_up(stage, kind):
    """No server at all, then all of them."""
    fleet = stage.fleet(*[kind] * 3)
    gate = stage.gate(fleet)
    for round in range(stage.size(1, 3)):
        for at in range(3):
            fleet.kill(at)
        await asyncio.to_thread(gate.wait_up, 0)
        up = asyncio.gather(*(fleet.revive(at) for at in range(3)))
        served = asyncio.create_task(first_success(gate.port))
        moments = await up
        seconds = await served - min(moments)
        seen = stage.of("first success")
        seen.took(seconds)
        seen.expect(seconds <= RISE_SECONDS, f"{seconds:.2f} s after the first server listens (bar {RISE_SECONDS:.1f})")


async def first_success(port):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        session = Session(port)
        with contextlib.suppress(Refused):
            await session.begin()
            await session.call("whoami")
            moment = time.monotonic()
            await session.end()
            return moment
        session.wire.close()
        await asyncio.sleep(0.02)
    raise Failed("never served again")


# Short, so that a stall is a matter of seconds.
LIMITS = {"header": "2s", "stream_idle": "2s", "total": "6s"}
LIMIT_SECONDS = 2.0


async def faulty_in_the_pool(stage, seed):
    """A server that refuses, stalls, resets, lies, trickles and answers garbage, beside two that are well."""
    options = {"scripted": ["--faults", "8", "--refuse", "0.02", "--idle", "5000", "--seed", str(seed)]}
    fleet = stage.fleet("scripted", "py", "ts", options=options)
    gate = stage.gate(fleet, timeouts=LIMITS)
    crowd = Crowd(gate.port, 0.2)
    fleet.born(crowd)
    crowd.lives[fleet.name(0)].faulty = True
    await crowd.open(60)
    on_it = len(crowd.on(fleet.name(0)))
    await asyncio.sleep(stage.size(8, 60))
    await crowd.rest()
    seen = stage.of("mixed load")
    judge(seen, crowd)
    counts = crowd.counts
    seen.expect(on_it > 5 and counts.number["faulty"] > 10, f"{on_it} sessions on the faulty one, {counts.number['faulty']} faults: {dict(counts.number)}")
    bar = LIMIT_SECONDS + 1
    seen.expect(crowd.slowest_fault <= bar, f"slowest fault told after {crowd.slowest_fault:.2f} s (bar {bar:.1f})")
    await until(lambda: not any(gate.gauges("tidegate_endpoint_in_flight")), 5, f"in flight: {gate.gauges('tidegate_endpoint_in_flight')}")
    seen.expect(True, "in flight 0")
    left = await fleet.settle(len(crowd.members))
    await crowd.close()
    after = await fleet.settle(0)
    held = len(crowd.members)
    seen.expect(left == held and after == 0, f"{left} sessions on the servers for {held} clients, {after} when all are deleted")


def rows(short):
    """name: row, a function of a stage."""
    table = {}
    for kind in ("py",) if short else ("py", "ts"):
        table[f"1 killed under load: {kind}"] = lambda stage, kind=kind: killed_under_load(stage, kind)
    for kind in ("ts",) if short else ("ts", "py"):
        table[f"2 killed under load, reinitialize: {kind}"] = lambda stage, kind=kind: killed_under_load(stage, kind, True)
    for name in IDLE:
        for copies in (1, 3):
            table[f"3 idle connections closed: {copies} of {name}"] = lambda stage, name=name, copies=copies: idle_closed(stage, name, copies)
    for reinitialize in (False, True):
        told = "sessions" if reinitialize else "stateless"
        table[f"4 one of four flaps: {told}"] = lambda stage, reinitialize=reinitialize: flapping(stage, "ts", reinitialize)
    table["5 all down, then up"] = lambda stage: all_down_then_up(stage, "ts")
    for seed in range(1, 2 if short else 4):
        table[f"6 a faulty server in the pool: seed {seed}"] = lambda stage, seed=seed: faulty_in_the_pool(stage, seed)
        table[f"9 every place comes back: seed {seed}"] = lambda stage, seed=seed: every_place_comes_back(stage, seed)
    return table


# Rows that take all the processors there are and have a bar in seconds: one at a time.
ALONE = ("1", "2")


def jobs(work, binary, count, short, only=""):
    """Two lists of functions, one per row: those to be run by themselves, and the others.

    Each tells `count(name, good, text, seconds)` its verdicts.
    """

    def job(name, row):
        stage = Stage(work, binary, short)
        try:
            asyncio.run(row(stage))
        except (Failed, OSError, http.client.HTTPException, KeyError, Refused, Hang, Torn, Foreign) as error:
            count(name, False, f"{type(error).__name__}: {error}")
        finally:
            stage.stop()
        for who, seen in stage.seen.items():
            told = "; ".join([f"WRONG {text}" for text in seen.wrong] + seen.told)
            count(f"{name}: {who}", not seen.wrong, told, seen.seconds)

    alone, others = [], []
    for name, row in rows(short).items():
        if only in name:
            (alone if name.startswith(ALONE) else others).append(lambda name=name, row=row: job(name, row))
    return alone, others
