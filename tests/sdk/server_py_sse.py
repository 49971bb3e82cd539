"""An MCP server on the HTTP+SSE transport of 2024-11-05 (Python package mcp 2.3), for tests.

`GET /sse` opens the stream, `POST /messages/` takes the messages; the tools are whoami, counter,
echo and ticks. `/_sessions` tells the number of live sessions. Prints `listening PORT` when ready.
"""

import argparse
import asyncio
import json
import pathlib
import socket

import mcp_types as types
import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.sse import SseServerTransport
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

FIXTURE = json.loads((pathlib.Path(__file__).parent / "fixture.json").read_text())
TOOLS = [tool for tool in FIXTURE["tools"] if tool["name"] in ("whoami", "counter", "echo", "ticks")]


def build(name):
    """One server object per stream: in this transport the stream is the session."""
    calls = 0

    async def list_tools(ctx, params):
        return types.ListToolsResult.model_validate({"tools": TOOLS}, by_name=False)

    async def call_tool(ctx, params):
        nonlocal calls
        given = params.arguments or {}
        if params.name == "whoami":
            answer = name
        elif params.name == "counter":
            calls += 1
            answer = str(calls)
        elif params.name == "echo":
            answer = given["text"]
        else:
            for tick in range(1, given["n"] + 1):
                await asyncio.sleep(given["every_ms"] / 1000)
                await ctx.session.report_progress(tick, given["n"])
            answer = f"{given['n']} ticks from {name}"
        return types.CallToolResult(content=[types.TextContent(type="text", text=answer)])

    return Server("fixture-py-sse", version="1.0.0", on_list_tools=list_tools, on_call_tool=call_tool)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="sse", help="what the tool `whoami` answers")
    args = parser.parse_args()

    # The package's own settings for a server on localhost.
    security = TransportSecuritySettings(
        allowed_hosts=["127.0.0.1:*", "localhost:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
    )
    transport = SseServerTransport("/messages/", security_settings=security)
    live = 0

    async def stream(http):
        nonlocal live
        server = build(args.name)
        async with transport.connect_sse(http.scope, http.receive, http._send) as (read, write):
            live += 1
            try:
                await server.run(read, write, server.create_initialization_options())
            finally:
                live -= 1
        return Response()

    async def sessions(_):
        return PlainTextResponse(str(live))

    app = Starlette(
        routes=[
            Route("/sse", stream),
            Mount("/messages/", app=transport.handle_post_message),
            Route("/_sessions", sessions),
        ]
    )
    listener = socket.create_server(("127.0.0.1", args.port), backlog=2048)
    print(f"listening {listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
