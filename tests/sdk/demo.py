"""`tidegate demo`, as a user meets it who points the client of an SDK at it.

Its addresses are fixed, so it gets a network of its own wherever the system gives one to a user; else it
takes those of the machine, and fails where they are taken. Run as a program, inside of that network,
the file starts the demo and the clients, and prints one line of JSON for each verdict.
"""

import fcntl
import itertools
import json
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import time

from fault_clients import KINDS, SESSION, Clients, Seat, Seen
from harness import START_SECONDS, Failed, Process, get, run

URL = "http://127.0.0.1:8080/mcp"
ADMIN = "http://127.0.0.1:9090"
TOOLS = "counter echo ticks whoami"
SECONDS = 60
OWN_NETWORK = ["unshare", "--map-root-user", "--net"]
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def jobs(work, binary, count):
    """One function, which tells `count(name, good, text, seconds)` what each client saw, and two verdicts on all."""

    def job():
        network = OWN_NETWORK if unshares() else []
        folder = work.file("demo")
        folder.mkdir()
        status, text = run([*network, sys.executable, "demo.py", str(binary), str(folder), *network[:1]], SECONDS, work.file("demo.log"))
        verdicts = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        for verdict in verdicts:
            count(**verdict)
        if status or len(verdicts) != len(KINDS) + 2:
            count("demo", False, f"status {status}, {len(verdicts)} verdicts: {text[-400:]}")

    def guarded():
        try:
            job()
        except (Failed, OSError, ValueError) as error:
            count("demo", False, f"{type(error).__name__}: {error}")

    return [guarded]


def unshares():
    try:
        return subprocess.run([*OWN_NETWORK, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


class Demo:
    """The demo and the clients, in the shape that `Seat` knows."""

    def __init__(self, binary, folder):
        self.url, self.numbers = URL, itertools.count(1)
        self.clients = {language: Clients(language, folder / f"clients-{language}.log") for language in ("js", "py")}
        self.process = Process([binary, "demo"], folder / "demo.log")
        end = time.monotonic() + START_SECONDS
        # The three copies are up as soon as each was asked once.
        while f"serves {URL} in front of three" not in self.process.text() or not self.ready():
            if self.process.child.poll() is not None or time.monotonic() > end:
                raise Failed(f"the demo does not start: {self.process.text()[-300:]}")
            time.sleep(0.05)
        for clients in self.clients.values():
            clients.wait_ready()

    @staticmethod
    def ready():
        try:
            return get(f"{ADMIN}/metrics").count("tidegate_endpoint_up{") == 3 and bool(get(f"{ADMIN}/ready"))
        except OSError:
            return False

    def lines(self):
        """The lines of the access log."""
        return [json.loads(line) for line in self.process.text().splitlines() if line.startswith("{")]


def whole(kind, demo):
    """What one client does with a server that it does not know. Returns what it saw, and the client, still there."""
    seen, seat, names = Seen(), Seat(demo, kind, demo), set()
    in_session = kind in SESSION
    seen.served("connected", seat.open(), "2025-11-25" if in_session else "2026-07-28")
    seen.served("tools", seat.ask("tools"), TOOLS)
    # Copies are drawn: so many calls come to more than one of them for certain.
    for number in range(1, 25):
        names.add(seat.call("whoami").wait().get("value"))
        if in_session:
            answer = seat.call("counter").wait()
            seen.expect(answer.get("value") == str(number), "" if answer.get("value") == str(number) else f"counter {number}: {answer}")
    right = len(names) == 1 if in_session else len(names) > 1
    seen.expect(right and all(str(name).startswith("demo-") for name in names), f"served by {sorted(map(str, names))}")
    seen.served("echo", seat.call("echo", text="tide 潮"), "tide 潮")
    ticks = seat.call("ticks", n=5, every_ms=50)
    seen.served("ticks", ticks, "5 ticks")
    seen.expect(ticks.ticks == 5, f"progress told {ticks.ticks} times")
    answer = seat.call("echo", text=5).wait()
    seen.expect("error" in answer or "must be a string" in str(answer.get("value")), f"a wrong call: {answer.get('value') or answer['error']['message'][:60]}")
    if in_session:
        # Without progress it is told by log messages, on the stream of the call.
        seen.served("ticks as messages", seat.untold("ticks", n=3, every_ms=20), "3 ticks")
        heard = seat.ask("heard").wait()["value"].split()
        seen.expect(heard == ["notifications/message"] * 3, f"heard {heard}")
    else:
        seen.served("a subscription agreed to", seat.ask("listen"))
    return seen, seat


def tell(name, seen):
    told = "; ".join([f"WRONG {text}" for text in seen.wrong] + seen.told)
    print(json.dumps({"name": f"demo: {name}", "good": not seen.wrong, "told": told, "seconds": seen.seconds}), flush=True)


def streams(demo, seats, seconds=5):
    """Every client of the session era has its GET stream, which is logged when it is over, and ends its session."""
    seen = Seen()
    for seat in seats:
        seen.served(f"{seat.kind} closed", seat.ask("close"))
    end = time.monotonic() + seconds
    while True:
        lines = {verb: [line for line in demo.lines() if line["method"] == verb] for verb in ("GET", "DELETE")}
        lines["GET"] = [line for line in lines["GET"] if line["path"] == "/mcp"]
        if all(len(found) == len(seats) for found in lines.values()) or time.monotonic() > end:
            break
        time.sleep(0.05)
    for verb, found in lines.items():
        status = [line["status"] for line in found]
        seen.expect(status == [200] * len(seats), f"{verb} answered {status}")
    held = [line["duration_ms"] for line in lines["GET"]]
    seen.expect(all(time > 300 for time in held), f"streams held for {held} ms")
    tell("GET streams", seen)


def main(binary, folder, own_network=None):
    if own_network:
        loopback_up()
    demo = Demo(binary, pathlib.Path(folder))
    seats = []
    for kind in KINDS:
        seen, seat = whole(kind, demo)
        seats.append(seat)
        tell(kind, seen)
    streams(demo, [seat for seat in seats if seat.kind in SESSION])
    # With subscriptions open, as when somebody presses Ctrl-C.
    seen, begun = Seen(), time.monotonic()
    demo.process.child.send_signal(signal.SIGINT)
    status = demo.process.child.wait(15)
    seen.took(time.monotonic() - begun)
    last = demo.process.text().rstrip().splitlines()[-1]
    seen.expect((status, last) == (0, "bye") and seen.seconds < 5, f"status {status} and {last[:40]!r} after {seen.seconds:.2f} s")
    tell("Ctrl-C", seen)


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh", name, 0)))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", name, flags | IFF_UP))


if __name__ == "__main__":
    main(*sys.argv[1:])
