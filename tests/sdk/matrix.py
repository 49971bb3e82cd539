"""What each SDK's client sees of each way in which a server can fail one call, or one GET stream.

The server is `scripted.py`, which fails as it is asked to, and lives on with its sessions. Each client
is told at once and in a form that it understands, and goes on in its session afterwards. With `direct`
the same is done without Tidegate, to show what a client would have seen.
"""

import concurrent.futures
import itertools
import json
import time

from fault_clients import SESSION, SOON, TIMEOUT_SECONDS, Clients, Seat, Seen, brief
from fleet import Fleet
from gates import Gate
from harness import Failed

CUT = "upstream connection lost"

# What happens to a POST: (kind of the tool `fault`, what the client must be told). The session lives on.
CALLS = {
    # Its own word: it knows the session all the same, and goes on with it.
    "404 of the server": ("status_404", "Session not found"),
    "400": ("status_400", "out of order 400"),
    "429 with Retry-After": ("status_429", ""),
    "502 without JSON": ("status_502", ""),
    "503 with Retry-After": ("status_503", ""),
    "reset before the head": ("reset_before_head", CUT),
    "closed before the head": ("close_before_head", CUT),
    "stream cut, no event id seen": ("cut_without_id", CUT),
    "stream cut in an event": ("reset_mid_event", CUT),
    "stream ends without the answer": ("end_without_answer", CUT),
    "stream cut after an event id": ("cut_after_id", CUT),
    "not HTTP": ("garbage", ""),
    "not JSON": ("not_json", ""),
}
# What happens to a GET: (answers of the server to one after another, must the client be kept from noticing?)
GETS = {
    "GET stream cut": ("cut,hold", True),
    "GET stream cut, then 502": ("cut,502,hold", True),
    "GET answered 502": ("502,502,502", False),
    "GET answered 404": ("404,404,404", False),
}
# Longer than the clients take for the two tries that they make.
GET_SECONDS = 3.5


class Direct:
    """No Tidegate."""

    def __init__(self, fleet):
        self.url = f"http://127.0.0.1:{fleet.ports[0]}/mcp"

    def stop(self):
        pass


class Matrix:
    """One server, clients of both languages, and a Tidegate of its own for each kind of client, so that
    what they ask can be told apart."""

    def __init__(self, work, binary, direct, options=()):
        self.parts, self.numbers, self.clients = [], itertools.count(1), {}
        try:
            self.fleet = Fleet(work, ["scripted"], options)
            self.parts.append(self.fleet)
            for language in ("js", "py"):
                self.clients[language] = Clients(language, work.file(f"clients-{language}.log"))
                self.parts.append(self.clients[language])
            self.gates = {kind: Direct(self.fleet) if direct else Gate(work, binary, self.fleet.endpoints()) for kind in SESSION}
            self.parts += self.gates.values()
            for clients in self.clients.values():
                clients.wait_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self):
        for part in reversed(self.parts):
            part.stop()

    def seat(self, kind):
        return Seat(self, kind, self.gates[kind]).opened()

    def call(self, kind, fault):
        """What one client sees of one fault: (error or value, seconds, what its next call says)."""
        seat = self.seat(kind)
        pending = seat.call("fault", kind=fault)
        answer = pending.wait()
        seconds = pending.since(pending.begun)
        after = seat.call("whoami").wait()
        seat.clients.order("close", seat.at).wait(5)
        return answer, seconds, after

    def all_calls(self):
        """name of fault, kind -> what was seen."""
        cells = [(name, kind) for name in CALLS for kind in SESSION]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            return dict(zip(cells, pool.map(lambda cell: self.call(cell[1], CALLS[cell[0]][0]), cells)))

    def get(self, kind):
        """One client and its GET stream: (GETs that the server saw, what the next call says, statuses of the client's GETs)."""
        seat = self.seat(kind)
        time.sleep(GET_SECONDS)
        seen, after = seat.call("gets").wait(), seat.call("whoami").wait()
        seat.clients.order("close", seat.at).wait(5)
        # Lines are written when a stream is over, and in batches.
        time.sleep(0.5)
        lines = map(json.loads, self.gates[kind].log.read_text().splitlines())
        return seen, after, [line["status"] for line in lines if (line["method"], line["path"]) == ("GET", "/mcp")]

    def all_gets(self):
        with concurrent.futures.ThreadPoolExecutor(len(SESSION)) as pool:
            return dict(zip(SESSION, pool.map(self.get, SESSION)))


def said(answer):
    return brief(answer["error"]) if "error" in answer else f"`{answer['value']}`"


def calls(work, binary, count, direct):
    """Verdicts of all faults of calls, one per fault and client."""
    through = made(work, binary, False, Matrix.all_calls)
    without = made(work, binary, True, Matrix.all_calls) if direct else {}
    for (name, kind), (answer, seconds, after) in through.items():
        _, text = CALLS[name]
        seen = Seen()
        error = answer.get("error")
        seen.expect(error is not None and text in error["message"] and seconds <= SOON, f"{said(answer)} after {seconds:.2f} s")
        seen.expect("value" in after, f"then {said(after)}")
        if (name, kind) in without:
            answer, seconds, after = without[name, kind]
            hang = ", which is its time limit" if seconds >= TIMEOUT_SECONDS - 0.5 else ""
            seen.told.append(f"directly {said(answer)} after {seconds:.2f} s{hang}, then {said(after)}")
        count(f"7 {name}: {kind}", not seen.wrong, "; ".join([f"WRONG {text}" for text in seen.wrong] + seen.told), seconds)


def made(work, binary, direct, what, options=()):
    matrix = Matrix(work, binary, direct, options)
    try:
        return what(matrix)
    finally:
        matrix.stop()


def gets(work, binary, count, name):
    """Verdicts of one fault of GET streams, one per client."""
    script, unseen = GETS[name]
    for kind, (server, after, statuses) in made(work, binary, False, Matrix.all_gets, ["--gets", script]).items():
        seen = Seen()
        told = f"the server has seen {said(server)} GETs, Tidegate {len(statuses)} of its client {statuses}"
        asked_again = "value" in server and int(server["value"]) > 1
        seen.expect(not unseen or (statuses == [200] and asked_again), told)
        seen.expect("value" in after, f"then {said(after)}")
        count(f"7 {name}: {kind}", not seen.wrong, "; ".join([f"WRONG {text}" for text in seen.wrong] + seen.told))


def jobs(work, binary, count, short, only=""):
    """Returns functions, one for all calls and one for each fault of GET streams."""

    def guarded(name, job, *more):
        try:
            job(work, binary, count, *more)
        except (Failed, OSError, KeyError, ValueError) as error:
            count(name, False, f"{type(error).__name__}: {error}")

    table = {"7 calls that fail": lambda: guarded("7 calls that fail", calls, not short)}
    for name in GETS:
        table[f"7 {name}"] = lambda name=name: guarded(f"7 {name}", gets, name)
    return [job for name, job in table.items() if only in name]
