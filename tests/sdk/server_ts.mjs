// An MCP server on the TypeScript 2.x packages, for tests: `/mcp` serves both eras, the session
// era with sessions, and offers what fixture.json describes. `/_sessions` tells the number of live
// sessions. Prints `listening PORT` when it is ready.
//
//   --port N            0 takes a free one
//   --name NAME         what the tool `whoami` answers
//   --peers N,N         ports of the other replicas: list changes announced here are told there
//   --state-key KEY     seals the state of multi-round-trip calls; all replicas share one by default
//   --no-events         no event store, so no event ids and no resuming
//   --json              JSON replies in the session era
//   --keep-alive MS     until an unused connection is closed

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';

import { localhostHostValidation, localhostOriginValidation, toNodeHandler } from '@modelcontextprotocol/node';
import {
    createMcpHandler, createRequestStateCodec, fromJsonSchema, inputRequired, inputResponse, isInitializeRequest, isLegacyRequest,
    McpServer, ProtocolError, ProtocolErrorCode, ResourceNotFoundError,
    WebStandardStreamableHTTPServerTransport,
} from '@modelcontextprotocol/server';

const { values: args } = parseArgs({ options: {
    port: { type: 'string', default: '0' },
    name: { type: 'string', default: 'ts' },
    peers: { type: 'string', default: '' },
    'state-key': { type: 'string' },
    'no-events': { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    'keep-alive': { type: 'string', default: '5000' },
} });
const fixture = JSON.parse(readFileSync(new URL('fixture.json', import.meta.url)));
const peers = args.peers.split(',').filter(Boolean);
const stateCodec = createRequestStateCodec({ key: args['state-key'] ?? fixture.requestStateKey });
const text = value => ({ content: [{ type: 'text', text: String(value) }] });

/** Session id -> { transport, server }. */
const sessions = new Map();

// What the reply of each kind of question looks like, and which capability asking it takes.
const QUESTIONS = {
    'elicitation/create': { capability: 'elicitation', kind: 'elicit', build: params => inputRequired.elicit(params) },
    'sampling/createMessage': { capability: 'sampling', kind: 'sampling', build: params => inputRequired.createMessage(params) },
    'roots/list': { capability: 'roots', kind: 'roots', build: () => inputRequired.listRoots() },
};

/** Drives `rounds` of questions. Returns what to ask next, or undefined when all are answered. */
async function ask(rounds, sealed, ctx) {
    const round = ctx.mcpReq.requestState()?.round ?? 0;
    const answers = ctx.mcpReq.inputResponses;
    const open = Object.entries(rounds[round])
        .filter(([key, { method }]) => inputResponse(answers, key).kind !== QUESTIONS[method].kind);
    const next = open.length > 0 ? round : round + 1;
    if (next === rounds.length) return undefined;
    const questions = open.length > 0 ? open : Object.entries(rounds[next]);
    return inputRequired({
        inputRequests: Object.fromEntries(questions.map(([key, { method, params }]) => [key, QUESTIONS[method].build(params)])),
        ...(sealed ? { requestState: await stateCodec.mint({ round: next }, ctx) } : {}),
    });
}

/** What the client of this call can do: declared with the request, or once at `initialize`. */
const capabilities = (server, ctx) =>
    ctx.mcpReq.envelope?.['io.modelcontextprotocol/clientCapabilities'] ?? server.server.getClientCapabilities() ?? {};

const progress = async (ctx, params) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    if (progressToken !== undefined) await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, ...params } });
};

