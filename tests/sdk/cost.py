"""What looking after endpoints costs: CPU per call with ejection, breaker and slow start, and without.

Rounds are interleaved, each begins with another variant, and the figure is the ratio of medians: what
else the machine does falls on all of them.
"""

import json
import pathlib
import statistics

from gates import Gate
from harness import Failed, Process, last_json, run

OFF = {"ejection": "off", "breaker": "off", "slow_start": "off"}
BAR = 1.05


def measure(work, loadtest, binaries, rounds, seconds, mode):
    """Microseconds of CPU per call: variant -> one figure per round. A variant is (binary, keys of the pool)."""
    mocks = [Process([str(loadtest), "mock", "--bind", "127.0.0.1:0", "--name", f"m{at}"], work.file(f"mock{at}.log")) for at in range(3)]
    costs = {name: [] for name in binaries}
    try:
        endpoints = [{"name": f"m{at}", "address": f"127.0.0.1:{mock.listening()}"} for at, mock in enumerate(mocks)]
        names = list(binaries)
        for round in range(rounds):
            for name in names[round % len(names) :] + names[: round % len(names)]:
                binary, pool = binaries[name]
                costs[name].append(once(work, loadtest, binary, endpoints, {"balance": "least_load", **pool}, seconds, mode))
    finally:
        for mock in mocks:
            mock.stop()
    return costs


def once(work, loadtest, binary, endpoints, pool, seconds, mode):
    gate = Gate(work, binary, endpoints, pool=pool, log=False)
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
    binaries = {"on": (binary, {}), "off": (binary, OFF)}
    if base:
        binaries["before"] = (pathlib.Path(base).resolve(), {})

    def job(mode):
        try:
            costs = measure(work, loadtest, binaries, rounds, seconds, mode)
        except (Failed, OSError, KeyError) as error:
            return count(f"8 CPU per call: {mode}", False, f"{type(error).__name__}: {error}")
        middle = {name: statistics.median(figures) for name, figures in costs.items()}
        ratios = {f"on / {name}": middle["on"] / middle[name] for name in binaries if name != "on"}
        told = ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        figures = "; ".join(f"{name} {middle[name]:.2f} us ({min(all):.2f} to {max(all):.2f})" for name, all in costs.items())
        count(f"8 CPU per call: {mode}", max(ratios.values()) <= BAR, f"{told} (bar {BAR}); {figures}")

    return [lambda mode=mode: job(mode) for mode in ("session", "stateless")]
