"""result.md: the ratios first, then every figure of every scenario."""

from harness.figures import FIGURES, HEADLINE, label, written
from harness.proxies import DIRECT, NAMES

OURS = "tidegate"
# Use of the machine by others, in per cent, from which a reader is warned.
OTHERS_MAX = 5


def about_line(about):
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    machine = about["machine"]
    return (
        f"{versions}; {machine['cores']} cores ({machine['cpu']}), Linux {machine['kernel']}, "
        f"{machine['memory_gib']} GiB, {machine['open_files']} open files, "
        f"load average {machine['load_average_before']:.1f} before"
    )


def markdown(result):
    about = result["about"]
    options = about["options"]
    proxies = order(result)
    lines = [
        "# Side by side",
        "",
        f"{about['date']}. {about_line(about)}.",
        "",
        f"{options['rounds']} rounds of {options['seconds']} s ({options['hold_rounds']} of "
        f"{options['hold_seconds']} s for held streams), proxies in rotating order, each started anew; "
        f"{options['workers']} workers each. Load, proxies and servers share the cores. "
        "Medians, and from least to most over the rounds.",
        "",
    ]
    if about.get("interrupted"):
        lines += ["**The run was interrupted: rounds and scenarios are missing.**", ""]
    lines += failed(result, proxies)
    lines += headline(result, proxies)
    for name, content in result["scenarios"].items():
        lines += scenario(name, about["scenarios"].get(name), content, proxies)
    return "\n".join(lines).rstrip() + "\n"


def order(result):
    seen = {proxy for content in result["scenarios"].values() for proxy in content["proxies"]}
    return [name for name in (*NAMES, DIRECT) if name in seen]


def median(result, scenario, proxy, figure):
    entry = result["scenarios"].get(scenario, {}).get("proxies", {}).get(proxy, {})
    return entry.get("figures", {}).get(figure, {}).get("median")


def failed(result, proxies):
    """What went wrong comes before any figure."""
    lines = []
    for name, content in result["scenarios"].items():
        for proxy in proxies:
            entry = content["proxies"].get(proxy)
            if not entry:
                continue
            if entry["failed_calls"]:
                kinds = ", ".join(f"{count} {kind}" for kind, count in entry["failures"].items())
                lines.append(
                    f"- `{name}`, {proxy}: **{entry['failed_calls']} of {entry['calls']} calls failed** ({kinds})"
                )
            if entry["unsent_calls"]:
                late = f"the rate was not reached, {entry['unsent_calls']} calls were not sent in time"
                lines.append(f"- `{name}`, {proxy}: {late}")
            for problem in dict.fromkeys(entry["problems"]):
                times = entry["problems"].count(problem)
                text = " ".join(problem.split())
                lines.append(f"- `{name}`, {proxy}: {text}" + (f" ({times} times)" if times > 1 else ""))
    if not lines:
        return ["Nothing failed.", ""]
    return ["## What failed", "", *lines, ""]


def headline(result, proxies):
    """Ours over theirs, less being better."""
    peers = [name for name in proxies if name not in (OURS, DIRECT)]
    if OURS not in proxies or not peers:
        return []
    lines = ["## Tidegate over its peers", "", "Below 1 means that Tidegate needs less.", ""]
    lines += table(["scenario", "figure", "Tidegate", *(f"to {name}" for name in peers)])
    for scenario, figure in HEADLINE:
        ours = median(result, scenario, OURS, figure)
        if ours is None:
            continue
        theirs = [median(result, scenario, name, figure) for name in peers]
        ratios = [f"{ours / value:.2f}" if value else "-" for value in theirs]
        unit = FIGURES[figure][1]
        lines.append(row([f"`{scenario}`", label(figure), f"{written(figure, ours)} {unit}", *ratios]))
    return [*lines, ""]


def scenario(name, about, content, proxies):
    lines = [f"## {name}", ""]
    others = content.get("others_percent", 0)
    shared = f"Other programs took {others:.0f} % of the machine meanwhile: repeat it on one that is free."
    for text in (about, content["note"] and f"Note: {content['note']}.", others > OTHERS_MAX and shared):
        lines += [text, ""] if text else []
    seen = {figure for entry in content["proxies"].values() for figure in entry["figures"]}
    if not seen:
        return [*lines, "No figures.", ""]
    present = [name for name in proxies if name in content["proxies"]]
    lines += table(["", *present])
    for figure in FIGURES:
        if figure not in seen:
            continue
        cells = [cell(content["proxies"].get(proxy), figure) for proxy in present]
        lines.append(row([f"{label(figure)}, {FIGURES[figure][1]}".rstrip(", "), *cells]))
    return [*lines, ""]


def cell(entry, figure):
    found = entry and entry["figures"].get(figure)
    if not found:
        return "-"
    middle, least, most = (written(figure, found[key]) for key in ("median", "min", "max"))
    return middle if len(found["rounds"]) == 1 or least == most else f"{middle} ({least}-{most})"


def table(head):
    return [row(head), row(["---", *("--:" for _ in head[1:])])]


def row(cells):
    return f"| {' | '.join(cells)} |"
