// A mixed day: stateless calls, whole sessions with their streams, WebSockets and large bodies, all
// at fixed rates of arrival.
import { WebSocket } from "k6/experimental/websockets";
import { call, fail, initialize, resultOf, seconds, sessionLife, statelessCall, times, url } from "./mcp.js";

const LARGE = "x".repeat(256 * 1024);

function arriving(exec, rate, vus) {
  return {
    executor: "constant-arrival-rate",
    exec,
    rate,
    timeUnit: "1s",
    duration: `${seconds}s`,
    preAllocatedVUs: vus,
    maxVUs: 2 * vus,
    gracefulStop: "5s",
  };
}

export const options = {
  discardResponseBodies: false,
  insecureSkipTLSVerify: true,
  summaryTrendStats: ["med", "p(90)", "p(99)", "max", "count"],
  scenarios: {
    stateless: arriving("stateless", 200, 20),
    sessions: arriving("sessions", 20, 40),
    websockets: arriving("websockets", 5, 20),
    bodies: arriving("bodies", 4, 4),
  },
};

export function stateless() {
  statelessCall("stateless", "sixteen letters.");
}

export async function sessions() {
  await sessionLife(5);
}

export function bodies() {
  statelessCall("body", LARGE);
}

/// Ten calls, each when the last is answered.
export function websockets() {
  const socket = new WebSocket(url.replace(/^http/, "ws"), "mcp");
  let id = 0;
  let sent;
  let done = false;
  const send = (text) => {
    sent = Date.now();
    socket.send(text);
  };
  socket.onopen = () => send(initialize(id));
  socket.onmessage = (event) => {
    if (!resultOf(event.data, id)) fail("websocket", { status: 0, body: event.data });
    else if (id > 0) times.websocket.add(Date.now() - sent);
    if (id < 10) return send(call(++id, `call ${id}`));
    done = true;
    socket.close();
  };
  socket.onerror = (event) => done || fail("websocket", { status: 0, error: event.error });
  socket.onclose = () => done || fail("websocket closed", { status: 0 });
}
