"""The console, in a headless Chromium: `console.mjs` looks at it and prints one line of JSON for each verdict."""

import json

from gates import Gate
from harness import NODE, Failed, Servers, run

SECONDS = 240
CHECKS = 13


def browse(work, binary, *more):
    """Runs the browser before a Tidegate of its own. Returns its status and what it printed."""
    servers, gate = Servers(work, "ts", 3), None
    try:
        gate = Gate.before(work, binary, servers, "ts")
        config = json.loads(gate.config.read_text())
        config["admin"]["level"] = "operate"
        if more:
            rename(config)
        gate.stop()
        gate.config.write_text(json.dumps(config, indent=1))
        gate.start()
        gate.wait_up(3)
        admin = f"http://127.0.0.1:{gate.admin}"
        victim = f"ts2:{servers.processes[2].child.pid}"
        argv = [NODE, "console.mjs", "--admin", admin, "--mcp", gate.url, "--gate", str(gate.process.child.pid)]
        argv += ["--binary", str(binary), "--config", str(gate.config), "--victim", victim, *more]
        return run(argv, SECONDS, work.file("console.log"))
    finally:
        if gate:
            gate.stop()
        servers.stop()


def rename(config):
    """Names for the pictures of the manual."""
    config["pools"] = {"weather": config["pools"]["p"]}
    config["routes"][0]["pool"] = "weather"
    for number, endpoint in enumerate(config["pools"]["weather"]["endpoints"], 1):
        endpoint["name"] = f"w{number}"


def jobs(work, binary, count):
    """One function, which tells `count(name, good, text, seconds)` what the browser saw."""

    def job():
        try:
            status, text = browse(work, binary)
        except (Failed, OSError) as error:
            return count("console", False, f"{type(error).__name__}: {error}")
        verdicts = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        for verdict in verdicts:
            count(**verdict)
        if status or len(verdicts) != CHECKS:
            count("console", False, f"status {status}, {len(verdicts)} verdicts of {CHECKS}: {text[-400:]}")

    return [job]
