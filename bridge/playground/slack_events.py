"""The events and envelopes that Slack sends to an app, as JSON.

Pure. https://docs.slack.dev/reference/events/ and https://docs.slack.dev/apis/events-api/ . How they travel is
`slack_delivery`'s business, what happens in the workspace `slack_workspace`'s.
"""

import re
from typing import Any

from bridge.playground.serving import Json

_TOKEN = re.compile(r"<(?:@(?P<user>\w+)|#(?P<channel>\w+)|(?P<url>https?://[^|>]+))(?:\|(?P<label>[^>]*))?>")
_ESCAPES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))


def unescape(text: str) -> str:
    """Turn Slack's three escapes back into characters."""
    for escape, character in _ESCAPES:
        text = text.replace(escape, character)
    return text


def rich_text(text: str) -> list[Json]:
    """Give the rich_text block that Slack's own clients send beside a message's text."""
    elements: list[Json] = []
    position = 0
    for match in _TOKEN.finditer(text):
        elements += _plain(text[position : match.start()])
        elements.append(_element(match))
        position = match.end()
    elements += _plain(text[position:])
    section = {"type": "rich_text_section", "elements": elements}
    return [{"type": "rich_text", "block_id": "typed", "elements": [section]}]


def _plain(text: str) -> list[Json]:
    return [{"type": "text", "text": unescape(text)}] if text else []


def _element(match: re.Match[str]) -> Json:
    if match["user"]:
        return {"type": "user", "user_id": match["user"]}
    if match["channel"]:
        return {"type": "channel", "channel_id": match["channel"]}
    label = {"text": unescape(match["label"])} if match["label"] else {}
    return {"type": "link", "url": unescape(match["url"]), **label}


def message_event(message: Json, channel: str, channel_type: str, root: Json | None = None) -> Json:
    """Tell of a new message; `root` is the thread's first message where the message is broadcast from a thread."""
    event = {
        **shown(message),
        "channel": channel,
        "event_ts": message["ts"],
        "channel_type": channel_type,
    }
    if message.get("subtype") == "thread_broadcast" and root is not None:
        event["root"] = shown(root)
    return event


def mention_event(message: Json, channel: str) -> Json:
    """Tell the app of a message that mentions it: a second event with the same `ts`."""
    event = {key: value for key, value in shown(message).items() if key != "parent_user_id"}
    return {**event, "type": "app_mention", "channel": channel, "event_ts": message["ts"]}


def changed_event(message: Json, previous: Json, channel: str, channel_type: str, ts: str) -> Json:
    """Tell of a message that looks different now; a tombstone in its place counts as a change."""
    return {
        "type": "message",
        "subtype": "message_changed",
        "hidden": True,
        "channel": channel,
        "ts": ts,
        "event_ts": ts,
        "channel_type": channel_type,
        "message": shown(message),
        "previous_message": shown(previous),
    }


def deleted_event(previous: Json, channel: str, channel_type: str, ts: str) -> Json:
    """Tell of a message that is gone without a trace."""
    return {
        "type": "message",
        "subtype": "message_deleted",
        "hidden": True,
        "channel": channel,
        "deleted_ts": previous["ts"],
        "ts": ts,
        "event_ts": ts,
        "channel_type": channel_type,
        "previous_message": shown(previous),
    }


def reaction_event(kind: str, user: str, name: str, message: Json, channel: str, ts: str) -> Json:
    """Tell of an emoji that came (`reaction_added`) or went (`reaction_removed`)."""
    return {
        "type": kind,
        "user": user,
        "reaction": name,
        "item_user": message["user"],
        "item": {"type": "message", "channel": channel, "ts": message["ts"]},
        "event_ts": ts,
    }


def envelope(event: Json, *, team: str, app: str, bot_user: str, event_id: str, time: int, **overrides: Any) -> Json:
    """Wrap an inner event as Slack does; `overrides` replace fields of the envelope."""
    body: Json = {
        "token": "deprecated",
        "team_id": team,
        "enterprise_id": None,
        "context_team_id": team,
        "context_enterprise_id": None,
        "api_app_id": app,
        "event": event,
        "type": "event_callback",
        "event_id": event_id,
        "event_time": time,
        "authorizations": [
            {
                "enterprise_id": None,
                "team_id": team,
                "user_id": bot_user,
                "is_bot": True,
                "is_enterprise_install": False,
            }
        ],
        "is_ext_shared_channel": False,
        "event_context": f"4-{event_id}",
    }
    return {**body, **overrides}


def tombstone(message: Json) -> Json:
    """Give what stands in the place of a deleted message that has replies."""
    kept = ("ts", "thread_ts", "reply_count", "reply_users", "reply_users_count", "latest_reply", "team")
    return {
        "type": "message",
        "subtype": "tombstone",
        "user": "USLACKBOT",
        "text": "This message was deleted.",
        "hidden": True,
        "parent_user_id": "USLACKBOT",
        "is_locked": False,
        "subscribed": False,
        **{key: message[key] for key in kept if key in message},
    }


def shown(message: Json) -> Json:
    """Give what Slack tells an app of a message: neither its reactions nor its metadata."""
    return {key: value for key, value in message.items() if key not in ("reactions", "metadata")}
