"""Real SDK clients through Tidegate while servers, and Tidegate itself, are killed and come back.

Every row has processes of its own: three copies of a server, one Tidegate or two, and clients of every
kind that the row is about, all of which live through the same fault. What each of them saw, and how
long it took, is one verdict. After every row the sessions on the surviving copies are counted.
"""

import concurrent.futures
import http.client
import itertools
import time

from fault_clients import KINDS, SESSION, SOON, STATELESS, Clients, Counting, Raw, Seat, Seen, brief
from gates import FALL, INTERVAL, RISE, Gate, GateChain
from harness import Failed, Process, Servers, get

COPIES = 3
RISE_SECONDS = RISE * INTERVAL + 1
FALL_SECONDS = FALL * INTERVAL + 1
# What Tidegate says, as every client hands it on.
GONE = "Session not found"
CUT = "upstream connection lost"
UNREACHABLE = "the server cannot be reached"
NOBODY = "no server is available"
# Of a server that is still taken to be up, and refuses one call after another: its breaker opens.
RESTING = "given time to recover"
LEAVING = "shutting down"


class Stage:
    """The processes of one row."""

    def __init__(self, work, binary, server, options, kind=Gate):
        self.work, self.binary, self.server, self.kind = work, binary, server, kind
        self.seen = {}
        self.seats = []
        self.raw = []
        self.numbers = itertools.count(1)
        self.servers, self.gates, self.clients = Servers(work, server, COPIES, options=options), [], {}
        try:
            self.clients = {language: Clients(language, work.file(f"clients-{language}.log")) for language in ("js", "py")}
            self.gate = self.another_gate()
            for clients in self.clients.values():
                clients.wait_ready()
        except BaseException:
            self.stop()
            raise

    def another_gate(self, **options):
        self.gates.append(self.kind.before(self.work, self.binary, self.servers, self.server, **options))
        return self.gates[-1]

    def stop(self):
        gates = (process for gate in self.gates for process in gate.processes)
        parts = (*self.clients.values(), *gates, *self.servers.processes)
        for process in parts:
            # All at once: some take their time.
            process.child.terminate()
        for process in parts:
            process.stop()

    def of(self, kind):
        return self.seen.setdefault(kind, Seen())

    def seat(self, kind, gate=None):
        """A client that is not connected yet."""
        self.seats.append(Seat(self, kind, gate or self.gate))
        return self.seats[-1]

    def sit(self, kind, gate=None):
        return self.seat(kind, gate).opened()

    def raw_on(self, name):
        """A raw session on the copy of this name."""
        for _ in range(2 * COPIES):
            self.raw.append(Raw(self.gate.port))
            if self.raw[-1].name == name:
                return self.raw[-1]
        raise Failed(f"no session came to {name}")

    def sit_everywhere(self):
        """A session of every kind on every copy. Returns those on the copy that will be hurt, and the others."""
        for kind in SESSION:
            # In turn: as many as there are copies go round once, but for the sessions of a front's checks.
            names = {self.sit(kind).name for _ in range(COPIES)}
            for _ in range(0 if self.kind is Gate else COPIES):
                names |= set() if len(names) == COPIES else {self.sit(kind).name}
            if len(names) < COPIES:
                raise Failed(f"the sessions went to {names}")
        hurt = {seat.kind: seat for seat in self.seats if seat.name == f"{self.server}0"}
        return hurt, [seat for seat in self.seats if seat.name != f"{self.server}0"]

    def kill(self, *numbers):
        """Kills copies at once, with SIGKILL. Returns the moment."""
        for number in numbers:
            self.servers.processes[number].child.kill()
        moment = time.monotonic()
        for number in numbers:
            self.servers.processes[number].child.wait()
            for held in (*self.seats, *self.raw):
                # Whatever was there is gone.
                held.name = None if held.name == f"{self.server}{number}" else held.name
        return moment

    def revive(self, *numbers):
        """Starts copies again at their old ports. Returns the moment from which the first one listens."""
        for number in numbers:
            argv = self.servers.processes[number].child.args
            self.servers.processes[number] = Process(argv, self.work.file(f"{self.server}{number}-again.log"))
        fresh = [self.servers.processes[number] for number in numbers]
        while not any("listening " in process.text() for process in fresh):
            if all(process.child.poll() is not None for process in fresh):
                raise Failed(f"no copy came back: {fresh[0].text()[-300:]}")
            time.sleep(0.02)
        return time.monotonic()

    def left(self, expected, seconds=5):
        """Live sessions on the copies that live, once they are as many as expected."""
        end = time.monotonic() + seconds
        while True:
            ports = [port for port, process in zip(self.servers.ports, self.servers.processes) if process.child.poll() is None]
            found = sum(int(get(f"http://127.0.0.1:{port}/_sessions")) for port in ports)
            if found == expected or time.monotonic() > end:
                return found
            time.sleep(0.1)

    def count_sessions(self):
        """The sessions that the servers hold must be those that the clients hold, and none when they are closed."""
        seen = self.of("sessions left")
        held = [seat.name for seat in self.seats if KINDS[seat.kind][1] == "session"] + [raw.name for raw in self.raw]
        explained = len(held) - held.count(None)
        found = self.left(explained)
        seen.expect(found == explained, f"{found} on the living copies, {explained} clients have one")
        for pending in [seat.clients.order("close", seat.at) for seat in self.seats]:
            pending.wait(5)
        for raw in self.raw:
            raw.request("DELETE")
        found = self.left(0)
        seen.expect(found == 0, f"{found} when all have closed")
        unhandled = [message for clients in self.clients.values() for message in clients.unhandled]
        seen.expect(not unhandled, f"unhandled: {unhandled[:3]}" if unhandled else "")


