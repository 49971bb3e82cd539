// What stands beside the pools: events, tools, ends, reloads, the configuration.

import { get } from "./api.js";
import { byId, cell, clock, el, keyed, number, say, seconds, table } from "./dom.js";

const FEED_MAX = 200;

const TONES = { good: ["●", "good"], note: ["◆", "info"], bad: ["✕", "bad"] };

/** Takes events as they come, and shows the last ones with the newest first. */
export function feed() {
  const [list, empty, said, filter] = ["feed", "events-empty", "said", "events-bad"].map(byId);
  const known = new Set();
  let isPast = true;

  const show = () => {
    const entries = [...list.children];
    for (const entry of entries) entry.hidden = filter.checked && entry.dataset.weight !== "bad";
    empty.hidden = entries.some((entry) => !entry.hidden);
    say(empty, entries.length ? "Nothing is wrong among the last events." : "Nothing has happened yet.");
  };
  filter.addEventListener("change", show);

  const add = (event) => {
    // One that comes again after the connection was lost.
    if (known.has(event.id)) return;
    known.add(event.id);
    const [glyph, tone] = TONES[event.weight] ?? TONES.note;
    const place = event.pool ? el("bdi", { class: "name" }, `${event.pool}/${event.endpoint}`) : null;
    list.prepend(
      el(
        "li",
        { "data-weight": event.weight, "data-topic": event.topic },
        el("time", { datetime: event.time, title: event.time }, clock(event.time)),
        el("span", { class: "badge", "data-tone": tone }, el("span", { class: "glyph", "aria-hidden": "true" }, glyph), ` ${event.topic}`),
        el("span", { class: "what" }, place, place ? " " : null, el("bdi", {}, event.text)),
      ),
    );
    while (list.children.length > FEED_MAX) list.lastChild.remove();
    if (known.size > 4 * FEED_MAX) known.delete(known.values().next().value);
    if (!isPast && event.weight === "bad") say(said, `${event.pool} ${event.endpoint} ${event.text}`);
    show();
  };
  // What happened before the page was opened is shown and not announced.
  const isCurrent = () => {
    isPast = false;
  };
  return { add, isCurrent };
}

/** The tools that are called most. Returns a function that asks anew. */
export function tools() {
  const { root, body } = table("Tools, those called most first", [
    ["Tool"],
    ["Calls/s", true],
    ["p50", true],
    ["p99", true],
    ["Calls", true],
    ["Errors", true],
  ]);
  byId("tools-list").append(el("div", { class: "wide" }, root));
  const [empty, count] = ["tools-empty", "tools-count"].map(byId);
  root.hidden = true;
  const rows = new Map();
  const make = ({ name }) => {
    const cells = ["Calls/s", "p50", "p99", "Calls", "Errors"].map((label) => cell(label, true));
    const row = el("tr", {}, cell("Tool", false, el("bdi", { class: "name" }, name)), ...cells);
    return { root: row, cells };
  };
  const update = ({ cells }, tool) => {
    const share = tool.calls ? ` (${number((100 * tool.errors) / tool.calls)} %)` : "";
    [
      number(tool.calls_per_second),
      seconds(tool.p50_seconds),
      seconds(tool.p99_seconds),
      number(tool.calls),
      number(tool.errors) + (tool.errors ? share : ""),
    ].forEach((text, at) => say(cells[at], text));
  };
  return async () => {
    const answer = await get("tools?limit=15");
    keyed(body, rows, answer.tools, (tool) => tool.name, make, update);
    root.hidden = answer.tools.length === 0;
    empty.hidden = answer.tools.length > 0;
    say(count, answer.total > answer.tools.length ? `${answer.tools.length} of ${answer.total}` : "");
  };
}

const WORDS = {
  complete: "complete",
  client_closed: "client closed",
  upstream_lost: "server lost",
  upstream_closed: "server closed early",
  slow_reader: "slow reader",
};

