"""Writes what Slack shows: a reply as messages within Slack's limits, whispers, and the modal that asks for reasons.

Pure. How Markdown is understood lives in `markdown`, what the bridge says in `messages`. Limits: 12,000 characters over
all of a message's markdown (https://docs.slack.dev/reference/block-kit/blocks/markdown-block), and a `text` of at most
4,000 (https://docs.slack.dev/reference/methods/chat.update).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bridge.chat import Part
from bridge.markdown import closed, plain
from bridge.markdown_parts import split
from bridge.markdown_safety import harmless
from bridge.messages import Messages
from bridge.models import Reaction, Reason, Reply, Source, Whisper

MARKDOWN_CHARACTERS: Final = 11_500
FALLBACK_CHARACTERS: Final = 3_900
MOST_SOURCES: Final = 10
TITLE_CHARACTERS: Final = 150
# A context element's text has at most 3,000 (https://docs.slack.dev/reference/block-kit/blocks/context-block).
SOURCES_CHARACTERS: Final = 2_950
# A section's text has at most 3,000 (https://docs.slack.dev/reference/block-kit/blocks/section-block).
SECTION_CHARACTERS: Final = 2_950
# A plain-text input takes so many at most (https://docs.slack.dev/reference/block-kit/block-elements).
WORDS_CHARACTERS: Final = 3_000
EVENT_TYPE: Final = "kapa_answer"
FEEDBACK: Final = "kapa_feedback"
EXPLAIN: Final = "kapa_explain"
REASONS: Final = "kapa_reasons"
WORDS: Final = "kapa_words"
WHY: Final = "kapa_why"
ELLIPSIS: Final = "…"
_GROWING: Final = f" {ELLIPSIS}"


def parts(reply: Reply, says: Messages) -> list[Part]:
    """Divide a reply into the bodies (`text`, `blocks`) of one message or more.

    All but the last stay as they are while the reply's text grows.
    """
    text = harmless(reply.text).rstrip()
    if reply.note:
        text = f"{closed(text)}\n\n{reply.note}" if text else reply.note
    foot = [] if reply.is_draft else _foot(reply, says)
    # The sign that it grows must not decide where the text is divided: that would change while it grows.
    pieces = split(text, MARKDOWN_CHARACTERS - len(_GROWING)) or [""]
    # Nor must what stands below: it only makes a message of its own of the end that leaves no room for it.
    pieces[-1:] = split(pieces[-1], MARKDOWN_CHARACTERS - len(_GROWING) - _length(foot)) or [ELLIPSIS]
    if reply.is_draft and pieces != [ELLIPSIS]:
        pieces[-1] += _GROWING
    bodies: list[dict[str, Any]] = [
        {"text": fallback(piece), "blocks": [{"type": "markdown", "text": piece}]} for piece in pieces
    ]
    bodies[-1]["blocks"] += foot
    return list(bodies)


def _length(blocks: Sequence[Mapping[str, Any]]) -> int:
    """Give how much of a message's room blocks take, which Slack counts over all of them, in characters."""
    return len(json.dumps(blocks, ensure_ascii=False)) if blocks else 0


def _foot(reply: Reply, says: Messages) -> list[dict[str, Any]]:
    """Give what stands below the last part of a finished reply."""
    shown = [one for one in chosen(reply.text, reply.sources) if not (reply.is_shared and one.is_internal)]
    links = source_lines(says.sources, shown)
    foot = [_context(links)] if links else []
    return [*foot, _feedback_buttons(says)] if reply.is_votable else foot


def growing(part: Part) -> str:
    """Give the Markdown of a draft's part, without the sign that it grows: what a stream shows of it."""
    return _markdown(part).removesuffix(_GROWING)


def rest(shown: Part, part: Part, *, is_draft: bool) -> str | None:
    """Give what `part` has beyond the draft part `shown`; None: it does not begin with it."""
    before, now = growing(shown), growing(part) if is_draft else _markdown(part)
    return now[len(before) :] if now.startswith(before) else None


def below(part: Part) -> list[Any]:
    """Give the blocks that stand below a part's Markdown."""
    return list(part["blocks"][1:])


def plainer(part: Part) -> list[Part]:
    """Give the same part in simpler forms, for a Slack that finds fault with its blocks: the plain text at last."""
    if "blocks" not in part:
        return []
    text, *foot = part["blocks"]
    without_buttons = [block for block in foot if block["type"] != "context_actions"]
    simpler = [[text, *without_buttons]] if len(without_buttons) < len(foot) else []
    simpler += [[text]] if without_buttons else []
    return [*({**part, "blocks": blocks} for blocks in simpler), {"text": part["text"]}]


def _markdown(part: Part) -> str:
    return str(part["blocks"][0]["text"])


def fallback(text: str) -> str:
    """Give the text of a message for notifications and screen readers, which can ping nobody."""
    return bounded(escape(plain(text, FALLBACK_CHARACTERS)), FALLBACK_CHARACTERS) or ELLIPSIS


def bounded(escaped: str, most: int) -> str:
    """Give an escaped text in at most so many characters."""
    # An escape that is cut in two would show as its own letters.
    return escaped if len(escaped) <= most else re.sub(r"&[a-z]{0,3}$", "", escaped[: most - 1]) + ELLIPSIS


