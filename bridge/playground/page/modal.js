// Modals: the app's views as one dialog; the newest of the person who is chosen is on top.

import { $, make } from "/dom.js";
import { blocksOf } from "/blocks.js";
import { send, view } from "/state.js";

let shown = null;

function current() {
  return view.views[view.me]?.at(-1) ?? null;
}

export function forget(user, id) {
  view.views[user] = (view.views[user] ?? []).filter((one) => one.id !== id);
}

export function remember(user, opened) {
  const others = (view.views[user] ?? []);
  const isKnown = others.some((one) => one.id === opened.id);
  view.views[user] = isKnown ? others.map((one) => (one.id === opened.id ? opened : one)) : [...others, opened];
}

export function drawModal() {
  const wanted = current();
  if (wanted === shown) return;
  const typed = shown && wanted && shown.id === wanted.id ? values(shown) : {};
  shown = wanted;
  if (!wanted) return $("modal").close();
  $("modal-title").textContent = wanted.title?.text ?? "";
  $("modal-submit").textContent = wanted.submit?.text ?? "Submit";
  $("modal-submit").hidden = !wanted.submit && !inputs(wanted).length;
  $("modal-close").textContent = wanted.close?.text ?? "Cancel";
  $("modal-problem").textContent = "";
  $("modal-blocks").replaceChildren(...(wanted.blocks ?? []).flatMap((block) => (
    block.type === "input" ? [inputOf(block, typed, wanted.errors?.[block.block_id])] : blocksOf([block], wanted)
  )));
  if (!$("modal").open) $("modal").showModal();
  $("modal-blocks").querySelector("input, textarea, select")?.focus();
}

function inputs(one) {
  return (one.blocks ?? []).filter((block) => block.type === "input");
}

const fieldName = (element) => `modal-${element.action_id}`;

const DRAWN = {
  plain_text_input: writing,
  checkboxes: (block, typed) => choices(block, typed, "checkbox"),
  radio_buttons: (block, typed) => choices(block, typed, "radio"),
  static_select: selecting,
};

function inputOf(block, typed, error) {
  const field = (DRAWN[block.element.type] ?? (() => make("p", "", "This field cannot be shown.")))(block, typed);
  if (block.hint?.text) field.append(make("p", "soft", block.hint.text));
  if (error) {
    const told = make("p", "field-error", error);
    told.setAttribute("role", "alert");
    field.append(told);
  }
  return field;
}

function titleOf(block) {
  const optional = block.optional ? [" ", make("span", "soft", "(optional)")] : [];
  return [block.label?.text ?? "", ...optional];
}

function writing(block, typed) {
  const { element } = block;
  const box = make(element.multiline ? "textarea" : "input");
  const most = element.max_length ?? 3000;
  const count = make("p", "soft count");
  const tellCount = () => { count.textContent = `${box.value.length} / ${most}`; };
  Object.assign(box, { name: fieldName(element), id: fieldName(element), maxLength: most, required: !block.optional });
  box.value = typed[element.action_id] ?? element.initial_value ?? "";
  if (element.multiline) box.rows = 4;
  box.placeholder = element.placeholder?.text ?? "";
  box.addEventListener("input", tellCount);
  tellCount();
  const label = make("label", "", ...titleOf(block));
  label.htmlFor = box.id;
  return make("div", "field", label, box, count);
}

function choices(block, typed, kind) {
  const { element } = block;
  const initial = [...(element.initial_options ?? []), element.initial_option].filter(Boolean).map((one) => one.value);
  const chosen = [typed[element.action_id] ?? initial].flat();
  const lines = element.options.map((option) => {
    const box = make("input");
    Object.assign(box, { type: kind, name: fieldName(element), value: option.value });
    box.checked = chosen.includes(option.value);
    return make("label", "choice", box, " ", option.text.text);
  });
  const field = make("fieldset", "field", make("legend", "", ...titleOf(block)), ...lines);
  if (kind === "checkbox" && !block.optional) requireOne(field);
  return field;
}

// A group of check boxes has no `required` of its own.
function requireOne(field) {
  const boxes = [...field.querySelectorAll("input")];
  const check = () => boxes[0].setCustomValidity(boxes.some((box) => box.checked) ? "" : "Please choose at least one.");
  field.addEventListener("change", check);
  check();
}

function selecting(block, typed) {
  const { element } = block;
  const box = make("select");
  const known = element.options.map((option) => {
    const line = make("option", "", option.text.text);
    line.value = option.value;
    return line;
  });
  const none = make("option", "", element.placeholder?.text ?? "Choose…");
  none.value = "";
  box.append(none, ...known);
  Object.assign(box, { name: fieldName(element), id: fieldName(element), required: !block.optional });
  box.value = typed[element.action_id] ?? element.initial_option?.value ?? "";
  const label = make("label", "", ...titleOf(block));
  label.htmlFor = box.id;
  return make("div", "field", label, box);
}

function values(one) {
  const data = new FormData($("modal-form"));
  const found = {};
  for (const { element } of inputs(one)) {
    const all = data.getAll(fieldName(element));
    if (element.type === "checkboxes") found[element.action_id] = all;
    else if (all.length && (all[0] || element.type === "plain_text_input")) found[element.action_id] = all[0];
  }
  return found;
}

async function submit(event) {
  event.preventDefault();
  const one = shown;
  if (!one || $("modal-submit").disabled) return;
  $("modal-submit").disabled = true;
  $("modal-problem").textContent = await send("/submit", { view_id: one.id, values: values(one) });
  $("modal-submit").disabled = false;
}

// It goes at once: a person who closes it is done with it, whatever the playground says.
function dismiss() {
  const one = shown;
  if (!one) return;
  forget(view.me, one.id);
  drawModal();
  send("/dismiss", { view_id: one.id });
}

export function prepareModal() {
  $("modal-form").addEventListener("submit", submit);
  $("modal-close").addEventListener("click", dismiss);
  $("modal").addEventListener("cancel", (event) => { event.preventDefault(); dismiss(); });
}

// Asks before something that cannot be undone.
export function confirmed(question, yes) {
  $("confirm-text").textContent = question;
  $("confirm-yes").textContent = yes;
  $("confirm").returnValue = "";
  $("confirm").showModal();
  $("confirm-no").focus();
  return new Promise((resolve) => {
    $("confirm").addEventListener("close", () => resolve($("confirm").returnValue === "yes"), { once: true });
  });
}
