"""What protection costs: CPU per call with all of it, and with none.

Ejection, breaker, retries, slow start, places at endpoints with a queue for them, and limits on clients
and tools, so high that nobody meets them. Rounds are interleaved, each begins with another variant, and
the figure is the ratio of medians: what else the machine does falls on all of them.
"""

import json
import pathlib
import statistics

from gates import Gate
from harness import Failed, Process, last_json, run

# The keys of a Gate; those of `endpoint` are of every endpoint.
OFF = {"pool": {"ejection": "off", "breaker": "off", "retries": "off", "slow_start": "off"}}
# Some of it is on by default. It is written out, so that this stays what is measured.
ON = {
    "endpoint": {"max_in_flight": 4096},
    "pool": {
        "ejection": {"failures": 5},
        "breaker": {"failure_ratio": "50%"},
        "retries": {"ratio": "20%", "floor": 10},
        "slow_start": "10s",
        "queue_timeout": "5s",
        "queue_max": 1024,
        "tools": [{"name": "*", "per_client": "1000000/s", "total": "1000000/s", "concurrent": 100_000}],
    },
    "route": {"rate": {"per_client": "1000000/s", "burst": 1_000_000, "total": "1000000/s"}},
    "top": {"sessions": {"max_per_client": 100_000}, "streams": {"max_per_client": 100_000}},
}
# As it comes, to be compared with an older Tidegate as it came.
DEFAULT = {}
BAR = 1.05


def measure(work, loadtest, binaries, rounds, seconds, mode):
    """Microseconds of CPU per call: variant -> one figure per round. A variant is (binary, keys)."""
    mocks = [Process([str(loadtest), "mock", "--bind", "127.0.0.1:0", "--name", f"m{at}"], work.file(f"mock{at}.log")) for at in range(3)]
    costs = {name: [] for name in binaries}
    try:
        endpoints = [{"name": f"m{at}", "address": f"127.0.0.1:{mock.listening()}"} for at, mock in enumerate(mocks)]
        names = list(binaries)
        for round in range(rounds):
            for name in names[round % len(names) :] + names[: round % len(names)]:
                costs[name].append(once(work, loadtest, *binaries[name], endpoints, seconds, mode))
    finally:
        for mock in mocks:
            mock.stop()
    return costs


def once(work, loadtest, binary, keys, endpoints, seconds, mode):
    endpoints = [{**endpoint, **keys.get("endpoint", {})} for endpoint in endpoints]
    pool = {"balance": "least_load", **keys.get("pool", {})}
    gate = Gate(work, binary, endpoints, pool=pool, route=keys.get("route"), top=keys.get("top"), log=False)
    try:
        argv = [str(loadtest), "calls", "--url", gate.url, "--rate", "max", "--connections", "64", "--seconds", str(seconds), "--mode", mode]
        status, text = run([*argv, "--pid", str(gate.process.child.pid)], seconds + 30, work.file("calls.log"))
    finally:
        gate.stop()
    report = last_json(text)
    if status or not report["ok"]:
        raise Failed(f"the load was not carried: {json.dumps(report)[:300]}")
    return report["cpu_us_per_call"]


def jobs(work, binary, count, loadtest, base, rounds, seconds):
    """Returns one function for each mode. `base` is an older program to compare with, or None."""
    loadtest = pathlib.Path(loadtest).resolve()
    binaries = {"on": (binary, ON), "off": (binary, OFF)}
    pairs = [("on", "off")]
    if base:
        binaries |= {"default": (binary, DEFAULT), "before": (pathlib.Path(base).resolve(), DEFAULT)}
        pairs.append(("default", "before"))

    def job(mode):
        try:
            costs = measure(work, loadtest, binaries, rounds, seconds, mode)
        except (Failed, OSError, KeyError) as error:
            return count(f"8 CPU per call: {mode}", False, f"{type(error).__name__}: {error}")
        middle = {name: statistics.median(figures) for name, figures in costs.items()}
        ratios = {f"{one} / {other}": middle[one] / middle[other] for one, other in pairs}
        told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        figures = "; ".join(f"{name} {middle[name]:.2f} us ({min(all):.2f} to {max(all):.2f})" for name, all in costs.items())
        count(f"8 CPU per call: {mode}", max(ratios.values()) <= BAR, f"{told} (bar {BAR}); {figures}")

    return [lambda mode=mode: job(mode) for mode in ("session", "stateless")]
