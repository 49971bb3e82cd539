"""Names, units and order of the figures that scenarios record."""

# figure: (what a table calls it, its unit, digits after the point)
FIGURES = {
    "start_ms": ("from exec to the first answer", "ms", 1),
    "idle_mib": ("memory at rest (PSS)", "MiB", 1),
    "per_second": ("answered", "/s", 0),
    "per_second_64": ("answered at most, 64 connections", "/s", 0),
    "per_second_512": ("answered at most, 512 connections", "/s", 0),
    "handshakes_per_second": ("answered at most, a new connection each", "/s", 0),
    "cpu_us": ("CPU per call", "us", 1),
    "cpu_us_64": ("CPU per call at most, 64 connections", "us", 1),
    "cpu_us_512": ("CPU per call at most, 512 connections", "us", 1),
    "cpu_us_handshake": ("CPU per call on a new connection", "us", 1),
    "cpu_us_few": ("CPU per call beside 10 streams", "us", 1),
    "cpu_us_many": ("CPU per call beside many streams", "us", 1),
    "cpu_percent": ("CPU while holding", "% of a core", 1),
    "pss_kib_per_stream": ("memory per stream (PSS)", "KiB", 1),
    "pss_mib_held": ("memory with all streams", "MiB", 1),
    "pss_mib_after": ("memory after the last has ended", "MiB", 1),
    "first_mib": ("memory with all streams the first time", "MiB", 1),
    "last_mib": ("memory with all streams the last time", "MiB", 1),
    "open_p99_us": ("opening a session and its stream, p99", "ms", 1),
    "delay_p50_us": ("event delay p50", "ms", 2),
    "delay_p99_us": ("event delay p99", "ms", 2),
    "delay_max_us": ("event delay max", "ms", 1),
    "call_p99_us": ("calls beside, p99", "ms", 2),
    "p99_us_rest": ("latency p99 at rest", "ms", 2),
    "p99_us_reloads": ("latency p99 with two reloads a second", "ms", 2),
    "p999_us_rest": ("latency p99.9 at rest", "ms", 2),
    "p999_us_reloads": ("latency p99.9 with two reloads a second", "ms", 2),
    "reload_p50_us": ("a reload, half of them within", "ms", 1),
    "reload_max_us": ("a reload, at most", "ms", 1),
    "missing_events": ("missing events", "", 0),
    "repeated_events": ("repeated events", "", 0),
}
for _share in (50, 70):
    FIGURES[f"cpu_us_at_{_share}"] = (f"CPU per call at {_share} %", "us", 1)
    for _point, _name in (("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("p999", "p99.9")):
        FIGURES[f"{_point}_us_at_{_share}"] = (f"latency {_name} at {_share} %", "ms", 2)
for _label, _beside in (("few", "10"), ("many", "many")):
    for _point in ("p50", "p99"):
        FIGURES[f"{_point}_us_{_label}"] = (f"latency {_point} beside {_beside} streams", "ms", 2)
for _kind, _called in (
    ("stateless", "stateless call"),
    ("session", "session call"),
    ("body", "256 KiB up and down"),
    ("websocket", "WebSocket message"),
):
    for _point in ("p50", "p99"):
        FIGURES[f"{_kind}_{_point}_us"] = (f"{_called}, {_point}", "ms", 2)

# What stands in the headline: per scenario its figures, less being better.
HEADLINE = (
    ("start", "start_ms"),
    ("start", "idle_mib"),
    ("stateless", "cpu_us_64"),
    ("stateless", "cpu_us_512"),
    ("stateless", "cpu_us_at_50"),
    ("session", "cpu_us_64"),
    ("session", "cpu_us_512"),
    ("session", "cpu_us_at_50"),
    ("streaming", "cpu_us_64"),
    ("churn", "cpu_us"),
    ("bodies", "cpu_us"),
    ("websocket", "cpu_us_64"),
    ("tls", "cpu_us_64"),
    ("tls", "cpu_us_handshake"),
    ("access-log", "cpu_us_64"),
    ("mixed", "cpu_us"),
    ("held-2000", "pss_kib_per_stream"),
    ("held-8000", "pss_kib_per_stream"),
    ("held-8000", "delay_p99_us"),
    ("beside-idle", "cpu_us_many"),
    ("stateless", "p99_us_at_50"),
    ("stateless", "p99_us_at_70"),
    ("session", "p99_us_at_50"),
    ("session", "p99_us_at_70"),
)


def label(name):
    return FIGURES[name][0]


def scaled(name, value):
    """A recorded value in the unit of the table."""
    return value / 1e3 if FIGURES[name][1] == "ms" and name != "start_ms" else value


def written(name, value):
    return f"{scaled(name, value):,.{FIGURES[name][2]}f}"
