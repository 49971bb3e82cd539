"""Starts and stops what a run needs, each by its own id, and reads what it uses from /proc.

Knows nothing of proxies or of load.
"""

import atexit
import contextlib
import os
import pathlib
import random
import resource
import signal
import socket
import subprocess
import sys
import time

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 5


class Failed(Exception):
    """A measurement that could not be made, and why."""


class Child:
    """One process, its output in a file. Ends with this program, whatever ends that."""

    live = []

    def __init__(self, argv, log, cwd=None):
        self.name = pathlib.Path(argv[0]).name
        self.log = pathlib.Path(log)
        with self.log.open("wb") as out:
            # A group of its own: Ctrl-C reaches this program only, which then ends its children.
            self.process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                start_new_session=True,
            )
        self.pid = self.process.pid
        Child.live.append(self)

    def output(self):
        return self.log.read_text(errors="replace")

    def ended(self):
        return self.process.poll() is not None

    def wait(self, seconds):
        """Waits for its end and returns its output; fails when it takes longer."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise Failed(f"{self.name} did not end within {seconds:.0f} s") from None
        Child.live.remove(self)
        return self.output()

    def stop(self):
        """Asks it and its own children to end, and makes them after some seconds."""
        if self in Child.live:
            Child.live.remove(self)
        if self.ended():
            return
        family = tree(self.pid)
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in family:
                kill(pid)
            self.process.wait()

    @classmethod
    def stop_all(cls):
        for child in list(cls.live):
            child.stop()


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def prepare():
    """Makes every way this program can end take its children along, and allows open files."""
    atexit.register(Child.stop_all)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(143))
    # Whoever starts this in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def files_allowed():
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def free_ports(count):
    """Ports on which nothing listens, all different, below those that the kernel gives to connections: it
    could give one away before its program listens."""
    lowest = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    tries = range(20_000, lowest) if lowest > 21_000 else range(20_000, 32_768)
    found = []
    for port in random.sample(tries, len(tries)):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise Failed(f"no {count} free ports")


def run(argv, seconds=30):
    """The output of a short command, both streams; fails when the command fails."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise Failed(f"{pathlib.Path(argv[0]).name}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout + done.stderr


def tree(pid):
    """The process and everything below it."""
    found = [pid]
    for one in found:
        try:
            for task in pathlib.Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def cpu_seconds(pids):
    """User and system time of the processes so far."""
    total = 0
    for pid in pids:
        try:
            # The name, in parentheses, may hold anything.
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            raise Failed(f"process {pid} has gone") from None
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


class Others:
    """What programs that are not ours take of the machine, and what its host withholds."""

    def __init__(self):
        self.total, self.idle, self.ours = self._now()

    def percent(self):
        """Since the last call, of all cores; to be asked when no child is running."""
        total, idle, ours = self._now()
        spent, free, own = total - self.total, idle - self.idle, ours - self.ours
        self.total, self.idle, self.ours = total, idle, ours
        return max(0.0, 100 * (spent - free - own) / spent) if spent > 0 else 0.0

    @staticmethod
    def _now():
        fields = [int(word) for word in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        ours = sum(one.ru_utime + one.ru_stime for one in used)
        # Idle, and waiting for the disk.
        return sum(fields) / TICKS, (fields[3] + fields[4]) / TICKS, ours


def pss_kib(pids):
    """Memory that is the processes' own: a page shared by n processes counts 1/n."""
    total = 0
    for pid in pids:
        try:
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            raise Failed(f"process {pid} has gone") from None
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def until(condition, seconds, what, step=0.005):
    """Polls until the condition holds; fails after that many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what} within {seconds} s")
        time.sleep(step)
