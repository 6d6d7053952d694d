// Which charts there are, what each shows of the bridge's answer, and in which words. How they are drawn: drawing.js.

import { isKnown, sum } from "./drawing.js";
import { count, duration, number } from "./words.js";

const OWN = "this process";
const SHARED = "all processes";
const UNKNOWN = "Not known: Redis has not taken writes in this time.";
// Ways in which a piece of work stops without being over.
export const BROKEN_OFF = ["again", "lost", "away"];

// The series of a chart: a name, a colour, and which of the label's values it adds up; `keys` of null are all others.
const QUESTIONS = [
  { name: "answered", tone: "blue", keys: ["answered"] },
  { name: "help shown", tone: "teal", keys: ["helped"] },
  { name: "refused by Kapa", tone: "amber", keys: ["refused"] },
  { name: "given up", tone: "red", keys: ["dead"] },
  { name: "edited or deleted", tone: "grey", keys: null },
];
const VOTES = [
  { name: "upvotes", tone: "blue", keys: ["upvote"] },
  { name: "downvotes", tone: "amber", keys: ["downvote"] },
  { name: "given up", tone: "red", keys: ["dead"] },
  { name: "nothing new", tone: "grey", keys: null },
];
const INTERRUPTED = [
  { name: "to be tried again", tone: "amber", keys: ["again"] },
  { name: "leases lost", tone: "red", keys: ["lost"] },
  { name: "Redis was away", tone: "grey", keys: ["away"] },
];
const EVENTS = [
  { name: "taken in", tone: "blue", keys: ["accepted"] },
  { name: "edits", tone: "teal", keys: ["revised"] },
  { name: "sent again by Slack", tone: "amber", keys: ["duplicate"] },
  { name: "not taken in", tone: "red", keys: ["failed", "malformed"] },
  { name: "not for the bridge", tone: "grey", keys: null },
];
const KAPA = [
  { name: "ok", tone: "blue", keys: ["ok"] },
  { name: "limited (429)", tone: "amber", keys: ["rate_limited"] },
  { name: "unavailable", tone: "red", keys: ["unavailable"] },
  { name: "refused", tone: "grey", keys: null },
];
const SLACK = [
  { name: "ok", tone: "blue", keys: ["ok"] },
  { name: "limited (429)", tone: "amber", keys: ["busy"] },
  { name: "no clear answer", tone: "red", keys: ["unclear"] },
  { name: "refused or cancelled", tone: "grey", keys: null },
];
const BUDGET = [
  { name: "for a request to Kapa", tone: "blue", keys: ["kapa"] },
  { name: "for an edit in Slack", tone: "amber", keys: ["edits"] },
];
const KINDS = [
  { name: "questions", tone: "blue", key: "question" },
  { name: "votes", tone: "amber", key: "vote", dashed: true },
];

const LETTERS = [{ name: "dead letters", tone: "red", key: "all" }];

const per = (data) => (data.minutes === 60 ? "a minute" : "in 10 seconds");
const last = (data) => `in the last ${data.minutes === 60 ? "hour" : "10 minutes"}`;

// Adds up what was counted under some of a label's values, or of null under all but `without`.
export function totalOf(counted, keys, without = []) {
  const wanted = Object.keys(counted).filter((key) => (keys ?? [key]).includes(key) && !without.includes(key));
  return sum(wanted.map((key) => counted[key]));
}

function seriesOf(counted, groups, steps, without) {
  const named = [...without, ...groups.flatMap((group) => group.keys ?? [])];
  return groups.map((group) => {
    const keys = group.keys ?? Object.keys(counted).filter((key) => !named.includes(key));
    const values = Array.from({ length: steps }, (_, at) => sum(keys.map((key) => counted[key]?.[at])));
    return { ...group, values, total: sum(values) };
  });
}

// Bars of what was counted, by what became of it; `noun` is the word for one and for many.
function bars(data, counted, groups, [one, many], empty, without = []) {
  const series = seriesOf(counted, groups, data.ends.length, without);
  const all = sum(series.map((each) => each.total));
  const beside = `${all === 1 ? one : many} ${last(data)}`;
  return { series, value: number(all), beside, unit: `${many} ${per(data)}`, empty };
}

function times(data, chart, empty) {
  const { p50, p95, all, most } = data.timed[chart];
  const text = (value) => (most && value >= most ? `over ${duration(most)}` : duration(value));
  return {
    series: [
      { name: "median", tone: "blue", values: p50 },
      { name: "95 of 100 within", tone: "amber", values: p95, dashed: true },
    ],
    value: all.observed ? text(all.p50) : "–",
    beside: all.observed ? `median, 95 of 100 within ${text(all.p95)}, ${last(data)}` : "",
    unit: "time", empty, most,
  };
}

// Levels of what is in Redis; `say` puts those of now into words, the first of them large.
function levels(data, chart, groups, unit, say, empty) {
  const found = data.shared[chart];
  const series = groups.map((group) => {
    const values = found[group.key] ?? data.ends.map(() => null);
    return { ...group, values, total: data.now.shared?.[chart][group.key] };
  });
  const [value, beside] = data.now.shared ? say(data.now.shared[chart]) : ["–", "not known: Redis does not take writes"];
  const isKnownOnce = series.some((one) => one.values.some(isKnown));
  return { series, value, beside, unit, empty: isKnownOnce ? empty : UNKNOWN };
}

function calls(data, chart, groups, empty) {
  const rows = data.calls[chart].map(({ called, outcome, observed, p50, p95 }) => (
    [called, outcome.replaceAll("_", " "), number(observed), duration(p50), duration(p95)]
  ));
  return { ...bars(data, data.counted[chart], groups, ["call", "calls"], empty), rows };
}

