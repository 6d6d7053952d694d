// Rows of what happened, put together for drawing: what goes on, what went wrong, runs, and the line of time. Pure.

export const LANES = { events: "Slack events", redis: "Redis", kapa: "Kapa", slack: "Slack calls" };
const SHORTENED_SECONDS = 1.2;
const RUN_SECONDS = 5;
const RUN_REACH = 2;
// What is neither of these went wrong; "" goes on still.
const FINE = new Set(["", "ok", "accepted", "revised", "early"]);
const WARN = /^(429|duplicate|lost|slow|uncertain)$|rate.?limit/i;

export function isRunning(row) {
  return row.seconds === null && !row.outcome;
}

export const endOf = (row) => row.at + (row.seconds ?? 0);

function moodOf(row) {
  const outcome = row.outcome ?? "";
  if (/kill|death/i.test(row.label)) return "bad";
  if (WARN.test(outcome) || /retry|take over/i.test(row.label)) return "warn";
  return FINE.has(outcome) ? "fine" : "bad";
}

const isLike = (one, row) => one.lane === row.lane && one.label === row.label && one.outcome === row.outcome;

// Runs of the same thing are one line, also where two things take turns: an answer grows by dozens of equal calls.
export function grouped(rows) {
  const groups = [];
  for (const row of [...rows].sort((a, b) => a.at - b.at)) {
    const run = groups.slice(-RUN_REACH).find((one) => isLike(one, row) && row.at - one.rows.at(-1).at < RUN_SECONDS);
    const { lane, label, outcome } = row;
    if (run) run.rows.push(row);
    else groups.push({ id: String(row.id), lane, label, outcome, mood: moodOf(row), rows: [row] });
  }
  return groups;
}

// A line of time in which long waits are short: pieces of [from, to, x, width in seconds as drawn].
function piecesOf(rows, now) {
  const marks = rows.flatMap((row) => [row.at, isRunning(row) ? now : endOf(row)]);
  const times = [...new Set(marks)].sort((a, b) => a - b);
  let x = 0;
  return times.slice(1).map((to, place) => {
    const from = times[place];
    const isShortened = to - from > SHORTENED_SECONDS;
    const width = isShortened ? SHORTENED_SECONDS * (1 + Math.log10((to - from) / SHORTENED_SECONDS) / 2) : to - from;
    const piece = { from, to, x, width, isShortened };
    x += width;
    return piece;
  });
}

export function scaleOf(rows, now, left, right) {
  const pieces = piecesOf(rows, now);
  const last = pieces.at(-1);
  const total = last ? last.x + last.width : 1;
  const perSecond = (right - left) / Math.max(total, 0.001);
  const at = (time) => {
    const piece = pieces.find((one) => time <= one.to) ?? last;
    if (!piece) return left;
    const share = Math.max(0, Math.min(1, (time - piece.from) / (piece.to - piece.from)));
    return left + (piece.x + share * piece.width) * perSecond;
  };
  const first = Math.min(...rows.map((row) => row.at));
  return { at, shortened: pieces.filter((piece) => piece.isShortened), first, last: last?.to ?? first };
}

export function secondsText(seconds) {
  if (seconds < 0.0995) return `${Math.max(seconds * 1000, 0).toFixed(seconds < 0.00995 ? 1 : 0)} ms`;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  return seconds < 100 ? `${seconds.toFixed(seconds < 9.95 ? 1 : 0)} s` : `${Math.round(seconds / 60)} min`;
}

export function took(group, now) {
  if (group.rows.some(isRunning)) return `${secondsText(now - group.rows[0].at)} …`;
  const all = group.rows.map((row) => row.seconds).filter(Boolean);
  return all.length ? secondsText(all.reduce((sum, seconds) => sum + seconds, 0)) : "";
}

export function titleOf(group) {
  return group.rows.length > 1 ? `${group.label} ×${group.rows.length}` : group.label;
}

export function spokenOf(group, first, now) {
  const lane = LANES[group.lane] ?? group.lane;
  const parts = [`${lane}: ${titleOf(group)}`, `at ${secondsText(group.rows[0].at - first)}`];
  const duration = took(group, now);
  if (duration) parts.push(`took ${duration}`);
  if (group.outcome) parts.push(group.outcome);
  return parts.join(", ");
}

// What went wrong is worth more than how long it took.
export function sideText(group, now) {
  if (group.mood === "fine" || FINE.has(group.outcome)) return took(group, now);
  return `⚠ ${group.outcome}`;
}
