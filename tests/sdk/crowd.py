"""Many sessions that call all the time, and know at every moment what the right answer is.

A session is on one server, and counts its calls of `counter` there: an answer of another server, of
another session, or from another time has the wrong name, count or text. What a fault may do to a
session depends on whether its server has died, so the crowd is told when one does.
"""

import asyncio
import collections
import contextlib
import itertools
import random
import time

from raw import Foreign, Hang, Refused, Session, Stateless, Torn

# Sessions that are opened, or closed, at a time.
AT_ONCE = 16
# Tries to begin anew: one may meet a second server that is about to die.
BEGIN_MAX = 20


class Counts:
    """What went wrong, or might have, over a whole crowd: how often, and the first cases in words."""

    SAMPLES = 3

    def __init__(self):
        self.number = collections.Counter()
        self.samples = collections.defaultdict(list)

    def add(self, what, text=""):
        self.number[what] += 1
        if text and len(self.samples[what]) < self.SAMPLES:
            self.samples[what].append(str(text))

    def of(self, what):
        """A count with its first cases."""
        return f"{self.number[what]}{' ' + str(self.samples[what]) if self.number[what] else ''}"


class Life:
    """One server process: its name, and whether it still lives."""

    def __init__(self, name):
        self.name, self.killed = name, None
        # It answers badly on purpose.
        self.faulty = False


class Member:
    """One session of the crowd."""

    def __init__(self, crowd, number):
        self.crowd, self.number = crowd, number
        self.session = Session(crowd.port)
        self.random = random.Random(number)
        self.life, self.count, self.calls = None, 0, 0
        # Whether the next count may be one of two: a call was answered while its server was killed.
        self.loose = False
        # Counts that a faulty server may have made.
        self.unsure = 0
        # Since its server was killed: requests that were refused, until the session was told or went on.
        self.refused = 0

    async def begin(self):
        """A session, and where it is. Counts what stands in its way."""
        crowd, counts = self.crowd, self.crowd.counts
        self.life, self.count, self.refused, self.unsure, self.loose = None, 0, 0, 0, False
        self.session.id = None
        for _ in range(BEGIN_MAX):
            try:
                if self.session.id is None:
                    await self.session.begin()
                self.life = crowd.lives[await self.session.call("whoami")]
                return True
            except (Refused, Hang, Torn, Foreign) as error:
                if self.session.id is None:
                    counts.add("no initialize", error)
                elif not crowd.unsettled():
                    counts.add("cannot begin", error)
                if isinstance(error, Hang):
                    counts.add("hang", error)
                if isinstance(error, Refused) and error.status == 404:
                    self.session.id = None
                await asyncio.sleep(0.1)
        counts.add("cannot begin", "gave up")
        return False

    async def live(self):
        while not self.crowd.over.is_set():
            await self.step()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.crowd.over.wait(), self.random.uniform(0.5, 1.5) * self.crowd.pause)

    async def step(self):
        """One call, and what its outcome means."""
        self.calls += 1
        what = ("counter", "whoami", "echo", "counter", "ping")[self.calls % 5]
        counts, life = self.crowd.counts, self.life
        dead_before = life.killed is not None
        begun = time.monotonic()
        try:
            answer = await self.ask(what)
        except Hang as error:
            counts.add("hang", error)
        except Foreign as error:
            counts.add("foreign", error)
        except (Refused, Torn) as error:
            lost = isinstance(error, Refused) and error.status == 404
            if life.faulty and not lost:
                self.was_faulty(what, error, time.monotonic() - begun)
            elif isinstance(error, Torn):
                counts.add("torn", f"{what}: {error}")
            else:
                await self.was_refused(error)
        else:
            counts.add("answered")
            self.crowd.slowest = max(self.crowd.slowest, time.monotonic() - begun)
            if dead_before:
                await self.went_on(what, answer)
            else:
                self.loose = life.killed is not None
                self.compare(what, answer)

    async def ask(self, what):
        if what == "ping":
            return await self.session.ask("ping")
        if what == "echo":
            text = f"{self.number}/{self.calls}/é"
            answer = await self.session.call("echo", text=text)
            if answer != text:
                raise Foreign(f"echo of {text}: {answer}")
            return answer
        return await self.session.call(what)

    def compare(self, what, answer):
        if self.loose and self.crowd.reinitialize:
            # The old server or the new one: the next call tells.
            self.count += what == "counter"
        elif what == "counter":
            self.count += 1
            if not self.count <= int(answer) <= self.count + self.unsure:
                self.crowd.counts.add("foreign", f"counter on {self.life.name}: {answer}, not {self.count}")
            self.count, self.unsure = int(answer), 0
        elif what == "whoami" and answer != self.life.name:
            self.crowd.counts.add("foreign", f"whoami: {answer}, not {self.life.name}")

    def was_faulty(self, what, error, seconds):
        """A server that is broken on purpose may have carried the call out, or not."""
        self.unsure += what == "counter"
        self.crowd.slowest_fault = max(self.crowd.slowest_fault, seconds)
        self.crowd.counts.add("faulty")
        self.crowd.counts.add(f"faulty {error.status}" if isinstance(error, Refused) else "faulty, cut short", error)

    async def was_refused(self, error):
        counts, life = self.crowd.counts, self.life
        lost = error.status == 404
        if life.killed is None:
            counts.add("wrong 404" if lost else "bystander", f"{life.name}: {error}")
            if lost:
                await self.begin()
            return
        counts.add(f"refused {error.status}", error)
        self.refused += 1
        if not lost:
            return
        if self.crowd.reinitialize:
            counts.add("wrong 404", f"in a pool that begins anew: {error}")
        self.settled(life, "told")
        await self.begin()

    def settled(self, life, how):
        self.crowd.settled.append((time.monotonic() - life.killed, self.refused, how))
        self.crowd.counts.add(how)
        self.refused = 0

    async def went_on(self, what, answer):
        """A session whose server had died before the call was answered."""
        if not self.crowd.reinitialize:
            self.crowd.counts.add("foreign", f"{what} of a dead {self.life.name}: {answer}")
            return
        if what == "counter" and answer not in (("1", "2") if self.loose else ("1",)):
            # Counts begin anew where the session does.
            self.crowd.counts.add("foreign", f"first counter elsewhere: {answer}")
        before, self.count = self.life, int(answer) if what == "counter" else 0
        self.settled(before, "went on")
        name = answer if what == "whoami" else None
        while name is None:
            try:
                name = await self.session.call("whoami")
            except Refused as error:
                self.crowd.counts.add(f"refused {error.status}", error)
                await asyncio.sleep(0.1)
        self.life = self.crowd.lives[name]


