// The pools, each with a table of its endpoints.

import { addToSpark, spark } from "./charts.js";
import { age, byId, cell, el, keyed, number, put, say, seconds, showState, stateBadge, table } from "./dom.js";

const COLUMNS = [
  ["State"],
  ["Endpoint"],
  ["Why"],
  ["Sessions", true],
  ["In flight", true],
  ["First byte p50", true],
  ["p99", true],
  ["Errors", true],
  ["Weight", true],
];

/** What keeps an endpoint out, or how long it has been as it is. */
export function why(endpoint) {
  const { state, health, admin } = endpoint;
  if (state === "drain" && admin.out_in_seconds !== null) return `out in ${age(admin.out_in_seconds)}`;
  if (state === "drain") return "until all it has is over";
  if (state === "maint") return admin.set_by === "operator" ? "set by an operator" : "by the configuration";
  if (state === "ejected") return `${endpoint.failures_in_row} failures in a row`;
  const since = health.for_seconds === null ? "" : `for ${age(health.for_seconds)}`;
  if (health.reason) return since ? `${health.reason}, ${since}` : health.reason;
  return since;
}

/** Shows the pools; `manage` is called with a pool and an endpoint. */
export function pools(manage) {
  const list = byId("pools-list");
  const empty = byId("pools-empty");
  const rows = new Map();

  const makeEndpoint = (pool, { name, address }) => {
    const badge = stateBadge();
    const line = spark();
    const cells = {
      name: cell("Endpoint", false, el("bdi", { class: "name" }, name), " ", el("bdi", { class: "muted" }, address)),
      why: cell("Why", false),
      sessions: cell("Sessions", true),
      inFlight: el("span"),
      p50: cell("First byte p50", true),
      p99: cell("p99", true),
      errors: cell("Errors", true),
      weight: cell("Weight", true),
    };
    const button = el("button", { type: "button", "aria-label": `Manage ${pool}/${name}` }, "Manage");
    const root = el(
      "tr",
      { "data-endpoint": `${pool}/${name}` },
      cell("State", false, badge.root),
      cells.name,
      cells.why,
      cells.sessions,
      cell("In flight", true, line.root, " ", cells.inFlight),
      cells.p50,
      cells.p99,
      cells.errors,
      cells.weight,
      el("td", { class: "act" }, button),
    );
    const row = { root, badge, line, cells, endpoint: null };
    button.addEventListener("click", () => manage(pool, row.endpoint));
    return row;
  };

  const updateEndpoint = (row, endpoint) => {
    row.endpoint = endpoint;
    showState(row.badge, endpoint.state);
    const { cells } = row;
    say(cells.why, why(endpoint));
    say(cells.sessions, number(endpoint.sessions));
    say(cells.inFlight, number(endpoint.in_flight));
    say(cells.p50, seconds(endpoint.first_byte_p50_seconds));
    say(cells.p99, seconds(endpoint.first_byte_p99_seconds));
    say(cells.errors, number(endpoint.failures));
    put(cells.errors, "title", `${endpoint.failures_in_row} in a row now; ejected ${endpoint.ejections} times`);
    say(cells.weight, number(endpoint.weight));
    addToSpark(row.line, endpoint.in_flight);
  };

  const makePool = ({ name }) => {
    const { root: inner, body } = table(`Endpoints of ${name}`, COLUMNS);
    inner.querySelector("thead tr").append(el("th", { scope: "col", class: "act" }, el("span", { class: "hide" }, "Actions")));
    const facts = el("span", { class: "muted" });
    const note = el("span", { class: "badge" });
    const root = el(
      "article",
      { class: "panel pool", "data-pool": name },
      el("div", { class: "head" }, el("h2", {}, el("bdi", {}, name)), note, facts),
      el("div", { class: "wide" }, inner),
    );
    return { root, body, facts, note, rows: new Map() };
  };

  const updatePool = (row, pool) => {
    const up = pool.endpoints.filter((endpoint) => endpoint.state === "up").length;
    const all = up === pool.endpoints.length;
    const some = `${all ? "●" : "▲"} ${up} of ${pool.endpoints.length} up`;
    say(row.note, pool.usable ? some : "✕ no endpoint takes calls");
    put(row.note, "data-tone", !pool.usable ? "bad" : all ? "good" : "warn");
    const waiting = pool.waiting ? `, ${number(pool.waiting)} waiting` : "";
    const kind = pool.kind === "mcp" ? "" : `${pool.kind}, `;
    const balance = pool.balance.replaceAll("_", " ");
    say(
      row.facts,
      `${kind}${balance} · ${number(pool.sessions)} sessions, ${number(pool.in_flight)} in flight${waiting}`,
    );
    keyed(
      row.body,
      row.rows,
      pool.endpoints,
      (endpoint) => endpoint.name,
      (endpoint) => makeEndpoint(pool.name, endpoint),
      updateEndpoint,
    );
  };

  return (all) => {
    empty.hidden = all.length > 0;
    say(empty, "The configuration has no pools.");
    keyed(list, rows, all, (pool) => pool.name, makePool, updatePool);
  };
}
