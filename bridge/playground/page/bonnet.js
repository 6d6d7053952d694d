// Under the bonnet: what happened in the selected thread, both mappings, and one thing in full.

import { $, make, rove, svg } from "/dom.js";
import { LANES, endOf, grouped, isRunning, titleOf, took } from "/rows.js";
import { view } from "/state.js";
import { drawTimeline, mark, markChosen, rowsIn } from "/timeline.js";

const BETWEEN_MS = 500;
const AGAIN_MS = 1000;
const SETTLING_SECONDS = 3;

let known = { key: "", text: "", data: null };
let chosen = { id: "", isPinned: false };
let asked = 0;
let timer = 0;
let isAsking = false;
let isWide = 0;

const keyOf = () => `${view.channel}:${view.thread}`;
const isOpen = () => !$("bonnet").hidden;

// Asking

export function drawBonnet() {
  if (!isOpen()) return;
  if (known.key === keyOf()) return;
  known = { key: keyOf(), text: "", data: null };
  chosen = { id: "", isPinned: false };
  draw();
  touchBonnet();
}

export function touchBonnet() {
  if (!isOpen() || !view.thread) return;
  const wait = Math.max(0, asked + BETWEEN_MS - Date.now());
  clearTimeout(timer);
  timer = setTimeout(ask, wait);
}

async function ask() {
  if (isAsking) return touchBonnet();
  if (!isOpen() || !view.thread) return;
  const key = keyOf();
  isAsking = true;
  asked = Date.now();
  try {
    await read(key);
  } finally {
    isAsking = false;
  }
  if (key !== keyOf() || !isGoingOn()) return;
  clearTimeout(timer);
  timer = setTimeout(ask, AGAIN_MS);
}

async function read(key) {
  const query = new URLSearchParams({ channel: view.channel, thread: view.thread });
  let text = "";
  try {
    const reply = await fetch(`/bonnet?${query}`);
    if (!reply.ok) throw new Error(String(reply.status));
    text = await reply.text();
  } catch {
    if (key === keyOf()) note("The playground does not say what is under the bonnet.");
    return;
  }
  if (key !== keyOf()) return;
  const data = JSON.parse(text);
  const rows = JSON.stringify([data.thread, data.answers, data.rows, isRowRunning(data) && data.now]);
  const isNew = rows !== known.text;
  known = { key, text: rows, data };
  if (isNew) draw();
}

function isRowRunning(data) {
  return data.rows.some((row) => isRunning(row));
}

function isGoingOn() {
  const channel = view.channels.get(view.channel);
  if (channel?.statuses[view.thread]) return true;
  const thread = [...(channel?.messages.values() ?? [])].filter((message) => message.thread_ts === view.thread);
  if (thread.some((message) => message.streaming_state === "in_progress")) return true;
  const { data } = known;
  if (!data?.rows.length) return false;
  return isRowRunning(data) || data.now - Math.max(...data.rows.map(endOf)) < SETTLING_SECONDS;
}

// Drawing

function note(text) {
  $("bonnet-note").hidden = !text;
  $("bonnet-note").textContent = text;
}

function draw() {
  const { data } = known;
  const rows = data?.rows ?? [];
  if (!view.thread) note("Open a thread to see what happened in it.");
  else note(data && !rows.length ? "Nothing is remembered of this thread." : "");
  drawMaps(data);
  $("bonnet-legend").hidden = !rows.length;
  $("bonnet-chart").hidden = !rows.length;
  if (rows.length) drawTimeline($("bonnet-chart"), rows, data.now, chosen.id, listen);
  else $("bonnet-chart").replaceChildren();
  drawDetail();
}

function pair(title, left, right) {
  const code = (text) => make("code", "", text);
  const value = make("dd", "", code(left), make("span", "soft", " ⇄ "), code(right || "not yet"));
  return [make("dt", "", title), value];
}

