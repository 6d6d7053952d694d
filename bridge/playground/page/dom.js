// Small helpers to build the page's nodes. Whatever is given as content becomes text, never HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content.filter((one) => one !== undefined && one !== ""));
  return element;
}

// `key` finds the button again after its message was drawn anew.
export function button(text, press, { className = "", label = "", title = "", key = "" } = {}) {
  const element = make("button", className, text);
  element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  if (title) element.title = title;
  if (key) element.dataset.key = key;
  element.addEventListener("click", press);
  return element;
}

export function svg(tag, attributes = {}, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

// One stop for Tab in a group of many; arrow keys move it.
export function rove(elements, index) {
  elements.forEach((element, place) => { element.setAttribute("tabindex", place === index ? "0" : "-1"); });
}
