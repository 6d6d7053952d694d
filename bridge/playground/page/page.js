// The playground's chat client. Everything that came from outside is shown with textContent, never as HTML.

import { formatted, markdown } from "/text.js";

const EMOJI = {
  "+1": "👍", thumbsup: "👍", "-1": "👎", thumbsdown: "👎", heart: "❤️", tada: "🎉", eyes: "👀", x: "❌",
  white_check_mark: "✅", heavy_check_mark: "✔️", 100: "💯", raised_hands: "🙌", shrug: "🤷", question: "❓",
  no_entry: "⛔", no_entry_sign: "🚫", grey_question: "❔",
};
const QUICK = ["+1", "-1"];
const SPOKEN = { "+1": "thumbs up", "-1": "thumbs down" };
const EXAMPLES = [
  "How does the bridge keep its order?", "What happens when Redis goes away?", "How are votes counted?",
];
const KEPT = ["me", "channel", "thread"];
const view = { people: new Map(), bot: "", channels: new Map(), me: "", channel: "", thread: "", asked: "" };
const $ = (id) => document.getElementById(id);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function nameOf(id) {
  return view.people.get(id)?.real_name ?? id;
}

async function post(path, fields) {
  const body = JSON.stringify({ user: view.me, channel: view.channel, ...fields });
  let problem = "";
  try {
    const reply = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    if (!reply.ok) problem = `That did not work: ${(await reply.json()).error}.`;
  } catch {
    problem = "The playground does not answer. Is it still running?";
  }
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
  return !problem;
}

// Drawing

function drawSidebar() {
  for (const [list, isDirect] of [[$("channels"), false], [$("directs"), true]]) {
    const shown = [...view.channels.values()].filter(
      (channel) => (channel.type === "im") === isDirect && channel.members.includes(view.me),
    );
    list.replaceChildren(...shown.map((channel) => {
      const button = make("button", "", isDirect ? nameOf(view.bot) : `# ${channel.name}`);
      button.type = "button";
      if (channel.id === view.channel) button.setAttribute("aria-current", "true");
      button.addEventListener("click", () => openChannel(channel.id));
      const item = make("li");
      item.append(button);
      return item;
    }));
  }
}

function contentOf(message) {
  const body = make("div", "text");
  const blocks = message.bot_id ? message.blocks ?? [] : [];
  for (const block of blocks) {
    if (block.type === "markdown") body.append(...markdown(block.text));
    else if (block.type === "divider") body.append(make("hr"));
    else if (block.type === "context") body.append(contextOf(block));
    else if (block.text?.text) body.append(...formatted(block.text.text, nameOf));
  }
  if (!body.childNodes.length) body.append(...formatted(message.text ?? "", nameOf));
  if (message.edited && !message.bot_id) body.append(make("small", "", " (edited)"));
  return body;
}

function contextOf(block) {
  const line = make("p", "context");
  for (const element of block.elements) {
    if (element.text) line.append(...formatted(element.text, nameOf), " ");
  }
  return line;
}

function reactionButton(message, name, users) {
  const symbol = EMOJI[name.split("::")[0]] ?? `:${name}:`;
  const button = make("button", "reaction", users.length ? `${symbol} ${users.length}` : symbol);
  const isMine = users.includes(view.me);
  button.type = "button";
  button.setAttribute("aria-pressed", String(isMine));
  const spoken = SPOKEN[name] ?? name.replaceAll("::", " ").replaceAll("_", " ");
  const people = users.length === 1 ? "1 person" : `${users.length} people`;
  button.setAttribute("aria-label", users.length ? `${spoken}, ${people}` : `React with ${spoken}`);
  button.title = users.map(nameOf).join(", ") || `React with :${name}:`;
  button.addEventListener("click", () => post(isMine ? "/unreact" : "/react", { ts: message.ts, emoji: name }));
  return button;
}

