// A list of messages: each one's head, content, reactions and what can be done with it.

import { $, button, make } from "/dom.js";
import { contentOf } from "/blocks.js";
import { spokenOf, symbolOf } from "/emoji.js";
import { confirmed } from "/modal.js";
import { openPicker } from "/picker.js";
import { keep, kept, nameOf, post, view } from "/state.js";
import { typedForm } from "/text.js";

const QUICK = ["+1", "-1"];
const AT_END = 40;
const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const FULL_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const dismissed = new Set(kept("dismissed", []));
let handlers = { openThread: () => {}, redraw: () => {} };

export function onMessages(given) {
  handlers = given;
}

// Reactions

function reactionButton(message, name, users) {
  const isMine = users.includes(view.me);
  const people = users.length === 1 ? "1 person" : `${users.length} people`;
  const act = () => post(isMine ? "/unreact" : "/react", { ts: message.ts, emoji: name });
  const made = button(users.length ? `${symbolOf(name)} ${users.length}` : symbolOf(name), act, {
    className: users.length ? "reaction" : "reaction quick",
    label: users.length ? `${spokenOf(name)}, ${people}` : `React with ${spokenOf(name)}`,
    title: users.length ? `${users.map(nameOf).join(", ")} reacted with :${name}:` : `React with :${name}:`,
    key: `react:${name}`,
  });
  made.setAttribute("aria-pressed", String(isMine));
  return made;
}

function pickerButton(message) {
  const react = (name) => {
    const mine = message.reactions?.find((one) => one.name === name)?.users.includes(view.me);
    if (!mine) post("/react", { ts: message.ts, emoji: name });
  };
  const made = button("☺+", () => openPicker(made, react), {
    className: "reaction quick", label: "Add a reaction", title: "Add a reaction", key: "pick",
  });
  made.setAttribute("aria-haspopup", "dialog");
  return made;
}

function footOf(message, inThread) {
  const foot = make("div", "foot");
  const reactions = message.reactions ?? [];
  for (const reaction of reactions) foot.append(reactionButton(message, reaction.name, reaction.users));
  for (const name of QUICK) {
    if (!reactions.some((reaction) => reaction.name === name)) foot.append(reactionButton(message, name, []));
  }
  foot.append(pickerButton(message));
  if (!inThread) foot.append(repliesButton(message));
  return foot;
}

function repliesButton(message) {
  const count = message.reply_count ?? 0;
  const text = count ? `${count} ${count === 1 ? "reply" : "replies"}` : "Reply";
  const open = () => handlers.openThread(message.thread_ts ?? message.ts);
  return button(text, open, { className: "replies", key: "replies" });
}

// Editing and deleting

function menuOf(message) {
  const edit = button("Edit", () => startEditing(message), { key: "edit" });
  const remove = button("Delete", () => askToDelete(message), { key: "delete" });
  const menu = make("div", "menu", edit, remove);
  menu.setAttribute("role", "group");
  menu.setAttribute("aria-label", "Your message");
  return menu;
}

async function askToDelete(message) {
  const isSure = await confirmed("Delete this message? This cannot be undone.", "Delete");
  if (isSure) await post("/delete", { ts: message.ts });
}

function startEditing(message) {
  const box = make("textarea");
  box.setAttribute("aria-label", "Edit message");
  box.value = typedForm(message.text ?? "", (id) => view.people.get(id)?.name ?? id);
  const save = make("button", "", "Save");
  const form = make("form", "editor", box, make("div", "actions", button("Cancel", stopEditing), save));
  form.addEventListener("submit", (event) => { event.preventDefault(); saveEdit(message, box); });
  box.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      stopEditing();
    } else if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  // Where it was begun: the same message may stand in the channel and in the thread.
  const list = document.activeElement?.closest(".messages")?.id ?? "messages";
  view.editing = { ts: message.ts, list, form };
  handlers.redraw();
  box.focus();
  box.setSelectionRange(box.value.length, box.value.length);
}

function stopEditing() {
  const { ts, list } = view.editing;
  view.editing = null;
  handlers.redraw();
  itemFor($(list), ts)?.querySelector("[data-key=edit]")?.focus();
}

async function saveEdit(message, box) {
  const text = box.value;
  const before = typedForm(message.text ?? "", (id) => view.people.get(id)?.name ?? id);
  if (text === before || (await post("/edit", { ts: message.ts, text }))) stopEditing();
}

