"""Tidegate for the tests of faults: with quick checks, and killed and started again at will."""

import json
import re
import time

import harness
from chain import Chain
from harness import Failed, Process, Tidegate, free_ports, get

# The checks of the pool: quick, but patient with a busy machine.
INTERVAL, RISE, FALL = 1.0, 2, 3
# Tidegate's own default for the time that a breaker stays open.
BREAKER_OPEN = 5.0


class Gate(Tidegate):
    """Tidegate with quick checks. It can be killed and started again as it was.

    Everything else is Tidegate's own default, ejection and breaker among it, unless a row says otherwise:
    in keys of the `pool`, of the `route`, or of the file as a whole (`top`).
    """

    def __init__(self, work, binary, endpoints, key=None, drain="10s", interval=INTERVAL, pool=None, route=None, top=None, log=True):
        self.work, self.binary = work, binary
        self.port, self.admin = free_ports(2)
        state = work.file("state")
        state.mkdir()
        self.key = key or state / "session.key"
        self.config = work.file("tidegate.yaml")
        self.log = work.file("access.log")
        pool = {
            "balance": "round_robin",
            "endpoints": endpoints,
            "health": {"interval": f"{interval * 1000:.0f}ms", "timeout": "2s", "rise": RISE, "fall": FALL},
            **(pool or {}),
        }
        # JSON is YAML.
        config = {
            "listeners": [{"bind": f"127.0.0.1:{self.port}"}],
            "routes": [{"path": "/mcp", "pool": "p", **(route or {})}],
            "pools": {"p": pool},
            "sessions": {"key_files": [str(key)]} if key else {},
            "admin": {"bind": f"127.0.0.1:{self.admin}"},
            "state_dir": str(state),
            "drain_timeout": drain,
            "log": {"access": str(self.log) if log else "off"},
            **(top or {}),
        }
        self.config.write_text(json.dumps(config, indent=1))
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.start()
        self.wait_up(len(endpoints))

    @classmethod
    def before(cls, work, binary, servers, kind, **options):
        """One in front of copies of a server."""
        endpoints = [{"name": f"{kind}{number}", "address": f"127.0.0.1:{port}"} for number, port in enumerate(servers.ports)]
        return cls(work, binary, endpoints, **options)

    @property
    def processes(self):
        return [self.process]

    def start(self):
        self.process = Process([str(self.binary), "-c", str(self.config)], self.work.file("tidegate.log"))
        self.wait_ready()

    def kill(self):
        self.process.child.kill()
        self.process.child.wait()

    def wait_up(self, count, seconds=harness.START_SECONDS):
        """Waits until the checks say that so many copies are up."""
        end = time.monotonic() + harness.BUDGET.cut(seconds)
        while time.monotonic() < end:
            found = [up for up in self.gauges("tidegate_endpoint_up") if up == 1]
            if len(found) == count:
                return
            time.sleep(0.05)
        raise Failed(f"{len(found)} copies are up after {seconds} s, not {count}")

    def gauges(self, family):
        """The values of all samples of a metric."""
        text = get(f"http://127.0.0.1:{self.admin}/metrics")
        return [float(value) for value in re.findall(rf"^{family}(?:\{{.*\}})? (\S+)$", text, re.M)]

    # How much longer than its checks its breakers may keep clients from servers that all came back.
    resting = 0.0

    def doubts(self):
        return ""


class GateChain(Chain):
    """A chain of two gates that HTTP/2 connects, to be used as one."""

    # A back without servers is well and answers 503, which opens the breaker of the front. No check
    # of the front finds anything to tell, so it is open for all of its time.
    resting = BREAKER_OPEN

    def __init__(self, front, back):
        self.front, self.back = front, back
        self.port, self.url, self.key = front.port, front.url, (front.key, back.key)
        # With a killed process go lines of its log, and what the front asks of a killed back has none.
        self.whole = False

    @classmethod
    def before(cls, work, binary, servers, kind, key=(None, None), drain="10s"):
        back = Gate.before(work, binary, servers, kind, key=key[1], drain=drain)
        endpoint = {"name": "back", "address": f"127.0.0.1:{back.port}", "http2": True}
        try:
            # Its checks are few, because each takes a turn of the back's round robin.
            return cls(Gate(work, binary, [endpoint], key=key[0], drain=drain, interval=10 * INTERVAL), back)
        except BaseException:
            back.stop()
            raise

    @property
    def processes(self):
        return [self.front.process, self.back.process]

    def start(self):
        self.back.start()
        self.front.start()

    def kill(self):
        self.front.kill()
        self.back.kill()

    def wait_up(self, count):
        self.back.wait_up(count)
        # With no copy left the back still answers a `server/discover`, and so counts as up.
        if count:
            self.front.wait_up(1)
