"""Scenarios of event streams that are held open. Driver: loadtest."""

import collections

from harness.process import Failed

# Streams opened a second.
OPEN_RATE = 3_000
# Each stream takes two files of a proxy, and calls want some.
FILES_PER_STREAM = 2
FILES_BESIDE = 1_000
# More than would fit with a file on each side of each.
SHARED_STREAMS = 12_000


def failures_of(got):
    """The failures of a run of the tool, by kind."""
    failures = collections.Counter(got.get("failures", {}))
    failures.update(got.get("unopened", {}))
    return failures


def held(streams):
    def scenario(bench):
        name = f"held-{streams}"
        with bench.mocks(event_every="2s") as upstreams:
            for proxy in bench.laps(name, bench.options.hold_rounds, direct=True):
                with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                    hold_once(bench, name, running, streams)

    scenario.__doc__ = f"""{streams} sessions with an open event stream each, an event every 2 s,
    and 200 calls/s beside. Driver: loadtest."""
    return scenario


def held_http2(bench):
    """12,000 sessions with an open event stream each, which share connections to a server that speaks
    HTTP/2, an event every 4 s, and 200 calls/s beside. Tidegate alone: the mock speaks HTTP/1.1, so a second
    one stands before it. Driver: loadtest."""
    name = "held-http2"
    bench.record.note(name, f"with a limit of {bench.files} open files")
    with bench.mocks(event_every="4s") as upstreams:
        for proxy in bench.laps(name, bench.options.hold_rounds, names=["tidegate"]):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as server:
                running = bench.configured(proxy, upstreams)
                plain = ", ".join(f"127.0.0.1:{port}" for port in upstreams)
                shared = f"{{ address: 127.0.0.1:{server.port}, http2: true }}"
                running.config.write_text(running.config.read_text().replace(plain, shared))
                try:
                    running.start()
                    hold_once(bench, name, running, SHARED_STREAMS)
                finally:
                    running.stop()


def hold_once(bench, name, running, streams):
    got = bench.drivers.own(
        "hold", running, bench.options.hold_seconds, streams=streams, calls_per_second=200, open_rate=OPEN_RATE
    )
    held, events, used = got["streams"], got["events"], got["proxy"] or {}
    pss = used.get("pss_kib", {})
    failures = failures_of(got["calls"])
    for kind in ("failed", "closed_early", "stalled"):
        if held[kind]:
            failures[f"streams {kind}"] += held[kind]
    bench.record.calls(name, running.name, got["calls"]["sent"] + held["asked"], failures, got["calls"]["unsent"])
    if held["open"] < streams / 2:
        raise Failed(f"{held['open']} of {streams} streams were opened: {held['failures']}")
    bench.record.add(
        name,
        running.name,
        pss_kib_per_stream=used.get("pss_kib_per_stream"),
        pss_mib_held=mib(pss.get("held")),
        pss_mib_after=mib(pss.get("after")),
        cpu_percent=used.get("cpu_percent"),
        open_p99_us=got["open_us"]["p99"],
        delay_p50_us=got["delay_us"]["p50"],
        delay_p99_us=got["delay_us"]["p99"],
        delay_max_us=got["delay_us"]["max"],
        call_p99_us=got["call_latency_us"]["p99"],
        missing_events=events["missing"],
        repeated_events=events["repeated"],
    )


def mib(kib):
    return kib / 1024 if kib else None


def cycles(bench):
    """Opening and closing 5,000 streams again and again in one process: does it grow?"""
    name, streams = "cycles", 5_000
    names = [proxy for proxy in bench.options.cycle_proxies if proxy in bench.names]
    bench.record.note(name, f"{bench.options.cycles} times; the figures over all of them are medians")
    with bench.mocks(event_every="2s") as upstreams:
        for proxy in bench.laps(name, 1, names):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                held = []
                for _ in range(bench.options.cycles):
                    got = bench.drivers.own("hold", running, 1, streams=streams, open_rate=5_000)
                    if got["streams"]["failed"]:
                        bench.record.calls(name, proxy, streams, {"streams failed": got["streams"]["failed"]})
                    pss = got["proxy"]["pss_kib"]
                    if not pss["held"] or not pss["after"]:
                        raise Failed("the proxy has gone")
                    held.append(mib(pss["held"]))
                    bench.record.add(name, proxy, pss_mib_held=held[-1], pss_mib_after=mib(pss["after"]))
                bench.record.add(name, proxy, first_mib=held[0], last_mib=held[-1])


def beside_idle(bench):
    """What a session call costs beside 10, and beside as many as 10,000, open idle streams. Driver: loadtest."""
    name, rate = "beside-idle", 2_000
    many = min(10_000, (bench.files - FILES_BESIDE) // FILES_PER_STREAM)
    bench.record.note(name, f"many = {many} streams, bounded by {bench.files} open files; {rate} calls/s")
    # An interval of ten minutes: next to no events.
    with bench.mocks(event_every="600s") as upstreams:
        for proxy in bench.laps(name, bench.options.hold_rounds):
            with bench.attempt(name, proxy):
                for label, streams in (("few", 10), ("many", many)):
                    # Anew for each, so that one's memory is not the other's.
                    with bench.proxy(proxy, upstreams) as running:
                        beside_once(bench, name, running, label, streams, rate)


def beside_once(bench, name, running, label, streams, rate):
    got = bench.drivers.own(
        "hold",
        running,
        bench.options.hold_seconds,
        streams=streams,
        calls_per_second=rate,
        open_rate=OPEN_RATE,
    )
    calls, held = got["calls"], got["streams"]
    failures = failures_of(calls)
    if held["failed"]:
        failures["streams failed"] += held["failed"]
    bench.record.calls(name, running.name, calls["sent"] + held["asked"], failures, calls["unsent"])
    answered = calls["sent"] - calls["failed"]
    if not answered:
        raise Failed(f"no call was answered: {calls['failures']}")
    bench.record.add(
        name,
        running.name,
        **{
            f"cpu_us_{label}": got["proxy"]["cpu_seconds"] * 1e6 / answered,
            f"p50_us_{label}": got["call_latency_us"]["p50"],
            f"p99_us_{label}": got["call_latency_us"]["p99"],
        },
    )
