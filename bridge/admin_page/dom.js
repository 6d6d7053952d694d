// Small helpers to build the page's nodes. Whatever is given as content becomes text, never HTML.

export const $ = (id) => document.getElementById(id);

export function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

export function svg(tag, attributes = {}, ...content) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...content);
  return element;
}

// A screen reader says again what was set again: only what changed is.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// Draws a part of the page anew only where what it shows changed, so that what is selected or focused there stays.
export function redraw(element, shown, draw) {
  const look = JSON.stringify(shown);
  if (element.look === look) return;
  element.look = look;
  element.replaceChildren(...draw());
}
