// The timeline: left, the four lanes and how things went from one to another; right, when and how long. Waits in
// which nothing begins or ends are drawn short, and say how long they were.

import { rove, svg } from "/dom.js";
import { LANES, endOf, grouped, isRunning, scaleOf, secondsText, sideText, spokenOf, titleOf } from "/rows.js";

const LANE_NAMES = Object.keys(LANES);
const ROW = 22;
const AXIS = 38;
const LANE = 17;
const LANES_END = 12 + LANE * LANE_NAMES.length;
const LETTER = 6.4;

const laneX = (lane) => 14 + LANE * Math.max(0, LANE_NAMES.indexOf(lane));

// Each lane has a shape as well as a colour.
export function mark(lane, x, y, className = "mark") {
  const shapes = {
    events: () => svg("circle", { cx: x, cy: y, r: 5 }),
    redis: () => svg("path", { d: `M${x} ${y - 6}l6 6-6 6-6-6z` }),
    kapa: () => svg("path", { d: `M${x} ${y - 6}l6 11h-12z` }),
    slack: () => svg("rect", { x: x - 4.5, y: y - 4.5, width: 9, height: 9, rx: 1 }),
  };
  const shape = (shapes[lane] ?? shapes.events)();
  shape.setAttribute("class", className);
  return shape;
}

function clipped(text, width) {
  const most = Math.floor(width / LETTER);
  return text.length > most ? `${text.slice(0, Math.max(1, most - 1))}…` : text;
}

function textAt(x, y, text, className, anchor = "start") {
  return svg("text", { x, y, class: className, "text-anchor": anchor }, text);
}

function sizesIn(place) {
  const width = Math.max(320, place.clientWidth - 4);
  const labels = Math.min(260, Math.max(120, width * 0.36));
  const left = LANES_END + labels + 8;
  const took = Math.min(80, Math.max(58, width * 0.16));
  return { width, labels, left, took, right: width - took - 8 };
}

export const rowsIn = (place) => [...place.querySelectorAll(".row")];

// `listen` gives each line what it does; it is called with the line and its group.
export function drawTimeline(place, rows, now, chosen, listen) {
  const size = sizesIn(place);
  const groups = grouped(rows);
  const scale = scaleOf(rows, now, size.left, size.right);
  const height = groups.length * ROW + 6;
  const chart = svg("svg", { width: size.width, height, role: "group", "aria-label": "Timeline" });
  const lines = groups.map((group, number) => lineOf(group, number, scale, size, now));
  lines.forEach((line, number) => listen(line, groups[number]));
  chart.append(hatch(), ...waits(scale, height), ...laneLines(height), flow(groups), ...lines);
  const wasAtEnd = place.scrollHeight - place.scrollTop - place.clientHeight < 2 * ROW;
  const focused = document.activeElement?.closest?.(".row")?.dataset.id;
  place.replaceChildren(axis(scale, size), chart);
  markChosen(place, chosen);
  const current = lines.findIndex((line) => line.dataset.id === (focused ?? chosen));
  rove(lines, Math.max(0, current));
  if (focused && current >= 0) lines[current].focus({ preventScroll: true });
  if (wasAtEnd) place.scrollTop = place.scrollHeight;
}

export function markChosen(place, chosen) {
  for (const line of rowsIn(place)) line.setAttribute("aria-pressed", String(line.dataset.id === chosen));
}

function hatch() {
  const look = { width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
  const stripe = svg("rect", { width: 2, height: 6, class: "hatch" });
  return svg("defs", {}, svg("pattern", { id: "hatch", ...look }, stripe));
}

function waits(scale, height) {
  return scale.shortened.map((piece) => {
    const x = scale.at(piece.from);
    return svg("rect", { x, y: 0, width: scale.at(piece.to) - x, height, class: "wait", fill: "url(#hatch)" });
  });
}

function laneLines(height) {
  const lineAt = (x) => svg("line", { x1: x, x2: x, y1: 0, y2: height, class: "lane-line" });
  return LANE_NAMES.map((lane) => lineAt(laneX(lane)));
}

function flow(groups) {
  const points = groups.map((group, place) => `${laneX(group.lane)},${place * ROW + ROW / 2}`).join(" ");
  return svg("polyline", { points, class: "flow" });
}

// Above, when things begin again, counted from the first; below, how long the waits that are drawn short really are.
function axis(scale, size) {
  const drawn = svg("svg", { width: size.width, height: AXIS, class: "axis", "aria-hidden": "true" });
  const waited = scale.shortened.map((piece) => ({
    x: (scale.at(piece.from) + scale.at(piece.to)) / 2, seconds: piece.to - piece.from,
  })).sort((a, b) => b.seconds - a.seconds);
  const begins = scale.shortened.map((piece) => ({ x: scale.at(piece.to), seconds: piece.to - scale.first }));
  const sinceFirst = (one) => (one.seconds ? `+${secondsText(one.seconds)}` : "0");
  const end = { x: scale.at(scale.last), seconds: scale.last - scale.first };
  drawn.append(
    ...ticks([{ x: size.left, seconds: 0 }, ...begins, end], size, 14, sinceFirst, "tick"),
    ...ticks(waited, size, 31, (one) => `⋯${secondsText(one.seconds)}⋯`, "tick long"),
    textAt(LANES_END + 4, 31, "what", "tick"),
    textAt(size.width - 4, 31, "took", "tick", "end"),
  );
  return drawn;
}

// The first ones have room before the others.
function ticks(wanted, size, y, textOf, className) {
  const taken = [];
  return wanted.flatMap((one) => {
    const text = textOf(one);
    const half = (text.length * LETTER) / 2 + 3;
    const x = Math.min(Math.max(one.x, size.left + half - 14), size.right + 12 - half);
    if (taken.some((other) => Math.abs(other.x - x) < other.half + half)) return [];
    taken.push({ x, half });
    return [textAt(x, y, text, className, "middle")];
  });
}

function lineOf(group, number, scale, size, now) {
  const top = number * ROW;
  const middle = top + ROW / 2;
  const line = svg("g", { class: `row lane-${group.lane} ${group.mood}`, role: "button", "data-id": group.id });
  line.setAttribute("aria-label", spokenOf(group, scale.first, now));
  line.append(
    svg("rect", { x: 1, y: top + 1, width: size.width - 2, height: ROW - 2, rx: 4, class: "hit" }),
    mark(group.lane, laneX(group.lane), middle),
    textAt(LANES_END + 4, middle + 4, clipped(titleOf(group), size.labels - 4), "label"),
    ...group.rows.map((one) => barOf(one, scale, middle, now)),
    textAt(size.width - 4, middle + 4, clipped(sideText(group, now), size.took + 4), "took", "end"),
  );
  return line;
}

function barOf(row, scale, middle, now) {
  const x = scale.at(row.at);
  if (!row.seconds && !isRunning(row)) return mark(row.lane, x, middle, "mark moment");
  const end = scale.at(isRunning(row) ? now : endOf(row));
  const className = isRunning(row) ? "bar running" : "bar";
  return svg("rect", { x, y: middle - 6, width: Math.max(3, end - x), height: 12, rx: 2.5, class: className });
}