/** Why streams and sessions ended. Returns a function that asks anew. */
export function endings() {
  const list = byId("endings-list");
  const empty = byId("endings-empty");
  const groups = ["Streams", "Sessions"].map((name) => {
    const { root, body } = table(`Why ${name.toLowerCase()} ended`, [[name], ["Count", true], ["Share"]]);
    list.append(el("div", { class: "wide" }, root));
    root.hidden = true;
    return { root, body, rows: new Map() };
  });
  const show = ({ root, body, rows }, ended) => {
    const total = ended.reduce((sum, { count }) => sum + count, 0);
    const make = ({ kind, reason }) => {
      const words = WORDS[reason] ?? reason.replaceAll("_", " ");
      const figure = cell("Count", true);
      const bar = el("span", { class: "bar-of" });
      const label = cell("Why", false, words, el("span", { class: "muted" }, kind ? ` ${kind}` : ""));
      return { root: el("tr", {}, label, figure, el("td", { "data-label": "Share" }, bar)), figure, bar };
    };
    const update = ({ figure, bar }, { count }) => {
      say(figure, number(count));
      bar.style.setProperty("--share", `${(100 * count) / total}%`);
    };
    const sorted = [...ended].sort((a, b) => b.count - a.count);
    keyed(body, rows, sorted, ({ kind, reason }) => `${kind} ${reason}`, make, update);
    root.hidden = total === 0;
    return total;
  };
  return async () => {
    const [streams, sessions] = await Promise.all([get("streams?limit=1"), get("sessions?limit=1")]);
    const counts = [show(groups[0], streams.ended), show(groups[1], sessions.ended)];
    empty.hidden = counts.some((count) => count > 0);
  };
}

/** Reloads and the configuration in force. Returns a function that asks anew. */
export function configuration() {
  const list = byId("reloads-list");
  const [empty, text] = ["reloads-empty", "config-text"].map(byId);
  const shown = ({ time, took_ms, result, error, done }) => {
    const isGood = result === "ok";
    const what = isGood
      ? `${done.pools_changed} pools new or changed, ${done.endpoints_leaving} endpoints leave, ${done.listeners_opened} listeners opened, ${done.listeners_closed} closed`
      : "not reloaded, all goes on as it was";
    const notes = [...(done?.kept ?? []).map((key) => `${key} waits for the next process`), ...(done?.warnings ?? [])];
    return el(
      "li",
      {},
      el("time", { datetime: time, title: time }, `${time.slice(0, 10)} ${clock(time)}`),
      el("span", { class: "badge", "data-tone": isGood ? "good" : "bad" }, isGood ? "● in force" : "✕ failed"),
      el("span", { class: "what" }, `${what} (${number(took_ms)} ms)`),
      error ? el("pre", { tabindex: "0", "aria-label": "What is wrong" }, error) : null,
      ...notes.map((note) => el("p", { class: "muted" }, note)),
    );
  };
  return async () => {
    const [{ reloads }, { config }] = await Promise.all([get("reloads"), get("config")]);
    list.replaceChildren(...reloads.map(shown));
    empty.hidden = reloads.length > 0;
    say(text, yaml(config, ""));
  };
}

const PLAIN = /^[A-Za-z0-9_./-][A-Za-z0-9_./ :-]*$/;

/** A value as YAML, for people to read. */
export function yaml(value, indent) {
  if (value === null || typeof value !== "object") return `${scalar(value)}\n`;
  const entries = Array.isArray(value) ? value.map((item) => ["-", item]) : Object.entries(value);
  if (entries.length === 0) return Array.isArray(value) ? "[]\n" : "{}\n";
  const isList = Array.isArray(value);
  const lines = entries.map(([key, item]) => {
    const isDeep = item !== null && typeof item === "object" && Object.keys(item).length > 0;
    if (!isDeep) return `${indent}${isList ? "-" : `${key}:`} ${yaml(item, "")}`;
    const inner = yaml(item, `${indent}  `);
    return isList ? `${indent}- ${inner.slice(indent.length + 2)}` : `${indent}${key}:\n${inner}`;
  });
  return lines.join("");
}

function scalar(value) {
  if (typeof value !== "string") return String(value);
  return PLAIN.test(value) && value.trim() === value ? value : JSON.stringify(value);
}
