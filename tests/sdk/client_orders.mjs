// A client on the TypeScript SDKs that takes its orders one line at a time; see fault_clients.py.

import { createInterface } from 'node:readline';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { Client as Client2, StreamableHTTPClientTransport as Transport2 } from '@modelcontextprotocol/client';

const MODES = { 'ts2': 'legacy', 'ts2-auto': 'auto', 'ts2-modern': { pin: '2026-07-28' } };
const timeout = Number(process.argv[2]);
const clients = new Map();
const ports = new Map();
const moved = at => (url, init) => fetch(Object.assign(new URL(url), ports.has(at) ? { port: ports.get(at) } : {}), init);
const tell = line => console.log(JSON.stringify(line));
const told = error => ({ name: error?.name, code: error?.status ?? error?.code, message: String(error?.message ?? error).slice(0, 300) });
const build = kind => kind === 'ts1'
    ? new Client1({ name: 'test-ts1', version: '1.0.0' })
    : new Client2({ name: 'test-ts2', version: '1.0.0' }, { versionNegotiation: { mode: MODES[kind] } });

const orders = {
    async open({ at, kind, url }) {
        const client = clients.get(at)?.client ?? build(kind);
        await clients.get(at)?.client.close();
        const transport = new (kind === 'ts1' ? Transport1 : Transport2)(new URL(url), { fetch: moved(at) });
        const heard = [];
        client.fallbackNotificationHandler = async ({ method }) => heard.push(method);
        clients.set(at, { client, transport, kind, heard });
        await client.connect(transport, { timeout });
        return kind === 'ts1' ? transport.protocolVersion : client.getNegotiatedProtocolVersion();
    },
    async call({ n, at, name, args, untold }) {
        const { client, kind } = clients.get(at);
        const told = { resetTimeoutOnProgress: true, onprogress: ({ progress }) => tell({ n, tick: progress }) };
        const options = { timeout, ...(untold ? {} : told) };
        const answer = await client.callTool({ name, arguments: args }, ...(kind === 'ts1' ? [undefined] : []), options);
        return answer.content[0].text;
    },
    async read({ at, uri }) {
        return (await clients.get(at).client.readResource({ uri }, { timeout })).contents[0].text;
    },
    async tools({ at }) {
        return (await clients.get(at).client.listTools(undefined, { timeout })).tools.map(({ name }) => name).sort().join(' ');
    },
    async heard({ at }) {
        return clients.get(at).heard.join(' ');
    },
    async listen({ at }) {
        const { client } = clients.get(at);
        // Kept, or it may be taken for garbage.
        clients.get(at).listening = await client.listen({ toolsListChanged: true }, { timeout });
        return null;
    },
    async move({ at, port }) {
        ports.set(at, String(port));
        return null;
    },
    async close({ at }) {
        const { client, transport } = clients.get(at);
        clients.delete(at);
        try {
            if (transport.sessionId) await transport.terminateSession();
        } finally {
            await client.close();
        }
        return null;
    },
};

tell({ n: 0, value: 'ready' });
// What would take a real host down is told, and must not end the test.
process.on('unhandledRejection', error => tell({ unhandled: told(error) }));
for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    orders[order.do](order).then(value => tell({ n: order.n, value }), error => tell({ n: order.n, error: told(error) }));
}
process.exit(0);
