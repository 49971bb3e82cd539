"""Where the programs are, and what versions they have."""

import os
import pathlib
import platform
import re
import shutil

from harness.process import Failed, run

HERE = pathlib.Path(__file__).resolve().parent.parent
CACHE = pathlib.Path(os.environ.get("TIDEGATE_LOADTEST_CACHE") or HERE.parent / ".cache" / "loadtest").resolve()
PYTHON = CACHE / "py/bin/python"


def find(name, given=None):
    """The path of a program: as given, installed by setup.sh, or the system's."""
    if given:
        path = pathlib.Path(given).resolve()
        if not path.is_file():
            raise Failed(f"{given}: no such file")
        return path
    # Debian keeps servers in a folder that is not in everybody's PATH.
    places = os.pathsep.join([str(CACHE / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=places)
    if not found:
        raise Failed(f"{name} is missing: run loadtest/setup.sh")
    return pathlib.Path(found)


VERSIONS = {
    "tidegate": (["--version"], r"tidegate (\S+)"),
    "nginx": (["-v"], r"nginx/(\S+)"),
    "haproxy": (["-v"], r"version (\S+)"),
    "envoy": (["--version"], r"/(\d[\d.]+)/"),
    "oha": (["--version"], r"oha (\S+)"),
    "k6": (["version"], r"k6 v(\S+)"),
    "loadtest": (["--version"], r"loadtest (\S+)"),
}


def version(name, path):
    options, pattern = VERSIONS[name]
    found = re.search(pattern, run([path, *options]))
    return found.group(1) if found else "unknown"


def machine():
    """What the figures depend on besides the programs."""
    cpu = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": cpu.group(1) if cpu else platform.machine(),
        "memory_gib": round(int(memory.group(1)) / 1024 / 1024, 1) if memory else None,
        "kernel": platform.release(),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "load_average_before": os.getloadavg()[0],
    }
