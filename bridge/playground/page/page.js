// The playground's chat client: conversations, threads, and the changes that come in.
// Everything that came from outside is shown with textContent, never as HTML.

import { $, button, make } from "/dom.js";
import { drawBonnet, prepareBonnet, touchBonnet } from "/bonnet.js";
import { drawGuide } from "/guide.js";
import { fill, isDismissed, onMessages, toEnd } from "/messages.js";
import { drawModal, forget, prepareModal, remember } from "/modal.js";
import { preparePicker } from "/picker.js";
import { keep, kept, nameOf, post, view } from "/state.js";
import { drawWeather, prepareWeather } from "/weather.js";

const KEPT = ["me", "channel", "thread"];
const LOADING_SECONDS = 3;
const PREVIEW = 160;
const PANELS = ["weather", "bonnet"];
const NARROW = matchMedia("(max-width: 48rem)");
const drafts = new Map();
const open = new Set(kept("panels", []));
let narrow = kept("pane", "main");
let told = "";

// Drawing

function sidebarItem(channel) {
  const isDirect = channel.type === "im";
  const name = isDirect ? nameOf(view.bot) : `# ${channel.name}`;
  const made = button(name, () => openChannel(channel.id), { key: channel.id });
  if (channel.is_shared) made.append(" ", make("span", "badge", "shared"));
  if (channel.id === view.channel) made.setAttribute("aria-current", "true");
  else if (channel.isUnread) {
    made.classList.add("unread");
    made.append(make("span", "unseen", " unread"));
  }
  return make("li", "", made);
}

function drawSidebar() {
  const all = [...view.channels.values()].filter((channel) => channel.members.includes(view.me));
  const look = JSON.stringify([view.channel, all.map((channel) => [channel.id, channel.isUnread])]);
  if ($("channels").look === look) return;
  $("channels").look = look;
  const focused = document.activeElement?.closest("nav") ? document.activeElement.dataset.key : "";
  for (const [list, isDirect] of [[$("channels"), false], [$("directs"), true]]) {
    list.replaceChildren(...all.filter((channel) => (channel.type === "im") === isDirect).map(sidebarItem));
  }
  if (focused) document.querySelector(`nav [data-key="${focused}"]`)?.focus();
}

function draw() {
  const channel = view.channels.get(view.channel);
  if (!channel) return;
  for (const name of KEPT) sessionStorage.setItem(name, view[name]);
  channel.isUnread = false;
  drawSidebar();
  drawConversation(channel);
  drawGuide(channel, draw);
  drawWeather();
  drawModal();
  drawPanels();
}

function drawConversation(channel) {
  $("title").textContent = channel.type === "im" ? nameOf(view.bot) : `# ${channel.name}`;
  const whispers = [...channel.whispers.values()].filter((one) => one.to === view.me && !isDismissed(one));
  const all = [...channel.messages.values(), ...whispers].sort((a, b) => (a.ts < b.ts ? -1 : 1));
  fill($("messages"), all.filter((m) => !m.thread_ts || m.thread_ts === m.ts || m.subtype === "thread_broadcast"));
  drawStatus($("status"), Object.values(channel.statuses)[0]);
  $("pane").hidden = !view.thread;
  if (!view.thread) return;
  fill($("thread"), all.filter((m) => m.ts === view.thread || m.thread_ts === view.thread));
  drawStatus($("thread-status"), channel.statuses[view.thread]);
}

function drawPanels() {
  const shown = PANELS.filter((name) => open.has(name) && !$(`${name}-toggle`).hidden);
  for (const name of PANELS) {
    $(name).hidden = !shown.includes(name);
    $(`${name}-toggle`).setAttribute("aria-expanded", String(shown.includes(name)));
  }
  $("tools").hidden = !shown.length;
  document.body.dataset.pane = view.thread && narrow !== "nav" ? "thread" : narrow;
  document.body.classList.toggle("has-tools", shown.length > 0);
  document.body.classList.toggle("has-thread", Boolean(view.thread));
  drawBonnet();
}

// What is done in words, and beside it, in turns, the app's own lines, which a screen reader need not hear again.
function drawStatus(place, status) {
  const text = status?.status ? `${nameOf(view.bot)} ${status.status}` : "";
  const lines = (status?.loading_messages ?? []).filter((line) => line !== status.status);
  if (place.dataset.text !== text) {
    place.dataset.text = text;
    const turn = make("span", "turn");
    turn.setAttribute("aria-hidden", "true");
    place.replaceChildren(text, ...(text ? [" ", turn] : []));
    place.since = Date.now();
  }
  place.lines = lines;
  takeTurns(place);
}

function takeTurns(place) {
  const turn = place.querySelector(".turn");
  if (!turn) return;
  const number = Math.floor((Date.now() - place.since) / 1000 / LOADING_SECONDS);
  const line = place.lines.length ? place.lines[number % place.lines.length] : "";
  if (turn.textContent !== line) turn.textContent = line;
}

// Moving about

