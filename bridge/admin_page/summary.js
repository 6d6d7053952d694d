// What is said in words: the state, the checks, and what matters now.

import { $, make, redraw, say } from "./dom.js";
import { BROKEN_OFF, totalOf } from "./charts.js";
import { capital, clock, count, duration, listed, moment, number } from "./words.js";

const DOES = {
  all: "It takes questions in and answers them.",
  ingress: "It takes questions in; workers answer them.",
  worker: "It answers what an ingress takes in.",
};
const ROLES = { all: "Role all: ingress and worker", ingress: "Role ingress", worker: "Role worker" };
const DRAINS = "It was told to stop: it takes nothing in any more, and finishes what it is at work on.";
const SILENCE = "The bridge has ended, or cannot be reached. All below is from then; the page keeps asking, and goes on "
  + "by itself.";
const NOTES = {
  ingress: "This process only takes events in: it shows no answers, votes or calls. Those are counted by the workers; "
    + "look at the same page on a worker's admin port.",
  worker: "Events from Slack are counted by the ingress: look at the same page on its admin port. What is marked "
    + "“this process” leaves out what other workers did.",
};
const EXAMPLE = "Call on the bridge in a channel that it is in, for example “@bridge What can you do?”, and what becomes "
  + "of it shows below.";
const OWN = "this process";
const SHARED = "all processes";
const UNKNOWN = "Not known while Redis does not take writes";

const age = (data) => duration(Math.max(1, Math.floor(data.at - data.started)));

function facts(data) {
  const version = data.version ? `Version ${data.version}` : "Version unknown";
  return [version, ROLES[data.role] ?? "Role unknown", `Up for ${age(data)}, since ${moment(data.started, data.at)}`];
}

export function drawState(data) {
  const heading = { ready: "Ready", draining: "Draining", not_ready: "Not ready" }[data.state];
  const isSaid = (check) => data.state === "draining" && check.name === "not_draining";
  const failing = data.checks.filter((check) => !check.passes && !isSaid(check));
  const troubles = failing.map((check) => check.trouble ?? `${check.name} fails`);
  const text = `${heading}${troubles.length ? `: ${listed(troubles)}` : ""}`;
  $("top").dataset.state = data.state;
  document.title = `${text} – bridge`;
  say($("state"), text);
  const more = { ready: DOES[data.role] ?? "", draining: DRAINS, not_ready: "What that means, and what to do, is below." };
  say($("more"), more[data.state]);
  redraw($("facts"), facts(data), () => facts(data).map((fact) => make("li", "", fact)));
}

// While nobody answers, everything below is from then.
export function drawSilence(data) {
  $("top").dataset.state = "gone";
  document.title = "No answer – bridge";
  if (!data) {
    say($("state"), "No answer from the bridge");
    say($("more"), "Is it running, and is this its admin port? The page keeps asking.");
    return;
  }
  say($("state"), `No answer since ${clock(data.at, true)}`);
  say($("more"), SILENCE);
}

export function drawChecks(checks) {
  redraw($("checks"), checks, () => checks.map((check) => {
    const title = check.title ?? capital(check.name.replaceAll("_", " "));
    const item = check.passes
      ? make("li", "passes", make("b", "", title), make("span", "unseen", ": yes"))
      : make("li", "fails", make("b", "", check.trouble ? capital(check.trouble) : `Not: ${title}`));
    if (!check.passes && check.means) {
      item.append(make("p", "", check.means), make("p", "", make("b", "", "What to do: "), check.do));
    }
    return item;
  }));
}

// What matters now

function tile(title, value, scope, lines, mood = "") {
  const said = lines.filter(Boolean).map((line) => make("p", "", line));
  const large = make("p", "value", make("strong", "", value));
  return make("section", `tile ${mood}`, make("h3", "", title), large, ...said, make("p", "badge", scope));
}

// Of a process that is younger than an hour, the last hour is all of its life.
function lately(data) {
  return data.hour.seconds < 3500 ? `since the start ${age(data)} ago` : "in the last hour";
}

function answers(data) {
  const { counted, timed } = data.hour;
  const dead = totalOf(counted.questions, ["dead"]);
  const others = totalOf(counted.questions, null, ["answered", "dead", ...BROKEN_OFF]);
  const { observed, p50, p95 } = timed.answer;
  return tile("Questions answered", number(totalOf(counted.questions, ["answered"])), OWN, [
    lately(data),
    observed ? `Median ${duration(p50)}, 95 of 100 within ${duration(p95)}` : "",
    dead ? `${number(dead)} given up` : "",
    others ? `${number(others)} ended in another way` : "",
  ]);
}

function waiting(data) {
  const { shared, running } = data.now;
  const title = "Questions not finished";
  if (!shared) return tile(title, "–", SHARED, [UNKNOWN]);
  const [questions, votes] = [shared.unfinished.question ?? 0, shared.unfinished.vote ?? 0];
  const untaken = shared.untaken.question ?? 0;
  return tile(title, number(questions), SHARED, [
    questions ? `The oldest is ${duration(shared.oldest.question ?? 0)} old` : "Nobody waits for an answer",
    running.question ? `This process is at work on ${number(running.question)}` : "",
    untaken >= 1 ? `No worker has had room for ${duration(untaken)}` : "",
    shared.later.question ? `In ${count(shared.later.question, "conversation")} it is tried again later` : "",
    votes ? `Also ${count(votes, "vote")} on the way to Kapa` : "",
  ], untaken >= 60 ? "warns" : "");
}

function deadLetters(data) {
  const letters = data.now.shared?.dead_letters.all;
  if (letters === undefined) return tile("Dead letters", "–", SHARED, [UNKNOWN]);
  if (!letters) return tile("Dead letters", "0", SHARED, ["Nothing was given up"]);
  const command = make("span", "", "List them: ", make("code", "", "bridge dead-letters list"));
  const advice = "What to do about them is in docs/operations.md, “Dead letters”.";
  return tile("Dead letters", number(letters), SHARED, [command, advice], "warns");
}

function votes(data) {
  const [up, down] = ["upvote", "downvote"].map((kind) => totalOf(data.hour.counted.votes, [kind]));
  const split = up || down ? `${count(up, "upvote")}, ${count(down, "downvote")}` : "";
  return tile("Votes", number(up + down), OWN, [lately(data), split]);
}

function events(data) {
  const counted = data.hour.counted.events;
  const failed = totalOf(counted, ["failed"]);
  return tile("Events from Slack", number(totalOf(counted, null)), OWN, [
    lately(data),
    `${number(totalOf(counted, ["accepted", "revised"]))} taken in`,
    failed ? `${number(failed)} could not be taken in; Slack sends them again` : "",
  ], failed ? "warns" : "");
}

export function drawTiles(data) {
  const wanted = data.role === "ingress" ? [events, waiting, deadLetters] : [answers, waiting, deadLetters, votes];
  const shown = wanted.map((tileOf) => tileOf(data));
  redraw($("tiles"), shown.map((one) => one.textContent + one.className), () => shown);
}

export function drawHint(data) {
  const { questions, events: heard } = data.hour.counted;
  const isQuiet = !Object.keys(questions).length && !totalOf(heard, ["accepted"]);
  const text = NOTES[data.role] ?? (isQuiet ? `Nothing was asked ${lately(data)}. ${EXAMPLE}` : "");
  $("hint").hidden = !text;
  say($("hint"), text);
}
