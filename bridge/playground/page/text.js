// Slack's text and a little Markdown as DOM nodes. Only http and https become links; nothing becomes HTML.

const TOKEN = /<(?:@(\w+)|#\w+\|([^>]*)|(https?:\/\/[^|>]+)(?:\|([^>]*))?)>/g;
const FENCE = /^```[^\n]*\n([\s\S]*?)(?:^```[ \t]*$|$(?![\s\S]))/gm;
const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>)\]]*[^\s<>)\].,;:!?])/g;

function node(tag, text, className) {
  const element = document.createElement(tag);
  element.textContent = text;
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
    nodes.push(...between(text.slice(position, match.index)), found(match));
    position = match.index + match[0].length;
  }
  return [...nodes, ...between(text.slice(position))].filter((one) => one !== "");
}

// Slack's own form: <@U…>, <#C…|name>, <https://…|label>, escaped & < >.
export function formatted(text, nameOf) {
  return split(text, TOKEN, (plain) => [unescape(plain)], (match) => {
    if (match[1]) return node("span", `@${nameOf(match[1])}`, "mention");
    if (match[2] !== undefined) return node("span", `#${unescape(match[2])}`, "mention");
    return link(unescape(match[3]), unescape(match[4] ?? match[3]));
  });
}

// Code blocks, code, bold and links; everything else stays as it was written.
export function markdown(text) {
  return split(text, FENCE, inline, (match) => node("pre", match[1].replace(/\n$/, "")));
}

function inline(text) {
  return split(text, INLINE, (plain) => [plain], (match) => {
    if (match[1]) return node("code", match[1]);
    if (match[2]) return node("strong", match[2]);
    return match[4] ? link(match[4], match[3]) : link(match[5], match[5]);
  });
}
