"""What Slack accepts as a message: the lengths and shapes that its Web API enforces, and its errors' names.

Pure. https://docs.slack.dev/reference/block-kit/blocks/ and
https://docs.slack.dev/reference/methods/chat.postMessage/ . State (channels, owners, threads) is not known here.
"""

from collections.abc import Callable
from typing import Any

from bridge.playground.serving import Json

MARKDOWN_MAX = 12_000
"""Characters of Markdown over all `markdown` blocks of one message."""
BLOCKS_MAX = 13_000
"""Characters of all texts in the blocks of one message; Slack's own bound is a little higher, and not documented."""
UPDATE_TEXT_MAX = 4_000
TEXT_MAX = 40_000
_OTHER_BLOCKS = frozenset(
    {"divider", "image", "rich_text", "input", "file", "video", "task_card", "plan"}
    | {"table", "alert", "card", "carousel", "container"}
)


class SlackError(Exception):
    """A refusal with Slack's error code, e.g. `channel_not_found`; `messages` explain it to a developer."""

    def __init__(self, code: str, *messages: str, **extra: Any) -> None:
        super().__init__(code)
        self.code = code
        self.body: Json = {"ok": False, "error": code, **extra}
        if messages:
            self.body["errors"] = list(messages)
            self.body["response_metadata"] = {"messages": [f"[ERROR] {message}" for message in messages]}


def check_content(args: Json, *, is_update: bool = False) -> Json:
    """Give the `text` and `blocks` (and nothing else) that a message with these arguments has.

    Raises SlackError: no_text, markdown_text_conflict, msg_too_long, invalid_blocks, msg_blocks_too_long.
    """
    text, blocks, markdown = args.get("text") or "", args.get("blocks"), args.get("markdown_text")
    if not isinstance(text, str) or (markdown is not None and not isinstance(markdown, str)):
        raise SlackError("invalid_arguments", "text must be a string")
    if markdown is not None and ("text" in args or "blocks" in args):
        raise SlackError("markdown_text_conflict")
    if len(markdown or "") > MARKDOWN_MAX or (is_update and len(text) > UPDATE_TEXT_MAX):
        raise SlackError("msg_too_long")
    if markdown:
        return {"text": markdown, "blocks": [{"type": "markdown", "text": markdown}]}
    if blocks:
        check_blocks(blocks)
        return {"text": text[:TEXT_MAX], "blocks": blocks}
    if not text.strip():
        raise SlackError("no_text")
    return {"text": text[:TEXT_MAX]}


def check_metadata(metadata: Any) -> None:
    """Raise SlackError invalid_metadata_format unless it is empty or an event type with an object payload.

    https://docs.slack.dev/messaging/message-metadata/
    """
    if metadata == {}:
        return
    shape = isinstance(metadata, dict) and metadata.keys() >= {"event_type", "event_payload"}
    if not (shape and isinstance(metadata["event_type"], str) and isinstance(metadata["event_payload"], dict)):
        raise SlackError("invalid_metadata_format")


def check_blocks(blocks: Any, most: int = 50) -> None:
    """Raise SlackError invalid_blocks or msg_blocks_too_long where Slack would; a message has at `most` 50."""
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise SlackError("invalid_blocks", "must be an array of objects [json-pointer:/blocks]")
    if len(blocks) > most:
        raise SlackError("invalid_blocks", f"no more than {most} items allowed [json-pointer:/blocks]")
    for number, block in enumerate(blocks):
        where = f"/blocks/{number}"
        check_text(block.get("block_id", "x"), 255, f"{where}/block_id")
        kind = str(block.get("type"))
        if kind in _BLOCK_RULES:
            _BLOCK_RULES[kind](block, where)
        elif kind not in _OTHER_BLOCKS:
            refuse(f"unsupported type: {kind}", f"{where}/type")
    if sum(len(block["text"]) for block in blocks if block["type"] == "markdown") > MARKDOWN_MAX:
        raise SlackError("msg_blocks_too_long")
    if _characters(blocks) > BLOCKS_MAX:
        raise SlackError("msg_blocks_too_long")