function waits(data) {
  const view = bars(data, data.counted.budget, BUDGET, ["wait", "waits"], "Nothing had to wait for its turn.");
  const { p50, p95, observed } = data.timed.budget.all;
  const beside = `${view.beside}; median ${duration(p50)}, 95 of 100 within ${duration(p95)}`;
  return observed ? { ...view, beside } : view;
}

function together(one, other) {
  const keys = [...new Set([...Object.keys(one), ...Object.keys(other)])];
  const valuesOf = (key) => (one[key] ?? other[key]).map((_, at) => (one[key]?.[at] ?? 0) + (other[key]?.[at] ?? 0));
  return Object.fromEntries(keys.map((key) => [key, valuesOf(key)]));
}

// The roles that have something to show there; what is shared is the same wherever one looks.
const WORKER = { scope: OWN, of: ["all", "worker"] };
const INGRESS = { scope: OWN, of: ["all", "ingress"] };
const EVERY = { scope: SHARED, of: ["all", "ingress", "worker"] };
const BARS = { kind: "bars" };
const TIMES = { kind: "times", isDuration: true };
const LEVELS = { kind: "levels" };

const ANSWERS = [
  {
    id: "questions", title: "Questions by outcome", ...BARS, ...WORKER,
    about: "Finished questions; what is tried again is not finished.",
    view: (data) => bars(data, data.counted.questions, QUESTIONS, ["question", "questions"],
      "No question was finished in this time.", BROKEN_OFF),
  },
  {
    id: "first-text", title: "Time to the first text", ...TIMES, ...WORKER,
    about: "From the question in Slack to the first text of its answer there.",
    view: (data) => times(data, "first_text", "No answer has begun in this time."),
  },
  {
    id: "answer", title: "Time to the answer", ...TIMES, ...WORKER,
    about: "From the question in Slack to its finished answer there.",
    view: (data) => times(data, "answer", "No question was answered in this time."),
  },
  {
    id: "added", title: "Time the bridge adds", ...TIMES, ...WORKER,
    about: "Before the first text, without the waits for Kapa and for a turn.",
    view: (data) => times(data, "added", "No answer has begun in this time."),
  },
];

const WAITS = [
  {
    id: "unfinished", title: "Not finished yet", ...LEVELS, ...EVERY,
    about: "Questions and votes taken in and not over: waiting, or being worked on.",
    view: (data) => levels(data, "unfinished", KINDS, "most at once", ({ question = 0, vote = 0 }) => (
      [number(question), `${question === 1 ? "question" : "questions"} and ${count(vote, "vote")} now`]
    ), "Nothing has waited in this time."),
  },
  {
    id: "oldest", title: "Age of the oldest", ...LEVELS, isDuration: true, least: 10, ...EVERY,
    about: "How long the oldest of those has been there.",
    view: (data) => levels(data, "oldest", KINDS, "age", (now) => (
      [duration(Math.max(0, ...Object.values(now))), "now"]
    ), "Nothing has waited in this time."),
  },
  {
    id: "dead-letters", title: "Dead letters", ...LEVELS, ...EVERY,
    about: "What was given up, and is kept to be tried again by you.",
    view: (data) => levels(data, "dead_letters", LETTERS, "dead letters", ({ all = 0 }) => (
      [number(all), "now"]
    ), "There were none in this time."),
  },
  {
    id: "interrupted", title: "Retries, lost leases", ...BARS, ...WORKER,
    about: "A lease is lost by a process that was frozen or too busy to renew it.",
    view: (data) => bars(data, together(data.counted.questions, data.counted.votes), INTERRUPTED,
      ["interruption", "interruptions"], "Nothing had to be tried again, and no lease was lost."),
  },
];

const CALLS = [
  {
    id: "votes", title: "Votes by kind", ...BARS, ...WORKER,
    about: "What people thought of answers, and was told to Kapa.",
    view: (data) => bars(data, data.counted.votes, VOTES, ["vote", "votes"], "Nobody voted in this time.", BROKEN_OFF),
  },
  {
    id: "kapa", title: "Calls to Kapa", about: "By how they ended.", ...BARS, ...WORKER,
    view: (data) => calls(data, "kapa", KAPA, "Kapa was not called in this time."),
  },
  {
    id: "slack", title: "Calls to Slack", about: "By how they ended.", ...BARS, ...WORKER,
    view: (data) => calls(data, "slack", SLACK, "Slack was not called in this time."),
  },
  {
    id: "budget", title: "Waits for a turn", ...BARS, ...WORKER, view: waits,
    about: "At KAPA_REQUESTS_PER_MINUTE, and at Slack's limit for edits.",
  },
];

const INTAKE = [
  {
    id: "events", title: "Events from Slack", ...BARS, ...INGRESS,
    about: "Messages, edits, emoji and clicks, by what became of them.",
    view: (data) => bars(data, data.counted.events, EVENTS, ["event", "events"], "Slack sent no event in this time."),
  },
  {
    id: "intake", title: "Time to take an event in", ...TIMES, ...INGRESS,
    about: "From its arrival until it is safe in Redis; Slack waits three seconds.",
    view: (data) => times(data, "intake", "No event of this time had to be kept."),
  },
];

export const GROUPS = [
  { title: "Answers", charts: ANSWERS },
  { title: "What waits", charts: WAITS },
  { title: "Votes and calls", charts: CALLS },
  { title: "Events", charts: INTAKE },
];
