// A little MCP traffic for the console to show: sessions of a few clients, and calls.

import { setTimeout as sleep } from 'node:timers/promises';

const EVERY_MS = 60;
const CLIENTS = ['inspector', 'claude-code', 'cursor', 'agent-runner', 'agent-runner', 'claude-code', 'vscode', 'claude-code'];

export class Traffic {
    /** A name that would do something if it were more than text. */
    evil = '<img src=x onerror="window.ran=1">';
    sessions = [];
    isOver = true;

    constructor(url) {
        this.url = url;
    }

    async post(message, session) {
        const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
        if (session) Object.assign(headers, { 'mcp-session-id': session, 'mcp-protocol-version': '2025-11-25' });
        const response = await fetch(this.url, { method: 'POST', headers, body: JSON.stringify({ jsonrpc: '2.0', ...message }) });
        await response.text();
        return response;
    }

    async open(name, version) {
        const params = { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name, version } };
        const response = await this.post({ id: 1, method: 'initialize', params });
        const session = response.headers.get('mcp-session-id');
        await this.post({ method: 'notifications/initialized' }, session);
        await this.post({ id: 2, method: 'tools/list' }, session);
        this.sessions.push(session);
    }

    async start() {
        for (const [at, name] of [...CLIENTS, this.evil].entries()) await this.open(name, `1.${at}.0`);
        this.isOver = false;
        this.running = this.call();
    }

    /** Calls until it is told to stop; one that fails is what becomes of calls when servers die. */
    async call() {
        const tools = ['echo', 'whoami', 'echo', 'counter', 'no_such_tool', 'echo', 'whoami'];
        for (let n = 0; !this.isOver; n++) {
            const session = this.sessions[n % this.sessions.length];
            const params = { name: tools[n % tools.length], arguments: { text: 'tide', message: 'tide' } };
            await this.post({ id: n + 3, method: 'tools/call', params }, session).catch(() => {});
            await sleep(EVERY_MS * (0.4 + Math.random()));
        }
    }

    async stop() {
        this.isOver = true;
        await this.running;
    }
}
