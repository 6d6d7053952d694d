// Slack's text and Markdown as DOM nodes. Only http and https become links; nothing becomes HTML.

const TOKEN = /<(?:@(\w+)|#\w+\|([^>]*)|(https?:\/\/[^|>]+)(?:\|([^>]*))?)>/g;
const INLINE = new RegExp([
  "`([^`\\n]+)`",
  "\\*\\*(?=\\S)((?:[^*\\n]|\\*(?!\\*))+)\\*\\*",
  "(?<![\\w*])\\*(?=[^\\s*])([^*\\n]+)\\*(?![\\w*])",
  "(?<![\\w_])_(?=[^\\s_])([^_\\n]+)_(?![\\w_])",
  "\\[([^\\]\\n]+)\\]\\((https?:\\/\\/(?:[^\\s()]|\\([^\\s()]*\\))+)\\)",
  "<(https?:\\/\\/[^\\s<>]+)>",
  "(https?:\\/\\/[^\\s<>)\\]]*[^\\s<>)\\].,;:!?*_])",
  "\\\\([!-/:-@[-`{-~])",
].join("|"), "g");
const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const QUOTE = /^ {0,3}> ?/;
const RULE = /^ {0,3}(?:-{3,}|\*{3,}|_{3,})[ \t]*$/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])[ \t]+(?=\S)/;
const DEEPEST = 6;

function node(tag, content, className) {
  const element = document.createElement(tag);
  element.append(...[content].flat());
  if (className) element.className = className;
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

// Slack's own form: <@U…>, <#C…|name>, <https://…|label>, escaped & < >.
export function formatted(text, nameOf) {
  return split(text, TOKEN, unescape, (match) => {
    if (match[1]) return node("span", `@${nameOf(match[1])}`, "mention");
    if (match[2] !== undefined) return node("span", `#${unescape(match[2])}`, "mention");
    return link(unescape(match[3]), unescape(match[4] ?? match[3]));
  });
}

function inline(text, inLink = false) {
  return split(text, INLINE, (plain) => plain, ([all, code, bold, star, underscore, label, url, auto, bare, escaped]) => {
    if (code) return node("code", code);
    if (bold) return node("strong", inline(bold, inLink));
    if (star || underscore) return node("em", inline(star || underscore, inLink));
    if (escaped) return escaped;
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
    else nodes.push(block(lines, depth));
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
  const mark = FENCE.exec(lines.shift())[1];
  const code = takeWhile(lines, (line) => !(line.trim().startsWith(mark) && !line.trim().replaceAll(mark[0], "")));
  lines.shift();
  return node("pre", code.join("\n"));
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
    element.append(node("li", markdown(body.join("\n"), depth + 1)));
  }
  return element;
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
