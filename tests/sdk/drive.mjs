// What every JavaScript test client does, whatever the SDK under it. Not run by itself: see
// client_ts1.mjs and client_ts2.mjs, which tell it how to connect.
//
//   --url URL           where to
//   --sessions N        how many clients, one after another ...
//   --concurrency C     ... of which C at a time
//   --calls M           how many times each of them calls each tool
//   --timeout MS        of one call
//   --scenario NAME     calls   the tools `counter` and `whoami` (session era), `echo` and `whoami`
//                       ticks   one long call with progress; tells what was seen if the stream broke
//                       sse     calls, over HTTP+SSE
//                       ws      calls, over WebSocket
//   --n N --every MS    ticks: how many and how often
//
// Prints one line of JSON and exits 0 when all was well, 1 otherwise.

import { parseArgs } from 'node:util';

/** Errors listed in the report; the rest is only counted. */
const ERRORS_MAX = 20;

/**
 * `connect(url, options)` opens one client and resolves with
 * `{ sessionEra, version, call(name, args, { timeout, onprogress }), close() }`.
 */
export async function drive(connect) {
    const { values } = parseArgs({ options: {
        url: { type: 'string' },
        sessions: { type: 'string', default: '1' },
        calls: { type: 'string', default: '3' },
        concurrency: { type: 'string', default: '10' },
        timeout: { type: 'string', default: '15000' },
        scenario: { type: 'string', default: 'calls' },
        mode: { type: 'string', default: 'legacy' },
        n: { type: 'string', default: '20' },
        every: { type: 'string', default: '250' },
    } });
    const options = {
        ...values, sessions: Number(values.sessions), calls: Number(values.calls), concurrency: Number(values.concurrency),
        timeout: Number(values.timeout), n: Number(values.n), every: Number(values.every),
    };
    // What would take a real host down counts as a failure here, but must not cost us the report.
    const unhandled = [];
    process.on('unhandledRejection', error => unhandled.push(told(error)));
    const report = options.scenario === 'ticks' ? await ticks(connect, options) : await calls(connect, options);
    if (unhandled.length > 0) Object.assign(report, { unhandled: unhandled.slice(0, ERRORS_MAX), ok: false });
    console.log(JSON.stringify(report));
    // Streams that nobody reads any more must not keep the process.
    process.exit(report.ok ? 0 : 1);
}

export const told = error => ({ name: error?.name, code: error?.code, message: String(error?.message ?? error).slice(0, 300) });

async function calls(connect, options) {
    const report = { sessions: 0, calls: 0, errors: [], errorCount: 0, names: {}, versions: {}, ok: false };
    const fail = (session, what) => {
        report.errorCount++;
        if (report.errors.length < ERRORS_MAX) report.errors.push({ session, ...what });
    };
    const one = async session => {
        const client = await connect(options.url, options);
        report.versions[client.version] = (report.versions[client.version] ?? 0) + 1;
        const names = new Set();
        const ask = async (tool, args) => {
            const answer = await client.call(tool, args, { timeout: options.timeout });
            report.calls++;
            return answer;
        };
        try {
            for (let call = 1; call <= options.calls; call++) {
                // Two at once, so that replies can cross.
                const word = `${session}/${call}/é`;
                const [counted, name] = await Promise.all([
                    client.sessionEra ? ask('counter', {}) : ask('echo', { text: word }),
                    ask('whoami', {}),
                ]);
                names.add(name);
                report.names[name] = (report.names[name] ?? 0) + 1;
                const expected = client.sessionEra ? String(call) : word;
                if (counted !== expected) fail(session, { message: `expected ${expected}, got ${counted}` });
            }
            if (client.sessionEra && names.size > 1) fail(session, { message: `answered by ${[...names].join(', ')}` });
        } finally {
            await client.close();
        }
        report.sessions++;
    };
    let next = 0;
    const worker = async () => {
        for (let session = ++next; session <= options.sessions; session = ++next) {
            await one(session).catch(error => fail(session, told(error)));
        }
    };
    await Promise.all(Array.from({ length: options.concurrency }, worker));
    report.ok = report.errorCount === 0 && report.sessions === options.sessions;
    return report;
}

async function ticks(connect, options) {
    const report = { scenario: 'ticks', ticks: 0, outcome: null, ms: 0, last_tick_ms: null, followup: null, ok: false };
    let start = performance.now();
    const since = () => Math.round(performance.now() - start);
    let client;
    try {
        client = await connect(options.url, options);
    } catch (error) {
        return { ...report, ms: since(), client_error: told(error) };
    }
    report.version = client.version;
    start = performance.now();
    try {
        report.outcome = await client.call('ticks', { n: options.n, every_ms: options.every }, {
            timeout: options.timeout,
            onprogress: () => {
                report.ticks++;
                report.last_tick_ms = since();
            },
        });
    } catch (error) {
        report.error = told(error);
    }
    report.ms = since();
    // Does the session still work afterwards?
    const again = performance.now();
    try {
        report.followup = await client.call('whoami', {}, { timeout: options.timeout });
    } catch (error) {
        report.followup_error = told(error);
    }
    report.followup_ms = Math.round(performance.now() - again);
    await client.close().catch(() => {});
    report.ok = report.outcome !== null && report.ticks === options.n;
    return report;
}
