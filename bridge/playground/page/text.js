// Slack's text and Markdown as DOM nodes. Only http and https become links; nothing becomes HTML.

import { isKnown, symbolOf } from "/emoji.js";

const EMOJI = ":((?:[a-z0-9_+'-]+)(?:::skin-tone-[2-6])?):";
const FENCED = /```\n?([^]+?)\n?```/g;
const MRKDWN = new RegExp([
  "`([^`\\n]+)`",
  "<@(\\w+)(?:\\|[^>]*)?>",
  "<[#!](?:\\w+\\|)?([^>]*)>",
  "<(https?:\\/\\/[^|>]+)(?:\\|([^>]*))?>",
  "(?<![\\w*])\\*(?=[^\\s*])([^*\\n]*[^\\s*])\\*(?![\\w*])",
  "(?<![\\w_])_(?=[^\\s_])([^_\\n]*[^\\s_])_(?![\\w_])",
  "(?<![\\w~])~(?=[^\\s~])([^~\\n]*[^\\s~])~(?![\\w~])",
  `(?<![\\w:])${EMOJI}(?![\\w:])`,
].join("|"), "g");
const INLINE = new RegExp([
  "(`+)(?!`)(.+?)(?<!`)\\1(?!`)",
  "\\*\\*(?=\\S)((?:[^*\\n]|\\*(?!\\*))+)\\*\\*",
  "(?<![\\w*])\\*(?=[^\\s*])([^*\\n]+)\\*(?![\\w*])",
  "(?<![\\w_])_(?=[^\\s_])([^_\\n]+)_(?![\\w_])",
  "~~(?=\\S)([^~\\n]+)~~",
  "!?\\[([^\\]\\n]+)\\]\\((https?:\\/\\/(?:[^\\s()]|\\([^\\s()]*\\))+)\\)",
  "<(https?:\\/\\/[^\\s<>]+)>",
  "(https?:\\/\\/[^\\s<>)\\]]*[^\\s<>)\\].,;:!?*_])",
  "\\\\([!-/:-@[-`{-~])",
  `(?<![\\w:])${EMOJI}(?![\\w:])`,
].join("|"), "g");
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([\w+#.-]*)/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const RULE = /^ {0,3}(?:-{3,}|\*{3,}|_{3,})[ \t]*$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])[ \t]+(?=\S)/;
const TASK = /^\[([ xX])\][ \t]+/;
const RIGHT_TO_LEFT = /[\p{Script=Hebrew}\p{Script=Arabic}\p{Script=Syriac}\p{Script=Thaana}\p{Script=Nko}]/u;
const DEEPEST = 6;

function node(tag, content, className) {
  const element = document.createElement(tag);
  element.append(...[content].flat());
  if (className) element.className = className;
  return element;
}

// The direction of its first letter. `dir=auto` would not do: it does not look into lists whose items have their own.
function directed(element) {
  const letter = /\p{L}/u.exec(element.textContent)?.[0];
  if (letter) element.dir = RIGHT_TO_LEFT.test(letter) ? "rtl" : "ltr";
  return element;
}

function link(url, label) {
  const element = node("a", label);
  element.href = url;
  element.target = "_blank";
  element.rel = "noopener noreferrer";
  return element;
}

function unescape(text) {
  return text.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&");
}

function split(text, pattern, between, found) {
  const nodes = [];
  let position = 0;
  for (const match of text.matchAll(pattern)) {
    nodes.push(between(text.slice(position, match.index)), found(match));
    position = match.index + match[0].length;
  }
  return [...nodes, between(text.slice(position))].filter((one) => one !== "");
}

// Slack's own form: <@U…>, <#C…|name>, <https://…|label>, escaped & < >, and the marks of its mrkdwn.
export function formatted(text, nameOf) {
  const code = (match) => codeBlock(unescape(match[1]), "");
  return split(text, FENCED, (plain) => plain, code)
    .flatMap((part) => (typeof part === "string" ? quotes(part, nameOf) : part));
}

function quotes(text, nameOf) {
  const quoted = (match) => node("blockquote", spans(match[0].replace(/^&gt; ?/gm, "").replace(/\n$/, ""), nameOf));
  return split(text, /(?:^&gt;.*(?:\n|$))+/gm, (plain) => plain, quoted)
    .flatMap((part) => (typeof part === "string" ? spans(part, nameOf) : part));
}

function spans(text, nameOf) {
  return split(text, MRKDWN, unescape, ([all, code, user, other, url, label, bold, italic, struck, emoji]) => {
    if (code) return node("code", unescape(code));
    if (user) return node("span", `@${nameOf(user)}`, "mention");
    if (other !== undefined) return node("span", (all[1] === "#" ? "#" : "@") + unescape(other), "mention");
    if (url) return link(unescape(url), unescape(label || url));
    if (bold) return node("strong", spans(bold, nameOf));
    if (italic) return node("em", spans(italic, nameOf));
    if (struck) return node("s", spans(struck, nameOf));
    return isKnown(emoji) ? symbolOf(emoji) : all;
  });
}

// What a person typed to get this text, to be typed anew.
export function typedForm(text, handleOf) {
  return unescape(text
    .replace(/<@(\w+)(?:\|[^>]*)?>/g, (_, id) => `@${handleOf(id)}`)
    .replace(/<[#!](?:\w+\|)?([^>]*)>/g, (all, name) => (all[1] === "#" ? "#" : "@") + name)
    .replace(/<((?:https?|mailto):[^|>]+)(?:\|[^>]*)?>/g, "$1"));
}

function inline(text, inLink = false) {
  return split(text, INLINE, (plain) => plain, (
    [all, , code, bold, star, underscore, struck, label, url, auto, bare, escaped, emoji],
  ) => {
    if (code) return node("code", code.replace(/^ (.*[^ ].*) $/, "$1"));
    if (bold) return node("strong", inline(bold, inLink));
    if (star || underscore) return node("em", inline(star || underscore, inLink));
    if (struck) return node("s", inline(struck, inLink));
    if (escaped) return escaped;
    if (emoji) return isKnown(emoji) ? symbolOf(emoji) : all;
    if (inLink) return all;
    return url ? link(url, inline(label, true)) : link(auto || bare, auto || bare);
  });
}

// GitHub's Markdown, as far as answers use it; everything else stays as it was written.
export function markdown(text, depth = 0) {
  const lines = text.split("\n");
  const nodes = [];
  while (lines.length) {
    if (!lines[0].trim()) lines.shift();
    else nodes.push(directed(block(lines, depth)));
  }
  return nodes;
}

// Takes the lines of one block off the front.
function block(lines, depth) {
  const heading = HEADING.exec(lines[0]);
  if (FENCE.test(lines[0])) return fenced(lines);
  if (heading) {
    lines.shift();
    return node(`h${Math.max(3, heading[1].length)}`, inline(heading[2]));
  }
  if (RULE.test(lines[0])) return lines.shift() && node("hr", []);
  if (isTable(lines)) return table(lines);
  if (depth < DEEPEST && QUOTE.test(lines[0])) {
    const quoted = takeWhile(lines, (line) => QUOTE.test(line)).map((line) => line.replace(QUOTE, ""));
    return node("blockquote", markdown(quoted.join("\n"), depth + 1));
  }
  if (depth < DEEPEST && ITEM.test(lines[0])) return list(lines, depth);
  return node("p", inline([lines.shift(), ...takeWhile(lines, (line) => !startsBlock(line, lines))].join("\n")));
}

function takeWhile(lines, isWanted) {
  const taken = [];
  while (lines.length && isWanted(lines[0])) taken.push(lines.shift());
  return taken;
}

function startsBlock(line, lines) {
  return !line.trim() || [FENCE, HEADING, QUOTE, RULE, ITEM].some((start) => start.test(line)) || isTable(lines);
}

function fenced(lines) {
  const [, mark, language] = FENCE.exec(lines.shift());
  const code = takeWhile(lines, (line) => !(line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "")));
  lines.shift();
  return codeBlock(code.join("\n"), language);
}

function codeBlock(text, language) {
  const element = node("pre", node("code", text));
  if (language) element.dataset.language = language;
  element.tabIndex = 0;
  return element;
}

function list(lines, depth) {
  const [, , mark] = ITEM.exec(lines[0]);
  const element = node(/\d/.test(mark) ? "ol" : "ul", []);
  if (element.tagName === "OL") element.start = parseInt(mark, 10);
  // A list goes on while the mark is of the same kind: "-", or a number with the same end.
  const isNext = (line) => ITEM.exec(line)?.[2].at(-1) === mark.at(-1);
  while (lines.length && isNext(lines[0])) {
    const own = ITEM.exec(lines[0])[0];
    const body = [lines.shift().slice(own.length)];
    const isInside = (line) => /^(?: {2}|\t)/.test(line) && (line.search(/\S/) >= own.length || !ITEM.test(line));
    while (lines.length && (isInside(lines[0]) || (!lines[0].trim() && isInside(lines[1] ?? "")))) {
      body.push(lines.shift().replace(new RegExp(`^(?:\\t| {0,${own.length}})`), ""));
    }
    if (lines.length > 1 && !lines[0].trim() && isNext(lines[1])) lines.shift();
    element.append(item(body.join("\n"), depth));
  }
  return element;
}

function item(text, depth) {
  const task = TASK.exec(text);
  if (!task) return node("li", markdown(text, depth + 1));
  const box = node("input", []);
  Object.assign(box, { type: "checkbox", checked: task[1] !== " ", disabled: true });
  return node("li", [box, " ", ...markdown(text.slice(task[0].length), depth + 1)], "task");
}

function isTable(lines) {
  return lines[0].includes("|") && /^(?=.*\|)(?=.*-)[\s|:-]+$/.test(lines[1] ?? "");
}

function table(lines) {
  const [head, , ...rows] = [lines.shift(), lines.shift(), ...takeWhile(lines, (line) => line.includes("|"))];
  const cells = (row) => row.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/);
  const tr = (row, tag) => node("tr", cells(row).map((cell) => node(tag, inline(cell.trim().replaceAll("\\|", "|")))));
  const parts = [node("thead", tr(head, "th")), node("tbody", rows.map((row) => tr(row, "td")))];
  const frame = node("div", node("table", parts), "table");
  frame.tabIndex = 0;
  return frame;
}
