#!/usr/bin/env python3
"""Measures Tidegate side by side with nginx, HAProxy and Envoy, on loopback.

  run.py                              everything, under an hour
  run.py --quick                      the most telling scenarios, under five minutes
  run.py --only session,held-2000 --proxies tidegate,haproxy --rounds 3 --seconds 5

Run setup.sh first. README.md says what is measured and how to read it. Results are written to
results/: result.json with every value, result.md with the tables, and plots.
"""

import argparse
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

from harness import calls, reload, report, streams, tools, whole
from harness.bench import Bench
from harness.drivers import Drivers
from harness.process import Child, Failed, Others, files_allowed, prepare
from harness.proxies import NAMES
from harness.record import Record

SCENARIOS = {
    "start": whole.start,
    "stateless": calls.stateless,
    "session": calls.session,
    "streaming": calls.streaming,
    "churn": calls.churn,
    "held-2000": streams.held(2_000),
    "held-8000": streams.held(8_000),
    "held-http2": streams.held_http2,
    "bodies": calls.bodies,
    "websocket": calls.websocket,
    "tls": calls.tls,
    "mixed": whole.mixed,
    "access-log": calls.access_log,
    "reload": reload.reload,
    "beside-idle": streams.beside_idle,
    "cycles": streams.cycles,
}
# Their driver, where it is not our own tool.
DRIVERS = {"stateless": "oha", "access-log": "oha", "tls": "oha", "mixed": "k6"}
QUICK = ("start", "stateless", "session", "churn", "held-2000")

# Rounds, seconds of a run of calls, the same of held streams, and minutes in all. `shares`: fixed
# rates, in per cent of what the slowest proxy can do.
FULL_SIZE = {
    "rounds": 5,
    "seconds": 4,
    "hold_rounds": 3,
    "hold_seconds": 8,
    "cycles": 10,
    "shares": (50, 70),
    "minutes": 58,
}
QUICK_SIZE = {
    "rounds": 2,
    "seconds": 2,
    "hold_rounds": 1,
    "hold_seconds": 4,
    "cycles": 3,
    "shares": (50,),
    "minutes": 5,
}


def main():
    options = read_options()
    prepare()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-loadtest-"))
    # nginx's workers may run as another user, who must be able to reach their files.
    folder.chmod(0o755)
    try:
        measure(options, folder)
    except Failed as reason:
        sys.exit(f"run.py: {reason}")
    finally:
        Child.stop_all()
        if options.keep:
            print(f"configurations and logs: {folder}")
        else:
            shutil.rmtree(folder)


def measure(options, folder):
    binaries = find_programs(options)
    about = describe(options, binaries)
    record = Record(about)
    bench = Bench(options, folder, binaries, Drivers(folder, binaries), record)
    bench.say(report.about_line(about))
    try:
        run_all(bench, options)
    except KeyboardInterrupt:
        bench.say("interrupted; what is there is written")
        about["interrupted"] = True
    write(record.result(), options.results)
    if about.get("interrupted"):
        sys.exit(130)


def describe(options, binaries):
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {name: tools.version(name, path) for name, path in binaries.items()},
        "machine": tools.machine() | {"open_files": files_allowed()},
        "options": {name: value for name, value in vars(options).items() if name in FULL_SIZE}
        | {"workers": options.workers, "quick": options.quick},
        "scenarios": {name: " ".join(SCENARIOS[name].__doc__.split()) for name in options.only},
    }


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, short runs, fewer scenarios")
    parser.add_argument("--only", help=f"scenarios, of {','.join(SCENARIOS)}")
    parser.add_argument("--proxies", default=",".join(NAMES), help="default %(default)s")
    parser.add_argument("--rounds", type=int, help="rounds of every scenario")
    parser.add_argument("--seconds", type=int, help="length of one run")
    parser.add_argument("--minutes", type=int, help="no round is begun after this time")
    parser.add_argument("--workers", type=int, default=2, help="threads or processes of a proxy, default %(default)s")
    parser.add_argument("--cycle-proxies", default="tidegate", help="who runs `cycles`, default %(default)s")
    parser.add_argument("--tidegate", help="its binary, default target/release/tidegate")
    parser.add_argument("--loadtest", help="the tool's binary, default target/release/loadtest")
    parser.add_argument("--results", type=pathlib.Path, default=tools.HERE / "results", help="where results go")
    parser.add_argument("--keep", action="store_true", help="keep the folder with configurations and logs")
    options = parser.parse_args()
    size = QUICK_SIZE if options.quick else FULL_SIZE
    if options.rounds:
        size = size | {"rounds": options.rounds, "hold_rounds": options.rounds}
    if options.seconds:
        size = size | {"seconds": options.seconds, "hold_seconds": options.seconds}
    if options.minutes:
        size = size | {"minutes": options.minutes}
    for name, value in size.items():
        setattr(options, name, value)
    for name, most in (("rounds", 50), ("seconds", 120), ("minutes", 600), ("workers", 64)):
        if not 1 <= getattr(options, name) <= most:
            parser.error(f"--{name}: 1 to {most}")
    everything = QUICK if options.quick else tuple(SCENARIOS)
    options.only = known(parser, "--only", options.only or ",".join(everything), SCENARIOS)
    options.proxies = known(parser, "--proxies", options.proxies, NAMES)
    options.cycle_proxies = known(parser, "--cycle-proxies", options.cycle_proxies, NAMES)
    return options


def known(parser, option, given, names):
    found = [word.strip() for word in given.split(",") if word.strip()]
    strange = [word for word in found if word not in names]
    if strange or not found:
        parser.error(f"{option}: {', '.join(strange) or 'nothing'}; known: {', '.join(names)}")
    return found


def find_programs(options):
    built = tools.HERE.parent / "target/release"
    own = {
        "tidegate": options.tidegate or built / "tidegate",
        "loadtest": options.loadtest or built / "loadtest",
    }
    drivers = sorted({DRIVERS[name] for name in options.only if name in DRIVERS})
    return {name: tools.find(name, own.get(name)) for name in [*options.proxies, "loadtest", *drivers]}


def run_all(bench, options):
    others = Others()
    for name in options.only:
        bench.record.note(name, "")
        try:
            SCENARIOS[name](bench)
        except Failed as reason:
            bench.say(f"{name} failed: {reason}")
            for proxy in options.proxies:
                bench.record.problem(name, proxy, f"the scenario failed: {reason}")
        bench.record.others(name, others.percent())


def write(result, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    text = report.markdown(result)
    (folder / "result.md").write_text(text)
    print(f"\n{text}")
    # Plots need a library that only the environment of setup.sh has.
    done = subprocess.run([tools.PYTHON, tools.HERE / "harness/plots.py", folder / "result.json", folder], check=False)
    print(f"written to {folder}" + ("" if done.returncode == 0 else ", without plots"))


if __name__ == "__main__":
    main()