// Messages

function avatarOf(message) {
  const name = nameOf(message.user);
  const number = [...message.user].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 5;
  const avatar = make("span", `avatar avatar-${number}`);
  avatar.setAttribute("aria-hidden", "true");
  if (message.user === view.bot) {
    const picture = make("img");
    Object.assign(picture, { src: "/icon.svg", alt: "" });
    avatar.append(picture);
  } else avatar.append(message.subtype === "tombstone" ? "🗑" : name.slice(0, 1));
  return avatar;
}

function headOf(message) {
  const at = new Date(Number(message.ts) * 1000);
  const time = make("time", "", TIME.format(at));
  time.dateTime = at.toISOString();
  time.title = FULL_TIME.format(at);
  const isApp = message.bot_id || message.subtype === "ephemeral";
  const badge = isApp ? [make("span", "badge", "APP"), " "] : [];
  return make("div", "head", make("b", "", nameOf(message.user)), " ", ...badge, time);
}

function whisperNote(message) {
  const dismiss = button("Dismiss", () => {
    dismissed.add(message.ts);
    keep("dismissed", [...dismissed]);
    handlers.redraw();
  }, { className: "plain", label: "Dismiss the message", key: "dismiss" });
  return make("p", "whisper-note", "Only visible to you ", dismiss);
}

// Its thread is still there.
function stoneFoot(message, list) {
  return make("div", "foot", ...(list.id === "thread" ? [] : [repliesButton(message)]));
}

function bodyOf(message, list) {
  const body = make("div", "body");
  const { editing } = view;
  if (message.subtype === "ephemeral") body.append(whisperNote(message), headOf(message), contentOf(message));
  else if (message.subtype === "tombstone") {
    body.append(make("p", "soft", "This message was deleted."), stoneFoot(message, list));
  } else if (editing?.ts === message.ts && editing.list === list.id) body.append(headOf(message), editing.form);
  else {
    body.append(headOf(message), contentOf(message), footOf(message, list.id === "thread"));
    if (message.user === view.me) body.append(menuOf(message));
  }
  return body;
}

function itemOf(message, list) {
  const item = make("li", "message");
  item.dataset.ts = message.ts;
  if (message.subtype === "ephemeral") item.classList.add("whisper");
  if (message.streaming_state === "in_progress") item.setAttribute("aria-busy", "true");
  item.append(avatarOf(message), bodyOf(message, list));
  return item;
}

export function isDismissed(message) {
  return dismissed.has(message.ts);
}

function lookOf(message, list) {
  const isEdited = view.editing?.ts === message.ts && view.editing.list === list.id;
  return [message, view.me, view.feedback[view.me]?.[`${view.channel}:${message.ts}`], isEdited && view.editing];
}

const isSame = (one, other) => one.every((part, place) => part === other[place]);

function itemFor(list, ts) {
  return [...list.children].find((item) => item.dataset.ts === ts);
}

// Only what looks different is drawn anew, so that 500 messages cost little. Each change comes as a new object.
export function fill(list, messages) {
  const wasAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < AT_END;
  const old = new Map([...list.children].map((item) => [item.dataset.ts, item]));
  let hasChanged = false;
  let next = list.firstElementChild;
  for (const message of messages) {
    const known = old.get(message.ts);
    const look = lookOf(message, list);
    old.delete(message.ts);
    let item = known;
    if (!known || !isSame(known.look, look)) {
      hasChanged = true;
      item = itemOf(message, list);
      item.look = look;
      if (known) {
        if (next === known) next = item;
        replace(known, item);
      }
    }
    if (item === next) next = next.nextElementSibling;
    else list.insertBefore(item, next);
  }
  for (const item of old.values()) item.remove();
  if (wasAtEnd && hasChanged) toEnd(list);
}

function replace(known, item) {
  const focused = known.contains(document.activeElement) ? document.activeElement : null;
  known.replaceWith(item);
  if (!focused) return;
  if (item.contains(focused)) return focused.focus();
  const same = [...item.querySelectorAll("[data-key]")].find((one) => one.dataset.key === focused.dataset.key);
  (same ?? item.querySelector("textarea, [data-key]"))?.focus();
}

// Messages out of sight have only a guessed height until they are near: the end is where it is after a look there.
export function toEnd(list, times = 2) {
  list.scrollTop = list.scrollHeight;
  if (times) requestAnimationFrame(() => toEnd(list, times - 1));
}