def escape(text: str) -> str:
    """Escape Slack's three control characters (https://docs.slack.dev/messaging/formatting-message-text)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def chosen(text: str, sources: Iterable[Source]) -> list[Source]:
    """Give the sources to show: each page once, and where the answer cites any, only those, in the order of citing."""
    pages: dict[str, Source] = {}
    for source in sources:
        if re.fullmatch(r"https?://[^\s\x00-\x1f\x7f]+", source.url, re.IGNORECASE):
            page = source.url.rstrip("#/")
            first = pages.setdefault(page, source)
            pages[page] = replace(first, is_internal=first.is_internal or source.is_internal)
    cited = sorted((at, number) for number, page in enumerate(pages) if (at := _cited_at(page, text)) is not None)
    found = list(pages.values())
    return ([found[number] for _, number in cited] or found)[:MOST_SOURCES]


def _cited_at(page: str, text: str) -> int | None:
    # https://d/a stands in a text that cites https://d/a#b or https://d/a/, but not for https://d/ab or https://d/a/b.
    found = re.search(re.escape(page) + r"(?!/*[\w%~-]|\.\w)", text)
    return found.start() if found else None


def title(source: Source) -> str:
    """Give a readable title: Kapa's `Page|Section` is `Page: Section`, and `Page|Page` is `Page`.

    One that looks like an address could be another one than the link's: then the link's own is shown.
    """
    seen = harmless(source.title)
    names = list(dict.fromkeys(filter(None, (" ".join(name.split()) for name in seen.split("|")))))
    joined = ": ".join(names)
    is_address = re.match(r"(https?:|www\.)", joined, re.IGNORECASE) is not None
    return source.url[:TITLE_CHARACTERS] if is_address or not joined else joined[:TITLE_CHARACTERS]


def source_lines(heading: str, sources: Sequence[Source]) -> str:
    """Give the numbered links in Slack's mrkdwn, a line each, as many as have room; empty for none."""
    lines = [f"{escape(heading[:TITLE_CHARACTERS])}:"]
    for source in sources:
        url = source.url.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C").replace("&", "&amp;")
        line = f"{len(lines)}. <{url}|{escape(title(source)).replace('|', '¦')}>"
        if sum(map(len, lines)) + len(lines) + len(line) <= SOURCES_CHARACTERS:
            lines.append(line)
    return "\n".join(lines) if len(lines) > 1 else ""


def _context(mrkdwn: str) -> dict[str, Any]:
    return {"type": "context", "elements": [{"type": "mrkdwn", "text": mrkdwn}]}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def _feedback_buttons(says: Messages) -> dict[str, Any]:
    """Source: https://docs.slack.dev/reference/block-kit/block-elements/feedback-buttons-element."""

    def button(text: str, reaction: Reaction) -> dict[str, Any]:
        return {"text": _plain(text), "accessibility_label": text, "value": reaction.value}

    buttons = {
        "type": "feedback_buttons",
        "action_id": FEEDBACK,
        "positive_button": button(says.good, Reaction.UPVOTE),
        "negative_button": button(says.bad, Reaction.DOWNVOTE),
    }
    return {"type": "context_actions", "elements": [buttons]}


def whisper(said: Whisper, says: Messages) -> dict[str, Any]:
    """Give the body (`text`, `blocks`) of an ephemeral message."""
    text = bounded(escape(said.text), SECTION_CHARACTERS)
    body: dict[str, Any] = {"type": "section", "text": {"type": "mrkdwn", "text": text}}
    if said.explains:
        body["accessory"] = {
            "type": "button",
            "action_id": EXPLAIN,
            "text": _plain(says.explain),
            "value": f"{said.explains} {said.about}".rstrip(),
        }
    return {"text": text, "blocks": [body]}


def why(says: Messages, about: Mapping[str, str]) -> dict[str, Any]:
    """Give the modal that asks what was wrong; `about` comes back with what is submitted.

    Source: https://docs.slack.dev/reference/views/modal-views.
    """
    options = [{"text": _plain(getattr(says, reason)), "value": reason.value} for reason in Reason]
    return {
        "type": "modal",
        "callback_id": WHY,
        "private_metadata": json.dumps(about, separators=(",", ":")),
        "title": _plain(says.why),
        "submit": _plain(says.send),
        "close": _plain(says.skip),
        "blocks": [
            {
                "type": "input",
                "block_id": REASONS,
                "optional": True,
                "label": _plain(says.reasons),
                "element": {"type": "checkboxes", "action_id": REASONS, "options": options},
            },
            {
                "type": "input",
                "block_id": WORDS,
                "optional": True,
                "label": _plain(says.words),
                "element": {
                    "type": "plain_text_input",
                    "action_id": WORDS,
                    "multiline": True,
                    "max_length": WORDS_CHARACTERS,
                },
            },
        ],
    }


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


def is_from_person(message: Mapping[str, Any]) -> bool:
    """Say whether a message of a thread was written by a person, and is still there."""
    return not message.get("bot_id") and message.get("subtype") in {None, "file_share", "thread_broadcast"}
