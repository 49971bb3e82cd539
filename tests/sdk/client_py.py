"""Test client on the Python package mcp 2.3. Prints one line of JSON; exits 0 when all was well."""

import argparse
import asyncio
import collections
import json
import sys
import time

from mcp import Client
from mcp.client.sse import sse_client

# Errors listed in the report; the rest is only counted.
ERRORS_MAX = 20


def told(error):
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    code = getattr(getattr(error, "error", None), "code", None)
    return {"name": type(error).__name__, "code": code, "message": str(error)[:300]}


def connect(args):
    target = sse_client(args.url) if args.scenario == "sse" else args.url
    mode = "legacy" if args.scenario == "sse" else {"modern": "2026-07-28"}.get(args.mode, args.mode)
    # No response cache: every call is meant to reach the server.
    return Client(target, mode=mode, cache=None, read_timeout_seconds=args.timeout / 1000)


async def one(args, session, report, fail):
    async with connect(args) as client:
        version = client.session.protocol_version
        report["versions"][version] += 1
        in_session = version < "2026"
        names = set()

        async def ask(tool, given):
            result = await client.call_tool(tool, given)
            report["calls"] += 1
            return result.content[0].text

        for call in range(1, args.calls + 1):
            # Two at once, so that replies can cross.
            word = f"{session}/{call}/é"
            first = ask("counter", {}) if in_session else ask("echo", {"text": word})
            counted, name = await asyncio.gather(first, ask("whoami", {}))
            names.add(name)
            report["names"][name] += 1
            expected = str(call) if in_session else word
            if counted != expected:
                fail(session, {"message": f"expected {expected}, got {counted}"})
        if in_session and len(names) > 1:
            fail(session, {"message": f"answered by {', '.join(sorted(names))}"})
    report["sessions"] += 1


async def calls(args):
    report = {
        "sessions": 0, "calls": 0, "errors": [], "errorCount": 0,
        "names": collections.Counter(), "versions": collections.Counter(), "ok": False,
    }  # fmt: skip

    def fail(session, what):
        report["errorCount"] += 1
        if len(report["errors"]) < ERRORS_MAX:
            report["errors"].append({"session": session, **what})

    numbers = iter(range(1, args.sessions + 1))

    async def worker():
        for session in numbers:
            try:
                await one(args, session, report, fail)
            except (Exception, BaseExceptionGroup) as error:
                fail(session, told(error))

    await asyncio.gather(*(worker() for _ in range(args.concurrency)))
    report["ok"] = report["errorCount"] == 0 and report["sessions"] == args.sessions
    return report


async def ticks(args):
    report = {"scenario": "ticks", "ticks": 0, "outcome": None, "ms": 0, "last_tick_ms": None, "followup": None, "ok": False}
    start = time.monotonic()

    def since(moment=None):
        return round((time.monotonic() - (start if moment is None else moment)) * 1000)

    async def progress(*_):
        report["ticks"] += 1
        report["last_tick_ms"] = since()

    try:
        async with connect(args) as client:
            report["version"] = client.session.protocol_version
            start = time.monotonic()
            try:
                given = {"n": args.n, "every_ms": args.every}
                result = await client.call_tool("ticks", given, progress_callback=progress)
                report["outcome"] = result.content[0].text
            except Exception as error:
                report["error"] = told(error)
            report["ms"] = since()
            # Does the session still work afterwards?
            again = time.monotonic()
            try:
                report["followup"] = (await client.call_tool("whoami", {})).content[0].text
            except Exception as error:
                report["followup_error"] = told(error)
            report["followup_ms"] = since(again)
    except (Exception, BaseExceptionGroup) as error:
        # A transport error takes the whole client of this SDK with it.
        report["client_error"] = told(error)
        report["ms"] = report["ms"] or since()
    report["ok"] = report["outcome"] is not None and report["ticks"] == args.n
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--sessions", type=int, default=1, help="how many clients, one after another")
    parser.add_argument("--concurrency", type=int, default=10, help="how many of them at a time")
    parser.add_argument("--calls", type=int, default=3, help="how many times each client calls each tool")
    parser.add_argument("--timeout", type=int, default=15000, help="of one call, in milliseconds")
    parser.add_argument("--scenario", choices=("calls", "ticks", "sse"), default="calls")
    parser.add_argument("--mode", choices=("legacy", "auto", "modern"), default="auto", help="auto is this SDK's default")
    parser.add_argument("--n", type=int, default=20, help="ticks: how many")
    parser.add_argument("--every", type=int, default=250, help="ticks: how often, in milliseconds")
    args = parser.parse_args()
    report = asyncio.run(ticks(args) if args.scenario == "ticks" else calls(args))
    print(json.dumps(report))
    sys.exit(0 if report["ok"] else 1)


if __name__ == "__main__":
    main()
