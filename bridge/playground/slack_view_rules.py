"""What Slack accepts as a modal: its parts, its fields, and their lengths.

Pure. https://docs.slack.dev/reference/views/modal-views/ and
https://docs.slack.dev/reference/block-kit/blocks/input-block/ . Messages are `slack_rules`' business.
"""

from typing import Any

from bridge.playground.serving import Json
from bridge.playground.slack_rules import SlackError, check_blocks, check_items, check_text, check_text_object, refuse

_PLAIN = ("plain_text",)
_MOST_OPTIONS = {"checkboxes": 10, "radio_buttons": 10, "static_select": 100}


def check_view(view: Any) -> None:
    """Raise SlackError invalid_arguments, with messages, where Slack does not open such a modal."""
    try:
        _check_view(view)
    except SlackError as refusal:
        raise SlackError("invalid_arguments", *refusal.body.get("errors", [refusal.code])) from None


def _check_view(view: Any) -> None:
    if not isinstance(view, dict) or view.get("type") != "modal":
        return refuse("must be a modal", "/view/type")
    check_text_object(view.get("title"), 24, "/view/title", _PLAIN)
    for name in ("submit", "close"):
        if view.get(name) is not None:
            check_text_object(view[name], 24, f"/view/{name}", _PLAIN)
    for name, most in (("callback_id", 255), ("private_metadata", 3_000)):
        if view.get(name, "") != "":
            check_text(view[name], most, f"/view/{name}")
    check_items(view.get("blocks"), 100, "/view/blocks")
    check_blocks(view["blocks"], most=100)
    for number, block in enumerate(view["blocks"]):
        if block["type"] == "input":
            _check_input(block, f"/view/blocks/{number}")
            if view.get("submit") is None:
                refuse("missing required field: submit", "/view/submit")
    return None


def _check_input(block: Json, where: str) -> None:
    check_text_object(block.get("label"), 2_000, f"{where}/label", _PLAIN)
    if block.get("hint") is not None:
        check_text_object(block["hint"], 2_000, f"{where}/hint", _PLAIN)
    if not isinstance(block.get("optional", False), bool):
        refuse("must be a boolean", f"{where}/optional")
    element, place = block.get("element"), f"{where}/element"
    if not isinstance(element, dict):
        return refuse("must be an element", place)
    if "action_id" in element:
        check_text(element["action_id"], 255, f"{place}/action_id")
    if element.get("placeholder") is not None:
        check_text_object(element["placeholder"], 150, f"{place}/placeholder", _PLAIN)
    kind = element.get("type")
    if kind == "plain_text_input":
        return _check_length(element.get("max_length", 3_000), f"{place}/max_length")
    if kind not in ("checkboxes", "radio_buttons", "static_select"):
        return refuse(f"unsupported type: {kind}", f"{place}/type")
    for number, option in enumerate(check_items(element.get("options"), _MOST_OPTIONS[kind], f"{place}/options")):
        _check_option(option, f"{place}/options/{number}")
    return None


def _check_length(most: Any, where: str) -> None:
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= 3_000:
        refuse("must be between 1 and 3000", where)


def _check_option(option: Json, where: str) -> None:
    check_text_object(option.get("text"), 75, f"{where}/text")
    check_text(option.get("value"), 150, f"{where}/value")
    if option.get("description") is not None:
        check_text_object(option["description"], 75, f"{where}/description")
