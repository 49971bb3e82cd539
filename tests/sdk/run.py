#!/usr/bin/env python3
"""Compares what real MCP peers see directly with what they see through Tidegate.

  run.py conformance --server ts --set 2025-11-25 [--via tidegate --tidegate PATH --copies 3]
  run.py conformance --server ts --set 2025-11-25 --via h2|tls|tls-h2 --tidegate PATH
  run.py diff DIRECT.json THROUGH.json
  run.py clients --copies 3 --tidegate PATH [--via h2]
  run.py faults --tidegate PATH [--server py] [--only "3 killed"] [--via h2]
  run.py chaos --tidegate PATH [--full] [--only "1 killed"] [--loadtest PATH [--base PATH]]
  run.py demo --tidegate PATH
  run.py console --tidegate PATH [--shots FOLDER]
  run.py all --tidegate PATH [--quick | --full]

Run setup.sh first.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import json
import os
import pathlib
import sys
import threading
import time

import chaos
import console
import cost
import demo
import faults
import harness
import matrix
from chain import Chain
from harness import CONFORMANCE, NODE, PYTHON, Broken, Budget, Failed, Servers, Tidegate, Work, last_json, run
from secure import HTTP as SECURE
from secure import Secure

SETS = ("2025-11-25", "2026-07-28")

# The longest run took 7 s on an idle machine with two cores.
CONFORMANCE_SECONDS = 120
CLIENT_SECONDS = 90
# Runs at a time: more only adds noise to the checks that watch the clock.
JOBS = 2
# Rows of faults at a time: they wait more than they work, but measure how long a client waits.
ROWS = 3

# Built by `cargo build --examples`.
TARGET = os.environ.get("CARGO_TARGET_DIR") or pathlib.Path(__file__).resolve().parent.parent.parent / "target"
RMCP = str(pathlib.Path(TARGET).resolve() / "debug/examples/rmcp_client")

# name: (program, the kinds of server it can talk to, its era where the server has both)
CLIENTS = {
    "ts1": ([NODE, "client_ts1.mjs"], ("ts", "py"), "session"),
    "ts2": ([NODE, "client_ts2.mjs"], ("ts", "py"), "session"),
    "ts2-auto": ([NODE, "client_ts2.mjs", "--mode", "auto"], ("ts", "py"), "stateless"),
    "ts2-modern": ([NODE, "client_ts2.mjs", "--mode", "modern"], ("ts", "py"), "stateless"),
    "py": ([PYTHON, "client_py.py"], ("ts", "py"), "stateless"),
    "py-legacy": ([PYTHON, "client_py.py", "--mode", "legacy"], ("ts", "py"), "session"),
    "rs": ([RMCP], ("ts", "py"), "session"),
    "rs-auto": ([RMCP, "--mode", "auto"], ("ts", "py"), "stateless"),
    "ts1-sse": ([NODE, "client_ts1.mjs", "--scenario", "sse"], ("sse",), "session"),
    "ts2-sse": ([NODE, "client_ts2.mjs", "--scenario", "sse"], ("sse",), "session"),
    "py-sse": ([PYTHON, "client_py.py", "--scenario", "sse"], ("sse",), "session"),
    "ts1-ws": ([NODE, "client_ts1.mjs", "--scenario", "ws"], ("ws",), "session"),
}
PATHS = {"ts": "/mcp", "py": "/mcp", "sse": "/sse", "ws": "/mcp"}
# A server of WebSocket alone answers 404 to the question of the check `mcp`.
CHECKS = {"ws": "tcp"}
# A WebSocket is asked for in HTTP/1.1, also of an endpoint that is spoken to in HTTP/2.
H2_SERVERS = ("ts", "py", "sse")


@contextlib.contextmanager
def reachable(work, args, server, copies, via, fault="none"):
    """Starts `copies` of a server and what stands in front. Yields (servers, port to talk to, gate)."""
    servers = Servers(work, server, copies, getattr(args, "own_keys", False))
    gate = None
    try:
        if via == "tidegate":
            gate = Tidegate(work, tidegate_path(args), servers.ports, PATHS[server], CHECKS.get(server, "mcp"))
        elif via == "h2":
            gate = Chain(work, tidegate_path(args), servers.ports, PATHS[server], http2=fault != "http1")
        elif via in SECURE:
            gate = Secure(work, tidegate_path(args), servers.ports, PATHS[server], via, speaks_h2=fault != "http1")
        elif via == "broken":
            gate = Broken(work, fault, servers.ports)
        yield servers, gate.port if gate else servers.ports[0], gate
        if via == "h2" or via in SECURE:
            gate.stop()
            if doubts := gate.doubts():
                raise Failed(doubts)
    finally:
        if gate:
            gate.stop()
        servers.stop()


def tidegate_path(args):
    if not args.tidegate:
        raise Failed("--tidegate PATH is needed")
    path = pathlib.Path(args.tidegate).resolve()
    if not path.is_file():
        raise Failed(f"no such program: {path}")
    return path


# Conformance


def conformance(work, args, server, revision, via="none", copies=1, fault="none"):
    """Runs one requirement set. Returns the result as a dictionary for JSON."""
    start = time.monotonic()
    with reachable(work, args, server, copies, via, fault) as (_, port, gate):
        results = work.file("results")
        node, scheme, env = (gate.node, "https", gate.env) if via in SECURE else ([NODE], "http", None)
        url = f"{scheme}://127.0.0.1:{port}/mcp"
        argv = [*node, CONFORMANCE, "server", "--url", url, "--requirements", revision, "--output-dir", str(results)]
        status, text = run(argv, CONFORMANCE_SECONDS, work.file("conformance.log"), env)
    checks = []
    for path in sorted(results.glob("server-*/checks.json")):
        # server-<scenario>-<time, 24 characters>
        scenario = path.parent.name[len("server-") : -25]
        for check in json.loads(path.read_text()):
            checks.append(
                {
                    "scenario": scenario,
                    "id": check["id"],
                    "name": check.get("name", ""),
                    "status": check["status"],
                    "message": check.get("errorMessage"),
                }
            )
    if not checks:
        raise Failed(f"the suite checked nothing: {text[-400:]}")
    return {
        "server": server,
        "set": revision,
        "via": via if via != "broken" else f"broken ({fault})",
        "copies": copies,
        # The suite fails a run only for scenarios that the revision requires.
        "required_pass": status == 0,
        "seconds": round(time.monotonic() - start, 1),
        "checks": checks,
    }


def difference(direct, through):
    """Rows (scenario, check, direct, through, message) of every check that came out differently.

    INFO entries are a log of the run, not verdicts; how many there are depends on timing.
    """

    def verdicts(result):
        found = collections.defaultdict(list)
        for check in result["checks"]:
            if check["status"] != "INFO":
                found[check["scenario"], check["id"], check["name"]].append(check)
        return found

    before, after = verdicts(direct), verdicts(through)
    rows = []
    for key in sorted(before.keys() | after.keys()):
        was = sorted(check["status"] for check in before.get(key, []))
        now = sorted(check["status"] for check in after.get(key, []))
        if was != now:
            message = next((check["message"] for check in after.get(key, []) if check["message"]), "")
            rows.append((key[0], key[1], "+".join(was) or "-", "+".join(now) or "-", message))
    return rows


def summary(result):
    counts = collections.Counter(check["status"] for check in result["checks"])
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if status != "INFO")
    return f"{result['server']} {result['set']} via {result['via']} x{result['copies']}: {told} ({result['seconds']} s)"


def table(rows):
    lines = []
    for scenario, check, was, now, message in rows:
        lines.append(f"    {scenario} / {check}: {was} -> {now}")
        if message:
            lines.append(f"        {' '.join(message.split())[:200]}")
    return "\n".join(lines)


def command_conformance(args, work):
    result = conformance(work, args, args.server, args.set, args.via, args.copies, args.fault)
    print(summary(result))
    for check in result["checks"]:
        if check["status"] in ("FAILURE", "WARNING"):
            print(f"    {check['status']} {check['scenario']} / {check['id']}: {' '.join((check['message'] or '').split())[:200]}")
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    if args.via == "none":
        return result["required_pass"]
    direct = conformance(work, args, args.server, args.set)
    rows = difference(direct, result)
    print(f"{len(rows)} differences to a direct run")
    if rows:
        print(table(rows))
    return not rows


def command_diff(args, work):
    rows = difference(*(json.loads(pathlib.Path(path).read_text()) for path in (args.direct, args.through)))
    print(f"{len(rows)} differences")
    if rows:
        print(table(rows))
    return not rows


# Clients


def client(work, args, name, server, copies, via="tidegate", fault="none"):
    """Runs the sessions of one client. Returns (complaints, what was seen)."""
    argv, _, era = CLIENTS[name]
    complaints = []
    with reachable(work, args, server, copies, via, fault) as (servers, port, gate):
        scheme = "ws" if server == "ws" else "http"
        url = f"{scheme}://127.0.0.1:{port}{PATHS[server]}"
        counts = ["--sessions", str(args.sessions), "--calls", "4", "--concurrency", str(args.sessions)]
        status, text = run([*argv, "--url", url, *counts], CLIENT_SECONDS, work.file(f"{name}.log"))
        report = last_json(text)
        complaints += [f"{error.get('session')}: {error.get('name', '')} {error['message']}" for error in report["errors"]]
        if (status == 0) != report["ok"] or (not report["ok"] and not complaints):
            complaints.append(f"exit status {status}, report {json.dumps(report)[:300]}")
        versions = report["versions"]
        if any((version >= "2026") != (era == "stateless") for version in versions):
            complaints.append(f"expected the {era} era, the client agreed on {versions}")
        if len(report["names"]) != (copies if via != "none" else 1):
            complaints.append(f"{copies} copies, but answers came from {report['names']}")
        left = settled(servers)
        if left:
            complaints.append(f"{left} sessions left on the servers")
        if gate:
            # What Tidegate itself keeps there (health checks) must be gone with it.
            gate.stop()
            after = settled(servers)
            if after:
                complaints.append(f"{after} sessions left after Tidegate went away")
    return complaints, f"{report['sessions']} sessions, {report['calls']} calls, {dict(sorted(report['names'].items()))}"


def settled(servers, seconds=5):
    """Live sessions once they stopped going away."""
    end = time.monotonic() + seconds
    while (left := servers.sessions()) and time.monotonic() < end:
        time.sleep(0.1)
    return left


def client_jobs(work, args, via, told=""):
    """A job for every client and each kind of server that it can talk to in this way."""
    # The broken proxy knows affinity by header only, and no WebSocket.
    reached = {"broken": ("ts", "py"), "h2": H2_SERVERS}.get(via, PATHS)
    return [
        (f"{name} to {server}{told}", lambda name=name, server=server: verdict_client(work, args, name, server, via))
        for name, (_, kinds, _) in CLIENTS.items()
        for server in kinds
        if server in reached
    ]


def command_clients(args, work):
    jobs = client_jobs(work, args, args.via)
    return Tally().take(job for job in jobs if args.only in ("", job[0].split()[0])).report()


def verdict_client(work, args, name, server, via):
    complaints, seen = client(work, args, name, server, args.copies, via, getattr(args, "fault", "none"))
    return not complaints, "; ".join(complaints[:4]) or seen


def command_faults(args, work):
    tally = Tally()
    servers = [args.server] if args.server else ("ts", "py")
    tally.take_rows(faults.jobs(work, tidegate_path(args), tally.count, servers, args.only, args.via == "h2"))
    return tally.report()


def chaos_rows(tally, args, work, short, only=""):
    """The rows of `chaos`, few at a time, because they measure time."""
    alone, others = chaos.jobs(work, tidegate_path(args), tally.count, short, only)
    tally.take_rows(alone, 1)
    tally.take_rows(others, 2)
    tally.take_rows(matrix.jobs(work, tidegate_path(args), tally.count, short, only), 2)


def command_chaos(args, work):
    tally = Tally()
    if args.loadtest:
        tally.take_rows(cost.jobs(work, tidegate_path(args), tally.count, args.loadtest, args.base, *((12, 8) if args.full else (10, 3))), 1)
    else:
        chaos_rows(tally, args, work, not args.full, args.only)
    return tally.report()


def command_demo(args, work):
    tally = Tally()
    tally.take_rows(demo.jobs(work, tidegate_path(args), tally.count))
    return tally.report()


def command_console(args, work):
    if args.shots:
        status, text = console.browse(work, tidegate_path(args), "--shots", str(pathlib.Path(args.shots).resolve()))
        print(text, end="")
        return status == 0
    tally = Tally()
    tally.take_rows(console.jobs(work, tidegate_path(args), tally.count))
    return tally.report()


# All


class Tally:
    """Runs jobs side by side and counts how they went."""

    def __init__(self):
        self.passed = 0
        self.failed = 0
        self.lock = threading.Lock()

    def take(self, jobs):
        """Each job is (name, function), the function returns (passed?, what to tell)."""
        with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
            list(pool.map(lambda job: self.one(*job), jobs))
        return self

    def take_rows(self, jobs, rows=ROWS):
        """Each job is a function that counts its own verdicts."""
        with concurrent.futures.ThreadPoolExecutor(rows) as pool:
            list(pool.map(lambda job: job(), jobs))
        return self

    def one(self, name, job):
        start = time.monotonic()
        try:
            good, told = job()
        except Failed as error:
            good, told = False, str(error)
        self.count(name, good, told, time.monotonic() - start)

    def count(self, name, good, told, seconds=None):
        with self.lock:
            self.passed += good
            self.failed += not good
            took = "" if seconds is None else f" ({seconds:.1f} s)"
            print(f"{'ok  ' if good else 'FAIL'} {name}{took}: {told}", flush=True)

    def report(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return self.failed == 0


def command_all(args, work):
    tidegate_path(args)
    tally = Tally()
    combinations = [(server, revision) for server in ("ts", "py") for revision in SETS]
    direct = {}

    def run_direct(server, revision):
        result = direct[server, revision] = conformance(work, args, server, revision)
        return result["required_pass"], summary(result)

    def compare(server, revision, via, copies, fault="none"):
        result = conformance(work, args, server, revision, via, copies, fault)
        if (server, revision) not in direct:
            raise Failed("there is no direct run to compare with")
        return result, difference(direct[server, revision], result)

    def same(*what):
        result, rows = compare(*what)
        return not rows, summary(result) + (f", {len(rows)} differences\n{table(rows)}" if rows else ", no difference")

    def noticed(*what):
        result, rows = compare(*what)
        return bool(rows), f"{summary(result)}, {len(rows)} differences, as it must be"

    def scattered():
        complaints, _ = client(work, args, "ts1", "py", 3, "broken", "scatter")
        return bool(complaints), f"{len(complaints)} complaints, as it must be"

    def doubted(words, what, *given):
        try:
            what(work, args, *given)
        except Failed as error:
            return words in str(error), f"{error}, as it must be"
        return False, "it was not"

    tally.take(
        (f"direct: {server} {revision}", lambda server=server, revision=revision: run_direct(server, revision))
        for server, revision in combinations
    )
    # The test of the test: a proxy that works makes no difference, a broken one does.
    tally.take(
        [
            *(
                (f"control, a working proxy: {server} {revision}", lambda server=server, revision=revision: same(server, revision, "broken", 3))
                for server, revision in ([("ts", "2025-11-25"), ("py", "2026-07-28")] if args.quick else combinations)
            ),
            ("control, lost session headers are noticed", lambda: noticed("py", "2025-11-25", "broken", 1, "strip")),
            ("control, lost method headers are noticed", lambda: noticed("ts", "2026-07-28", "broken", 1, "strip")),
            # Held back replies make the session era hang for minutes; the other era tells in seconds.
            ("control, held back replies are noticed", lambda: noticed("ts", "2026-07-28", "broken", 1, "buffer")),
            ("control, lost affinity is noticed by the suite", lambda: noticed("py", "2025-11-25", "broken", 3, "scatter")),
            ("control, lost affinity is noticed by a client", scattered),
            # Otherwise the rows over HTTP/2 could be rows over HTTP/1.1.
            ("control, a chain that does not speak HTTP/2 is noticed", lambda: doubted("HTTP/2 alone", client, "ts1", "ts", 3, "h2", "http1")),
            ("control, TLS without HTTP/2 is noticed", lambda: doubted("HTTP/2 over TLS", conformance, "ts", "2025-11-25", "tls-h2", 1, "http1")),
        ]
    )
    for via, told in (("tidegate", "through Tidegate"), ("h2", "over HTTP/2")):
        tally.take(
            (f"{told}, {copies} copies: {server} {revision}",
             lambda server=server, revision=revision, via=via, copies=copies: same(server, revision, via, copies))
            for copies in ((3,) if args.quick else (1, 3))
            for server, revision in combinations
        )  # fmt: skip
        tally.take(client_jobs(work, args, via, f", {told}, 3 copies"))
    tally.take(
        (f"over TLS by HTTP/{version}, 3 copies: {server} {revision}",
         lambda server=server, revision=revision, via=via: same(server, revision, via, 3))
        for via, version in SECURE.items()
        for server, revision in combinations
        # Each server with each set once, both sets by each version.
        if args.full or (server == "ts") == (revision == SETS[via == "tls"])
    )  # fmt: skip
    tally.take_rows(demo.jobs(work, tidegate_path(args), tally.count))
    # By itself, for it measures how soon things are shown.
    tally.take_rows(console.jobs(work, tidegate_path(args), tally.count))
    tally.take_rows(faults.jobs(work, tidegate_path(args), tally.count))
    chaos_rows(tally, args, work, short=True)
    servers = ("ts", "py") if args.full else () if args.quick else ("py",)
    tally.take_rows(faults.jobs(work, tidegate_path(args), tally.count, servers, h2=True))
    return tally.report()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name, function, about):
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(function=function)
        one.add_argument("--tidegate", help="path of the program")
        one.add_argument("--keep", action="store_true", help="keep logs and results even when all went well")
        one.add_argument("--budget", type=int, default=720, help="seconds that the whole run may take")
        return one

    one = command("conformance", command_conformance, "one requirement set, compared with a direct run unless it is one")
    one.add_argument("--server", choices=("ts", "py"), required=True)
    one.add_argument("--set", choices=SETS, required=True)
    one.add_argument("--via", choices=("none", "tidegate", "h2", *SECURE, "broken"), default="none")
    one.add_argument("--copies", type=int, choices=(1, 3), default=1)
    one.add_argument("--fault", choices=("none", "strip", "buffer", "scatter", "http1"), default="strip", help="of the broken proxy; http1 is one of h2 and tls-h2")
    one.add_argument("--own-keys", action="store_true", help="copies do not share the key of multi-round-trip calls")
    one.add_argument("--out", help="write the checks to this JSON file")

    one = command("diff", command_diff, "compare two results of `conformance --out`")
    one.add_argument("direct")
    one.add_argument("through")

    one = command("clients", command_clients, "sessions of every client")
    one.add_argument("--copies", type=int, default=3)
    one.add_argument("--sessions", type=int, default=50)
    one.add_argument("--via", choices=("none", "tidegate", "h2", "broken"), default="tidegate")
    one.add_argument("--fault", choices=("none", "scatter", "http1"), default="none", help="of the broken proxy; http1 is one of h2")
    one.add_argument("--only", choices=("", *CLIENTS), default="", help="one client only")

    one = command("faults", command_faults, "clients while servers, and Tidegate itself, are killed and come back")
    one.add_argument("--server", choices=("", "ts", "py"), default="", help="with copies of this server only")
    one.add_argument("--only", default="", help="rows whose name holds this only")
    one.add_argument("--via", choices=("tidegate", "h2"), default="tidegate")

    one = command("chaos", command_chaos, "many sessions while servers are killed, flap, and answer as no server should")
    one.add_argument("--full", action="store_true", help="for many minutes (give a --budget), not for one")
    one.add_argument("--only", default="", help="rows whose name holds this only")
    one.add_argument("--loadtest", help="path of the program `loadtest`: compare CPU per call with everything on and everything off")
    one.add_argument("--base", help="path of an older Tidegate, to be compared as well")

    command("demo", command_demo, "clients of every SDK against `tidegate demo`")

    one = command("console", command_console, "the console in a headless Chromium")
    one.add_argument("--shots", help="a folder: take the pictures of the manual, which takes three minutes")

    one = command("all", command_all, "everything")
    one.add_argument("--quick", action="store_true", help="fewer combinations and sessions")
    one.add_argument("--full", action="store_true", help="the faults over HTTP/2 with both servers, not with py alone; all sets over TLS with both")
    one.set_defaults(copies=3, via="tidegate", sessions=50)

    args = parser.parse_args()
    if getattr(args, "quick", False):
        args.sessions = 10
    harness.BUDGET = Budget(args.budget)
    work = Work()
    try:
        good = args.function(args, work)
    except Failed as error:
        print(f"run.py: {error}", file=sys.stderr)
        good = False
    if good and not args.keep:
        work.remove()
    else:
        print(f"logs and results: {work.path}", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
