// The list of live sessions, with search.

import { get } from "./api.js";
import { age, byId, cell, el, keyed, number, say, table } from "./dom.js";

const PAGE = 50;
const MOST = 500;
const TYPING_MS = 200;

const COLUMNS = [
  ["Session"],
  ["Client"],
  ["Protocol"],
  ["Pool / endpoint"],
  ["Age", true],
  ["Idle", true],
  ["Streams", true],
];

/** Shows sessions; `end` is called with one that is to end. Returns a function that asks anew. */
export function sessions(end) {
  const { root, body } = table("Live sessions", COLUMNS);
  root.querySelector("thead tr").append(el("th", { scope: "col", class: "act" }, el("span", { class: "hide" }, "Actions")));
  byId("sessions-list").append(el("div", { class: "wide" }, root));
  root.hidden = true;
  const [empty, count, more, input] = ["sessions-empty", "sessions-count", "sessions-more", "q"].map(byId);
  const rows = new Map();
  let wanted = PAGE;
  let asked = 0;

  const make = (session) => {
    const cells = {
      place: cell("Pool / endpoint", false, el("bdi")),
      age: cell("Age", true),
      idle: cell("Idle", true),
      streams: cell("Streams", true),
    };
    const { client } = session;
    const name = client
      ? [el("bdi", { class: "name" }, client.name || "(no name)"), " ", el("bdi", { class: "muted" }, client.version)]
      : [el("span", { class: "muted" }, "not known")];
    const button = el("button", { type: "button", "aria-label": `End session ${session.id}` }, "End");
    button.addEventListener("click", () => end(session));
    const row = el(
      "tr",
      {},
      cell("Session", false, el("code", {}, session.id)),
      cell("Client", false, ...name),
      cell("Protocol", false, session.revision, el("span", { class: "muted" }, ` ${session.era} era`)),
      cells.place,
      cells.age,
      cells.idle,
      cells.streams,
      el("td", { class: "act" }, button),
    );
    return { root: row, cells };
  };

  const update = ({ cells }, session) => {
    say(cells.place.firstChild, `${session.pool} / ${session.endpoint}`);
    say(cells.age, age(session.age_seconds));
    say(cells.idle, session.open_streams > 0 ? "–" : age(session.idle_seconds));
    say(cells.streams, number(session.open_streams));
  };

  const ask = async () => {
    const mine = ++asked;
    const text = input.value.trim();
    try {
      const page = await get(`sessions?limit=${wanted}${text ? `&q=${encodeURIComponent(text)}` : ""}`);
      // Another question was asked meanwhile.
      if (mine !== asked) return;
      keyed(body, rows, page.sessions, (session) => session.id, make, update);
      root.hidden = page.sessions.length === 0;
      empty.hidden = page.sessions.length > 0;
      say(empty, text ? `No session has “${text}” in it.` : "No client has a session now.");
      say(count, number(page.total));
      more.hidden = page.next === null || wanted >= MOST;
    } catch (error) {
      if (mine !== asked || rows.size > 0) return;
      empty.hidden = false;
      say(empty, `Sessions cannot be shown: ${error.message}.`);
    }
  };

  let typing;
  input.addEventListener("input", () => {
    clearTimeout(typing);
    wanted = PAGE;
    typing = setTimeout(ask, TYPING_MS);
  });
  byId("sessions-form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  more.addEventListener("click", () => {
    wanted = Math.min(wanted + 2 * PAGE, MOST);
    ask();
  });
  return ask;
}
