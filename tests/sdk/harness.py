"""Starts and stops what the tests run: fixture servers, Tidegate, the broken proxy."""

import atexit
import contextlib
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
CACHE = pathlib.Path(os.environ.get("TIDEGATE_TEST_CACHE") or HERE.parent.parent / ".cache" / "sdk").resolve()
NODE = str(CACHE / "js/node_modules/.bin/node")
CONFORMANCE = str(CACHE / "js/node_modules/.bin/conformance")
PYTHON = str(CACHE / "py/bin/python")
PYTHON_1 = str(CACHE / "py1/bin/python")

SERVERS = {
    "ts": [NODE, "server_ts.mjs"],
    "py": [PYTHON, "server_py.py"],
    "sse": [PYTHON, "server_py_sse.py"],
    "ws": [PYTHON_1, "server_py_ws.py"],
    "scripted": [sys.executable, "scripted.py"],
}

# A slow machine may need a while to start three Python servers at once.
START_SECONDS = 30
STOP_SECONDS = 10


class Failed(Exception):
    """A run that could not be made, as opposed to one whose result is bad."""


class Budget:
    """The time the whole run may take. Every wait is cut to what is left of it."""

    def __init__(self, seconds):
        self.end = time.monotonic() + seconds

    def cut(self, seconds):
        left = self.end - time.monotonic()
        if left <= 0:
            raise Failed("the time budget is used up")
        return min(seconds, left)


BUDGET = Budget(3600)


class Process:
    """One child in a folder of the tests, its output in a file; stopped by its own id."""

    live = set()
    lock = threading.Lock()

    def __init__(self, argv, log, env=None):
        self.log = pathlib.Path(log)
        env = {**os.environ, **env} if env else None
        with self.log.open("wb") as out:
            self.child = subprocess.Popen(
                argv, cwd=HERE, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )
        with Process.lock:
            Process.live.add(self)

    def text(self):
        return self.log.read_text(errors="replace")

    def listening(self):
        """Waits for the line `listening PORT` and returns the port."""
        end = time.monotonic() + BUDGET.cut(START_SECONDS)
        while time.monotonic() < end:
            for line in self.text().splitlines():
                if line.startswith("listening "):
                    return int(line.split()[1])
            if self.child.poll() is not None:
                raise Failed(f"{self.log.name} ended at once: {self.text()[-400:]}")
            time.sleep(0.02)
        raise Failed(f"{self.log.name} did not start: {self.text()[-400:]}")

    def stop(self):
        with Process.lock:
            Process.live.discard(self)
        if self.child.poll() is None:
            self.child.terminate()
            try:
                self.child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        return self.child.returncode

    @classmethod
    def stop_all(cls):
        for process in list(cls.live):
            process.stop()


atexit.register(Process.stop_all)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Work:
    """A folder for one run; it stays when the run failed."""

    def __init__(self):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-sdk-"))
        self.lock = threading.Lock()
        self.number = 0

    def file(self, name):
        with self.lock:
            self.number += 1
            return self.path / f"{self.number:03}-{name}"

    def remove(self):
        shutil.rmtree(self.path, ignore_errors=True)