const boxOf = (form) => $(form).querySelector("textarea");

// What is being written stays with where it would go.
function keepDrafts() {
  drafts.set(view.channel, boxOf("ask").value);
  if (view.thread) drafts.set(`${view.channel}:${view.thread}`, boxOf("reply").value);
}

function showDrafts() {
  boxOf("ask").value = drafts.get(view.channel) ?? "";
  boxOf("reply").value = drafts.get(`${view.channel}:${view.thread}`) ?? "";
}

function go(channel, thread) {
  keepDrafts();
  const isOther = channel !== view.channel;
  const isOtherThread = isOther || thread !== view.thread;
  Object.assign(view, { channel, thread });
  if (isOther) $("messages").replaceChildren();
  if (isOtherThread) $("thread").replaceChildren();
  view.editing = null;
  showDrafts();
  showPane("main");
  draw();
  if (isOther) toEnd($("messages"));
  if (isOtherThread) toEnd($("thread"));
}

function showPane(name) {
  narrow = name;
  keep("pane", name);
}

function openChannel(id) {
  go(id, "");
  boxOf("ask").focus();
}

function openThread(ts) {
  go(view.channel, ts);
  boxOf("reply").focus();
}

function closeThread() {
  go(view.channel, "");
  boxOf("ask").focus();
}

// Its first message is gone, and all others with it.
function leaveThread() {
  if ($("pane").contains(document.activeElement)) closeThread();
  else go(view.channel, "");
}

function chooseMe(id) {
  view.me = id;
  const channel = view.channels.get(view.channel);
  const isMember = channel?.members.includes(id);
  openChannel(isMember ? view.channel : [...view.channels.values()].find((one) => one.members.includes(id)).id);
}

function toggle(name, isOpen = !open.has(name)) {
  if (isOpen) open.add(name);
  else open.delete(name);
  keep("panels", [...open]);
  drawPanels();
  touchBonnet();
  if (isOpen) $(`${name}-close`).focus({ preventScroll: true });
  else $(`${name}-toggle`).focus();
}

// Closes what is nearest to the focus first, and in a narrow window what lies on top.
function escape(event) {
  if (event.key !== "Escape" || event.defaultPrevented || event.isComposing) return;
  if (document.querySelector("dialog[open]")) return;
  const { activeElement } = document;
  const isAt = (name) => $(name).contains(activeElement) || $(`${name}-toggle`) === activeElement;
  const shown = PANELS.filter((name) => !$(name).hidden);
  const panel = shown.find(isAt) ?? (NARROW.matches ? shown[0] : undefined);
  if (panel) toggle(panel, false);
  else if (view.thread) closeThread();
  else if (shown.length) toggle(shown[0], false);
}

// State and changes

async function load() {
  const state = await (await fetch("/state")).json();
  view.people = new Map(state.people.map((person) => [person.id, person]));
  view.bot = state.bot;
  view.views = state.views ?? {};
  view.weather = state.weather ?? {};
  view.feedback = state.feedback_selected ?? {};
  view.kapa = state.kapa ?? "";
  $("kapa").hidden = !view.kapa;
  $("kapa").textContent = view.kapa === "real" ? "real Kapa" : "simulated Kapa";
  view.channels = new Map(state.channels.map((channel) => [channel.id, {
    ...channel,
    messages: byTs(channel.messages),
    whispers: byTs((channel.ephemerals ?? []).map((one) => ({ ...one, subtype: "ephemeral" }))),
    isUnread: view.channels.get(channel.id)?.isUnread ?? false,
  }]));
  const humans = state.people.filter((person) => !person.is_bot);
  $("who").replaceChildren(...humans.map((person) => {
    const option = make("option", "", person.real_name);
    option.value = person.id;
    return option;
  }));
  $("channels").look = "";
  restore(humans);
}

function byTs(messages) {
  return new Map(messages.map((message) => [message.ts, message]));
}

// What was open before the page or the playground started anew, as far as it is still there.
function restore(humans) {
  for (const name of KEPT) view[name] ||= sessionStorage.getItem(name) ?? "";
  const isKnown = humans.some((person) => person.id === view.me);
  const channel = view.channels.get(view.channel);
  if (isKnown && channel?.members.includes(view.me)) {
    $("who").value = view.me;
    if (!channel.messages.has(view.thread)) view.thread = "";
    draw();
  } else {
    view.channel = [...view.channels.values()].find((one) => one.type === "channel" && one.has_bot).id;
    chooseMe(isKnown ? view.me : humans[0].id);
    $("who").value = view.me;
  }
}

const APART = {
  view: (change) => remember(change.to, change.view),
  view_closed: (change) => forget(change.to, change.view_id),
  weather: (change) => { view.weather = { ...view.weather, ...change.weather }; },
  feedback: (change) => {
    const own = { ...view.feedback[change.user] };
    if (change.selected) own[`${change.channel}:${change.ts}`] = change.selected;
    else delete own[`${change.channel}:${change.ts}`];
    view.feedback = { ...view.feedback, [change.user]: own };
  },
};

