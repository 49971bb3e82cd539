"""Scenarios of calls: what one costs, how many fit, how long they take at a given rate."""

from harness.process import Failed
from harness.streams import failures_of

WARMUP = 1


def stateless(bench):
    """Calls of revision 2026-07-28, which need no session. Driver: oha."""
    name = "stateless"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.rounds, phase=" at most", direct=True):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                bench.drivers.oha(running, WARMUP, 64)
                for connections in (64, 512):
                    got = bench.drivers.oha(running, bench.options.seconds, connections)
                    bench.record.calls(name, proxy, got["calls"], got["failures"])
                    bench.record.add(
                        name,
                        proxy,
                        **{f"per_second_{connections}": got["per_second"], f"cpu_us_{connections}": got["cpu_us"]},
                    )
        rates = shares(bench, name)
        for proxy in bench.laps(name, bench.options.rounds, phase=" at fixed rates", direct=True):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                bench.drivers.oha(running, WARMUP, 64)
                for share, rate in rates.items():
                    got = bench.drivers.oha(running, bench.options.seconds, 64, rate)
                    # What the rate asks for, but for the calls of the last moment.
                    unsent = int(rate * bench.options.seconds * 0.98) - got["calls"]
                    bench.record.calls(name, proxy, got["calls"], got["failures"], max(0, unsent))
                    at_rate(bench, name, proxy, share, got["cpu_us"], got["latency_us"])


def access_log(bench):
    """As stateless at most, with every proxy's access log written to a file. Driver: oha."""
    name = "access-log"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.rounds):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams, log=True) as running:
                bench.drivers.oha(running, WARMUP, 64)
                got = bench.drivers.oha(running, bench.options.seconds, 64)
                bench.record.calls(name, proxy, got["calls"], got["failures"])
                bench.record.add(name, proxy, per_second_64=got["per_second"], cpu_us_64=got["cpu_us"])


def tls(bench):
    """Stateless calls over TLS: on kept connections, and on a new connection each. Driver: oha."""
    name = "tls"
    with bench.mocks() as upstreams:
        able = []
        for proxy in bench.names:
            with bench.attempt(name, proxy):
                try:
                    bench.configured(proxy, upstreams, tls=True).check()
                    able.append(proxy)
                except Failed as reason:
                    raise Failed(
                        f"skipped, its configuration is refused with TLS: {str(reason).splitlines()[0]}"
                    ) from None
        for proxy in bench.laps(name, bench.options.rounds, able):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams, tls=True) as running:
                bench.drivers.oha(running, WARMUP, 64)
                got = bench.drivers.oha(running, bench.options.seconds, 64)
                new = bench.drivers.oha(running, bench.options.seconds, 64, fresh=True)
                for one in (got, new):
                    bench.record.calls(name, proxy, one["calls"], one["failures"])
                bench.record.add(name, proxy, per_second_64=got["per_second"], cpu_us_64=got["cpu_us"])
                bench.record.add(name, proxy, handshakes_per_second=new["per_second"], cpu_us_handshake=new["cpu_us"])


def session(bench):
    """Calls in sessions, 64 and 512 of them, each on its connection. Driver: loadtest."""
    with_own_tool(bench, "session", "json", "session", direct=True, many=(64, 512))


def streaming(bench):
    """Stateless calls whose answer is an event stream of one event. Driver: loadtest."""
    with_own_tool(bench, "streaming", "sse", "stateless")


def websocket(bench):
    """Calls over 64 WebSockets, each a session. Driver: loadtest."""
    with_own_tool(bench, "websocket", "json", "websocket")


def with_own_tool(bench, name, reply, mode, direct=False, many=(64,)):
    with bench.mocks(reply) as upstreams:
        for proxy in bench.laps(name, bench.options.rounds, phase=" at most", direct=direct):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                for connections in many:
                    got = own_calls(bench, name, running, rate="max", mode=mode, connections=connections)
                    figures = {"per_second": got["answered_per_second"], "cpu_us": got["cpu_us_per_call"]}
                    bench.record.add(name, proxy, **{f"{key}_{connections}": value for key, value in figures.items()})
        rates = shares(bench, name)
        for proxy in bench.laps(name, bench.options.rounds, phase=" at fixed rates", direct=direct):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                for share, rate in rates.items():
                    got = own_calls(bench, name, running, rate=rate, mode=mode)
                    at_rate(bench, name, proxy, share, got["cpu_us_per_call"], got["latency_us"])


def churn(bench):
    """Whole short sessions, each on a new connection: initialize, initialized, call, DELETE.
    What is called a call is all four. Driver: loadtest."""
    name = "churn"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.rounds):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                got = own_calls(bench, name, running, rate="max", mode="churn", connections=32)
                bench.record.add(name, proxy, per_second=got["answered_per_second"], cpu_us=got["cpu_us_per_call"])


def bodies(bench):
    """Stateless calls with 1 MiB of text, which comes back: 1 MiB up and 1 MiB down in each. Driver: loadtest."""
    name = "bodies"
    with bench.mocks() as upstreams:
        for proxy in bench.laps(name, bench.options.rounds):
            with bench.attempt(name, proxy), bench.proxy(proxy, upstreams) as running:
                options = {"mode": "stateless", "connections": 8, "text_bytes": 1024 * 1024}
                got = own_calls(bench, name, running, rate="max", **options)
                bench.record.add(name, proxy, per_second=got["answered_per_second"], cpu_us=got["cpu_us_per_call"])


def own_calls(bench, name, running, **options):
    """A run of `loadtest calls`, its failures recorded; fails when nothing was answered."""
    got = bench.drivers.own("calls", running, bench.options.seconds, warmup=WARMUP, **options)
    bench.record.calls(name, running.name, got["calls"], failures_of(got), got["unsent"])
    if not got["answered_per_second"]:
        raise Failed(f"no call was answered: {got['failures']}")
    return got


def shares(bench, name):
    """Rates that even the slowest proxy can serve."""
    most = [bench.record.median(name, proxy, "per_second_64") for proxy in bench.names]
    most = [value for value in most if value]
    if not most:
        return {}
    rates = {share: max(1, int(min(most) * share / 100)) for share in bench.options.shares}
    told = ", ".join(f"{share} % = {rate}/s" for share, rate in rates.items())
    bench.record.note(name, f"rates, as shares of the slowest proxy's most: {told}")
    return rates


def at_rate(bench, name, proxy, share, cpu_us, latency):
    figures = {f"{point}_us_at_{share}": latency[point] for point in ("p50", "p90", "p99", "p999")}
    bench.record.add(name, proxy, **figures, **{f"cpu_us_at_{share}": cpu_us})
