// Test client on the TypeScript SDK 2.x. For the arguments see drive.mjs, and besides:
//
//   --mode legacy       the session era, the default of this SDK
//   --mode auto         probes with `server/discover`
//   --mode modern       2026-07-28 or nothing

import { Client, SSEClientTransport, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { drive } from './drive.mjs';

const MODES = { legacy: 'legacy', auto: 'auto', modern: { pin: '2026-07-28' } };

await drive(async (url, { scenario, mode }) => {
    if (scenario === 'ws') throw new Error('this SDK has no WebSocket client');
    const transport = new (scenario === 'sse' ? SSEClientTransport : StreamableHTTPClientTransport)(new URL(url));
    const client = new Client({ name: 'test-ts2', version: '1.0.0' }, { versionNegotiation: { mode: MODES[mode] } });
    await client.connect(transport);
    return {
        sessionEra: client.getProtocolEra() === 'legacy',
        version: client.getNegotiatedProtocolVersion(),
        call: async (name, args, { timeout, onprogress }) =>
            (await client.callTool({ name, arguments: args }, { timeout, onprogress, resetTimeoutOnProgress: true })).content[0].text,
        async close() {
            if (client.getProtocolEra() === 'legacy') await transport.terminateSession?.();
            await client.close();
        },
    };
});
