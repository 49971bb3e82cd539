"""Plots of a result, as SVG. Run by run.py with the Python environment of setup.sh.

plots.py result.json FOLDER
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "tidegate"
import matplotlib.pyplot as plt  # noqa: E402

COLOURS = {"tidegate": "#0b6e8a", "nginx": "#5b9a3c", "haproxy": "#c2632b", "envoy": "#8a5bb0", "direct": "#999999"}
POINTS = ("p50", "p90", "p99", "p999")
# Plots that put one figure of several scenarios side by side: file, title, unit, what to show.
BARS = (
    (
        "cpu",
        "CPU of the proxy per call",
        "us, user and system",
        (
            ("stateless", "cpu_us_64", "stateless,\n64 connections"),
            ("stateless", "cpu_us_512", "stateless,\n512 connections"),
            ("session", "cpu_us_64", "session"),
            ("streaming", "cpu_us_64", "streaming"),
            ("websocket", "cpu_us_64", "websocket"),
            ("access-log", "cpu_us_64", "stateless,\naccess log"),
            ("tls", "cpu_us_64", "stateless,\nTLS"),
        ),
    ),
    (
        "throughput",
        "Calls answered at most; load, proxy and servers share the cores",
        "calls per second",
        (
            ("stateless", "per_second_64", "stateless,\n64 connections"),
            ("stateless", "per_second_512", "stateless,\n512 connections"),
            ("session", "per_second_64", "session"),
            ("streaming", "per_second_64", "streaming"),
            ("websocket", "per_second_64", "websocket"),
        ),
    ),
    (
        "memory",
        "Memory of the proxy per open stream",
        "KiB (PSS)",
        (
            ("held-2000", "pss_kib_per_stream", "2,000 streams"),
            ("held-8000", "pss_kib_per_stream", "8,000 streams"),
        ),
    ),
    (
        "idle",
        "CPU per session call beside idle streams",
        "us, user and system",
        (("beside-idle", "cpu_us_few", "10 streams"), ("beside-idle", "cpu_us_many", "many streams")),
    ),
)


def figure(result, scenario, proxy, name):
    entry = result["scenarios"].get(scenario, {}).get("proxies", {}).get(proxy, {})
    return entry.get("figures", {}).get(name)


def proxies(result):
    seen = {proxy for content in result["scenarios"].values() for proxy in content["proxies"]}
    return [name for name in COLOURS if name in seen]


def bars(result, folder, name, title, unit, wanted):
    names = [proxy for proxy in proxies(result) if any(figure(result, one[0], proxy, one[1]) for one in wanted)]
    groups = [one for one in wanted if any(figure(result, one[0], proxy, one[1]) for proxy in names)]
    if not groups:
        return
    plot, axes = plt.subplots(figsize=(max(5, 1.8 * len(groups) + 1.5), 4))
    width = 0.8 / len(names)
    for index, proxy in enumerate(names):
        found = [figure(result, scenario, proxy, key) for scenario, key, _ in groups]
        places = [at + index * width for at, value in enumerate(found) if value]
        found = [value for value in found if value]
        middles = [value["median"] for value in found]
        reach = [
            [value["median"] - value["min"] for value in found],
            [value["max"] - value["median"] for value in found],
        ]
        axes.bar(places, middles, width * 0.9, yerr=reach, color=COLOURS[proxy], label=proxy, ecolor="#444444")
    axes.set_xticks([at + 0.4 - width / 2 for at in range(len(groups))], [label for _, _, label in groups], fontsize=8)
    finish(plot, axes, folder, name, title, unit)


def latencies(result, folder, scenario):
    shares = [
        share
        for share in (50, 70)
        if any(figure(result, scenario, proxy, f"p50_us_at_{share}") for proxy in proxies(result))
    ]
    if not shares:
        return
    plot, panels = plt.subplots(1, len(shares), figsize=(4.5 * len(shares), 4), sharey=True, squeeze=False)
    for axes, share in zip(panels[0], shares, strict=True):
        for proxy in proxies(result):
            found = [figure(result, scenario, proxy, f"{point}_us_at_{share}") for point in POINTS]
            if all(found):
                axes.plot(
                    POINTS, [value["median"] / 1e3 for value in found], marker="o", color=COLOURS[proxy], label=proxy
                )
        axes.set_title(f"at {share} %", fontsize=9)
        axes.set_xticks(range(4), ["p50", "p90", "p99", "p99.9"])
        axes.set_yscale("log")
    plot.suptitle(f"Latency of {scenario} calls at shares of the slowest proxy's most", fontsize=10)
    finish(plot, panels[0][0], folder, f"latency-{scenario}", None, "ms, from when a call was due")


def growth(result, folder):
    plot, axes = plt.subplots(figsize=(6, 4))
    for proxy in proxies(result):
        for name, style, what in (("pss_mib_held", "-", "held"), ("pss_mib_after", "--", "closed")):
            found = figure(result, "cycles", proxy, name)
            if found:
                values = found["rounds"]
                axes.plot(
                    range(1, len(values) + 1), values, style, marker="o", color=COLOURS[proxy], label=f"{proxy}, {what}"
                )
    if axes.lines:
        axes.set_xlabel("round")
        axes.set_ylim(bottom=0)
        finish(plot, axes, folder, "cycles", "Opening and closing 5,000 streams again and again", "MiB (PSS)")
    plt.close(plot)


def finish(plot, axes, folder, name, title, unit):
    if title:
        axes.set_title(title, fontsize=10)
    axes.set_ylabel(unit)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(fontsize=8)
    plot.tight_layout()
    plot.savefig(folder / f"{name}.svg", metadata={"Date": None})
    plt.close(plot)


def main():
    result, folder = json.loads(pathlib.Path(sys.argv[1]).read_text()), pathlib.Path(sys.argv[2])
    # Those of another run would lie beside these results.
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, title, unit, wanted in BARS:
        bars(result, folder, name, title, unit, wanted)
    for scenario in ("stateless", "session", "streaming", "websocket"):
        latencies(result, folder, scenario)
    growth(result, folder)


if __name__ == "__main__":
    main()