# The rows


def killed_in_call(stage):
    """A copy dies in the middle of a streaming call."""
    hurt, _ = stage.sit_everywhere()
    calls = {kind: seat.call("ticks", n=100, every_ms=100) for kind, seat in hurt.items()}
    for call in calls.values():
        call.wait_ticks(3)
    moment = stage.kill(0)
    for kind, seat in hurt.items():
        seen = stage.of(kind)
        seen.refused("the call", calls[kind], CUT, since=moment)
        seen.refused("the next", seat.call("whoami"), UNREACHABLE, CUT, RESTING, GONE)
        seat.opened()
        seen.served("begun anew", seat.call("whoami"), seat.name)


def killed_while_idle(stage):
    """A copy dies while its clients only listen."""
    hurt, _ = stage.sit_everywhere()
    raw = stage.raw_on(f"{stage.server}0")
    stream = raw.begin("GET")
    # The clients open theirs on their own, and unseen. A server may hold back the head of the stream
    # until it has something to say; then the client has no stream yet, and must be told that.
    time.sleep(0.5)
    moment = stage.kill(0)
    seen = stage.of("raw")
    try:
        reply = stream.getresponse()
        reply.read()
        seen.took(time.monotonic() - moment)
        seen.expect(reply.status in (200, 502) and seen.seconds <= SOON, f"GET ended properly, {reply.status}, after {seen.seconds:.2f} s")
    except (OSError, http.client.HTTPException) as error:
        seen.expect(False, f"GET broke: {error!r}")
    status = raw.request("GET")[0]
    # 200: a stream that ends at once, which clients open again; an error would count against it.
    seen.expect(status in (200, 404), f"GET again: {status}")
    time.sleep(max(0.0, moment + 1.2 - time.monotonic()))
    for kind, seat in hurt.items():
        stage.of(kind).refused("a call", seat.call("whoami"), GONE, UNREACHABLE, RESTING)
    stage.gate.wait_up(COPIES - 1)
    for kind, seat in hurt.items():
        stage.of(kind).refused("once it is down", seat.call("whoami"), GONE)
        seat.opened()
    status, _, body = raw.call("whoami")
    seen.expect((status, body["id"], body["error"]["code"]) == (404, 7, -32001), f"once it is down: {status} {body['error']}")
    seen.expect(raw.request("GET")[0] == 404, "GET too")


