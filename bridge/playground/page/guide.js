// The guided first minute: what to ask, then to reply, then to react. Each hint goes once it is followed.

import { $, button, make } from "/dom.js";
import { keep, kept, nameOf, view } from "/state.js";

const EXAMPLES = [
  "How does the bridge keep its order?", "What happens when Redis goes away?", "How are votes counted?",
];
const HINTS = {
  reply: "Reply in the thread to carry on.",
  react: "React with 👍 or press a button under the answer to say whether it helped.",
};
const done = new Set(kept("guide", []));

export function finish(step) {
  if (done.has(step)) return;
  done.add(step);
  keep("guide", [...done]);
}

function isAnswered(channel) {
  const isMine = (ts) => channel.messages.get(ts)?.user === view.me;
  return [...channel.messages.values()].some(
    (message) => message.user === view.bot && isMine(message.thread_ts) && message.streaming_state !== "in_progress",
  );
}

// Follows what is seen, since people also reply and react in other ways than by this page's buttons.
export function follow(channel) {
  for (const message of channel.messages.values()) {
    if (message.user === view.bot && message.reactions?.some((one) => one.users.includes(view.me))) finish("react");
    const isReply = message.user === view.me && message.thread_ts && message.thread_ts !== message.ts;
    if (isReply) finish("reply");
  }
  if (Object.keys(view.feedback[view.me] ?? {}).length) finish("react");
}

function stepOf(channel) {
  if (!channel.has_bot) return "absent";
  if (!channel.messages.size) return done.has("examples") ? "" : "examples";
  return isAnswered(channel) ? Object.keys(HINTS).find((step) => !done.has(step)) ?? "" : "";
}

export function drawGuide(channel, redraw) {
  follow(channel);
  const step = stepOf(channel);
  const isInThread = step in HINTS && view.thread;
  show($("hint"), isInThread ? "" : step, redraw);
  show($("thread-hint"), isInThread ? step : "", redraw);
}

function show(place, step, redraw) {
  place.hidden = !step;
  if (place.dataset.shown === step) return;
  place.dataset.shown = step;
  place.replaceChildren(...contentOf(step, redraw));
}

function contentOf(step, redraw) {
  if (!step) return [];
  const absent = `${nameOf(view.bot)} is not in this channel and answers nothing here.`;
  if (step === "absent") return [make("p", "", absent)];
  const end = () => { finish(step); redraw(); focusBox(); };
  const dismiss = button("✕", end, { className: "plain", label: "Dismiss the hint" });
  if (step !== "examples") return [make("p", "", HINTS[step]), dismiss];
  return [make("p", "", "Ask, for example:"), dismiss, ...EXAMPLES.map(exampleOf)];
}

function focusBox() {
  const form = view.thread ? $("reply") : $("ask");
  form.querySelector("textarea").focus();
}

function exampleOf(example) {
  return button(example, () => {
    const box = $("ask").querySelector("textarea");
    box.value = example;
    box.focus();
  }, { className: "example" });
}
