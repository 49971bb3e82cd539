// Elements and words. Nothing here reads HTML: what clients and servers say is only ever text.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes and children; a child that is no element is text. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same of SVG. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Sets a text, without touching the page where it is the same. */
export function say(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function put(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Makes the children of `parent` be those of `items`, in their order: one is made for a new key. */
export function keyed(parent, rows, items, keyOf, make, update) {
  const seen = new Set();
  let next = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    seen.add(key);
    let row = rows.get(key);
    if (!row) {
      row = make(item);
      rows.set(key, row);
    }
    if (row.root === next) next = next.nextSibling;
    else parent.insertBefore(row.root, next);
    update(row, item);
  }
  for (const [key, row] of rows) {
    if (seen.has(key)) continue;
    row.root.remove();
    rows.delete(key);
  }
}

const NONE = "–";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A number of three digits or so. */
export function number(value) {
  if (value === null || value === undefined) return NONE;
  if (Number.isInteger(value) || value >= 100) return whole.format(value);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** A short time in the unit that suits it. */
export function seconds(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0";
  if (value >= 100) return `${whole.format(value)} s`;
  if (value >= 1) return `${value.toFixed(value >= 10 ? 1 : 2)} s`;
  const ms = value * 1000;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 10 ? ms.toFixed(1) : ms.toFixed(2)} ms`;
}

/** How long ago, in the two units that matter. */
export function age(value) {
  if (value === null || value === undefined) return NONE;
  const parts = [
    [Math.floor(value / 86400), "d"],
    [Math.floor(value / 3600) % 24, "h"],
    [Math.floor(value / 60) % 60, "m"],
    [Math.floor(value) % 60, "s"],
  ];
  const from = parts.findIndex(([count]) => count > 0);
  if (from < 0) return "0 s";
  return parts
    .slice(from, from + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** The time of day of a moment here. */
export function clock(moment) {
  return new Date(moment).toLocaleTimeString("en-GB");
}

const STATES = {
  up: ["●", "good"],
  unchecked: ["○", "quiet"],
  unwell: ["▲", "warn"],
  "half-open": ["▲", "warn"],
  ejected: ["▲", "warn"],
  drain: ["◐", "info"],
  maint: ["■", "quiet"],
  down: ["✕", "bad"],
  open: ["✕", "bad"],
  unresolved: ["✕", "bad"],
};

const WORDS = { open: "breaker open", "half-open": "breaker half-open", maint: "maintenance" };

/** A badge for the state of an endpoint: a shape, a word, and only then a colour. */
export function stateBadge() {
  const glyph = el("span", { class: "glyph", "aria-hidden": "true" });
  const word = el("span");
  return { root: el("span", { class: "badge" }, glyph, " ", word), glyph, word };
}

export function showState(badge, state) {
  const [glyph, tone] = STATES[state] ?? ["?", "quiet"];
  say(badge.glyph, glyph);
  say(badge.word, WORDS[state] ?? state);
  put(badge.root, "data-tone", tone);
  put(badge.root, "data-state", state);
}

/** A table with these columns; a column is its heading and whether it holds figures. */
export function table(caption, columns) {
  const heads = columns.map(([name, isFigure]) =>
    el("th", { scope: "col", class: isFigure ? "figure" : null }, name),
  );
  const body = el("tbody");
  const root = el(
    "table",
    {},
    el("caption", { class: "hide" }, caption),
    el("thead", {}, el("tr", {}, ...heads)),
    body,
  );
  return { root, body };
}

/** A cell that also says which column it is in, where rows stand as cards. */
export function cell(label, isFigure, ...children) {
  const inside = children.length > 1 ? [el("span", {}, ...children)] : children;
  return el("td", { "data-label": label, class: isFigure ? "figure" : null }, ...inside);
}
