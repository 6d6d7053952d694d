// What is drawn of a chart: its scales and axes, bars, lines and levels.
//
// A view has `series` of `values`, one for each step or null where it is not known; `starts` and `ends` of the steps,
// and `from`, `to` and `born`, all seconds since the epoch.

import { svg } from "./dom.js";
import { clock, number, shortDuration } from "./words.js";

const HEIGHT = 148;
const TOP = 18;
const BOTTOM = 20;
const LEFT = 46;
const RIGHT = 8;
const FLOOR = HEIGHT - BOTTOM;
const TICKS = 3;
const LETTER = 6.2;
const UNBORN = "before the start";
const SECONDS = [
  0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200,
  21600, 43200, 86400,
];

export const isKnown = (value) => value !== null && value !== undefined;
export const sum = (values) => values.reduce((all, one) => all + (one ?? 0), 0);

// What `wanted` says is drawn at a scale, with the step `at` marked, which may be null.
export function drawing(view, wanted, scale, at) {
  const chart = svg("svg", { width: scale.width, height: HEIGHT, "aria-hidden": "true" });
  const kind = { bars, times, levels }[wanted.kind];
  chart.append(...grid(scale, view, wanted.isDuration ? shortDuration : number), ...timeAxis(scale, view));
  if (at !== null) chart.append(cursor(scale, view, at));
  chart.append(...kind(scale, view));
  return chart;
}

// Scales and axes

export function scaleOf(view, wanted, width) {
  const highest = wanted.kind === "bars"
    ? Math.max(0, ...view.ends.map((_, at) => sum(view.series.map((series) => series.values[at]))))
    : Math.max(0, ...view.series.flatMap((series) => series.values).filter(isKnown));
  const step = (wanted.isDuration ? stepOfSeconds : stepOfCounts)(Math.max(highest, wanted.least ?? 0));
  const top = Math.max(1, Math.ceil(highest / step - 1e-9)) * step;
  const right = width - RIGHT;
  return {
    width, step, top, right,
    timeAt: (x) => view.from + ((x - LEFT) / (right - LEFT)) * (view.to - view.from),
    x: (time) => LEFT + Math.min(1, Math.max(0, (time - view.from) / (view.to - view.from))) * (right - LEFT),
    y: (value) => FLOOR - (value / top) * (FLOOR - TOP),
  };
}

function stepOfCounts(highest) {
  let size = 1;
  for (;; size *= 10) {
    const step = [1, 2, 5].map((one) => one * size).find((one) => highest / one <= TICKS);
    if (step) return step;
  }
}

function stepOfSeconds(highest) {
  return SECONDS.find((step) => highest / step <= TICKS) ?? 86400 * stepOfCounts(highest / 86400);
}

function textAt(x, y, text, anchor) {
  return svg("text", { x, y, "text-anchor": anchor }, text);
}

function grid(scale, view, format) {
  const drawn = [textAt(2, 11, view.unit, "start")];
  const born = scale.x(view.born);
  if (born > LEFT + 1) {
    drawn.push(svg("rect", { x: LEFT, y: TOP, width: born - LEFT, height: FLOOR - TOP, class: "unborn" }));
    const hasRoom = born - LEFT > UNBORN.length * LETTER + 8;
    if (hasRoom) drawn.push(textAt((LEFT + born) / 2, (TOP + FLOOR) / 2 + 4, UNBORN, "middle"));
  }
  for (let value = 0; value <= scale.top + scale.step / 2; value += scale.step) {
    const y = Math.round(scale.y(value)) + 0.5;
    drawn.push(svg("path", { d: `M${LEFT} ${y}H${scale.right}`, class: value ? "rule" : "floor" }));
    drawn.push(textAt(LEFT - 6, y + 4, format(value), "end"));
  }
  return drawn;
}

function timeAxis(scale, view) {
  const minutes = (view.to - view.from) / 60;
  const step = 60 * [1, 2, 5, 10, 15, 20, 30].find((one) => (minutes / one) * 7 * LETTER < scale.right - LEFT);
  const drawn = [];
  for (let time = Math.ceil(view.from / step) * step; time <= view.to; time += step) {
    const x = scale.x(time);
    drawn.push(svg("path", { d: `M${Math.round(x) + 0.5} ${FLOOR}v4`, class: "floor" }));
    const half = 2.5 * LETTER;
    if (x - half > 0 && x + half < scale.width) drawn.push(textAt(x, HEIGHT - 4, clock(time), "middle"));
  }
  return drawn;
}

function cursor(scale, view, at) {
  const [left, right] = [scale.x(view.starts[at]), scale.x(view.ends[at])];
  const width = Math.max(2, right - left);
  return svg("rect", { x: left, y: TOP - 2, width, height: FLOOR - TOP + 2, class: "cursor" });
}

// The three kinds

// What is bad is hatched as well as coloured; the pattern is in index.html.
export function bar(x, y, width, height, tone) {
  const box = { x, y, width, height };
  const whole = svg("rect", { ...box, class: `bar tone-${tone}` });
  return tone === "red" ? [whole, svg("rect", { ...box, fill: "url(#hatch)" })] : [whole];
}

export const lineOf = (d, { tone, dashed }) => svg("path", { d, class: `line tone-${tone}${dashed ? " dashed" : ""}` });

function bars(scale, view) {
  return view.ends.flatMap((end, at) => {
    const x = scale.x(view.starts[at]) + 0.5;
    const width = Math.max(1, scale.x(end) - x - 0.5);
    let below = 0;
    return view.series.flatMap(({ values, tone }) => {
      if (!values[at]) return [];
      // A hair of the background parts what is stacked.
      const bottom = scale.y(below) - (below ? 1 : 0);
      below += values[at];
      const top = Math.min(scale.y(below), bottom - 1);
      return bar(x, top, width, bottom - top, tone);
    });
  });
}

// Neighbours are joined; what has none is a larger dot.
function times(scale, view) {
  const middle = (at) => scale.x((view.starts[at] + view.ends[at]) / 2);
  return view.series.toReversed().flatMap((series) => {
    const known = (at) => isKnown(series.values[at]);
    const places = series.values.map((_, at) => at).filter(known);
    const path = places.map((at) => `${known(at - 1) ? "L" : "M"}${middle(at)} ${scale.y(series.values[at])}`).join("");
    const dots = places.map((at) => {
      const r = known(at - 1) || known(at + 1) ? 1.7 : 2.8;
      return svg("circle", { cx: middle(at), cy: scale.y(series.values[at]), r, class: `dot tone-${series.tone}` });
    });
    return [lineOf(path, series), ...dots];
  });
}

function levels(scale, view) {
  return view.series.toReversed().map((series) => {
    const path = series.values.map((value, at) => {
      if (!isKnown(value)) return "";
      const begin = isKnown(series.values[at - 1]) ? "L" : "M";
      return `${begin}${scale.x(view.starts[at])} ${scale.y(value)}H${scale.x(view.ends[at])}`;
    });
    return lineOf(path.join(""), series);
  });
}
