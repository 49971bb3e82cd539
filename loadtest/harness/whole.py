"""Scenarios of a proxy as a whole: how it starts, and how it does with everything at once."""

import time

from harness.process import Failed

IDLE_SECONDS = 2


def start(bench):
    """From the start of the program to the first answer, and the memory of one that rests."""
    name = "start"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.rounds):
            with bench.attempt(name, proxy):
                running = bench.configured(proxy, upstreams)
                try:
                    took = running.start()
                    time.sleep(IDLE_SECONDS)
                    bench.record.add(name, proxy, start_ms=took * 1e3, idle_mib=running.pss_kib() / 1024)
                finally:
                    running.stop()


def mixed(bench):
    """Stateless calls, sessions with streams, WebSockets and large bodies at once, as clients live.
    What is called a call is a request or a WebSocket message. Driver: k6."""
    name = "mixed"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.hold_rounds):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                got = bench.drivers.k6("mixed.js", running, bench.options.hold_seconds)
                metrics = got["metrics"]
                requests = count(metrics, "http_reqs") + count(metrics, "ws_msgs_sent")
                wrong = count(metrics, "mcp_failures")
                failures = {"wrong_or_missing_answer": wrong} if wrong else {}
                bench.record.calls(name, proxy, requests, failures, count(metrics, "dropped_iterations"))
                if not requests:
                    raise Failed(f"no request was made: {got['output'][-300:]}")
                bench.record.add(name, proxy, cpu_us=got["cpu"] * 1e6 / requests)
                for kind in ("stateless", "session", "body", "websocket"):
                    trend = metrics.get(f"mcp_{kind}", {})
                    if trend:
                        bench.record.add(name, proxy, **{f"{kind}_p99_us": trend["p(99)"] * 1e3})
                        # The clock of the scripts is too coarse for what is quick.
                        if kind != "websocket":
                            bench.record.add(name, proxy, **{f"{kind}_p50_us": trend["med"] * 1e3})


def count(metrics, name):
    return int(metrics.get(name, {}).get("count", 0))
