"""An MCP server on the Python package mcp 2.3, for tests.

`/mcp` serves both eras, the session era with sessions, and offers what fixture.json describes.
`/_sessions` tells the number of live sessions. Prints `listening PORT` when it is ready.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import re
import socket
import urllib.request
import warnings

import mcp_types as types
import uvicorn
from mcp.server.caching import CacheHint
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.subscriptions import PromptsListChanged, ToolsListChanged
from starlette.responses import PlainTextResponse
from starlette.routing import Route

FIXTURE = json.loads((pathlib.Path(__file__).parent / "fixture.json").read_text())
TOOLS = {tool["name"]: tool for tool in FIXTURE["tools"]}

# What asking takes (a capability), and what the question and its answer look like.
QUESTIONS = {
    "elicitation/create": ("elicitation", types.ElicitRequest, types.ElicitResult),
    "sampling/createMessage": ("sampling", types.CreateMessageRequest, types.CreateMessageResult),
    "roots/list": ("roots", types.ListRootsRequest, types.ListRootsResult),
}
# Deprecated for the stateless era, but these tests are about the session era too.
warnings.simplefilter("ignore", MCPDeprecationWarning)


def text(value):
    return types.CallToolResult(content=[types.TextContent(type="text", text=str(value))])


class Events(EventStore):
    """The last events of all sessions, so that a client can resume a stream."""

    KEEP = 10_000

    def __init__(self):
        self.events = collections.deque(maxlen=self.KEEP)
        self.last = 0

    async def store_event(self, stream_id, message):
        self.last += 1
        self.events.append((self.last, stream_id, message))
        return str(self.last)

    async def replay_events_after(self, last_event_id, send_callback):
        known = {str(at): stream for at, stream, _ in self.events}
        stream_id = known.get(last_event_id)
        if stream_id is None:
            return None
        for at, stream, message in list(self.events):
            if stream == stream_id and at > int(last_event_id) and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream_id


class Fixture:
    def __init__(self, name, peers, state_key):
        self.name = name
        self.peers = peers
        self.state_key = state_key
        self.bus = InMemorySubscriptionBus()
        # Calls of `counter` by session; a session's entry goes with the process.
        self.counts = collections.Counter()

    # Questions to the client

    async def ask(self, ctx, params, rounds, sealed=False):
        """Drives the rounds of questions. Returns what to send next, or None when all are answered."""
        if ctx.protocol_version < "2026":
            await self.ask_in_session(ctx, rounds)
            return None
        at = json.loads(params.request_state)["round"] if params.request_state else 0
        answers = params.input_responses or {}
        still = {
            key: question
            for key, question in rounds[at].items()
            if not isinstance(answers.get(key), QUESTIONS[question["method"]][2])
        }
        at = at if still else at + 1
        if at == len(rounds):
            return None
        requests = {key: request(question) for key, question in (still or rounds[at]).items()}
        return types.InputRequiredResult(
            input_requests=requests, request_state=json.dumps({"round": at}) if sealed else None
        )

    async def ask_in_session(self, ctx, rounds):
        """The session era asks by requests of its own on the stream of the call."""
        related = ServerMessageMetadata(related_request_id=ctx.request_id)
        for questions in rounds:
            for question in questions.values():
                await ctx.session.send_request(request(question), QUESTIONS[question["method"]][2], metadata=related)

    # Handlers

    async def call_tool(self, ctx, params):
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown tool: {params.name}")
        own = getattr(self, f"tool_{params.name}", None)
        if own:
            return await own(ctx, params, **(params.arguments or {}))
        if "rounds" in tool:
            return await self.tool_with_questions(ctx, params, tool)
        for line in tool.get("log", []):
            await ctx.session.send_log_message(level="info", data=line, related_request_id=ctx.request_id)
            await asyncio.sleep(0.05)
        for done in tool.get("progress", []):
            await ctx.session.report_progress(done, 100)
            await asyncio.sleep(0.05)
        if "change" in tool:
            await self.announce(tool["change"], ctx)
        return types.CallToolResult.model_validate(
            {"content": tool["content"], "isError": tool.get("isError", False)}, by_name=False
        )

    async def tool_with_questions(self, ctx, params, tool):
        declared = ctx.session.client_capabilities or types.ClientCapabilities()
        rounds = tool["rounds"]
        missing = {
            capability: {}
            for questions in rounds
            for capability in (QUESTIONS[question["method"]][0] for question in questions.values())
            if getattr(declared, capability) is None
        }
        if tool.get("onlyDeclared"):
            rounds = [{k: q for k, q in r.items() if QUESTIONS[q["method"]][0] not in missing} for r in rounds]
        elif missing:
            raise MCPError(
                code=types.MISSING_REQUIRED_CLIENT_CAPABILITY,
                message="The client did not declare what this tool needs",
                data={"requiredCapabilities": missing},
            )
        question = await self.ask(ctx, params, rounds, tool.get("state", False))
        return question or text("Answered, state-ok" if tool.get("state") else "Answered")

    async def tool_whoami(self, ctx, params):
        return text(self.name)

    async def tool_counter(self, ctx, params):
        session = ctx.request.headers.get("mcp-session-id")
        if session is None:
            return text(1)
        self.counts[session] += 1
        return text(self.counts[session])

    async def tool_echo(self, ctx, params, text):
        return globals()["text"](text)

    async def tool_ticks(self, ctx, params, n, every_ms):
        for tick in range(1, n + 1):
            await asyncio.sleep(every_ms / 1000)
            await ctx.session.report_progress(tick, n)
        return text(f"{n} ticks from {self.name}")

    async def tool_test_reconnection(self, ctx, params):
        await asyncio.sleep(0.05)
        if ctx.close_sse_stream:
            await ctx.close_sse_stream()
        await asyncio.sleep(0.15)
        return text("Resumed")

    async def tool_test_sampling(self, ctx, params, prompt):
        message = {"role": "user", "content": {"type": "text", "text": prompt}}
        question = {"method": "sampling/createMessage", "params": {"messages": [message], "maxTokens": 100}}
        return await self.ask(ctx, params, [{"answer": question}]) or text("LLM response received")

    async def tool_test_elicitation(self, ctx, params, message):
        fields = {"username": {"type": "string"}, "email": {"type": "string"}}
        schema = {"type": "object", "properties": fields, "required": list(fields)}
        form = {"mode": "form", "message": message, "requestedSchema": schema}
        question = {"method": "elicitation/create", "params": form}
        return await self.ask(ctx, params, [{"answer": question}]) or text("User response received")

    async def list_tools(self, ctx, params):
        return types.ListToolsResult.model_validate({"tools": [listed(tool) for tool in FIXTURE["tools"]]}, by_name=False)

    async def list_prompts(self, ctx, params):
        prompts = [listed(prompt) for prompt in FIXTURE["prompts"]]
        return types.ListPromptsResult.model_validate({"prompts": prompts}, by_name=False)

    async def get_prompt(self, ctx, params):
        prompt = next((prompt for prompt in FIXTURE["prompts"] if prompt["name"] == params.name), None)
        if prompt is None:
            raise MCPError(code=types.INVALID_PARAMS, message=f"Unknown prompt: {params.name}")
        question = await self.ask(ctx, params, prompt["rounds"]) if "rounds" in prompt else None
        if question:
            return question
        messages = fill(prompt["messages"], params.arguments or {})
        return types.GetPromptResult.model_validate({"messages": messages}, by_name=False)

    async def list_resources(self, ctx, params):
        resources = [listed(resource) for resource in FIXTURE["resources"]]
        return types.ListResourcesResult.model_validate({"resources": resources}, by_name=False)

    async def list_templates(self, ctx, params):
        return types.ListResourceTemplatesResult.model_validate(
            {"resourceTemplates": FIXTURE["templates"]}, by_name=False
        )

    async def read_resource(self, ctx, params):
        uri = str(params.uri)
        known = next((resource for resource in FIXTURE["resources"] if resource["uri"] == uri), None)
        templated = re.fullmatch(r"test://template/([^/]+)/data", uri)
        if known:
            content = {key: known[key] for key in ("uri", "mimeType", "text", "blob") if key in known}
        elif templated:
            data = {"id": templated[1], "templateTest": True, "data": f"Data for ID: {templated[1]}"}
            content = {"uri": uri, "mimeType": "application/json", "text": json.dumps(data)}
        else:
            raise MCPError(code=types.INVALID_PARAMS, message="Resource not found", data={"uri": uri})
        return types.ReadResourceResult.model_validate({"contents": [content]}, by_name=False)

    async def complete(self, ctx, params):
        values = [value for value in ("paris", "park", "party") if value.startswith(params.argument.value)]
        completion = types.Completion(values=values, total=len(values), has_more=False)
        return types.CompleteResult(completion=completion)

    async def accept(self, ctx, params):
        return types.EmptyResult()

    # List changes

    async def announce(self, kind, ctx=None):
        """Tells the listeners here and, when a call began it, this session and the other replicas."""
        await self.bus.publish(ToolsListChanged() if kind == "tools" else PromptsListChanged())
        if ctx is None:
            return
        if ctx.protocol_version < "2026":
            changed = types.ToolListChangedNotification if kind == "tools" else types.PromptListChangedNotification
            await ctx.session.send_notification(changed())
        for port in self.peers:
            url = f"http://127.0.0.1:{port}/_changed/{kind}"
            await asyncio.to_thread(lambda: urllib.request.urlopen(url, data=b"", timeout=2).close())

    def server(self):
        hint = CacheHint(ttl_ms=1000, scope="public")
        cacheable = (
            "tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read", "server/discover",
        )  # fmt: skip
        server = Server(
            "fixture-py",
            version="1.0.0",
            cache_hints=dict.fromkeys(cacheable, hint),
            get_tool_input_schema=lambda name: TOOLS.get(name, {}).get("inputSchema"),
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.accept,
            on_unsubscribe_resource=self.accept,
            on_subscriptions_listen=ListenHandler(self.bus),
            on_completion=self.complete,
            on_set_logging_level=self.accept,
        )
        security = RequestStateSecurity(keys=[self.state_key], audience="fixture")
        server.middleware.append(RequestStateBoundary(security, default_audience=server.name))
        return server


def request(question):
    return QUESTIONS[question["method"]][1].model_validate(question, by_name=False)


def listed(entry):
    """What a list shows of an entry: not the parts that say how the fixture behaves."""
    behaviour = ("content", "isError", "rounds", "log", "progress", "change", "state", "onlyDeclared", "messages", "text", "blob")  # fmt: skip
    return {key: value for key, value in entry.items() if key not in behaviour}


def fill(value, given):
    def replace(match):
        found = given.get(match[1])
        return match[0] if found is None else json.dumps(found)[1:-1]

    return json.loads(re.sub(r"\{(\w+)\}", replace, json.dumps(value)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--name", default="py", help="what the tool `whoami` answers")
    parser.add_argument("--peers", default="", help="ports of the other replicas; they are told of list changes")
    parser.add_argument(
        "--state-key",
        default=FIXTURE["requestStateKey"],
        help="seals the state of multi-round-trip calls; all replicas share one by default",
    )
    parser.add_argument("--no-events", action="store_true", help="no event store: no event ids, no resuming")
    parser.add_argument("--json", action="store_true", help="JSON replies instead of streams")
    parser.add_argument("--keep-alive", type=float, default=5000, help="milliseconds until an unused connection is closed")
    args = parser.parse_args()

    fixture = Fixture(args.name, [port for port in args.peers.split(",") if port], args.state_key)
    server = fixture.server()

    async def sessions(_):
        return PlainTextResponse(str(len(server.session_manager._server_instances)))

    async def changed(http):
        await fixture.announce(http.path_params["kind"])
        return PlainTextResponse("")

    app = server.streamable_http_app(
        json_response=args.json,
        event_store=None if args.no_events else Events(),
        retry_interval=None if args.no_events else 200,
        custom_starlette_routes=[
            Route("/_sessions", sessions),
            Route("/_changed/{kind}", changed, methods=["POST"]),
        ],
    )
    listener = socket.create_server(("127.0.0.1", args.port), backlog=2048)
    print(f"listening {listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=1, timeout_keep_alive=args.keep_alive / 1000)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
