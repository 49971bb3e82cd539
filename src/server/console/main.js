// The page: what is asked when, and what is shown of it.

import { endSession, manage } from "./actions.js";
import { follow, get } from "./api.js";
import { chart } from "./charts.js";
import { age, byId, clock, number, put, say, seconds } from "./dom.js";
import { configuration, endings, feed, tools } from "./panels.js";
import { pools } from "./pools.js";
import { sessions } from "./sessions.js";

const HISTORY_SECONDS = 300;
const SLOW_MS = 5000;

const showPools = pools(manage);
const askSessions = sessions((session) => endSession(session, () => askSessions()));
const events = feed();
const askTools = tools();
const askEndings = endings();
const askConfiguration = configuration();

const showRequests = chart(
  "chart-requests",
  [
    { name: "answered", mark: "first", of: (point) => point.requests },
    { name: "failed", mark: "wrong", of: (point) => point.failed },
  ],
  number,
);
const showLatency = chart(
  "chart-latency",
  [
    { name: "p50", mark: "first", of: (point) => point.p50 },
    { name: "p99", mark: "second", of: (point) => point.p99 },
  ],
  seconds,
);

let points = [];

function showCharts() {
  showRequests(points, HISTORY_SECONDS);
  showLatency(points, HISTORY_SECONDS);
}

async function askHistory() {
  const past = await get("history");
  const before = past.time.map((time, at) => ({
    time,
    requests: past.requests_per_second[at],
    failed: past.failed_per_second[at],
    p50: past.p50_seconds[at],
    p99: past.p99_seconds[at],
  }));
  const last = before.at(-1)?.time ?? 0;
  points = [...before, ...points.filter((point) => point.time > last)];
  showCharts();
}

async function askInfo() {
  const info = await get("info");
  say(byId("version"), info.version);
  const isOperator = info.level === "operate";
  document.body.classList.toggle("may-operate", isOperator);
  say(byId("level"), isOperator ? "✎ may operate" : "◎ read only");
  put(byId("level"), "title", isOperator ? "admin.level is operate" : "operate with the commands, or set admin.level");
}

const figures = [...document.querySelectorAll("[data-now]")];
let heard = null;

function showStatus(status) {
  heard = status.time;
  document.body.classList.remove("is-loading");
  const { totals } = status;
  for (const figure of figures) {
    const name = figure.dataset.now;
    say(figure, (name.endsWith("_seconds") ? seconds : number)(totals[name]));
  }
  const isReady = status.ready === "ready";
  const ready = byId("ready");
  say(ready, isReady ? `● ready, up ${age(status.uptime_seconds)}` : `▲ ${status.phase}: ${status.ready}`);
  put(ready, "data-tone", isReady ? "good" : "warn");
  showPools(status.pools);
  const time = Math.floor(Date.parse(status.time) / 1000);
  if (time > (points.at(-1)?.time ?? 0)) {
    points.push({
      time,
      requests: totals.requests_per_second,
      failed: totals.failed_per_second,
      p50: totals.p50_seconds,
      p99: totals.p99_seconds,
    });
    points = points.filter((point) => point.time > time - HISTORY_SECONDS);
  }
  showCharts();
}

function showLink(state, glyph) {
  const link = byId("link");
  put(link, "data-link", state);
  put(link, "data-tone", { live: "good", lost: "bad" }[state] ?? "quiet");
  say(link.firstElementChild, glyph);
  say(link.lastElementChild, state);
}

/** What is asked rather than sent; what cannot be had now is asked for again later. */
const quietly = (ask) => ask().catch(() => {});
const askSlow = () => [askSessions, askTools, askEndings].forEach(quietly);
const askAll = () => {
  [askInfo, askHistory, askConfiguration].forEach(quietly);
  askSlow();
};

let isLive = false;
const again = follow({
  open() {
    isLive = true;
    showLink("live", "●");
    byId("lost").hidden = true;
    document.body.classList.remove("is-stale");
    askAll();
  },
  message(kind, data) {
    if (kind === "status") {
      showStatus(data);
      events.isCurrent();
    } else if (kind === "event") {
      events.add(data);
      if (data.topic === "reload") quietly(askConfiguration);
    }
  },
  lost(why) {
    isLive = false;
    showLink("lost", "✕");
    document.body.classList.add("is-stale");
    byId("lost").hidden = false;
    const from = heard ? `What is shown is from ${clock(heard)}. ` : "";
    say(byId("lost-text"), `${from}It is tried again every few seconds (${why}).`);
  },
});
byId("retry").addEventListener("click", again);

setInterval(() => {
  if (isLive && document.visibilityState === "visible") askSlow();
}, SLOW_MS);
