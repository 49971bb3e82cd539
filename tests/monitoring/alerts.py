"""Do the alerts fire when things break? A real Prometheus watches a Tidegate whose servers stall, fail and die.

The rules are those of conf/prometheus with other times: a window of minutes, or a condition that has to
hold for minutes, is one of seconds here. Nothing else in them is changed.
"""

import asyncio
import contextlib
import json
import re
import signal
import time

from dashboard import until
from harness import Failed, Process, Servers, free_ports, get
from names import families, missing
from prometheus import CONF, Prometheus
from raw import Hang, Refused, Session, Torn
from traffic import Traffic

# Of the rules, once shortened. Several scrapes lie in it.
WINDOW = "4s"
HOLD = "1s"
# Until an alert fires, on a busy machine.
PATIENCE_SECONDS = 20
# The endpoint's time to begin an answer: more than the second at which latency is high.
HEADER_TIMEOUT = "1500ms"
STALLING = 12
COPIES = 3
PAIRS = {
    "MCPHighLatency": "calls stall",
    "MCPHighErrorRate": "calls stall",
    "MCPHighErrorRatio": "calls stall",
    "MCPServerUnhealthy": "one server is dead",
    "TidegateEndpointDown": "one server is dead",
    "TidegatePoolWithoutEndpoints": "all servers are dead",
    "TidegateReloadFailed": "the configuration is broken",
    "MCPGatewayDown": "Tidegate is gone",
}


def shortened(work):
    """Copies of the rules with times of seconds."""
    folder = work.file("rules")
    folder.mkdir()
    for path in sorted((CONF / "prometheus/rules").glob("*.yml")):
        text = re.sub(r"\[\d+[mh]\]", f"[{WINDOW}]", path.read_text())
        text = re.sub(r"(?m)^( +for: )\w+$", rf"\g<1>{HOLD}", text)
        (folder / path.name).write_text(text)
        yield folder / path.name


class Gateway:
    """Tidegate with an admin address, in front of servers that do as they are told."""

    def __init__(self, work, binary):
        self.servers = Servers(work, "scripted", COPIES)
        self.port, self.admin = free_ports(2)
        state = work.file("state")
        state.mkdir()
        self.config = work.file("tidegate.yaml")
        self.log = work.file("access.log")
        self.config.write_text(
            f"listeners: [{{ bind: '127.0.0.1:{self.port}' }}]\n"
            "routes: [{ path: /mcp, pool: p }]\n"
            "pools:\n"
            "  p:\n"
            f"    endpoints: {json.dumps([{'name': f'w{n}', 'address': f'127.0.0.1:{port}'} for n, port in enumerate(self.servers.ports)])}\n"
            # What stalls is to stall again: protection would answer for it.
            f"    timeouts: {{ header: {HEADER_TIMEOUT} }}\n"
            "    ejection: off\n"
            "    breaker: off\n"
            "    health: { interval: 500ms }\n"
            f"admin: {{ bind: '127.0.0.1:{self.admin}' }}\n"
            f"state_dir: {state}\n"
            "drain_timeout: 1s\n"
            f"log: {{ access: {self.log}, format: json }}\n"
        )
        self.process = Process([str(binary), "-c", str(self.config)], work.file("tidegate.log"))
        until(self.ready, 20, "Tidegate is not ready")

    def ready(self):
        if self.process.child.poll() is not None:
            raise Failed(f"Tidegate has ended: {self.process.text()[-400:]}")
        with contextlib.suppress(OSError):
            return self.metrics().count('tidegate_endpoint_up{pool="p"') == COPIES

    def metrics(self):
        return get(f"http://127.0.0.1:{self.admin}/metrics")

    def spoil(self):
        """A reload of what is no configuration."""
        self.config.write_text("pools: nonsense\n")
        self.process.child.send_signal(signal.SIGHUP)

    def stop(self):
        self.process.stop()
        self.servers.stop()


async def stall(port):
    """Sessions whose calls all stall at once, each longer than the server is given."""

    async def one():
        with contextlib.suppress(Refused, Torn, Hang, OSError):
            session = Session(port)
            await session.begin()
            await session.call("fault", kind="stall_before_head")

    await asyncio.gather(*(one() for _ in range(STALLING)))


class Watch:
    """What has fired, and when."""

    def __init__(self, prometheus, gateway, count):
        self.prometheus, self.count = prometheus, count
        known = families(gateway.metrics())
        self.able = {name for name, expr in self.rules() if not missing(expr, known, self.recorded())[0]}
        self.unable = {name for name, _ in self.rules()} - self.able

    def rules(self):
        groups = self.prometheus.ask("rules", type="alert")["groups"]
        return [(rule["name"], rule["query"]) for group in groups for rule in group["rules"]]

    def recorded(self):
        groups = self.prometheus.ask("rules", type="record")["groups"]
        return {rule["name"] for group in groups for rule in group["rules"]}

    def quiet(self, seconds):
        """Nothing fires while all is well."""
        end, seen = time.monotonic() + seconds, set()
        while time.monotonic() < end:
            seen |= {alert["alertname"] for alert in self.prometheus.firing()}
            time.sleep(0.2)
        self.count("alerts: all is well", not seen, f"fires: {sorted(seen)}" if seen else f"nothing fires in {seconds} s")

    def expect(self, cause, act=lambda: None):
        """All alerts of this cause fire, while `act` is done again and again."""
        names = {name for name, why in PAIRS.items() if why == cause} & self.able
        begun, seen = time.monotonic(), {}
        while names - seen.keys() and time.monotonic() - begun < PATIENCE_SECONDS:
            act()
            for alert in self.prometheus.firing():
                if alert["alertname"] in names:
                    seen.setdefault(alert["alertname"], time.monotonic() - begun)
            time.sleep(0.1)
        text = ", ".join(f"{name} after {after:.1f} s" for name, after in sorted(seen.items()))
        silent = sorted(names - seen.keys())
        if names:
            self.count(f"alerts: {cause}", not silent, text + (f"; SILENT {silent}" if silent else ""))


def run(work, binary, count):
    gateway = Gateway(work, binary)
    prometheus = traffic = None
    try:
        prometheus = Prometheus(work, f"127.0.0.1:{gateway.admin}", list(shortened(work)))
        traffic = Traffic(gateway.port, 0.3)
        until(lambda: traffic.rounds > 3 and len(prometheus.samples("up == 1")) == 1, 20, "no traffic")
        watch = Watch(prometheus, gateway, count)
        # The first evaluations may have been made before the first scrape.
        until(lambda: not prometheus.firing(), 10, "alerts fire from the start")
        watch.quiet(4)
        watch.expect("calls stall", lambda: asyncio.run(stall(gateway.port)))
        gateway.servers.processes[0].stop()
        watch.expect("one server is dead")
        down = {alert.get("server_name") for alert in prometheus.firing() if alert["alertname"] == "MCPServerUnhealthy"}
        count("alerts: of the dead server alone", down == {"w0"}, f"{sorted(map(str, down))}")
        for process in gateway.servers.processes[1:]:
            process.stop()
        watch.expect("all servers are dead")
        gateway.spoil()
        watch.expect("the configuration is broken")
        gateway.process.stop()
        watch.expect("Tidegate is gone")
        if watch.unable:
            print(f"alerts whose metrics are awaited: {' '.join(sorted(watch.unable))}", flush=True)
    finally:
        for one in (traffic, prometheus, gateway):
            if one:
                one.stop()