def spare_ports():
    """Ports below those that the kernel gives to connections: it could give one away before its program
    listens. Each is named once, until all were."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = list(range(20_000, lowest)) or list(range(20_000, 32_768))
    random.shuffle(ports)
    return itertools.cycle(ports)


PORTS, PORTS_LOCK = spare_ports(), threading.Lock()


def free_ports(count):
    """Ports on which nothing listens, for programs that cannot tell which one they took."""
    found = []
    while len(found) < count:
        with PORTS_LOCK:
            port = next(PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


class Servers:
    """Copies of one fixture server."""

    def __init__(self, work, kind, copies, own_keys=False, options=()):
        for attempt in range(3):
            self.processes = []
            self.ports = free_ports(copies)
            try:
                self.start(work, kind, own_keys, options)
                return
            except Failed:
                self.stop()
                if attempt == 2:
                    raise

    def start(self, work, kind, own_keys, options):
        for number, port in enumerate(self.ports):
            argv = [*SERVERS[kind], "--port", str(port), "--name", f"{kind}{number}", *options]
            if kind in ("ts", "py"):
                others = ",".join(str(other) for other in self.ports if other != port)
                argv += ["--peers", others]
                if own_keys:
                    argv += ["--state-key", f"a key of replica {number} that no other replica has"]
            self.processes.append(Process(argv, work.file(f"{kind}{number}.log")))
        for process in self.processes:
            process.listening()

    def sessions(self):
        """Live sessions on all copies together."""
        return sum(int(get(f"http://127.0.0.1:{port}/_sessions")) for port in self.ports)

    def stop(self):
        for process in self.processes:
            process.stop()


class Tidegate:
    """Tidegate in front of `ports`, listening on a free port of 127.0.0.1.

    `check` is how it finds out whether they are up, `http2` how it speaks to them, and `log` the file of
    the access log, if there is to be one. With `tls`, the certificates, it speaks nothing else.
    """

    tls = None

    def __init__(self, work, binary, ports, path="/mcp", check="mcp", http2=False, log=None, tls=None):
        self.port = free_ports(1)[0]
        self.log, self.tls = log, tls
        secure = f"    tls: {{ cert: {tls.cert}, key: {tls.key} }}\n" if tls else ""
        endpoints = [f"{{ address: 127.0.0.1:{port}, http2: {json.dumps(http2)} }}" for port in ports]
        state = work.file("state")
        state.mkdir()
        config = work.file("tidegate.yaml")
        config.write_text(
            f"listeners:\n"
            f"  - bind: 127.0.0.1:{self.port}\n"
            f"{secure}"
            f"routes:\n"
            f"  - path: {path}\n"
            f"    pool: p\n"
            f"pools:\n"
            f"  p:\n"
            f"    endpoints: [{', '.join(endpoints)}]\n"
            # No row here is about slow servers, and fifty sessions at once on a busy machine make some.
            f"    health: {{ check: {check}, timeout: 10s }}\n"
            f'admin: {{ bind: "off" }}\n'
            f"state_dir: {state}\n"
            f'log: {{ access: "{log or "off"}" }}\n'
        )
        self.process = Process([str(binary), "-c", str(config)], work.file("tidegate.log"))
        self.wait_ready()

    def wait_ready(self):
        end = time.monotonic() + BUDGET.cut(START_SECONDS)
        while time.monotonic() < end:
            if self.process.child.poll() is not None:
                raise Failed(f"Tidegate ended at once: {self.process.text()[-800:]}")
            try:
                self.ask_ready()
                return
            except OSError:
                time.sleep(0.05)
        raise Failed(f"Tidegate was not ready in time: {self.process.text()[-800:]}")

    def ask_ready(self):
        get(f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/ready", self.tls and str(self.tls.ca))

    def stop(self):
        self.process.stop()


class Broken:
    """The broken proxy in front of `ports`."""

    def __init__(self, work, fault, ports):
        upstreams = ",".join(str(port) for port in ports)
        argv = [sys.executable, "broken_proxy.py", "--fault", fault, "--upstreams", upstreams]
        self.process = Process(argv, work.file(f"broken-{fault}.log"))
        self.port = self.process.listening()

    def stop(self):
        self.process.stop()


def get(url, ca=None):
    """The body. `ca` is the file of the authority for https."""
    context = ssl.create_default_context(cafile=ca) if ca else None
    with urllib.request.urlopen(url, timeout=5, context=context) as reply:
        return reply.read().decode()


def run(argv, seconds, log, env=None):
    """Runs a program to its end. Returns its exit status and its standard output."""
    process = Process(argv, log, env)
    try:
        status = process.child.wait(BUDGET.cut(seconds))
    except subprocess.TimeoutExpired:
        raise Failed(f"{pathlib.Path(argv[-1]).name}: no end after {seconds} s") from None
    finally:
        process.stop()
    return status, process.text()


def last_json(text):
    """The last line of a program's output that is a JSON object."""
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise Failed(f"no report: {text[-400:]}")
