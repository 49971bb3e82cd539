// Lines over time, as SVG.

import { byId, clock, el, put, say, svg } from "./dom.js";

const WIDTH = 600;
const HEIGHT = 150;
const LEFT = 52;
const BOTTOM = 18;
const TOP = 8;

/** The lowest of 1, 2 and 5 times a power of ten that is not under a value. */
function nice(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

/**
 * A chart in the figure of this id. Each series is a name, a class and what is read of a point; `show`
 * says a value in words.
 */
export function chart(id, series, show) {
  const figure = byId(id);
  const legend = series.map(({ name, mark }) => {
    const value = el("b", {}, "–");
    const sample = svg(
      "svg",
      { viewBox: "0 0 18 6", width: 18, height: 6, "aria-hidden": "true" },
      svg("path", { d: "M0 3h18", class: `line ${mark}` }),
    );
    return { value, root: el("span", { class: "key" }, sample, ` ${name} `, value) };
  });
  figure.querySelector("figcaption").append(
    el("div", { class: "legend" }, ...legend.map((entry) => entry.root)),
  );
  const title = figure.querySelector("h2").textContent;
  const grid = [0, 0.5, 1].map((share) => {
    const y = TOP + (1 - share) * (HEIGHT - TOP - BOTTOM);
    const label = svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" });
    return { share, label, line: svg("path", { d: `M${LEFT} ${y}H${WIDTH}`, class: "grid" }) };
  });
  const times = [0, 0.5, 1].map((share) => {
    const anchor = share === 0 ? "start" : share === 1 ? "end" : "middle";
    const x = LEFT + share * (WIDTH - LEFT);
    return { share, label: svg("text", { x, y: HEIGHT - 3, "text-anchor": anchor }) };
  });
  const lines = series.map(({ mark }) => svg("path", { class: `line ${mark}` }));
  const area = svg("path", { class: `area ${series[0].mark}` });
  const root = svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": title, class: "chart" },
    ...grid.flatMap(({ line, label }) => [line, label]),
    ...times.map(({ label }) => label),
    area,
    ...lines,
  );
  const none = el("p", { class: "empty" }, "No requests in the last five minutes.");
  figure.append(root, none);

  return (points, span) => {
    const values = points.flatMap((point) => series.map(({ of }) => of(point) ?? 0));
    const most = values.reduce((a, b) => Math.max(a, b), 0);
    none.hidden = most > 0;
    const top = nice(most);
    const end = points.at(-1)?.time ?? 0;
    const x = (time) => LEFT + (1 - (end - time) / span) * (WIDTH - LEFT);
    const y = (value) => TOP + (1 - value / top) * (HEIGHT - TOP - BOTTOM);
    for (const { share, label } of grid) say(label, most > 0 ? show(top * share) : "");
    for (const { share, label } of times) {
      say(label, points.length ? clock((end - (1 - share) * span) * 1000) : "");
    }
    series.forEach(({ of, name }, at) => {
      put(lines[at], "d", path(points, of, x, y));
      const value = points.length ? show(of(points.at(-1))) : "–";
      say(legend[at].value, value);
      if (at === 0) put(root, "aria-label", `${title}: ${name} ${value}, at most ${show(most)}`);
    });
    put(area, "d", under(points, series[0].of, x, y));
  };
}

/** A line through the points that have a value, broken where they have none. */
function path(points, of, x, y) {
  let text = "";
  let pen = "M";
  for (const point of points) {
    const value = of(point);
    if (value === null || value === undefined) {
      pen = "M";
      continue;
    }
    text += `${pen}${x(point.time).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = "L";
  }
  return text;
}

function under(points, of, x, y) {
  const have = points.filter((point) => (of(point) ?? null) !== null);
  if (have.length < 2) return "";
  const floor = y(0).toFixed(1);
  const first = x(have[0].time).toFixed(1);
  const last = x(have.at(-1).time).toFixed(1);
  const line = have.map((point) => `L${x(point.time).toFixed(1)} ${y(of(point)).toFixed(1)}`);
  return `M${first} ${floor}${line.join("")}L${last} ${floor}Z`;
}

const SPARK_WIDTH = 64;
const SPARK_HEIGHT = 16;
/** Seconds that a spark line shows. */
export const SPARK_POINTS = 60;

/** A small line of the last minute; the figure beside it says what it means. */
export function spark() {
  const line = svg("path", { class: "line first" });
  const root = svg(
    "svg",
    {
      viewBox: `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`,
      width: SPARK_WIDTH,
      height: SPARK_HEIGHT,
      class: "spark",
      "aria-hidden": "true",
    },
    line,
  );
  return { root, line, values: [] };
}

export function addToSpark(one, value) {
  one.values.push(value);
  if (one.values.length > SPARK_POINTS) one.values.shift();
  const most = Math.max(1, ...one.values);
  const from = SPARK_POINTS - one.values.length;
  const step = SPARK_WIDTH / (SPARK_POINTS - 1);
  const points = one.values.map((value, at) => {
    const y = SPARK_HEIGHT - 1.5 - (value / most) * (SPARK_HEIGHT - 3);
    return `${((from + at) * step).toFixed(1)} ${y.toFixed(1)}`;
  });
  put(one.line, "d", `M${points.join("L")}`);
}
