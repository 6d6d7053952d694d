// What the page knows, and how it tells the playground what a person does.

import { $ } from "/dom.js";

export const view = {
  people: new Map(), bot: "", channels: new Map(), me: "", channel: "", thread: "", asked: "",
  views: {}, weather: {}, feedback: {}, kapa: "", editing: null,
};

const PROBLEMS = {
  no_text: "there is nothing to send",
  msg_too_long: "the message is too long",
  message_not_found: "the message is not there any more",
  channel_not_found: "this person is not in the channel",
  user_not_found: "nobody with this name is here",
  already_reacted: "the emoji is there already",
  no_reaction: "the emoji is gone already",
  cant_update_message: "only who wrote a message can edit it",
  cant_delete_message: "only who wrote a message can delete it",
  streaming_state_conflict: "the message still grows",
  invalid_name: "there is no such emoji",
  invalid_arguments: "something is missing",
};
const PROBLEM_SECONDS = 10;
let forgetting = 0;

export function nameOf(id) {
  return view.people.get(id)?.real_name ?? id;
}

// Gives what went wrong in plain words, "" where nothing did.
export async function send(path, fields) {
  const body = JSON.stringify({ user: view.me, channel: view.channel, ...fields });
  try {
    const reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (reply.ok) return "";
    const error = await reply.json().then((answer) => answer.error, () => `the playground answered ${reply.status}`);
    return `That did not work: ${PROBLEMS[error] ?? String(error).replaceAll("_", " ")}.`;
  } catch {
    return "The playground does not answer. Is it still running?";
  }
}

export async function post(path, fields) {
  const problem = await send(path, fields);
  tell(problem);
  return !problem;
}

export function tell(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
  clearTimeout(forgetting);
  if (problem) forgetting = setTimeout(() => tell(""), PROBLEM_SECONDS * 1000);
}

// What is open and what was done stays for this tab, also over a reload.
export function kept(name, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(`kept-${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function keep(name, value) {
  sessionStorage.setItem(`kept-${name}`, JSON.stringify(value));
}
