"""What makes load: our own tool, oha, k6. Each call of one returns plain values, CPU included.

Every latency is in microseconds and, at a fixed rate, counts from when the call was due.
"""

import json

from harness.process import Child, Failed
from harness.proxies import CALL_BODY, CALL_HEADERS
from harness.tools import HERE

# Beyond the time asked for: opening, warming up, closing.
PATIENCE = 60


class Drivers:
    def __init__(self, folder, binaries):
        self.folder, self.binaries = folder, binaries
        self.number = 0

    def _run(self, argv, seconds, kept=None):
        self.number += 1
        child = Child(argv, kept or self.folder / f"driver-{self.number:04}.log")
        output = child.wait(seconds + PATIENCE)
        return child.process.returncode, output

    def own(self, command, proxy, seconds, **options):
        """Our tool; options as it names them. Returns the object it prints."""
        argv = [self.binaries["loadtest"], command, "--url", proxy.url, "--seconds", seconds]
        for pid in proxy.pids:
            argv += ["--pid", pid]
        for name, value in options.items():
            argv += [f"--{name.replace('_', '-')}", value]
        code, output = self._run(argv, 2 * seconds + 60)
        try:
            result = json.loads(output.strip().splitlines()[-1])
        except (ValueError, IndexError):
            raise Failed(f"loadtest {command}: {output.strip()[-300:] or code}") from None
        return result

    def oha(self, proxy, seconds, connections, rate=None, fresh=False):
        """Stateless calls: as many as possible, or at a fixed rate; `fresh`: a connection for each."""
        argv = [self.binaries["oha"], "--no-tui", "--output-format", "json", "--redirect", "0", "--no-color"]
        argv += ["-z", f"{seconds}s", "-c", connections, "-m", "POST", "-d", CALL_BODY]
        for name, value in CALL_HEADERS.items():
            argv += ["-H", f"{name}: {value}"]
        if rate:
            argv += ["-q", rate, "--latency-correction"]
        if fresh:
            argv += ["--disable-keepalive"]
        if proxy.tls:
            argv += ["--insecure"]
        before = proxy.cpu_seconds()
        _, output = self._run([*argv, proxy.url], seconds)
        cpu = proxy.cpu_seconds() - before
        try:
            report = json.loads(output[output.index("{") :])
        except ValueError:
            raise Failed(f"oha: {output.strip()[-300:]}") from None
        return oha_result(report, cpu)

    def k6(self, script, proxy, seconds, **values):
        """A script of k6/. Returns its summary and the CPU the proxy used meanwhile."""
        self.number += 1
        summary = self.folder / f"k6-{self.number:04}.json"
        argv = [self.binaries["k6"], "run", "--quiet", "--no-usage-report", "--summary-export", summary]
        values |= {"URL": proxy.url, "SECONDS": seconds}
        for name, value in values.items():
            argv += ["-e", f"{name}={value}"]
        before = proxy.cpu_seconds()
        code, output = self._run([*argv, HERE / "k6" / script], seconds)
        cpu = proxy.cpu_seconds() - before
        if not summary.exists():
            raise Failed(f"k6: {output.strip()[-300:] or code}")
        return {"metrics": json.loads(summary.read_text())["metrics"], "cpu": cpu, "output": output}


def oha_result(report, cpu):
    codes = {int(code): count for code, count in report["statusCodeDistribution"].items()}
    good = codes.pop(200, 0)
    failures = {f"status_{code}": count for code, count in codes.items()}
    for text, count in report["errorDistribution"].items():
        # Calls that were under way when the time was up.
        if text != "aborted due to deadline":
            failures[text] = count
    micros = {name: seconds and seconds * 1e6 for name, seconds in report["latencyPercentiles"].items()}
    if good == 0:
        raise Failed(f"oha: no call was answered: {failures}")
    return {
        "calls": good + sum(failures.values()),
        "failures": failures,
        "per_second": good / report["summary"]["total"],
        "latency_us": {"p50": micros["p50"], "p90": micros["p90"], "p99": micros["p99"], "p999": micros["p99.9"]},
        # Without a proxy there is none.
        "cpu_us": cpu * 1e6 / good if cpu else None,
    }
