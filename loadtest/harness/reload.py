"""What a reload of a large configuration takes, and what calls notice of it."""

import os
import re
import signal
import threading

from harness.process import Failed, until

POOLS = 300
ROUTES = 999
RATE = 1000
EVERY_SECONDS = 0.5
SESSIONS = 64
TOOK = re.compile(r"reloaded in ([\d.]+)(µs|ms|s)\b")
MICROS = {"µs": 1.0, "ms": 1e3, "s": 1e6}


def reload(bench):
    """Session calls at 1,000 a second, at rest and while a configuration of 999 routes and 300 pools is
    read anew twice a second, with one pool changed each time. Tidegate alone. Driver: loadtest."""
    name = "reload"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.rounds, names=["tidegate"]):
            with bench.attempt(name, proxy):
                running = bench.configured(proxy, upstreams)
                small = running.config.read_text().replace("level: warn", "level: info")
                running.config.write_text(large(small, upstreams, 1))
                try:
                    running.start()
                    rest = calls(bench, running)
                    with Reloads(running, small, upstreams) as reloads:
                        busy = calls(bench, running)
                finally:
                    running.stop()
                for got in (rest, busy):
                    failures = {kind: count for kind, count in got["failures"].items() if count}
                    bench.record.calls(name, proxy, got["calls"], failures, got["unsent"])
                bench.record.add(
                    name,
                    proxy,
                    p99_us_rest=rest["latency_us"]["p99"],
                    p99_us_reloads=busy["latency_us"]["p99"],
                    p999_us_rest=rest["latency_us"]["p999"],
                    p999_us_reloads=busy["latency_us"]["p999"],
                    reload_p50_us=sorted(reloads.took)[len(reloads.took) // 2],
                    reload_max_us=max(reloads.took),
                )


def calls(bench, running):
    options = {"rate": RATE, "mode": "session", "connections": SESSIONS, "warmup": 1}
    return bench.drivers.own("calls", running, bench.options.seconds, **options)


def large(small, upstreams, weight):
    """The same with many more routes and pools, which nobody asks for. One has an endpoint of this weight."""
    pools, routes = [], []
    for number in range(POOLS - 1):
        share = weight if number == 0 else 1
        address = f"127.0.0.1:{upstreams[number % len(upstreams)]}"
        pools.append(f"  p{number}:\n    health: {{ check: none }}")
        pools.append(f"    endpoints: [{{ address: '{address}', weight: {share} }}]")
    for number in range(ROUTES - 1):
        routes.append(f"  - {{ path: /r{number}, pool: p{number % (POOLS - 1)} }}")
    text = small.replace("routes:\n", "routes:\n" + "\n".join(routes) + "\n", 1)
    return text.replace("pools:\n", "pools:\n" + "\n".join(pools) + "\n", 1)


class Reloads:
    """Reloads, one after the other, until left."""

    def __init__(self, running, small, upstreams):
        self.running, self.small, self.upstreams = running, small, upstreams
        self.over = threading.Event()
        self.failed = None
        self.thread = threading.Thread(target=self.go_on)
        self.before = len(self.seen())

    def seen(self):
        found = TOOK.findall(self.running.child.output())
        return [float(number) * MICROS[unit] for number, unit in found]

    def go_on(self):
        number = 1
        while not self.over.wait(EVERY_SECONDS):
            number += 1
            known = len(self.seen())
            self.running.config.write_text(large(self.small, self.upstreams, 1 + number % 2))
            os.kill(self.running.child.pid, signal.SIGHUP)
            try:
                until(lambda known=known: len(self.seen()) > known, 5, "the reload did not end")
            except Failed as reason:
                self.failed = reason
                return

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self.over.set()
        self.thread.join()
        self.took = self.seen()[self.before :]
        if kind is None and (self.failed or not self.took):
            raise Failed(str(self.failed or "nothing was reloaded"))
