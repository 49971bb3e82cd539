"""The unit under a real systemd, from inside of the system that run.sh has booted."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

from client import Load, Session, Stream

UNIT, SOCKET = "tidegate.service", "tidegate.socket"
BINARY = Path("/usr/bin/tidegate")
CONFIG = Path("/etc/tidegate/tidegate.yaml")
ACCESS_LOG = Path("/var/log/tidegate/access.log")
# Below 1024, so that the capability is needed.
PORT, SECOND_PORT = 80, 8081
PATIENCE = 20
# The names are looked up by DNS: one server answers them all.
GOOD = """
listeners:
  - bind: 127.0.0.1:80
{more}
routes:
  - {{ path: /mcp, pool: weather }}
pools:
  weather:
    eras: session
    health: {{ interval: 250ms }}
    endpoints: [one.test:9001, two.test:9002]
log: {{ access: /var/log/tidegate/access.log }}
drain_timeout: 4s
drain_jitter: 1s
"""
SECOND = f"  - bind: 127.0.0.1:{SECOND_PORT}"


def run(*words):
    return subprocess.run(words, capture_output=True, text=True)


def must(*words):
    done = run(*words)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def show(what, unit=UNIT):
    return must("systemctl", "show", "--value", f"--property={what}", unit).strip()


def main_pid():
    return int(show("MainPID"))


def wait(what, until):
    """Seconds until it is so."""
    since = time.monotonic()
    while not until():
        assert time.monotonic() < since + PATIENCE, f"{what}: not within {PATIENCE} s"
        time.sleep(0.01)
    return time.monotonic() - since


def answers(port=PORT):
    try:
        Session(port)
        return True
    except (OSError, AssertionError):
        return False


def configure(more=""):
    CONFIG.write_text(GOOD.format(more=more))


def journal():
    must("journalctl", "--sync")
    return must("journalctl", "--unit", UNIT, "--output=cat")


def put_binary(source):
    """As a package manager does: a new file in the place of the old one."""
    draft = BINARY.with_suffix(".new")
    shutil.copy(source, draft)
    os.replace(draft, BINARY)


def processes():
    # The cgroup's path depends on how the host has mounted it.
    group = show("ControlGroup")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place = Path(line.split()[1] + group) / "cgroup.procs"
        if " cgroup" in line and group and place.exists():
            return [int(pid) for pid in place.read_text().split()]
    return []


def installs():
    must("dpkg", "--install", "/tests/1.deb")
    assert (show("ActiveState"), show("UnitFileState")) == ("inactive", "disabled")
    must("su", "--shell=/bin/sh", "tidegate", "--command", f"tidegate -t -c {CONFIG}")
    tls = Path("/etc/tidegate/tls")
    assert (tls.group(), tls.stat().st_mode & 0o777) == ("tidegate", 0o750)
    configure()
    return "from the package; nothing is started"


def starts():
    must("systemctl", "start", UNIT)
    assert show("ActiveState") == "active"
    status = Path(f"/proc/{main_pid()}/status").read_text()
    user = must("id", "-u", "tidegate").strip()
    assert f"Uid:\t{user}\t" in status, status
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status, status
    # The machine may allow less.
    most = min(1_048_576, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    limits = Path(f"/proc/{main_pid()}/limits").read_text().splitlines()
    (files,) = [line.split()[3:5] for line in limits if line.startswith("Max open files")]
    assert files == [str(most)] * 2, files
    assert {Session(PORT).server[0] for _ in range(20)} == {"one", "two"}
    wait("the access log", lambda: ACCESS_LOG.exists() and "initialize" in ACCESS_LOG.read_text())
    key = Path("/var/lib/tidegate/session.key").stat()
    assert (key.st_uid, key.st_mode & 0o777) == (int(user), 0o600), key
    return "as its own user, port 80, names by DNS, log and key written"


def reloads_a_good_file():
    before, session = main_pid(), Session(PORT)
    with Load([session], PORT) as load:
        configure(SECOND)
        since = time.monotonic()
        must("systemctl", "reload", UNIT)
        seconds = time.monotonic() - since
        assert answers(SECOND_PORT)
    assert (show("ActiveState"), main_pid()) == ("active", before)
    assert not load.failed, load.failed[:3]
    assert session.goes_on(SECOND_PORT)
    return f"a listener more after {seconds:.2f} s, {load.made} calls meanwhile, 0 failed"


def keeps_the_configuration_when_the_file_is_wrong():
    before, session = main_pid(), Session(PORT)
    with Load([session], PORT) as load:
        CONFIG.write_text(GOOD.format(more=SECOND).replace("pool: weather", "pool: wether"))
        assert run("systemctl", "reload", UNIT).returncode != 0
    said = journal()
    assert "wether" in said and "^" in said, said
    assert (show("ActiveState"), main_pid()) == ("active", before)
    assert not load.failed, load.failed[:3]
    assert session.goes_on(SECOND_PORT)
    configure()
    must("systemctl", "reload", UNIT)
    wait("the end of the second listener", lambda: not answers(SECOND_PORT))
    return f"`systemctl reload` fails, {load.made} calls meanwhile, 0 failed"


def reopens_its_log():
    old = ACCESS_LOG.with_suffix(".log.1")
    must("logrotate", "--force", "/etc/logrotate.d/tidegate")
    wait("a new log", lambda: answers() and ACCESS_LOG.exists() and ACCESS_LOG.stat().st_size > 0)
    turned = old.stat().st_size
    assert answers()
    assert old.stat().st_size == turned > 0
    assert ACCESS_LOG.stat().st_mode & 0o777 == 0o640
    return "turned by logrotate"


def upgrades():
    sessions = [Session(PORT) for _ in range(8)]
    states, stop = set(), threading.Event()

    def watch():
        while not stop.is_set():
            states.add(show("ActiveState"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    took = []
    with Load(sessions, PORT) as load:
        for _ in range(3):
            before, stream = main_pid(), Stream(sessions[0], PORT)
            put_binary(BINARY)
            must("systemctl", "kill", "--signal=USR2", "--kill-whom=main", UNIT)
            took.append(wait("another main process", lambda: main_pid() != before))
            program = os.readlink(f"/proc/{main_pid()}/exe")
            assert program == str(BINARY), program
            assert stream.ended is None, stream.ended
            wait("the end of the old process", lambda: before not in processes())
            assert stream.ended == "properly", stream.ended
    stop.set()
    watcher.join()
    assert states <= {"active", "reloading"}, states
    assert not load.failed, f"{len(load.failed)} of {load.made}: {load.failed[:3]}"
    assert all(session.goes_on(PORT) for session in sessions)
    return (f"3 times, {max(took):.2f} s at most until MAINPID; {load.made} calls, 0 lost, "
            f"the slowest {load.slowest * 1000:.0f} ms; streams ended by the old process at its deadline")


def is_replaced_when_its_package_is_upgraded():
    before, session = main_pid(), Session(PORT)
    with Load([session], PORT) as load:
        must("dpkg", "--install", "/tests/2.deb")
        assert main_pid() != before
    assert show("ActiveState") == "active"
    assert os.readlink(f"/proc/{main_pid()}/exe") == str(BINARY)
    assert not load.failed, load.failed[:3]
    assert session.goes_on(PORT)
    return f"{load.made} calls meanwhile, 0 failed"


def survives_a_binary_that_does_not_start():
    before, session = main_pid(), Session(PORT)
    kept = BINARY.with_suffix(".kept")
    shutil.copy(BINARY, kept)
    with Load([session], PORT) as load:
        put_binary("/bin/false")
        must("systemctl", "kill", "--signal=USR2", "--kill-whom=main", UNIT)
        wait("the refusal", lambda: "not replaced" in journal())
        put_binary(kept)
    assert (show("ActiveState"), main_pid()) == ("active", before)
    assert not load.failed, load.failed[:3]
    return f"the old process serves on, {load.made} calls, 0 failed"


def comes_back_when_it_is_killed():
    sessions = [Session(PORT) for _ in range(20)]
    took = []
    for _ in range(3):
        before = main_pid()
        os.kill(before, signal.SIGKILL)
        wait("the end", lambda: not Path(f"/proc/{before}").exists())
        took.append(wait("a call", lambda: answers()))
        assert all(session.goes_on(PORT) for session in sessions)
    assert max(took) < 2, took
    return f"3 times, {max(took):.2f} s at most until it serves, 20 of 20 sessions go on each time"


def comes_back_when_it_is_killed_while_its_forerunner_drains():
    sessions = [Session(PORT) for _ in range(5)]
    before, stream = main_pid(), Stream(sessions[0], PORT)
    must("systemctl", "kill", "--signal=USR2", "--kill-whom=main", UNIT)
    wait("another main process", lambda: main_pid() != before)
    assert stream.ended is None, stream.ended
    os.kill(main_pid(), signal.SIGKILL)
    took = wait("a call", lambda: answers())
    assert all(session.goes_on(PORT) for session in sessions)
    assert stream.ended == "properly", stream.ended
    assert took < 2, took
    return f"{took:.2f} s until it serves; the stream in the old process ended properly"


def is_restarted_when_it_hangs():
    drop_in = Path(f"/run/systemd/system/{UNIT}.d/watchdog.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=2\n")
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", UNIT)
    session, before = Session(PORT), main_pid()
    time.sleep(4)
    assert main_pid() == before, "the watchdog bites a process that is well"
    os.kill(before, signal.SIGSTOP)
    took = wait("another process", lambda: main_pid() not in (0, before) and answers())
    assert session.goes_on(PORT)
    assert "Watchdog timeout" in journal()
    drop_in.unlink()
    must("systemctl", "daemon-reload")
    must("systemctl", "restart", UNIT)
    return f"stopped by SIGSTOP, serving again after {took:.2f} s with WatchdogSec=2"


def stops_without_breaking_anyone():
    session, said = Session(PORT), []
    stream = Stream(session, PORT)
    call = threading.Thread(target=lambda: said.append(session.whoami(PORT, seconds=1)))
    call.start()
    time.sleep(0.3)
    since = time.monotonic()
    must("systemctl", "stop", UNIT)
    took = time.monotonic() - since
    call.join()
    assert said == [session.server], said
    wait("the stream's end", lambda: stream.ended)
    assert stream.ended == "properly", stream.ended
    assert (show("ActiveState"), show("Result")) == ("inactive", "success")
    assert not processes()
    return f"{took:.2f} s; the call in flight was answered, the stream ended properly"


def is_started_by_the_first_connection():
    drop_in = Path(f"/etc/systemd/system/{SOCKET}.d/address.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{PORT}\n")
    must("systemctl", "daemon-reload")
    must("systemctl", "start", SOCKET)
    assert show("ActiveState") == "inactive"
    since = time.monotonic()
    session = Session(PORT)
    first = time.monotonic() - since
    # It has answered before every endpoint was checked.
    wait("the start", lambda: show("ActiveState") == "active")
    before = main_pid()
    must("systemctl", "kill", "--signal=USR2", "--kill-whom=main", UNIT)
    wait("another main process", lambda: main_pid() != before)
    assert session.goes_on(PORT)
    for _ in range(5):
        os.kill(main_pid(), signal.SIGKILL)
        with socket.create_connection(("127.0.0.1", PORT), timeout=1):
            pass
        assert session.goes_on(PORT)
    must("systemctl", "restart", UNIT)
    assert session.goes_on(PORT)
    must("systemctl", "stop", SOCKET, UNIT)
    return f"answered after {first:.2f} s; upgraded; killed 5 times, no connection refused"


def goes_when_it_is_purged():
    must("systemctl", "enable", "--now", UNIT)
    must("dpkg", "--purge", "tidegate")
    left = [path for path in (BINARY, CONFIG, ACCESS_LOG.parent, Path("/var/lib/tidegate"))
            if path.exists()]
    assert not left, left
    assert not answers()
    return "stopped, and state and logs are gone"


TESTS = [
    installs,
    starts,
    reloads_a_good_file,
    keeps_the_configuration_when_the_file_is_wrong,
    reopens_its_log,
    upgrades,
    is_replaced_when_its_package_is_upgraded,
    survives_a_binary_that_does_not_start,
    comes_back_when_it_is_killed,
    comes_back_when_it_is_killed_while_its_forerunner_drains,
    is_restarted_when_it_hangs,
    stops_without_breaking_anyone,
    is_started_by_the_first_connection,
    goes_when_it_is_purged,
]


def prepare():
    must("ip", "link", "set", "lo", "up")
    Path("/etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
    helpers = [["names.py"], ["server.py", "one", "9001"], ["server.py", "two", "9002"]]
    return [subprocess.Popen([sys.executable, f"/tests/{name}", *rest]) for name, *rest in helpers]


def passes(test):
    name = test.__name__.replace("_", " ")
    try:
        print(f"  {name}: {test()}")
        return True
    except Exception:
        print(f"  {name}: FAILED")
        traceback.print_exc()
        print(run("journalctl", "--unit", UNIT, "--no-pager", "--lines=30").stdout)
        # The next one begins with a unit that serves.
        configure()
        run("systemctl", "reset-failed", UNIT)
        run("systemctl", "restart", UNIT)
        return False


def main():
    helpers = prepare()
    failed = [test.__name__ for test in TESTS if not passes(test)]
    for helper in helpers:
        helper.kill()
    sys.exit(1 if failed else 0)


main()