class Crowd:
    """All sessions, behind one port."""

    def __init__(self, port, pause, reinitialize=False):
        self.port, self.pause, self.reinitialize = port, pause, reinitialize
        self.members, self.tasks = [], []
        # Every server process that ever was, by the name it says.
        self.lives = {}
        self.counts = Counts()
        self.slowest, self.slowest_fault = 0.0, 0.0
        # (seconds from the kill, refused requests, how) of each session whose server was killed.
        self.settled = []
        self.over = asyncio.Event()

    def born(self, name):
        self.lives[name] = Life(name)

    def killed(self, name):
        self.lives[name].killed = time.monotonic()

    def unsettled(self, seconds=8.0):
        """May the first call of a session fail? A server was killed lately, or fails on purpose."""
        now = time.monotonic()
        return any(life.faulty or life.killed and now - life.killed < seconds for life in self.lives.values())

    def on(self, name):
        return [member for member in self.members if member.life and member.life.name == name]

    async def open(self, number):
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(at):
            async with gate:
                member = Member(self, at)
                if await member.begin():
                    self.members.append(member)

        await asyncio.gather(*(one(at) for at in range(number)))
        self.tasks = [asyncio.create_task(member.live()) for member in self.members]

    async def rest(self):
        """Everybody finishes the call that is running."""
        self.over.set()
        for done in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(done, BaseException):
                self.counts.add("broken", repr(done))

    async def close(self):
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(member):
            async with gate:
                try:
                    self.counts.add(f"DELETE {await member.session.end()}")
                except (Hang, Torn) as error:
                    self.counts.add("hang", error)
                member.session.wire.close()

        await asyncio.gather(*(one(member) for member in self.members))


def judge(seen, crowd):
    """What must never happen to a crowd, and what it went through."""
    counts = crowd.counts
    seen.expect(True, f"{counts.number['answered']} calls answered, slowest {crowd.slowest:.2f} s")
    for what in ("hang", "torn", "foreign", "wrong 404", "bystander", "cannot begin", "no initialize", "broken"):
        seen.expect(counts.number[what] == 0, f"{what} {counts.of(what)}")


class Safe:
    """Calls that change nothing, and what became of them."""

    def __init__(self):
        self.asked, self.lost, self.slowest = 0, [], 0.0

    async def work(self, port, number, pause, seed, in_session, over=None):
        """`number` calls one after the other; with `over`, until that is set."""
        source = random.Random(seed)
        client = Session(port) if in_session else Stateless(port)
        while in_session:
            try:
                await client.begin()
                break
            except (Refused, Hang, Torn, Foreign) as error:
                self.lost.append(f"to begin a session: {error}")
        for call in itertools.count():
            if over.is_set() if over else call == number:
                break
            method = ("ping", "tools/list")[call % 2] if in_session else ("tools/list", "server/discover", "resources/list")[call % 3]
            begun = time.monotonic()
            self.asked += 1
            try:
                await client.ask(method)
            except (Refused, Hang, Torn, Foreign) as error:
                self.lost.append(f"{method} in a session: {error}" if in_session else f"{method}: {error}")
            self.slowest = max(self.slowest, time.monotonic() - begun)
            await asyncio.sleep(source.uniform(0, pause))
        if in_session:
            with contextlib.suppress(Hang, Torn):
                await client.end()

    def told(self, seen, share):
        lost = len(self.lost)
        seen.expect(
            0 < self.asked and lost <= share * self.asked,
            f"{self.asked} safe calls, {lost} lost{f' ({lost / self.asked:.3%})' if lost else ''} {sorted(set(self.lost))[:3] or ''}, slowest {self.slowest:.2f} s",
        )
