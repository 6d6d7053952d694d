// Slack's blocks as DOM nodes, and what pressing their elements does.

import { button, make, svg } from "/dom.js";
import { nameOf, post, view } from "/state.js";
import { formatted, markdown } from "/text.js";

const THUMB = "M7 11v10H4a1 1 0 0 1-1-1v-8a1 1 0 0 1 1-1zm0 0 4-8a2.6 2.6 0 0 1 2.6 2.6V9h5.2"
  + "a2 2 0 0 1 2 2.3l-1.2 8a2 2 0 0 1-2 1.7H7";

const SHOWN = {
  markdown: (block) => markdown(block.text),
  divider: () => [make("hr")],
  header: (block) => [make("h3", "block-header", block.text?.text)],
  section,
  context,
  actions: (block, message) => [make("div", "actions", ...elementsOf(block, message))],
  context_actions: (block, message) => [make("div", "actions", ...elementsOf(block, message))],
};

function textOf(object) {
  if (!object?.text) return [];
  return object.type === "plain_text" ? [object.text] : formatted(object.text, nameOf);
}

function section(block, message) {
  const words = make("div", "section-text", ...textOf(block.text));
  const fields = (block.fields ?? []).map((field) => make("div", "", ...textOf(field)));
  if (fields.length) words.append(make("div", "fields", ...fields));
  const accessory = block.accessory ? elementOf(block.accessory, message) : null;
  return [make("div", "section", words, ...(accessory ? [accessory] : []))];
}

function context(block) {
  const parts = (block.elements ?? []).filter((element) => element.text);
  return [make("div", "context", ...parts.map((element) => make("span", "", ...textOf(element))))];
}

function elementsOf(block, message) {
  return (block.elements ?? []).map((element) => elementOf(element, message)).filter(Boolean);
}

function elementOf(element, message) {
  if (element.type === "feedback_buttons") return feedback(element, message);
  return element.type === "button" ? pressable(element, message) : null;
}

// Slack shows that a click is under way until the app has heard of it.
async function whileBusy(pressed, act) {
  pressed.setAttribute("aria-busy", "true");
  await act();
  pressed.removeAttribute("aria-busy");
}

function pressable(element, message) {
  const style = ["primary", "danger"].includes(element.style) ? element.style : "";
  const act = () => post("/press", { ts: message.ts, action_id: element.action_id });
  const made = button(element.text?.text ?? "", () => whileBusy(made, act), {
    className: `block-button ${style}`, label: element.accessibility_label, key: `press:${element.action_id}`,
  });
  return made;
}

function feedback(element, message) {
  const selected = view.feedback[view.me]?.[`${view.channel}:${message.ts}`];
  const group = make("div", "feedback", ...["positive", "negative"].map((side) => {
    const said = element[`${side}_button`] ?? {};
    const label = said.accessibility_label || said.text?.text || side;
    const act = () => post("/feedback", { ts: message.ts, positive: side === "positive" });
    const made = button("", () => whileBusy(made, act), {
      className: `icon-button ${side}`, label, title: said.text?.text ?? label, key: `feedback:${side}`,
    });
    made.append(svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: THUMB })));
    made.setAttribute("aria-pressed", String(selected === side));
    return made;
  }));
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Feedback");
  return group;
}

export function blocksOf(blocks, message) {
  return blocks.flatMap((block) => (SHOWN[block.type] ?? ((other) => textOf(other.text)))(block, message));
}

export function contentOf(message) {
  const body = make("div", "text");
  const isFromApp = message.bot_id || message.subtype === "ephemeral";
  const shown = isFromApp ? blocksOf(message.blocks ?? [], message) : [];
  body.append(...(shown.length ? shown : formatted(message.text ?? "", nameOf)));
  if (message.edited && !message.bot_id) body.append(make("small", "", " (edited)"));
  if (message.streaming_state === "in_progress") addCursor(body);
  return body;
}

// Where the next word will stand.
function addCursor(body) {
  let last = body;
  while (last.lastElementChild?.matches("p, ul, ol, li, blockquote, pre, h3, h4, h5, h6")) last = last.lastElementChild;
  const cursor = make("span", "cursor");
  cursor.setAttribute("aria-hidden", "true");
  last.append(cursor);
}
