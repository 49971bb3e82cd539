"""Servers that are killed with SIGKILL and started again at their old ports, while a crowd looks on."""

import asyncio
import contextlib
import time

from harness import SERVERS, Failed, Process, free_ports, get


class Fleet:
    """Servers of the kinds named, one endpoint each. Each life of one has a name of its own."""

    def __init__(self, work, kinds, options=()):
        # Options for all of them, or by kind.
        self.work, self.options = work, options if isinstance(options, dict) else dict.fromkeys(kinds, options)
        self.kinds, self.ports = list(kinds), free_ports(len(kinds))
        self.lives = [0] * len(kinds)
        self.processes = [self.start(at) for at in range(len(kinds))]
        try:
            for process in self.processes:
                process.listening()
        except BaseException:
            self.stop()
            raise

    def name(self, at):
        """What the server at this place says its name is."""
        return f"{self.kinds[at]}{at}.{self.lives[at]}"

    def start(self, at):
        peers = ",".join(str(port) for port in self.ports if port != self.ports[at])
        argv = [*SERVERS[self.kinds[at]], "--port", str(self.ports[at]), "--name", self.name(at), "--peers", peers]
        return Process([*argv, *self.options.get(self.kinds[at], ())], self.work.file(f"{self.name(at)}.log"))

    def endpoints(self):
        return [{"name": f"{kind}{at}", "address": f"127.0.0.1:{port}"} for at, (kind, port) in enumerate(zip(self.kinds, self.ports))]

    def born(self, crowd):
        for at in range(len(self.kinds)):
            crowd.born(self.name(at))

    def kill(self, at, *crowds):
        """SIGKILL. Returns the name of the life that has ended."""
        name = self.name(at)
        self.processes[at].child.kill()
        for crowd in crowds:
            crowd.killed(name)
        self.processes[at].stop()
        return name

    async def revive(self, at, *crowds):
        """Starts it again. Returns the moment from which it listens."""
        self.lives[at] += 1
        for crowd in crowds:
            crowd.born(self.name(at))
        self.processes[at] = self.start(at)
        await asyncio.to_thread(self.processes[at].listening)
        return time.monotonic()

    def sessions(self):
        """Live sessions on all servers that live."""
        alive = (port for port, process in zip(self.ports, self.processes) if process.child.poll() is None)
        return sum(self.ask(port) for port in alive)

    @staticmethod
    def ask(port):
        """Live sessions on one server, which may refuse a connection on purpose."""
        for _ in range(5):
            with contextlib.suppress(OSError):
                return int(get(f"http://127.0.0.1:{port}/_sessions"))
        raise Failed(f"the server at {port} does not tell its sessions")

    async def settle(self, expected, seconds=10.0):
        """Live sessions, once they are as many as expected."""
        end = time.monotonic() + seconds
        while (found := await asyncio.to_thread(self.sessions)) != expected and time.monotonic() < end:
            await asyncio.sleep(0.1)
        return found

    def stop(self):
        for process in self.processes:
            process.child.terminate()
        for process in self.processes:
            process.stop()


async def until(condition, seconds, what):
    """Waits for a condition that is a function, asked in a thread."""
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > end:
            raise Failed(f"not in {seconds} s: {what}")
        await asyncio.sleep(0.05)
