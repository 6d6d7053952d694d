// The emoji picker: search by name, arrow keys, Enter, Escape, and a skin tone for hands.

import { $, button, make, rove } from "/dom.js";
import { GROUPS, TONES, found, spokenOf, symbolOf } from "/emoji.js";

const COLUMNS = 8;
const MARGIN = 8;
let choose = () => {};

function tone() {
  return Number(sessionStorage.getItem("tone") ?? 1);
}

function nameWithTone(one) {
  return one.hasTones && tone() > 1 ? `${one.name}::skin-tone-${tone()}` : one.name;
}

function options() {
  return [...$("picker-list").querySelectorAll("[role=option]")];
}

function optionOf(one) {
  const name = nameWithTone(one);
  const option = button(symbolOf(name), () => pick(name), { label: spokenOf(name), title: `:${one.name}:` });
  option.setAttribute("role", "option");
  option.setAttribute("aria-selected", "false");
  return option;
}

function drawOptions() {
  const groups = GROUPS.map((group) => [group.title, found(group, $("picker-search").value)]);
  $("picker-list").replaceChildren(...groups.filter(([, emoji]) => emoji.length).map(([title, emoji]) => {
    const heading = make("p", "", title);
    heading.setAttribute("aria-hidden", "true");
    const group = make("div", "picker-group", heading, ...emoji.map(optionOf));
    group.setAttribute("role", "group");
    group.setAttribute("aria-label", title);
    return group;
  }));
  $("picker-none").hidden = options().length > 0;
  rove(options(), 0);
}

function drawTones() {
  $("picker-tones").append(...TONES.map((title, index) => {
    const radio = make("input");
    Object.assign(radio, { type: "radio", name: "tone", value: String(index + 1), checked: tone() === index + 1 });
    radio.setAttribute("aria-label", title);
    radio.addEventListener("change", () => { sessionStorage.setItem("tone", radio.value); drawOptions(); });
    const label = make("label", "", radio, symbolOf(index ? `wave::skin-tone-${index + 1}` : "wave"));
    label.title = `${title} skin tone`;
    return label;
  }));
}

function pick(name) {
  $("picker").hidePopover();
  choose(name);
}

function place(opener) {
  const from = opener.getBoundingClientRect();
  const own = $("picker").getBoundingClientRect();
  const above = from.top - own.height - MARGIN;
  const top = above >= MARGIN ? above : Math.min(from.bottom + MARGIN, innerHeight - own.height - MARGIN);
  const left = Math.min(from.left, innerWidth - own.width - MARGIN);
  $("picker").style.top = `${Math.max(MARGIN, top)}px`;
  $("picker").style.left = `${Math.max(MARGIN, left)}px`;
}

export function openPicker(opener, chosen) {
  choose = chosen;
  $("picker-search").value = "";
  drawOptions();
  $("picker").showPopover();
  place(opener);
  $("picker-search").focus();
}

function move(event) {
  const all = options();
  const current = all.indexOf(document.activeElement);
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS };
  const step = steps[event.key];
  if (!step) return;
  event.preventDefault();
  const next = current + step;
  if (next < 0 && step === -COLUMNS) return $("picker-search").focus();
  const index = Math.max(0, Math.min(all.length - 1, next));
  rove(all, index);
  all[index]?.focus();
}

export function preparePicker() {
  drawTones();
  $("picker-search").addEventListener("input", drawOptions);
  $("picker-search").addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      options()[0]?.focus();
    } else if (event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      options()[0]?.click();
    }
  });
  $("picker-list").addEventListener("keydown", move);
  $("picker").addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    $("picker").hidePopover();
  });
  $("picker").addEventListener("focusout", (event) => {
    if (event.relatedTarget && !$("picker").contains(event.relatedTarget)) $("picker").hidePopover();
  });
}
