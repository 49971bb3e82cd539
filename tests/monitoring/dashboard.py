"""Does every query of the dashboard say something after `tidegate demo` has had clients for a while?"""

import contextlib
import json
import math
import re
import time

from harness import Failed, Process, get
from names import families, missing
from prometheus import CONF, Prometheus
from traffic import Traffic

DASHBOARD = CONF / "grafana/dashboards/mcp-gateway.json"
# Panels that Grafana has taken out, and some of those that it has.
REMOVED = {"graph", "singlestat", "table-old", "heatmap-old"}
WANTED = {"timeseries", "stat", "table", "heatmap"}
SCHEMA = 42
EXPECTED = ("Request Rate", "Response Time", "Error Rate", "Active Connections", "Server Health")
# What Grafana fills in. `All` is the value of every variable when the dashboard is opened.
FILLED = {"$__rate_interval": "5s", "$__range": "30s", "$job": ".*", "$instance": ".*", "$pool": ".*"}
ADMIN = "127.0.0.1:9090"
# The window of rates, and some scrapes more.
SECONDS = 8
# By which the last query has its answer, on a busy machine.
PATIENCE_SECONDS = 15


def load():
    return json.loads(DASHBOARD.read_text())


def queries(dashboard):
    """Every query: (where it is, its text)."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for note in dashboard["annotations"]["list"]:
        if "expr" in note:
            yield f"annotation {note['name']}", note["expr"]


def variables(dashboard):
    """Every variable that asks Prometheus: (name, selector, label)."""
    for one in dashboard["templating"]["list"]:
        if one["type"] == "query":
            selector, label = re.fullmatch(r"label_values\((.*), (\w+)\)", one["query"]["query"]).groups()
            yield one["name"], selector, label


def filled(expr):
    for name in sorted(FILLED, key=len, reverse=True):
        expr = expr.replace(name, FILLED[name])
    if "$" in expr:
        raise Failed(f"a variable is left over: {expr}")
    return expr


def form():
    """What Grafana would find wrong with the file, as far as one can tell without it."""
    dashboard, wrong = load(), []
    panels = dashboard["panels"]
    kinds = {panel["type"] for panel in panels}
    ids = [panel["id"] for panel in panels]
    if dashboard["title"] != "MCP Gateway Monitoring" or dashboard["schemaVersion"] != SCHEMA:
        wrong.append(f"{dashboard['title']!r}, schemaVersion {dashboard['schemaVersion']}")
    if kinds & REMOVED or not kinds >= WANTED:
        wrong.append(f"kinds of panel: {sorted(kinds)}")
    wrong += [f"no panel {title!r}" for title in EXPECTED if title not in {panel["title"] for panel in panels}]
    if len(set(ids)) != len(ids):
        wrong.append("an id is there twice")
    places = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        if places & cells or at["x"] + at["w"] > 24:
            wrong.append(f"{panel['title']} lies over another panel, or outside")
        places |= cells
        if panel["type"] != "row" and panel["datasource"]["uid"] != "${datasource}":
            wrong.append(f"{panel['title']} has a data source of its own")
        if panel["type"] != "row" and not panel["description"]:
            wrong.append(f"{panel['title']} does not say what it shows")
    return not wrong, "; ".join(wrong) or f"{len(panels)} panels of kinds {' '.join(sorted(kinds))}"


def says_something(samples):
    """At least one that is a number: NaN is what a quantile of nothing is."""
    return any(not math.isnan(value) for _, value in samples)


def run(work, binary, count):
    """The demo, clients, and a Prometheus that scrapes it. Counts one verdict, and one on the names."""
    demo = Process([str(binary), "demo"], work.file("demo.log"))
    prometheus = traffic = None
    try:
        until(lambda: ready(demo), 20, "the demo does not start")
        prometheus = Prometheus(work, ADMIN, sorted((CONF / "prometheus/rules").glob("*.yml")))
        traffic = Traffic(8080, 0.05, {"text": 5})
        begun = time.monotonic()
        known = families(get(f"http://{ADMIN}/metrics"))
        until(lambda: time.monotonic() - begun > SECONDS and traffic.rounds > 5, 40, "too little traffic")
        checked(prometheus, known, count)
    finally:
        for one in (traffic, prometheus, demo):
            if one:
                one.stop()


def ready(demo):
    if demo.child.poll() is not None:
        raise Failed(f"the demo has ended: {demo.text()[-300:]}")
    with contextlib.suppress(OSError):
        return get(f"http://{ADMIN}/metrics").count("tidegate_endpoint_up{") == 3


def checked(prometheus, known, count):
    begun, dashboard = time.monotonic(), load()
    left, awaited, unknown = {}, {}, []
    for where, expr in queries(dashboard):
        waits, never = missing(expr, known, set())
        if never:
            unknown.append(f"{where}: {' '.join(sorted(never))}")
        elif waits:
            awaited[where] = waits
        else:
            left[where] = expr
    count("dashboard: its metrics exist", not unknown, "; ".join(unknown) or told(awaited))
    # An event: nobody starts the demo anew. That Prometheus understands it is all there is to see.
    prometheus.samples(filled(left.pop("annotation Starts")))
    total = len(left)
    while left and time.monotonic() - begun < PATIENCE_SECONDS:
        left = {where: expr for where, expr in left.items() if not says_something(prometheus.samples(filled(expr)))}
        time.sleep(0.2)
    count("dashboard: every query has an answer", not left, f"{total} queries; none: {list(left)}", time.monotonic() - begun)
    empty = [name for name, selector, label in variables(dashboard) if not prometheus.ask(f"label/{label}/values", **{"match[]": filled(selector)})]
    count("dashboard: every variable has values", not empty, f"none: {empty}")
    broken = prometheus.broken_rules()
    count("rules: all can be evaluated", not broken, "; ".join(broken) or "no error")


def told(awaited):
    names = sorted(set().union(*awaited.values()))
    return f"all, but for what is awaited: {' '.join(names)}" if names else "all"


def until(holds, seconds, otherwise):
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise Failed(otherwise)
        time.sleep(0.1)