function footOf(message, inThread) {
  const foot = make("div", "foot");
  const reactions = message.reactions ?? [];
  for (const reaction of reactions) foot.append(reactionButton(message, reaction.name, reaction.users));
  for (const name of QUICK) {
    if (!reactions.some((reaction) => reaction.name === name)) foot.append(reactionButton(message, name, []));
  }
  if (!inThread) {
    const count = message.reply_count ?? 0;
    const button = make("button", "replies", count ? `${count} ${count === 1 ? "reply" : "replies"}` : "Reply");
    button.type = "button";
    button.addEventListener("click", () => openThread(message.ts));
    foot.append(button);
  }
  return foot;
}

function itemOf(message, inThread) {
  const item = make("li", "message");
  item.dataset.ts = message.ts;
  const name = nameOf(message.user);
  const avatar = make("span", `avatar avatar-${name.length % 5}`, name.slice(0, 1));
  avatar.setAttribute("aria-hidden", "true");
  const head = make("div", "head");
  const time = make("time", "", new Date(Number(message.ts) * 1000).toLocaleTimeString());
  head.append(make("b", "", name), " ", ...(message.bot_id ? [make("span", "badge", "APP"), " "] : []), time);
  const body = make("div", "body");
  body.append(head, contentOf(message));
  if (message.subtype !== "tombstone") body.append(footOf(message, inThread));
  item.append(avatar, body);
  return item;
}

function fill(list, messages, inThread) {
  const wasAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  const old = new Map([...list.children].map((item) => [item.dataset.ts, item]));
  const items = messages.map((message) => {
    const look = JSON.stringify([message, view.me]);
    const known = old.get(message.ts);
    if (known?.look === look) return known;
    const item = itemOf(message, inThread);
    item.look = look;
    return item;
  });
  const focused = focusPath(list);
  list.replaceChildren(...items);
  restoreFocus(list, focused);
  if (wasAtEnd) list.scrollTop = list.scrollHeight;
}

function focusPath(list) {
  const item = document.activeElement?.closest?.("li.message");
  if (!item || item.parentElement !== list) return null;
  return [item.dataset.ts, [...item.querySelectorAll("button, a")].indexOf(document.activeElement)];
}

function restoreFocus(list, focused) {
  if (!focused) return;
  const item = [...list.children].find((child) => child.dataset.ts === focused[0]);
  item?.querySelectorAll("button, a")[focused[1]]?.focus();
}

// What one can ask where nothing was said yet, and that nobody answers where the bot is not.
function drawHint(channel) {
  const shown = !channel.has_bot ? "absent" : channel.messages.size ? "" : "examples";
  $("hint").hidden = !shown;
  if ($("hint").dataset.shown === shown) return;
  $("hint").dataset.shown = shown;
  const text = shown === "absent" ? `${nameOf(view.bot)} is not in this channel and answers nothing here.` : "Ask, for example:";
  const examples = shown === "examples" ? EXAMPLES : [];
  $("hint").replaceChildren(make("p", "", text), ...examples.map((example) => {
    const button = make("button", "", example);
    button.type = "button";
    button.addEventListener("click", () => {
      const box = $("ask").querySelector("textarea");
      box.value = example;
      box.focus();
    });
    return button;
  }));
}

function draw() {
  const channel = view.channels.get(view.channel);
  if (!channel) return;
  for (const name of KEPT) sessionStorage.setItem(name, view[name]);
  drawHint(channel);
  drawSidebar();
  $("title").textContent = channel.type === "im" ? nameOf(view.bot) : `# ${channel.name}`;
  const all = [...channel.messages.values()].sort((a, b) => (a.ts < b.ts ? -1 : 1));
  fill($("messages"), all.filter((m) => !m.thread_ts || m.thread_ts === m.ts || m.subtype === "thread_broadcast"), false);
  $("status").textContent = statusText(Object.values(channel.statuses)[0]);
  $("pane").hidden = !view.thread;
  if (view.thread) {
    fill($("thread"), all.filter((m) => m.ts === view.thread || m.thread_ts === view.thread), true);
    $("thread-status").textContent = statusText(channel.statuses[view.thread]);
  }
}

