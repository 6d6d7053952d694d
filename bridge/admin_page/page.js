// The status page: asks the bridge again and again, and draws what it says. Nothing can be changed from here.
// Everything that came from the bridge is shown with textContent, never as HTML.

import { Chart } from "./chart.js";
import { GROUPS } from "./charts.js";
import { $, make } from "./dom.js";
import { drawChecks, drawHint, drawSilence, drawState, drawTiles } from "./summary.js";

const ASK_SECONDS = 5;
// Longer than the checks of a Redis and a Slack that hang.
const PATIENCE_SECONDS = 8;
const OLD_SECONDS = 15;
const charts = [];
let last = null;
let heard = 0;
let isAsking = false;
let next = 0;

function build() {
  for (const group of GROUPS) {
    const own = group.charts.map((wanted) => ({ wanted, chart: new Chart(wanted) }));
    const grid = make("div", "grid", ...own.map(({ chart }) => chart.figure));
    const place = make("section", "group", make("h3", "", group.title), grid);
    charts.push(...own.map((one) => ({ ...one, place })));
    $("groups").append(place);
  }
}

function draw(data) {
  $("main").hidden = false;
  document.body.classList.remove("is-stale");
  drawState(data);
  drawChecks(data.checks);
  drawTiles(data);
  drawHint(data);
  for (const { wanted, chart, place } of charts) {
    chart.figure.hidden = Boolean(data.role) && !wanted.of.includes(data.role);
    place.hidden = !place.querySelector("figure:not([hidden])");
    chart.update(data);
  }
}

const minutes = () => Number(document.querySelector("[name=minutes]:checked").value);

// Gives what the bridge says, or null where it says nothing in time.
async function answer(wanted) {
  try {
    const signal = AbortSignal.timeout(PATIENCE_SECONDS * 1000);
    const reply = await fetch(`status.json?minutes=${wanted}`, { signal });
    return reply.ok ? { ...(await reply.json()), minutes: wanted } : null;
  } catch {
    return null;
  }
}

function growOld() {
  document.body.classList.add("is-stale");
  drawSilence(last);
}

async function ask() {
  clearTimeout(next);
  if (isAsking) return;
  isAsking = true;
  const wanted = minutes();
  const data = await answer(wanted);
  isAsking = false;
  if (!document.hidden) next = setTimeout(ask, wanted === minutes() ? ASK_SECONDS * 1000 : 0);
  if (!data) return growOld();
  // Another version has another page; of two that take turns behind one address, once is enough.
  if (last && last.version !== data.version && sessionStorage.getItem("version") !== data.version) {
    sessionStorage.setItem("version", data.version);
    return location.reload();
  }
  [last, heard] = [data, Date.now()];
  draw(data);
}

// What is shown after a sleep, or again after a while, is old until there is a new answer.
function look() {
  if (last && Date.now() - heard > OLD_SECONDS * 1000) growOld();
}

// Nobody looks at a hidden page, so it does not ask.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  look();
  ask();
});
$("range").addEventListener("change", ask);
setInterval(look, 1000);
build();
ask();