function apply(change) {
  APART[change.type]?.(change);
  const channel = view.channels.get(change.channel);
  if (!channel) return;
  if (change.type === "posted" || change.type === "changed") {
    setMessage(channel, change.message);
    countReplies(channel, change.message.thread_ts);
    if (change.type === "posted") posted(channel, change.message);
  } else if (change.type === "deleted") {
    const gone = channel.messages.get(change.ts);
    channel.messages.delete(change.ts);
    countReplies(channel, gone?.thread_ts);
    if (channel.id === view.channel && change.ts === view.thread) leaveThread();
  } else if (change.type === "ephemeral") {
    const whisper = { ...change.message, to: change.to, subtype: "ephemeral" };
    channel.whispers.set(whisper.ts, whisper);
    if (change.to === view.me) announce(channel, whisper);
  } else if (change.type === "status") {
    if (change.status.status) channel.statuses[change.thread_ts] = change.status;
    else delete channel.statuses[change.thread_ts];
  }
}

function setMessage(channel, message) {
  const before = channel.messages.get(message.ts);
  channel.messages.set(message.ts, message);
  const hasEnded = before?.streaming_state === "in_progress" && message.streaming_state !== "in_progress";
  if (hasEnded) announce(channel, message);
}

function posted(channel, message) {
  followAnswer(channel.id, message);
  if (channel.id !== view.channel && message.user !== view.me) channel.isUnread = true;
  if (message.user !== view.me && message.streaming_state !== "in_progress") announce(channel, message);
}

// In moderation: one message at a time, its beginning, and nothing of other channels.
function announce(channel, message) {
  if (channel.id !== view.channel) return;
  const text = message.text ?? "";
  const beginning = text.length > PREVIEW ? `${text.slice(0, PREVIEW)}…` : text;
  told = `${nameOf(message.user)}: ${beginning}`;
}

// The thread of one's own latest question opens by itself when its answer comes, once, and not while a reply to
// another thread is being written: it would go to the wrong one.
function followAnswer(channel, message) {
  if (channel !== view.channel) return;
  if (message.user === view.me && !message.thread_ts) view.asked = message.ts;
  else if (message.bot_id && message.thread_ts && message.thread_ts === view.asked) {
    view.asked = "";
    if (message.thread_ts === view.thread || boxOf("reply").value.trim() || view.editing) return;
    keepDrafts();
    view.thread = message.thread_ts;
    showDrafts();
    $("thread").replaceChildren();
  }
}

function countReplies(channel, ts) {
  const root = channel.messages.get(ts);
  if (!root) return;
  let count = 0;
  for (const message of channel.messages.values()) if (message.thread_ts === ts && message.ts !== ts) count += 1;
  // A new object, since what is the same object is not drawn anew.
  if (root.reply_count !== count) channel.messages.set(ts, { ...root, reply_count: count });
}

function listen() {
  let waiting = [];
  let isLoaded = false;
  let isDrawn = true;
  const source = new EventSource("/changes");
  source.addEventListener("open", async () => {
    try {
      await load();
    } catch {
      // It went away again; the source says so too and comes back here.
      return;
    }
    waiting.forEach(apply);
    waiting = [];
    isLoaded = true;
    draw();
    touchBonnet();
    $("connection").textContent = "";
  });
  source.addEventListener("message", (event) => {
    const change = JSON.parse(event.data);
    if (!isLoaded) return void waiting.push(change);
    apply(change);
    touchBonnet();
    if (isDrawn) requestAnimationFrame(() => { isDrawn = true; draw(); });
    isDrawn = false;
  });
  source.addEventListener("error", () => {
    isLoaded = false;
    $("connection").textContent = "Connecting…";
  });
}

function composer(form, thread) {
  const box = form.querySelector("textarea");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = box.value;
    if (!text.trim()) return;
    box.value = "";
    if (!(await post("/say", { text, thread: thread() })) && !box.value) box.value = text;
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

function prepare() {
  composer($("ask"), () => "");
  composer($("reply"), () => view.thread);
  onMessages({ openThread, redraw: draw });
  preparePicker();
  prepareModal();
  prepareWeather();
  prepareBonnet();
  $("who").addEventListener("change", () => chooseMe($("who").value));
  $("close").addEventListener("click", closeThread);
  $("back").addEventListener("click", () => {
    showPane("nav");
    drawPanels();
    document.querySelector("nav [aria-current]")?.focus();
  });
  for (const name of PANELS) {
    $(`${name}-toggle`).addEventListener("click", () => toggle(name));
    $(`${name}-close`).addEventListener("click", () => toggle(name, false));
  }
  document.addEventListener("keydown", escape);
  setInterval(() => { takeTurns($("status")); takeTurns($("thread-status")); }, 500);
  setInterval(() => { if ($("news").textContent !== told) $("news").textContent = told; }, 1500);
}

prepare();
listen();