def _characters(value: Any) -> int:
    """Count the characters of all texts, wherever they stand in blocks."""
    if isinstance(value, dict):
        return sum(
            len(one) if name == "text" and isinstance(one, str) else _characters(one) for name, one in value.items()
        )
    return sum(map(_characters, value)) if isinstance(value, list) else 0


def refuse(problem: str, where: str) -> None:
    """Raise SlackError invalid_blocks; `where` is a JSON pointer."""
    raise SlackError("invalid_blocks", f"{problem} [json-pointer:{where}]")


def check_text(value: Any, most: int, where: str) -> None:
    """Refuse what is not a string of 1 to `most` characters."""
    if not isinstance(value, str) or not value:
        refuse("must be a non-empty string", where)
    elif len(value) > most:
        refuse(f"must be less than {most + 1} characters", where)


def check_text_object(value: Any, most: int, where: str, kinds: tuple[str, ...] = ("plain_text", "mrkdwn")) -> None:
    """Refuse what is not a text object of one of these kinds with 1 to `most` characters."""
    if not isinstance(value, dict) or value.get("type") not in kinds:
        refuse(f"must be a text object of {' or '.join(kinds)}", where)
    else:
        check_text(value.get("text"), most, f"{where}/text")


def check_items(value: Any, most: int, where: str) -> list[Json]:
    """Give the 1 to `most` objects that it is; refuse anything else."""
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        refuse("must be a non-empty array of objects", where)
    if len(value) > most:
        refuse(f"no more than {most} items allowed", where)
    return list(value)


def _section(block: Json, where: str) -> None:
    if "text" not in block and "fields" not in block:
        refuse("must have text or fields", where)
    if "text" in block:
        check_text_object(block["text"], 3_000, f"{where}/text")
    if "fields" in block:
        for number, field in enumerate(check_items(block["fields"], 10, f"{where}/fields")):
            check_text_object(field, 2_000, f"{where}/fields/{number}")
    if "accessory" in block:
        _element(block["accessory"], f"{where}/accessory")


def _header(block: Json, where: str) -> None:
    check_text_object(block.get("text"), 150, f"{where}/text", ("plain_text",))


def _markdown(block: Json, where: str) -> None:
    # The length counts over the whole message and has an error of its own.
    if not isinstance(block.get("text"), str) or not block["text"]:
        refuse("must be a non-empty string", f"{where}/text")


def _context(block: Json, where: str) -> None:
    for number, element in enumerate(check_items(block.get("elements"), 10, f"{where}/elements")):
        if element.get("type") != "image":
            check_text_object(element, 3_000, f"{where}/elements/{number}")


def _actions(block: Json, where: str) -> None:
    for number, element in enumerate(check_items(block.get("elements"), 25, f"{where}/elements")):
        _element(element, f"{where}/elements/{number}")


def _context_actions(block: Json, where: str) -> None:
    for number, element in enumerate(check_items(block.get("elements"), 5, f"{where}/elements")):
        place = f"{where}/elements/{number}"
        if element.get("type") not in ("feedback_buttons", "icon_button"):
            refuse(f"unsupported type: {element.get('type')}", place)
        _element(element, place)


def _element(element: Any, where: str) -> None:
    if not isinstance(element, dict) or not isinstance(element.get("type"), str):
        return refuse("must be an element", where)
    if "action_id" in element:
        check_text(element["action_id"], 255, f"{where}/action_id")
    kind = element["type"]
    if kind == "button":
        _button(element, where)
    elif kind == "feedback_buttons":
        for name in ("positive_button", "negative_button"):
            button = element.get(name)
            if not isinstance(button, dict):
                return refuse("must be an object", f"{where}/{name}")
            _button(button, f"{where}/{name}")
    return None


def _button(button: Json, where: str) -> None:
    check_text_object(button.get("text"), 75, f"{where}/text", ("plain_text",))
    if "value" in button:
        check_text(button["value"], 2_000, f"{where}/value")
    if "accessibility_label" in button:
        check_text(button["accessibility_label"], 75, f"{where}/accessibility_label")


_BLOCK_RULES: dict[str, Callable[[Json, str], None]] = {
    "section": _section,
    "header": _header,
    "markdown": _markdown,
    "context": _context,
    "actions": _actions,
    "context_actions": _context_actions,
}
