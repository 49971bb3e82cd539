// Talking to the API: questions, operations, and the stream of events.

/** An answer that is no good, with the API's own sentence. */
export class Failed extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const PATIENCE_MS = 10000;
/** A stream that has said nothing for so long is lost: it sends something each second. */
const SILENCE_MS = 4000;
const RETRY_MS = [500, 1000, 2000, 4000, 5000];

async function ask(path, options = {}) {
  const response = await fetch(`/v1/${path}`, {
    ...options,
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  throw new Failed(response.status, answer.error?.message ?? `it was answered with ${response.status}`);
}

export const get = (path) => ask(path);

// The field in the head shows that it was this page that asked.
const ASKED = { "X-Tidegate-Request": "1" };

export function post(path, body) {
  const text = body === undefined ? undefined : JSON.stringify(body);
  return ask(path, { method: "POST", headers: ASKED, body: text });
}

export const remove = (path) => ask(path, { method: "DELETE", headers: ASKED });

/**
 * Follows the events for as long as the page is open.
 *
 * `on.open` is called with each connection, `on.message` with the kind and data of each event, and
 * `on.lost` with a reason. Returns a function that tries again at once.
 */
export function follow(on) {
  let last = "";
  let failures = 0;
  let wake = () => {};

  const pause = (ms) =>
    new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });

  const listen = async () => {
    const stop = new AbortController();
    let alarm = setTimeout(() => stop.abort(), SILENCE_MS);
    const headers = last ? { "Last-Event-ID": last } : {};
    try {
      const response = await fetch("/v1/events", { headers, cache: "no-store", signal: stop.signal });
      if (!response.ok) {
        const answer = await response.json().catch(() => ({}));
        throw new Failed(response.status, answer.error?.message ?? `status ${response.status}`);
      }
      failures = 0;
      on.open();
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const read = parser((event) => {
        if (event.id) last = event.id;
        on.message(event.kind, JSON.parse(event.data));
      });
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return "it was ended";
        clearTimeout(alarm);
        alarm = setTimeout(() => stop.abort(), SILENCE_MS);
        read(value);
      }
    } catch (error) {
      if (error instanceof Failed) return error.message;
      return stop.signal.aborted ? "nothing comes any more" : "it cannot be reached";
    } finally {
      clearTimeout(alarm);
      stop.abort();
    }
  };

  (async () => {
    for (;;) {
      const why = await listen();
      const ms = RETRY_MS[Math.min(failures, RETRY_MS.length - 1)];
      failures += 1;
      on.lost(why);
      await pause(ms);
    }
  })();
  return () => wake();
}

/** Takes text in pieces, and calls `each` with every event that is complete. */
export function parser(each) {
  let rest = "";
  let event = { kind: "message", data: "", id: "" };
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data) each(event);
        event = { kind: "message", data: "", id: "" };
        continue;
      }
      const at = line.indexOf(": ");
      if (at < 0) continue;
      const value = line.slice(at + 2);
      if (line.startsWith("event:")) event.kind = value;
      else if (line.startsWith("id:")) event.id = value;
      else if (line.startsWith("data:")) event.data += value;
    }
  };
}