/** Tools that are more than data. */
const behaviours = {
    whoami: () => text(args.name),
    counter: (_, { count }) => text(count.next()),
    echo: input => text(input.text),
    async ticks({ n, every_ms }, { ctx }) {
        for (let tick = 1; tick <= n; tick++) {
            await sleep(every_ms);
            await progress(ctx, { progress: tick, total: n });
        }
        return text(`${n} ticks from ${args.name}`);
    },
    async test_reconnection(_, { ctx }) {
        await sleep(50);
        ctx.http?.closeSSE?.();
        await sleep(150);
        return text('Resumed');
    },
    async test_sampling({ prompt }, { ctx }) {
        const question = { method: 'sampling/createMessage', params: { messages: [{ role: 'user', content: { type: 'text', text: prompt } }], maxTokens: 100 } };
        return await ask([{ answer: question }], false, ctx) ?? text(`LLM response: ${JSON.stringify(ctx.mcpReq.inputResponses?.answer?.content)}`);
    },
    async test_elicitation({ message }, { ctx }) {
        const requestedSchema = { type: 'object', properties: { username: { type: 'string' }, email: { type: 'string' } }, required: ['username', 'email'] };
        const question = { method: 'elicitation/create', params: { mode: 'form', message, requestedSchema } };
        return await ask([{ answer: question }], false, ctx) ?? text(`User response: ${JSON.stringify(ctx.mcpReq.inputResponses?.answer)}`);
    },
};

async function call(tool, input, { server, count, ctx }) {
    if (behaviours[tool.name]) return behaviours[tool.name](input, { count, ctx });
    const can = capabilities(server, ctx);
    if (tool.rounds) {
        const rounds = tool.onlyDeclared
            ? tool.rounds.map(round => Object.fromEntries(Object.entries(round).filter(([, { method }]) => can[QUESTIONS[method].capability])))
            : tool.rounds;
        const question = await ask(rounds, tool.state, ctx);
        if (question) return question;
        return text(tool.state ? 'Answered, state-ok' : `Answered: ${JSON.stringify(ctx.mcpReq.inputResponses)}`);
    }
    for (const line of tool.log ?? []) {
        await ctx.mcpReq.log('info', line);
        await sleep(50);
    }
    for (const done of tool.progress ?? []) {
        await progress(ctx, { progress: done, total: 100 });
        await sleep(50);
    }
    if (tool.change) await announce(tool.change, true);
    return { content: tool.content, ...(tool.isError ? { isError: true } : {}) };
}

/** Tells every listener of both eras that a list changed; `spread` to the other replicas as well. */
async function announce(list, spread) {
    if (list === 'tools') modern.notify.toolsChanged();
    else modern.notify.promptsChanged();
    for (const { server } of sessions.values()) {
        if (list === 'tools') server.sendToolListChanged();
        else server.sendPromptListChanged();
    }
    if (spread) await Promise.allSettled(peers.map(port => fetch(`http://127.0.0.1:${port}/_changed/${list}`, { method: 'POST' })));
}

const fill = (value, given) => JSON.parse(JSON.stringify(value).replaceAll(/\{(\w+)\}/g, (whole, key) =>
    given[key] === undefined ? whole : JSON.stringify(given[key]).slice(1, -1)));

/** One server object: per session in the session era, per request in the stateless era. */
function build() {
    const hint = { ttlMs: 1000, cacheScope: 'public' };
    const server = new McpServer({ name: 'fixture-ts', version: '1.0.0' }, {
        capabilities: { tools: { listChanged: true }, prompts: { listChanged: true }, resources: { listChanged: true, subscribe: true }, logging: {}, completions: {} },
        cacheHints: { 'tools/list': hint, 'prompts/list': hint, 'resources/list': hint, 'resources/templates/list': hint, 'resources/read': hint, 'server/discover': hint },
        requestState: { verify: stateCodec.verify },
    });
    let calls = 0;
    const count = { next: () => ++calls };
    for (const tool of fixture.tools) {
        server.registerTool(tool.name, { description: tool.description, inputSchema: fromJsonSchema(tool.inputSchema) },
            (input, ctx) => call(tool, input, { server, count, ctx }));
    }
    const { server: low } = server;
    low.setRequestHandler('prompts/list', () => ({ prompts: fixture.prompts.map(({ messages, rounds, ...prompt }) => prompt) }));
    low.setRequestHandler('prompts/get', async ({ params }, ctx) => {
        const prompt = fixture.prompts.find(({ name }) => name === params.name);
        if (!prompt) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `Unknown prompt: ${params.name}`);
        const question = prompt.rounds && await ask(prompt.rounds, false, ctx);
        return question ?? { messages: fill(prompt.messages, params.arguments ?? {}) };
    });
    low.setRequestHandler('resources/list', () => ({ resources: fixture.resources.map(({ text, blob, ...resource }) => resource) }));
    low.setRequestHandler('resources/templates/list', () => ({ resourceTemplates: fixture.templates }));
    low.setRequestHandler('resources/read', ({ params: { uri } }) => {
        const resource = fixture.resources.find(known => known.uri === uri);
        const id = /^test:\/\/template\/([^/]+)\/data$/.exec(uri)?.[1];
        if (resource) {
            const { mimeType, text, blob } = resource;
            return { contents: [text === undefined ? { uri, mimeType, blob } : { uri, mimeType, text }] };
        }
        if (id) return { contents: [{ uri, mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }) }] };
        throw new ResourceNotFoundError(uri);
    });
    low.setRequestHandler('resources/subscribe', () => ({}));
    low.setRequestHandler('resources/unsubscribe', () => ({}));
    low.setRequestHandler('completion/complete', ({ params }) => {
        const values = ['paris', 'park', 'party'].filter(value => value.startsWith(params.argument.value));
        return { completion: { values, total: values.length, hasMore: false } };
    });
    return server;
}

