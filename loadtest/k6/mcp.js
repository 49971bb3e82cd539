// What clients of both eras say over HTTP, for the scripts beside it.
import http from "k6/http";
import { Counter, Trend } from "k6/metrics";

export const url = __ENV.URL;
export const seconds = Number(__ENV.SECONDS);

const STATELESS = "2026-07-28";
const SESSION = "2025-11-25";
const ACCEPT = { "Content-Type": "application/json", Accept: "application/json, text/event-stream" };
const META = {
  "io.modelcontextprotocol/protocolVersion": STATELESS,
  "io.modelcontextprotocol/clientInfo": { name: "k6", version: "0" },
  "io.modelcontextprotocol/clientCapabilities": {},
};

export const failures = new Counter("mcp_failures");
export const times = {
  stateless: new Trend("mcp_stateless", true),
  session: new Trend("mcp_session", true),
  body: new Trend("mcp_body", true),
  websocket: new Trend("mcp_websocket", true),
};

let next = 1;

/// The result in a reply, or null: an error, another id, something that is no answer.
export function resultOf(text, id) {
  try {
    const message = JSON.parse(text);
    return message.id === id && message.result ? message.result : null;
  } catch {
    return null;
  }
}

export function fail(what, reply) {
  failures.add(1, { what });
  console.error(`${what}: status ${reply && reply.status} ${reply && reply.error} ${String(reply && reply.body).slice(0, 120)}`);
}

export function initialize(id) {
  const params = { protocolVersion: SESSION, capabilities: {}, clientInfo: { name: "k6", version: "0" } };
  return JSON.stringify({ jsonrpc: "2.0", id, method: "initialize", params });
}

export function call(id, text, meta) {
  const params = { name: "echo", arguments: { text }, ...(meta ? { _meta: meta } : {}) };
  return JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params });
}

/// Judges the answer to a call and keeps its time.
function judge(what, reply, id, text) {
  const result = reply.status === 200 && resultOf(reply.body, id);
  if (result && result.content && result.content[0].text === text) times[what].add(reply.timings.duration);
  else fail(what, reply);
}

export function statelessCall(what, text) {
  const id = next++;
  const headers = { ...ACCEPT, "MCP-Protocol-Version": STATELESS, "Mcp-Method": "tools/call", "Mcp-Name": "echo" };
  judge(what, http.post(url, call(id, text, META), { headers }), id, text);
}

/// A session as a client lives it: its stream is open while it calls, and ends with the DELETE.
export async function sessionLife(calls) {
  const opened = http.post(url, initialize(0), { headers: ACCEPT });
  const session = opened.headers["Mcp-Session-Id"];
  if (opened.status !== 200 || !resultOf(opened.body, 0) || !session) return fail("initialize", opened);
  const own = { ...ACCEPT, "Mcp-Session-Id": session, "MCP-Protocol-Version": SESSION };
  const ready = http.post(url, JSON.stringify({ jsonrpc: "2.0", method: "notifications/initialized" }), { headers: own });
  if (ready.status !== 202) fail("initialized", ready);
  const stream = http.asyncRequest("GET", url, null, { headers: { ...own, Accept: "text/event-stream" }, timeout: "20s" });
  for (let count = 0; count < calls; count++) {
    const id = next++;
    const text = `call ${id}`;
    judge("session", http.post(url, call(id, text), { headers: own }), id, text);
  }
  const ended = http.del(url, null, { headers: own });
  if (ended.status !== 200 && ended.status !== 204) fail("delete", ended);
  const events = await stream;
  // A client that ends its session at once may do so before its stream has begun.
  if (events.status !== 200 && events.status !== 404) fail("stream", events);
}
