#!/usr/bin/env python3
"""Checks conf/prometheus, conf/grafana, conf/elk and conf/kubernetes against a running Tidegate and real peers.

  setup.sh && .cache/monitoring/py/bin/python tests/monitoring/check.py --tidegate target/debug/tidegate

Runs in a network of its own where the system gives one to a user, because `tidegate demo` has fixed addresses.
"""

import argparse
import os
import pathlib
import re
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "sdk"))

import alerts  # noqa: E402
import dashboard  # noqa: E402
import harness  # noqa: E402
import kubernetes  # noqa: E402
import logs  # noqa: E402
import yaml  # noqa: E402
from demo import OWN_NETWORK, loopback_up, unshares  # noqa: E402
from names import AWAITED, families, missing  # noqa: E402
from prometheus import CONF, promtool  # noqa: E402
from run import Tally  # noqa: E402

BUDGET_SECONDS = 120


def rules():
    for path in sorted((CONF / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def told(outcome):
    status, text = outcome
    return status == 0, " ".join(text.split())[-300:] if status else "as promtool sees it"


def every_alert_is_tested():
    """Each has a case in which it fires and one in which it does not."""
    fires, silent, waits = set(), set(), set()
    for path in (HERE / "rules").glob("*.yml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            alone = case.get("alert_rule_test", ())
            firing = {one["alertname"] for one in alone if one.get("exp_alerts")}
            fires |= firing
            quiet = {one["alertname"] for one in alone if not one.get("exp_alerts")}
            silent |= quiet - firing
            waits |= quiet & firing
    named = {rule["alert"] for rule in rules() if "alert" in rule}
    held = {rule["alert"] for rule in rules() if "for" in rule}
    lacking = [f"{name} does not fire" for name in sorted(named - fires)] + [f"{name} is never silent" for name in sorted(named - silent)]
    lacking += [f"{name} does not wait" for name in sorted(held - waits)]
    return not lacking, "; ".join(lacking) or f"{len(named)} alerts"


def metrics_of_the_rules_exist():
    """In what this build documents, which a test in tests/tidy compares with what it exposes."""
    table = (CONF.parent / "docs/metrics.md").read_text()
    known = {}
    for line in table.splitlines():
        kind = re.search(r"\| (counter|gauge|histogram) \|", line)
        if kind:
            known.update(dict.fromkeys(re.findall(r"`(\w+)`", line.split("|")[1]), kind[1]))
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    waits, never = set(), set()
    for rule in rules():
        some, none = missing(rule["expr"], known, recorded)
        waits, never = waits | some, never | none
    there = sorted(AWAITED & known.keys())
    text = f"{len(known)} families; awaited: {' '.join(sorted(waits)) or 'none'}"
    return not never, f"there is no {sorted(never)}" if never else text + (f"; no longer awaited: {' '.join(there)}" if there else "")


def guarded(count, name, function, *argv):
    def job():
        try:
            function(*argv)
        except (harness.Failed, OSError, ValueError, KeyError) as error:
            count(name, False, f"{type(error).__name__}: {error}")

    return job


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidegate", required=True, help="path of the program")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", default="", help="dashboard, alerts or logs alone")
    parser.add_argument("--keep", action="store_true", help="keep logs even when all went well")
    args = parser.parse_args()
    binary = pathlib.Path(args.tidegate).resolve()
    if not args.inside and unshares():
        os.execvp(OWN_NETWORK[0], [*OWN_NETWORK, sys.executable, __file__, *sys.argv[1:], "--inside"])
    if args.inside:
        loopback_up()
    harness.BUDGET = harness.Budget(BUDGET_SECONDS)
    begun, work, tally = time.monotonic(), harness.Work(), Tally()
    prometheus = CONF / "prometheus"
    rule_files = [str(path) for path in sorted((prometheus / "rules").glob("*.yml"))]
    tally.take(
        ()
        if args.only
        else [
            ("prometheus: the configuration", lambda: told(promtool("check", "config", str(prometheus / "prometheus.yml")))),
            ("prometheus: the rules", lambda: told(promtool("check", "rules", "--lint=all", "--lint-fatal", *rule_files))),
            ("prometheus: unit tests of the rules", lambda: told(promtool("test", "rules", *map(str, sorted((HERE / "rules").glob("*.yml")))))),
            ("prometheus: every alert is tested", every_alert_is_tested),
            ("prometheus: the metrics exist", metrics_of_the_rules_exist),
            ("grafana: the dashboard", dashboard.form),
            ("kubernetes: the manifests", lambda: kubernetes.check(work, binary)),
        ]
    )
    real = {"dashboard": dashboard, "alerts": alerts, "logs": logs}
    tally.take_rows(guarded(tally.count, name, part.run, work, binary, tally.count) for name, part in real.items() if args.only in ("", name))
    good = tally.report()
    print(f"took {time.monotonic() - begun:.0f} s", file=sys.stderr)
    if good and not args.keep:
        work.remove()
    else:
        print(f"logs: {work.path}", file=sys.stderr)
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