function statusText(status) {
  return status?.status ? `${nameOf(view.bot)} ${status.status}` : "";
}

// Moving about

function openChannel(id) {
  view.channel = id;
  view.thread = "";
  $("messages").replaceChildren();
  draw();
  $("messages").scrollTop = $("messages").scrollHeight;
  $("ask").querySelector("textarea").focus();
}

function openThread(ts) {
  view.thread = ts;
  $("thread").replaceChildren();
  draw();
  $("thread").scrollTop = $("thread").scrollHeight;
  $("reply").querySelector("textarea").focus();
}

function chooseMe(id) {
  view.me = id;
  const channel = view.channels.get(view.channel);
  const isMember = channel?.members.includes(id);
  openChannel(isMember ? view.channel : [...view.channels.values()].find((one) => one.members.includes(id)).id);
}

// State and changes

async function load() {
  const state = await (await fetch("/state")).json();
  view.people = new Map(state.people.map((person) => [person.id, person]));
  view.bot = state.bot;
  view.channels = new Map(state.channels.map((channel) => {
    const messages = new Map(channel.messages.map((message) => [message.ts, message]));
    return [channel.id, { ...channel, messages }];
  }));
  const humans = state.people.filter((person) => !person.is_bot);
  $("who").replaceChildren(...humans.map((person) => {
    const option = make("option", "", person.real_name);
    option.value = person.id;
    return option;
  }));
  restore(humans);
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

function apply(change) {
  const channel = view.channels.get(change.channel);
  if (!channel) return;
  if (change.type === "posted" || change.type === "changed") {
    channel.messages.set(change.message.ts, change.message);
    countReplies(channel, change.message.thread_ts);
    if (change.type === "posted") followAnswer(change.channel, change.message);
  } else if (change.type === "deleted") {
    const gone = channel.messages.get(change.ts);
    channel.messages.delete(change.ts);
    countReplies(channel, gone?.thread_ts);
  } else if (change.type === "status") {
    if (change.status.status) channel.statuses[change.thread_ts] = change.status;
    else delete channel.statuses[change.thread_ts];
  }
}

// The thread of one's own latest question opens by itself when its answer comes, once, and not while a reply to
// another thread is being written: it would go to the wrong one.
function followAnswer(channel, message) {
  if (channel !== view.channel) return;
  if (message.user === view.me && !message.thread_ts) view.asked = message.ts;
  else if (message.bot_id && message.thread_ts && message.thread_ts === view.asked) {
    view.asked = "";
    if (message.thread_ts === view.thread || $("reply").querySelector("textarea").value.trim()) return;
    view.thread = message.thread_ts;
    $("thread").replaceChildren();
  }
}

function countReplies(channel, ts) {
  const root = channel.messages.get(ts);
  if (!root) return;
  const replies = [...channel.messages.values()].filter((message) => message.thread_ts === ts && message.ts !== ts);
  root.reply_count = replies.length;
}

function listen() {
  let waiting = [];
  let isLoaded = false;
  let isDrawn = true;
  const source = new EventSource("/changes");
  source.addEventListener("open", async () => {
    await load();
    waiting.forEach(apply);
    waiting = [];
    isLoaded = true;
    draw();
    $("connection").textContent = "";
  });
  source.addEventListener("message", (event) => {
    const change = JSON.parse(event.data);
    if (!isLoaded) return void waiting.push(change);
    apply(change);
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
    if (!(await post("/say", { text, thread: thread() }))) box.value = text;
  });
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
}

composer($("ask"), () => "");
composer($("reply"), () => view.thread);
$("who").addEventListener("change", () => chooseMe($("who").value));
$("close").addEventListener("click", () => { view.thread = ""; draw(); $("ask").querySelector("textarea").focus(); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && view.thread) $("close").click(); });
listen();
