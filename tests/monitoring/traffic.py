"""Clients that keep a gateway busy in every way that a panel shows, until they are told to stop."""

import asyncio
import contextlib
import threading

from raw import SESSION_REVISION, Hang, Refused, Session, Stateless, Torn, Wire

# An argument, which no log may hold.
SECRET = "low-water-at-noon"
UNKNOWN = "a-session-that-nobody-has-opened"


class Traffic:
    """Runs in a thread of its own, with a pause between its rounds. `wrong` are the arguments of a call of `echo`
    that fails, if there is to be one; with them a session is asked for that nobody has opened."""

    def __init__(self, port, pause, wrong=None):
        self.port, self.pause, self.wrong = port, pause, wrong
        self.over = threading.Event()
        self.rounds = 0
        self.thread = threading.Thread(target=lambda: asyncio.run(self.run()), daemon=True)
        self.thread.start()

    def stop(self):
        self.over.set()
        self.thread.join(20)

    async def run(self):
        while not self.over.is_set():
            # What goes wrong is for the gateway to count.
            with contextlib.suppress(Refused, Torn, Hang, OSError, asyncio.IncompleteReadError):
                await self.round()
            self.rounds += 1
            await asyncio.sleep(self.pause)

    async def round(self):
        session, stateless, stream = Session(self.port), Stateless(self.port), Wire(self.port)
        try:
            await session.begin()
            await session.ask("tools/list")
            for _ in range(3):
                await session.call("echo", seconds=3, text=SECRET)
            known = {"accept": "text/event-stream", "mcp-session-id": session.id, "mcp-protocol-version": SESSION_REVISION}
            async with asyncio.timeout(3):
                await stream.begin("GET", known)
            stream.close()
            await stateless.ask("tools/list", seconds=3)
            if self.wrong:
                await self.err(session, stateless.wire)
            await session.wire.whole("DELETE", session.fields(), seconds=3)
        finally:
            for wire in (session.wire, stateless.wire, stream):
                wire.close()

    async def err(self, session, wire):
        with contextlib.suppress(Refused):
            await session.call("echo", seconds=3, **self.wrong)
        fields = {**session.fields(), "mcp-session-id": UNKNOWN}
        await wire.whole("POST", fields, b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}', 3)
