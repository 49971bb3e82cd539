"""An MCP server on WebSocket (Python package mcp 1.30, the last with this transport), for tests.

WebSocket is in no revision of the protocol, but old SDKs speak it: subprotocol `mcp`, one message
per text frame, the connection is the session. The path is `/mcp`; the tools are whoami, counter,
echo and ticks. `/_sessions` tells the number of live sessions. Prints `listening PORT` when ready.
"""

import argparse
import asyncio
import json
import pathlib
import socket
import warnings

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.transport_security import TransportSecuritySettings
from mcp.server.websocket import websocket_server
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute

FIXTURE = json.loads((pathlib.Path(__file__).parent / "fixture.json").read_text())
TOOLS = [tool for tool in FIXTURE["tools"] if tool["name"] in ("whoami", "counter", "echo", "ticks")]
warnings.simplefilter("ignore", DeprecationWarning)


def build(name):
    """One server object per connection."""
    server = Server("fixture-py-ws")
    calls = 0

    @server.list_tools()
    async def list_tools():
        return [types.Tool.model_validate(tool) for tool in TOOLS]

    @server.call_tool()
    async def call_tool(tool, given):
        nonlocal calls
        if tool == "whoami":
            answer = name
        elif tool == "counter":
            calls += 1
            answer = str(calls)
        elif tool == "echo":
            answer = given["text"]
        else:
            meta = server.request_context.meta
            for tick in range(1, given["n"] + 1):
                await asyncio.sleep(given["every_ms"] / 1000)
                if meta and meta.progressToken is not None:
                    await server.request_context.session.send_progress_notification(meta.progressToken, tick, given["n"])
            answer = f"{given['n']} ticks from {name}"
        return [types.TextContent(type="text", text=answer)]

    return server


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="ws", help="what the tool `whoami` answers")
    args = parser.parse_args()

    security = TransportSecuritySettings(
        allowed_hosts=["127.0.0.1:*", "localhost:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
    )
    live = 0

    async def connection(socket):
        nonlocal live
        server = build(args.name)
        async with websocket_server(socket.scope, socket.receive, socket.send, security) as (read, write):
            live += 1
            try:
                await server.run(read, write, server.create_initialization_options())
            finally:
                live -= 1

    async def sessions(_):
        return PlainTextResponse(str(live))

    app = Starlette(routes=[WebSocketRoute("/mcp", connection), Route("/_sessions", sessions)])
    listener = socket.create_server(("127.0.0.1", args.port), backlog=2048)
    print(f"listening {listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
