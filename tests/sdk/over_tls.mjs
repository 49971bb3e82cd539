// Loaded before the conformance suite (`node --import`): what it asks of an https server goes over TLS
// throughout, by the version of HTTP that TIDEGATE_TEST_HTTP names, 1.1 or 2 (by ALPN).
//
// The suite fetches with the `fetch` of Node, with `request` of undici, and where it wants a say in every
// field with `http.request`, which knows no TLS. Certificates are verified against the authority in
// NODE_EXTRA_CA_CERTS, and must be for the server that the suite talks to, whatever `Host` it claims.

import http from 'node:http';
import http2 from 'node:http2';
import https from 'node:https';
import tls from 'node:tls';
import { Agent, fetch, setGlobalDispatcher } from 'undici';

const SERVER = '127.0.0.1';
const allowH2 = process.env.TIDEGATE_TEST_HTTP === '2';

setGlobalDispatcher(new Agent({ allowH2, connect: { checkServerIdentity: (_, cert) => tls.checkServerIdentity(SERVER, cert) } }));
// The one built in is of an older undici than the package, and their insides need not fit.
globalThis.fetch = fetch;

/** As much of `http.request` by HTTP/2 as the suite uses. Names are in lower case there, and values have no white space around them. */
function request({ hostname, port, path, method, headers }, answered) {
    const session = http2.connect(`https://${hostname}:${port}`);
    const fields = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value).trim()]);
    const stream = session.request({ ':method': method, ':path': path, ...Object.fromEntries(fields) });
    session.on('error', error => stream.destroy(error));
    stream.on('response', got => answered(Object.assign(stream, { statusCode: got[':status'], headers: got })));
    stream.on('close', () => session.close());
    return stream;
}

http.request = allowH2 ? request : https.request;
