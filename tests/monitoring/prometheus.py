"""A real Prometheus for a check: promtool, a server on a port of its own, and its HTTP API."""

import json
import os
import pathlib
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

from harness import BUDGET, Failed, Process, free_ports

HERE = pathlib.Path(__file__).resolve().parent
REPO = HERE.parent.parent
CONF = REPO / "conf"
CACHE = pathlib.Path(os.environ.get("TIDEGATE_MONITORING_CACHE") or REPO / ".cache/monitoring").resolve()
# A busy machine may take a while to start it.
START_SECONDS = 20


def promtool(*argv):
    """Returns (exit status, what it said)."""
    done = subprocess.run([CACHE / "bin/promtool", *argv], capture_output=True, text=True, check=False, timeout=BUDGET.cut(90))
    return done.returncode, done.stdout + done.stderr


class Prometheus:
    """Scrapes one target every half a second as job mcp-gateway, and evaluates rules as often."""

    def __init__(self, work, target, rules):
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        config = work.file("prometheus.yml")
        config.write_text(
            "global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms }\n"
            f"rule_files: {json.dumps([str(path) for path in rules])}\n"
            "scrape_configs:\n"
            "  - job_name: mcp-gateway\n"
            f"    static_configs: [{{ targets: ['{target}'] }}]\n"
        )
        argv = [
            CACHE / "bin/prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={work.file('tsdb')}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--log.level=warn",
        ]
        self.process = Process([str(one) for one in argv], work.file("prometheus.log"))
        end = time.monotonic() + BUDGET.cut(START_SECONDS)
        while not self.ready():
            if self.process.child.poll() is not None or time.monotonic() > end:
                raise Failed(f"Prometheus does not start: {self.process.text()[-400:]}")
            time.sleep(0.1)

    def ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as reply:
                return reply.status == 200
        except OSError:
            return False

    def ask(self, path, **params):
        """The data of an answer of the API; what it says is wrong with a query is `Failed`."""
        query = urllib.parse.urlencode(params, doseq=True)
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=10) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise Failed(f"{params}: {error.read().decode()[:300]}") from None

    def samples(self, expr):
        """The samples of a query now: (labels, value)."""
        data = self.ask("query", query=expr)
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def firing(self):
        """The alerts that fire: their labels."""
        return [one["labels"] for one in self.ask("alerts")["alerts"] if one["state"] == "firing"]

    def broken_rules(self):
        """The last error of every rule that has one."""
        rules = [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]
        return [f"{rule['name']}: {rule['lastError']}" for rule in rules if rule.get("lastError")]

    def stop(self):
        self.process.stop()