def killed_between_calls(stage):
    """A copy dies between two calls; the sessions on the others must not notice."""
    hurt, others = stage.sit_everywhere()
    for seat in hurt.values():
        stage.of(seat.kind).served("counter", seat.call("counter"), "1")
    counting = Counting(others)
    moment = stage.kill(0)

    def one(seat):
        seen = Seen()
        while True:
            call = seat.call("counter")
            seen.refused("a call", call, UNREACHABLE, CUT, RESTING, GONE)
            told = call.answer.get("error", {}).get("message", "") if call.answer else ""
            if GONE in told or call.since(moment) > FALL_SECONDS or seen.wrong:
                break
            time.sleep(0.1)
        seen.told = [*seen.told[:1], f"{len(seen.told)} errors", seen.told[-1], f"{call.since(moment):.2f} s after the kill"]
        seen.expect(call.since(moment) <= FALL_SECONDS and GONE in told, "" if GONE in told else f"no 404 within {FALL_SECONDS} s")
        seat.opened()
        seen.served("begun anew, counter", seat.call("counter"), "1")
        return seat.kind, seen

    stage.seen.update(side_by_side(one, hurt.values()))
    time.sleep(1)
    counting.end(stage.of("other sessions"))


def restarted(stage):
    """A copy is restarted and knows no session any more."""
    hurt, others = stage.sit_everywhere()
    raw = stage.raw_on(f"{stage.server}0")
    counting = Counting(others)
    stage.kill(0)
    stage.revive(0)
    stage.gate.wait_up(COPIES)
    counting.end(stage.of("other sessions"))
    status, _, body = raw.call("whoami")
    own = raw.call("whoami", session="never-issued", port=stage.servers.ports[0])
    stage.of("raw").expect((status, body) == (own[0], own[2]) and status == 404, f"{status} {body}, of the server's own words")
    for kind, seat in hurt.items():
        seen = stage.of(kind)
        seen.refused("a call", seat.call("counter"), GONE, "Session terminated", own[2]["error"]["message"])
        seat.opened()
        seen.served("begun anew, counter", seat.call("counter"), "1")


def gate_replaced(stage):
    """Tidegate dies and comes back; dies, and another with the same key takes over at another port."""
    seats = [stage.sit(kind) for kind in KINDS]

    def work(what):
        for seat in seats:
            for _ in range(2):
                call, value = seat.counted() if seat.kind in SESSION else (seat.call("echo", text=what), what)
                stage.of(seat.kind).served(what, call, value)

    work("before")
    stage.gate.kill()
    stage.gate.start()
    work("after the restart")
    second = stage.another_gate(key=stage.gate.key)
    stage.gate.kill()
    for seat in seats:
        seat.clients.order("move", seat.at, port=second.port).wait()
    work("at the other port")


