// Test client on the TypeScript SDK 1.x (session era only). For the arguments see drive.mjs.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { SSEClientTransport } from '@modelcontextprotocol/sdk/client/sse.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { WebSocketClientTransport } from '@modelcontextprotocol/sdk/client/websocket.js';

import { drive } from './drive.mjs';

await drive(async (url, { scenario }) => {
    const Transport = { sse: SSEClientTransport, ws: WebSocketClientTransport }[scenario] ?? StreamableHTTPClientTransport;
    const transport = new Transport(new URL(url));
    let version = null;
    // The transport of WebSocket has no such hook; its version is the one asked for.
    transport.setProtocolVersion = (original => function (agreed) {
        version = agreed;
        original?.call(this, agreed);
    })(transport.setProtocolVersion);
    const client = new Client({ name: 'test-ts1', version: '1.0.0' });
    await client.connect(transport);
    return {
        sessionEra: true,
        version,
        call: async (name, args, { timeout, onprogress }) =>
            (await client.callTool({ name, arguments: args }, undefined, { timeout, onprogress, resetTimeoutOnProgress: true })).content[0].text,
        async close() {
            await transport.terminateSession?.();
            await client.close();
        },
    };
});
