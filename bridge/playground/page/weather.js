// What goes wrong in life, as switches, and a strip that says what is on now.

import { $, button, make } from "/dom.js";
import { post, view } from "/state.js";

let drawn = "";

const set = (name, on) => post("/weather", { name, on });

function hintOf(name, one) {
  const hint = make("span", "soft", one.hint);
  hint.id = `weather-hint-${name}`;
  return hint;
}

function switchOf(name, one) {
  const box = make("input");
  Object.assign(box, { type: "checkbox", id: `weather-${name}`, checked: one.on });
  box.setAttribute("role", "switch");
  box.setAttribute("aria-describedby", `weather-hint-${name}`);
  box.addEventListener("change", async () => {
    if (!(await set(name, box.checked))) box.checked = !box.checked;
  });
  const label = make("label", "", one.label);
  label.htmlFor = box.id;
  return make("li", "switch", box, make("div", "", label, hintOf(name, one)));
}

function onceOf(name, one) {
  const made = button(one.label, () => set(name, true), { className: "block-button" });
  made.id = `weather-${name}`;
  made.setAttribute("aria-describedby", `weather-hint-${name}`);
  // Not `disabled`: that would throw the focus away.
  made.setAttribute("aria-disabled", String(one.on));
  if (one.on) made.setAttribute("aria-busy", "true");
  made.addEventListener("click", (event) => { if (one.on) event.stopImmediatePropagation(); }, true);
  return make("li", "once", made, hintOf(name, one));
}

export function drawWeather() {
  const all = Object.entries(view.weather);
  $("weather-toggle").hidden = !all.length;
  const look = JSON.stringify(all);
  if (look === drawn) return;
  drawn = look;
  const on = all.filter(([, one]) => one.on);
  $("weather-now").textContent = on.map(([, one]) => one.label).join(" · ");
  $("weather-strip").hidden = !on.length;
  $("weather-fair").hidden = !on.some(([, one]) => one.kind !== "once");
  const focused = document.activeElement?.id;
  $("weather-list").replaceChildren(...all.map(([name, one]) => (one.kind === "once" ? onceOf : switchOf)(name, one)));
  if (focused?.startsWith("weather-")) $(focused)?.focus();
}

export function prepareWeather() {
  $("weather-fair").addEventListener("click", () => {
    for (const [name, one] of Object.entries(view.weather)) if (one.on && one.kind !== "once") set(name, false);
    $("weather-close").focus();
  });
}
