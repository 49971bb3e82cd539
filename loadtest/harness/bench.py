"""What every scenario works with: mock servers, proxies in rotating order, the record, the time."""

import contextlib
import re
import time

from harness.process import Child, Failed, files_allowed, until
from harness.proxies import DIRECT, Direct, Proxy

COPIES = "abc"


class Bench:
    def __init__(self, options, folder, binaries, drivers, record):
        self.options, self.folder, self.binaries = options, folder, binaries
        self.drivers, self.record = drivers, record
        self.begin = time.monotonic()
        self.end = self.begin + options.minutes * 60
        self.files = files_allowed()
        self.number = 0

    @property
    def names(self):
        return self.options.proxies

    @contextlib.contextmanager
    def mocks(self, reply="json", event_every="2s"):
        """Three copies of the mock; yields their ports."""
        copies = []
        try:
            for copy in COPIES:
                self.number += 1
                argv = [self.binaries["loadtest"], "mock", "--name", copy, "--reply", reply]
                argv += ["--event-every", event_every]
                copies.append(Child(argv, self.folder / f"mock-{self.number:04}.log"))
            yield [listening(copy) for copy in copies]
        finally:
            for copy in copies:
                copy.stop()

    @contextlib.contextmanager
    def proxy(self, name, upstreams, log=False, tls=False):
        """A proxy started anew, ready; or none."""
        if name == DIRECT:
            yield Direct(upstreams)
            return
        proxy = self.configured(name, upstreams, log, tls)
        try:
            proxy.start()
            yield proxy
        finally:
            proxy.stop()

    def configured(self, name, upstreams, log=False, tls=False):
        """A proxy not yet started."""
        self.number += 1
        folder = self.folder / f"{self.number:04}-{name}"
        return Proxy(name, self.binaries[name], folder, upstreams, self.options.workers, log, tls)

    def laps(self, scenario, rounds, names=None, phase="", direct=False):
        """Every proxy in every round, each round beginning with another one, and no proxy at all
        if `direct`."""
        names = list(self.names if names is None else names) + ([DIRECT] if direct else [])
        for number in range(rounds):
            if time.monotonic() > self.end:
                self.record.note(scenario, f"cut short after {number} rounds: the time was up")
                self.say(f"{scenario}: the time is up")
                return
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                self.say(f"{scenario}{phase}, round {number + 1} of {rounds}: {name}")
                yield name

    @contextlib.contextmanager
    def attempt(self, scenario, name):
        """Records why the proxy did not get through."""
        try:
            yield
        except Failed as reason:
            self.say(f"  {name} failed: {reason}")
            # Where files lie says nothing to a reader.
            self.record.problem(scenario, name, str(reason).replace(f"{self.folder}/", ""))

    def say(self, text):
        passed = time.monotonic() - self.begin
        print(f"[{int(passed // 60):02}:{int(passed % 60):02}] {text}", flush=True)


def listening(copy):
    pattern = re.compile(r"^listening (\d+)$", re.MULTILINE)
    until(lambda: copy.ended() or pattern.search(copy.output()), 10, "the mock did not start")
    found = pattern.search(copy.output())
    if not found:
        raise Failed(f"the mock did not start: {copy.output()[-200:]}")
    return int(found[1])
