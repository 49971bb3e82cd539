"""The proxies: how each is configured, started, and found ready.

Each is given its best honest configuration for MCP, from a template in peers/. A template is the
proxy's own language with `@NAME@` for values, and lines that begin with `@log`, `@nolog`, `@tls`
or `@plain` when they belong to one variant only.
"""

import http.client
import json
import pathlib
import re
import ssl
import time

from harness.process import Child, Failed, cpu_seconds, free_ports, pss_kib, run, tree
from harness.tools import HERE

NAMES = ("tidegate", "nginx", "haproxy", "envoy")
# No proxy at all: what the machine and the tools allow.
DIRECT = "direct"
TEMPLATES = {"tidegate": "tidegate.yaml", "nginx": "nginx.conf", "haproxy": "haproxy.cfg", "envoy": "envoy.yaml"}
READY_SECONDS = 15

STATELESS = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": {"name": "loadtest", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
CALL_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": STATELESS,
    "Mcp-Method": "tools/call",
    "Mcp-Name": "echo",
}
CALL_BODY = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": "sixteen letters."}, "_meta": META},
    },
    separators=(",", ":"),
)


def render(text, values, log, tls):
    kept = {"log": log, "nolog": not log, "tls": tls, "plain": not tls}
    lines = []
    for line in text.splitlines():
        marked = re.match(r"(\s*)@(log|nolog|tls|plain) (.*)", line)
        if marked and not kept[marked[2]]:
            continue
        lines.append(marked[1] + marked[3] if marked else line)
    out = "\n".join(lines) + "\n"
    for name, value in values.items():
        out = out.replace(f"@{name}@", str(value))
    return out


def certificate(folder):
    """A certificate of our own making, also in the one file that HAProxy wants."""
    cert, key, both = (folder / name for name in ("cert.pem", "key.pem", "both.pem"))
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        + ["-keyout", key, "-out", cert, "-days", "30", "-subj", "/CN=localhost"]
        + ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    )
    both.write_text(cert.read_text() + key.read_text())


class Direct:
    """The first copy of the mock, with nothing in front. Uses nothing, being no proxy."""

    name, tls, pids = DIRECT, False, ()

    def __init__(self, upstreams):
        self.url = f"http://127.0.0.1:{upstreams[0]}/mcp"

    def cpu_seconds(self):
        return 0.0


class Proxy:
    """A running proxy in front of three copies of the mock."""

    def __init__(self, name, binary, folder, upstreams, workers, log=False, tls=False):
        self.name, self.binary, self.folder, self.tls = name, binary, pathlib.Path(folder), tls
        self.folder.mkdir(parents=True)
        self.port, admin = free_ports(2)
        if tls:
            certificate(self.folder)
        values = dict(zip("ABC", upstreams, strict=True))
        values |= {"PORT": self.port, "ADMIN": admin, "WORKERS": workers, "DIR": self.folder}
        template = HERE / "peers" / TEMPLATES[name]
        self.config = self.folder / template.name
        self.config.write_text(render(template.read_text(), values, log, tls))
        self.workers = workers
        self.child = None

    def check(self):
        """Lets the proxy judge its configuration; fails with what it says."""
        argv = {
            "tidegate": ["-t", "-c", self.config],
            "nginx": ["-t", "-q", "-c", self.config],
            "haproxy": ["-c", "-q", "-f", self.config],
            "envoy": ["--mode", "validate", "-l", "error", "-c", self.config],
        }[self.name]
        run([self.binary, *argv])

    def start(self):
        """Starts it and waits for the first right answer. Returns the seconds that took."""
        argv = {
            "tidegate": ["-c", self.config],
            "nginx": ["-c", self.config],
            "haproxy": ["-db", "-f", self.config],
            "envoy": ["-c", self.config, "--concurrency", self.workers, "-l", "error", "--disable-hot-restart"],
        }[self.name]
        begin = time.monotonic()
        self.child = Child([self.binary, *argv], self.folder / "output.log")
        last = "nothing listens"
        while True:
            if self.child.ended():
                raise Failed(f"ended at once: {self.child.output().strip()[-300:]}")
            try:
                last = self.answer()
                if last == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > begin + READY_SECONDS:
                raise Failed(f"no answer within {READY_SECONDS} s: {last}")
            time.sleep(0.001)
        took = time.monotonic() - begin
        self.pids = tree(self.child.pid)
        return took

    def answer(self):
        """One stateless call: its status, or what is wrong with its answer."""
        if self.tls:
            trust = ssl._create_unverified_context()
            conn = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=2, context=trust)
        else:
            conn = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            conn.request("POST", "/mcp", CALL_BODY, CALL_HEADERS)
            reply = conn.getresponse()
            body = reply.read().decode(errors="replace")
        finally:
            conn.close()
        if reply.status == 200 and "sixteen letters." not in body:
            return f"wrong answer {body[:100]}"
        return reply.status

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}/mcp"

    def pss_kib(self):
        return pss_kib(self.pids)

    def cpu_seconds(self):
        return cpu_seconds(self.pids)

    def stop(self):
        if self.child:
            self.child.stop()
