"""Writes what Slack shows: a reply as messages within Slack's limits.

Pure. Limits: https://docs.slack.dev/reference/block-kit/blocks/markdown-block (12,000 characters over all of a
message's markdown) and https://docs.slack.dev/reference/methods/chat.update (`text` of at most 4,000).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bridge.chat import Part
from bridge.models import Reply, Source

MARKDOWN_CHARACTERS: Final = 11_500
FALLBACK_CHARACTERS: Final = 3_900
MOST_SOURCES: Final = 10
TITLE_CHARACTERS: Final = 150
# A context element's text has at most 3,000 (https://docs.slack.dev/reference/block-kit/blocks/context-block).
SOURCES_CHARACTERS: Final = 2_950
EVENT_TYPE: Final = "kapa_answer"
ELLIPSIS: Final = "…"
_GROWING: Final = f" {ELLIPSIS}"


def parts(reply: Reply, sources_title: str) -> list[Part]:
    """Divide a reply into the bodies (`text`, `blocks`) of one message or more.

    All but the last stay as they are while the reply's text grows.
    """
    text = harmless(reply.text).rstrip()
    if reply.note:
        text = f"{text}\n\n{reply.note}" if text else reply.note
    # The sign that it grows must not decide where the text is divided: that would change while it grows.
    pieces = split(text, MARKDOWN_CHARACTERS - len(_GROWING))
    if reply.is_draft and pieces:
        pieces[-1] += _GROWING
    bodies: list[dict[str, Any]] = [
        {"text": fallback(piece), "blocks": [{"type": "markdown", "text": piece}]} for piece in pieces or [ELLIPSIS]
    ]
    links = "" if reply.is_draft else _links(sources_title, chosen(reply.text, reply.sources))
    if links:
        bodies[-1]["blocks"].append(_context(links))
    return list(bodies)


def split(text: str, limit: int) -> list[str]:
    """Divide a text into pieces of at most `limit` characters, at the end of a paragraph, a line or a word."""
    pieces = []
    while len(text) > limit:
        at = next((at for mark in ("\n\n", "\n", " ") if (at := text.rfind(mark, limit // 2, limit)) > 0), limit)
        pieces.append(text[:at].rstrip())
        text = text[at:].lstrip("\n ")
    return [piece for piece in [*pieces, text] if piece.strip()]


def fallback(markdown: str) -> str:
    """Give the text of a message for notifications and screen readers, which can ping nobody."""
    plain = re.sub(r"\[([^\]\[]*)\]\(([^()\s]*)\)", r"\1", markdown)
    escaped = escape(plain)
    if len(escaped) <= FALLBACK_CHARACTERS:
        return escaped
    # An escape that is cut in two would show as its own letters.
    return re.sub(r"&[a-z]{0,3}$", "", escaped[: FALLBACK_CHARACTERS - 1]) + ELLIPSIS


def escape(text: str) -> str:
    """Escape Slack's three control characters (https://docs.slack.dev/messaging/formatting-message-text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def harmless(markdown: str) -> str:
    """Take Slack's own commands (`<!channel>`, `<@U…>`, `<#C…>`) out of a text that others wrote.

    Looks no further than three characters, so that the beginning of a text that grows stays as it is; `<!--` and
    `<!DOCTYPE` in a code example stay whole.
    """
    return re.sub(r"<(?=![ceghs]|@[BUW]|#[CG])", "<\N{WORD JOINER}", markdown)


def chosen(text: str, sources: Iterable[Source]) -> list[Source]:
    """Give the sources to show: each page once, and only the cited ones where the answer cites any."""
    pages: dict[str, Source] = {}
    for source in sources:
        if re.fullmatch(r"https?://[^\s\x00-\x1f\x7f]+", source.url, re.IGNORECASE):
            pages.setdefault(source.url.rstrip("#/"), source)
    cited = [source for page, source in pages.items() if _is_cited(page, text)]
    return (cited or list(pages.values()))[:MOST_SOURCES]


def _is_cited(page: str, text: str) -> bool:
    # https://d/a stands in a text that cites https://d/a#b or https://d/a/, but not for https://d/ab or https://d/a/b.
    return re.search(re.escape(page) + r"(?!/*[\w%~-]|\.\w)", text) is not None


def title(source: Source) -> str:
    """Give a readable title: Kapa's `Page|Section` is `Page: Section`, and `Page|Page` is `Page`."""
    names = list(dict.fromkeys(filter(None, (" ".join(name.split()) for name in source.title.split("|")))))
    return ": ".join(names)[:TITLE_CHARACTERS] or source.url[:TITLE_CHARACTERS]


def _links(sources_title: str, sources: Sequence[Source]) -> str:
    """Give one line of links, as many as have room; empty for none."""
    head = f"{escape(sources_title[:TITLE_CHARACTERS])}: "
    line = ""
    for source in sources:
        url = source.url.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("&", "&amp;")
        longer = f"{line}{' · ' if line else head}<{url}|{escape(title(source)).replace('|', '¦')}>"
        line = longer if len(longer) <= SOURCES_CHARACTERS else line
    return line


def _context(mrkdwn: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": mrkdwn}]}


def metadata(question: str, number: int) -> dict[str, Any]:
    """Name the question and the part in a message's metadata, which everyone in the workspace can read.

    Source: https://docs.slack.dev/messaging/message-metadata.
    """
    return {"event_type": EVENT_TYPE, "event_payload": {"question": question, "part": number}}


def read_metadata(message: object) -> tuple[str, int] | None:
    """Give the question and part number that a message's metadata names, or None."""
    found = message.get("metadata") if isinstance(message, dict) else None
    payload = found.get("event_payload") if isinstance(found, dict) else None
    if not isinstance(found, dict) or found.get("event_type") != EVENT_TYPE or not isinstance(payload, dict):
        return None
    question, number = payload.get("question"), payload.get("part")
    # True is an int too.
    return (question, number) if isinstance(question, str) and type(number) is int else None