function drawMaps(data) {
  if (!data) return $("bonnet-maps").replaceChildren();
  const answers = data.answers ?? [];
  $("bonnet-maps").replaceChildren(
    ...pair("Slack thread ⇄ Kapa thread", data.thread?.slack || view.thread, data.thread?.kapa),
    ...answers.flatMap((one, place) => {
      const [title, value] = pair("Answer ⇄ question_answer_id", one.message, one.question_answer_id);
      return place ? [value] : [title, value];
    }),
  );
}

function listen(line, group) {
  line.addEventListener("mouseenter", () => { if (!chosen.isPinned) choose(group.id, false); });
  line.addEventListener("focus", () => choose(group.id, chosen.isPinned));
  line.addEventListener("click", () => choose(group.id, !(chosen.isPinned && chosen.id === group.id)));
}

function move(event) {
  const all = rowsIn($("bonnet-chart"));
  const current = all.indexOf(document.activeElement);
  const places = { ArrowDown: current + 1, ArrowUp: current - 1, Home: 0, End: all.length - 1 };
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    return current >= 0 && choose(all[current].dataset.id, true);
  }
  const next = all[places[event.key]];
  if (!next) return undefined;
  event.preventDefault();
  rove(all, all.indexOf(next));
  next.focus();
  return undefined;
}

// The detail

function choose(id, isPinned) {
  chosen = { id, isPinned };
  markChosen($("bonnet-chart"), id);
  drawDetail();
}

function drawDetail() {
  const rows = known.data?.rows ?? [];
  const group = grouped(rows).find((one) => one.id === chosen.id);
  const place = $("bonnet-detail");
  place.hidden = !rows.length;
  place.classList.toggle("empty", !group);
  if (!group) return place.replaceChildren(make("p", "soft", "Choose a line to see it in full."));
  const clock = new Date(group.rows[0].at * 1000).toLocaleTimeString(undefined, { hour12: false });
  const facts = [LANES[group.lane] ?? group.lane, clock, took(group, known.data.now), group.outcome].filter(Boolean);
  const details = group.rows.length > 1 ? group.rows.map((row) => row.detail) : group.rows[0].detail;
  const scrolled = place.dataset.id === group.id ? place.scrollTop : 0;
  place.dataset.id = group.id;
  place.replaceChildren(make("h3", "", titleOf(group)), make("p", "soft", facts.join(" · ")), valueOf(details));
  place.scrollTop = scrolled;
  return undefined;
}

// JSON as it is read: keys, indentation, and texts with their line breaks.
function valueOf(value) {
  if (value === null || typeof value !== "object") {
    return make("span", `value ${typeof value}`, typeof value === "string" ? value : String(value));
  }
  const entries = Object.entries(value);
  if (!entries.length) return make("span", "value", Array.isArray(value) ? "[]" : "{}");
  return make("dl", "tree", ...entries.flatMap(([key, inner]) => {
    const name = Array.isArray(value) ? String(Number(key) + 1) : key;
    return [make("div", "", make("dt", "", name), make("dd", "", valueOf(inner)))];
  }));
}

function drawLegend() {
  const look = { width: 14, height: 14, "aria-hidden": "true" };
  const shape = (lane) => svg("svg", { ...look, class: `lane-${lane}` }, mark(lane, 7, 7));
  const items = Object.keys(LANES).map((lane) => make("li", "", shape(lane), " ", LANES[lane]));
  const swatch = (className, text) => make("li", "", make("span", `swatch ${className}`), " ", text);
  $("bonnet-legend").replaceChildren(
    ...items, swatch("warn", "held up"), swatch("bad", "went wrong"), swatch("waited", "wait, drawn short"),
  );
}

export function prepareBonnet() {
  drawLegend();
  $("bonnet-chart").addEventListener("keydown", move);
  new ResizeObserver(() => {
    const width = $("bonnet").clientWidth;
    if (width === isWide) return;
    isWide = width;
    if (isOpen() && known.data) draw();
  }).observe($("bonnet"));
}
