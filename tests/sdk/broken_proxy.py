"""A reverse proxy that is broken on purpose, to prove that the comparison in run.py notices.

Faults:
  none     nothing is broken: the control. Sessions stick to their upstream, all else goes round
  strip    the request headers Mcp-* are lost
  buffer   a reply is held back until it is complete
  scatter  sessions do not stick: every request goes to the next upstream

One request per connection, upstream and downstream. Prints `listening PORT` when it is ready.
"""

import argparse
import asyncio
import itertools

HEAD_MAX = 64 * 1024
HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"upgrade", b"host", b"proxy-connection"}


class Proxy:
    def __init__(self, fault, upstreams):
        self.fault = fault
        self.next = itertools.cycle(upstreams)
        # Session id -> port of the upstream that issued it. Grows with the test.
        self.owner = {}

    async def serve(self, reader, writer):
        upstream = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            line, headers = parse(head)
            body = await read_body(reader, headers)
            port = self.pick(headers)
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", port, limit=HEAD_MAX)
            upstream.write(self.request(line, headers, port) + body)
            # A client that goes away takes its upstream connection with it, and the other way round.
            relays = [asyncio.create_task(self.reply(upstream_reader, writer, port)), asyncio.create_task(reader.read())]
            _, pending = await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
            await asyncio.gather(*relays, return_exceptions=True)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            for side in (writer, upstream):
                if side:
                    side.close()

    def pick(self, headers):
        session = value(headers, b"mcp-session-id")
        if session is not None and self.fault != "scatter" and session in self.owner:
            return self.owner[session]
        return next(self.next)

    def request(self, line, headers, port):
        kept = [
            (name, content)
            for name, content in headers
            if name.lower() not in HOP_BY_HOP
            # The body was read whole, so its length replaces the chunks.
            and name.lower() != b"transfer-encoding"
            and not (self.fault == "strip" and name.lower().startswith(b"mcp-"))
        ]
        return written(line, [(b"Host", b"127.0.0.1:%d" % port), (b"Connection", b"close"), *kept])

    async def reply(self, reader, writer, port):
        line, headers = parse(await reader.readuntil(b"\r\n\r\n"))
        session = value(headers, b"mcp-session-id")
        if session is not None:
            self.owner.setdefault(session, port)
        # Servers say keep-alive on event streams even to a request that said close.
        kept = [(name, content) for name, content in headers if name.lower() not in HOP_BY_HOP]
        held = [written(line, [(b"Connection", b"close"), *kept])]
        while True:
            if self.fault != "buffer":
                writer.writelines(held)
                await writer.drain()
                held.clear()
            data = await reader.read(65536)
            if not data:
                break
            held.append(data)
        writer.writelines(held)
        await writer.drain()


def parse(head):
    line, *rest = head[:-4].split(b"\r\n")
    return line, [(name.strip(), content.strip()) for name, _, content in (row.partition(b":") for row in rest)]


def written(line, headers):
    return b"\r\n".join([line, *(name + b": " + content for name, content in headers)]) + b"\r\n\r\n"


def value(headers, wanted):
    return next((content for name, content in headers if name.lower() == wanted), None)


async def read_body(reader, headers):
    if (value(headers, b"transfer-encoding") or b"").lower() != b"chunked":
        return await reader.readexactly(int(value(headers, b"content-length") or 0))
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readuntil(b"\r\n")
    headers.append((b"Content-Length", b"%d" % len(body)))
    return body


async def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=("none", "strip", "buffer", "scatter"), default="none")
    parser.add_argument("--upstreams", required=True, help="ports on 127.0.0.1, separated by commas")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    args = parser.parse_args()
    proxy = Proxy(args.fault, [int(port) for port in args.upstreams.split(",")])
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", args.port, limit=HEAD_MAX, backlog=1024)
    print(f"listening {server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