def forged(stage):
    """Ids that Tidegate did not issue, or not to be used here."""
    raw = stage.raw_on(f"{stage.server}0")
    foreign = Raw(stage.another_gate().port)
    stage.raw.append(foreign)

    def turned(at):
        return raw.id[:at] + ("A" if raw.id[at] != "A" else "B") + raw.id[at + 1 :]

    for what, session in {
        "each of 16 characters changed": [turned(at * (len(raw.id) - 1) // 15) for at in range(16)],
        "cut": [raw.id[:-1], raw.id[: len(raw.id) // 2], raw.id[:1]],
        "longer": [raw.id + "A", raw.id * 2],
        "of another key": [foreign.id],
        "not ours at all": ["never-issued", "%00", "0" * 4096],
    }.items():
        seen = stage.of(f"id {what}")
        begun = time.monotonic()
        for one in session:
            for verb in ("POST", "GET", "DELETE"):
                status, _, body = raw.call("whoami", session=one) if verb == "POST" else raw.request(verb, session=one)
                right = status == 404 and body["error"]["code"] == -32001 and (verb != "POST" or body["id"] == 7)
                seen.expect(right, "" if right else f"{verb} {one[:40]}: {status} {body}")
        seen.took(time.monotonic() - begun)
        seen.told.append(f"404 and -32001 to POST, GET and DELETE of {len(session)} ids")
    stage.of("id untouched").expect(raw.call("whoami")[0] == 200, "200")


def stateless_in_call(stage):
    """The stateless era: a copy dies in the middle of calls; what comes next goes to the others."""
    seats = [stage.sit(kind) for kind in STATELESS]
    calls = {}
    for seat in seats:
        # In turn: one of them on each copy.
        calls[seat] = [seat.call("ticks", n=25, every_ms=100) for _ in range(COPIES)]
        for call in calls[seat]:
            call.wait_ticks(1)
    moment = stage.kill(0)

    def one(seat):
        seen = Seen()
        reads, wrong, down = 0, [], moment + FALL_SECONDS
        while time.monotonic() < down:
            uri = f"test://template/{stage.server}{reads}/data"
            answer = seat.clients.order("read", seat.at, uri=uri).wait()
            reads += 1
            wrong += [brief(answer["error"])] if "error" in answer else []
            time.sleep(0.05)
        for call in calls[seat]:
            if "error" in call.wait():
                seen.refused("its call there", call, CUT, since=moment)
        broken = sum("error" in call.answer for call in calls[seat])
        names = {call.answer["value"].split()[-1] for call in calls[seat] if "value" in call.answer}
        seen.expect(broken == 1 and len(names) == COPIES - 1, f"{broken} of {COPIES} calls broke, the others ended on {sorted(names)}")
        seen.expect(not wrong, f"{reads} reads meanwhile, {len(wrong)} errors {wrong[:2] or ''}")
        served = [seat.call("whoami").wait() for _ in range(12)]
        wrong = [brief(answer["error"]) for answer in served if "error" in answer]
        seen.expect(not wrong, f"then {len(served)} calls, {len(wrong)} errors {wrong[:2] or ''}")
        return seat.kind, seen

    stage.seen.update(side_by_side(one, seats))


def discovered_while_down(stage):
    """A client finds out the era while every server is down, and must not be told the wrong one."""
    kinds = ("ts2-auto", "py")
    for late in (False, True):
        if not late:
            stage.kill(*range(COPIES))
        else:
            stage.gate.wait_up(0)
        for kind in kinds:
            seen, seat = stage.of(kind), stage.seat(kind)
            what = "connected once all are down" if late else "connected at once"
            seen.served(what, seat.open(), "2026-07-28")
            seen.refused("a call", seat.call("whoami"), NOBODY, UNREACHABLE, RESTING)
    stage.revive(*range(COPIES))
    stage.gate.wait_up(COPIES)
    for seat in stage.seats:
        stage.of(seat.kind).served("when they are back", seat.call("whoami"))


def all_down_then_up(stage):
    """No server at all, then all of them: how long until a client is served again."""
    seats = [stage.seat(kind) for kind in KINDS]
    for seat in seats:
        if seat.kind in STATELESS:
            seat.opened()
    stage.kill(*range(COPIES))
    stage.gate.wait_up(0)

    def attempt(seat):
        return seat.open() if seat.kind in SESSION else seat.call("whoami")

    for seat in seats:
        stage.of(seat.kind).refused("while down", attempt(seat), NOBODY, UNREACHABLE, RESTING)
    up = stage.revive(*range(COPIES))

    bar = RISE_SECONDS + stage.gate.resting

    def one(seat):
        seen = stage.of(seat.kind)
        while "error" in attempt(seat).wait() and time.monotonic() < up + bar + 5:
            time.sleep(0.05)
        seen.seconds = time.monotonic() - up
        seen.expect(seen.seconds <= bar, f"served {seen.seconds:.2f} s after the first server came up")
        answer = seat.call("whoami").wait()
        while stage.gate.resting and RESTING in answer.get("error", {}).get("message", "") and time.monotonic() < up + bar:
            # A breaker lets a few calls through before it lets all.
            answer = seat.call("whoami").wait()
        seat.name = answer.get("value")
        seen.expect("value" in answer, f"and then {answer.get('value') or brief(answer['error'])}")

    side_by_side(one, seats)


def gate_told_to_leave(stage):
    """SIGTERM to Tidegate: a call that ends in time is not disturbed, a longer one is told."""
    short = stage.another_gate(drain="1s")
    seats = [(stage.sit(kind), stage.sit(kind, short)) for kind in KINDS]
    patient = {one: one.call("ticks", n=20, every_ms=100) for one, _ in seats}
    hasty = {other: other.call("ticks", n=200, every_ms=100) for _, other in seats}
    for call in (*patient.values(), *hasty.values()):
        call.wait_ticks(3)
    for gate in stage.gates:
        for process in gate.processes:
            process.child.terminate()
    moment = time.monotonic()
    for (one, call), (other, longer) in zip(patient.items(), hasty.items()):
        seen = stage.of(one.kind)
        answer = call.wait()
        ended = f"{call.ticks} ticks, {answer.get('value') or brief(answer['error'])}, {call.since(moment):.2f} s after the signal"
        seen.expect("value" in answer and call.ticks == 20, ended)
        seen.took(call.since(moment))
        seen.refused("a longer one", longer, LEAVING, since=moment, limit=1 + SOON)


    def leave(gate):
        status = [process.child.wait(15) for process in gate.processes]
        seconds = time.monotonic() - moment
        # The calls with time have ended by now; the others are cut off after a second.
        seen = stage.of("Tidegate" if gate is stage.gate else "Tidegate, in a hurry")
        seen.took(seconds)
        seen.expect(not any(status) and seconds <= 2 + SOON, f"left with status {status} after {seconds:.1f} s")
        gate.start()

    side_by_side(leave, stage.gates)


def side_by_side(one, seats):
    with concurrent.futures.ThreadPoolExecutor(len(seats)) as pool:
        return list(pool.map(one, seats))


# name: (row, options of the servers). Where a client had seen event ids it would try to resume.
ROWS = {
    "1 killed in a call": (killed_in_call, ["--no-events"]),
    "1 killed in a call, resumable": (killed_in_call, []),
    "2 killed while idle": (killed_while_idle, ["--no-events"]),
    "3 killed between calls": (killed_between_calls, []),
    "4 server restarted": (restarted, ["--no-events"]),
    "5 Tidegate replaced": (gate_replaced, ["--no-events"]),
    "6 forged ids": (forged, []),
    "7 stateless, killed in a call": (stateless_in_call, []),
    "7 stateless, discovery while down": (discovered_while_down, []),
    "8 all down, then up": (all_down_then_up, []),
    "9 Tidegate told to leave": (gate_told_to_leave, ["--no-events"]),
}


def jobs(work, binary, count, servers=("ts", "py"), only="", h2=False):
    """Returns functions, one per row and server. Each tells `count(name, good, text, seconds)` its verdicts.

    With `h2` there is a chain of two Tidegates in place of each.
    """
    over = ", over HTTP/2" if h2 else ""

    def job(name, server):
        row, options = ROWS[name]
        stage = None
        try:
            stage = Stage(work, binary, server, options, GateChain if h2 else Gate)
            row(stage)
            stage.count_sessions()
        except (Failed, OSError, http.client.HTTPException, KeyError, TypeError) as error:
            count(f"{name}: {server}{over}", False, f"{type(error).__name__}: {error}")
        finally:
            if stage:
                stage.stop()
        for gate in stage.gates if stage else ():
            if doubts := gate.doubts():
                count(f"{name}: {server}{over}", False, doubts)
        for who, seen in stage.seen.items() if stage else ():
            told = "; ".join([f"WRONG {text}" for text in seen.wrong] + seen.told)
            count(f"{name}: {who} to {server}{over}", not seen.wrong, told, seen.seconds)

    return [lambda name=name, server=server: job(name, server) for server in servers for name in ROWS if only in name]