const modern = createMcpHandler(build, { legacy: 'reject' });

/** Keeps the last events of one session, so that a client can resume a stream. */
class Events {
    static KEEP = 1000;
    #events = [];
    #next = 1;

    async storeEvent(streamId, message) {
        const id = `${streamId}/${this.#next++}`;
        this.#events.push({ streamId, id, message });
        if (this.#events.length > Events.KEEP) this.#events.shift();
        return id;
    }

    async getStreamIdForEventId(eventId) {
        return this.#events.find(({ id }) => id === eventId)?.streamId;
    }

    async replayEventsAfter(lastEventId, { send }) {
        const at = this.#events.findIndex(({ id }) => id === lastEventId);
        if (at < 0) throw new Error('unknown event id');
        const { streamId } = this.#events[at];
        for (const event of this.#events.slice(at + 1)) {
            if (event.streamId === streamId && event.message?.jsonrpc) await send(event.id, event.message);
        }
        return streamId;
    }
}

const refuse = (status, code, message) =>
    Response.json({ jsonrpc: '2.0', error: { code, message }, id: null }, { status });

async function sessionEra(request) {
    const id = request.headers.get('mcp-session-id');
    if (id !== null) {
        const session = sessions.get(id);
        return session ? session.transport.handleRequest(request) : refuse(404, -32001, 'Session not found');
    }
    const body = request.method === 'POST' ? await request.clone().json().catch(() => undefined) : undefined;
    if (!isInitializeRequest(body)) return refuse(400, -32000, 'Bad Request: no session id');
    const server = build();
    const transport = new WebStandardStreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: opened => void sessions.set(opened, { transport, server }),
        onsessionclosed: closed => void sessions.delete(closed),
        enableJsonResponse: args.json,
        ...(args['no-events'] ? {} : { eventStore: new Events(), retryInterval: 200 }),
    });
    transport.onclose = () => sessions.delete(transport.sessionId);
    await server.connect(transport);
    return transport.handleRequest(request);
}

const mcp = toNodeHandler({
    fetch: async (request, options) => await isLegacyRequest(request) ? sessionEra(request) : modern.fetch(request, options),
});
const hostAllowed = localhostHostValidation();
const originAllowed = localhostOriginValidation();

const http = createServer((req, res) => {
    const { pathname } = new URL(req.url, 'http://localhost');
    if (pathname === '/mcp') {
        if (hostAllowed(req, res) && originAllowed(req, res)) void mcp(req, res);
    } else if (pathname === '/_sessions') {
        res.end(String(sessions.size));
    } else if (pathname.startsWith('/_changed/')) {
        void announce(pathname.slice('/_changed/'.length), false).then(() => res.end());
    } else {
        res.writeHead(404).end();
    }
});
http.keepAliveTimeout = Number(args['keep-alive']);
// Newer ones wait longer than they say.
http.keepAliveTimeoutBuffer = 0;
http.listen(Number(args.port), '127.0.0.1', () => console.log(`listening ${http.address().port}`));
